//! A client that looks at everything while nobody else does anything, and one that sees that everything serves.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use klamm_protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, InitProducerIdRequest, JoinGroupRequest, ListOffsetsRequest,
    MetadataRequest, SyncGroupRequest,
};
use klamm_protocol::records::{BatchBuilder, BatchOptions};
use klamm_protocol::{ErrorCode, Request, Uuid};
use tokio::time::{Instant, sleep, timeout_at};

use super::client::Shared;
use super::committer::Caller;
use super::connection::{Connection, decoded};
use super::model::{Place, value_of};
use super::txn_requests::{KEPT, KEPT_PARTITIONS};
use super::{admin, committer, member, producer, reader};

/// In this time everything has to serve again.
const PATIENCE: Duration = Duration::from_secs(60);
const METADATA: i16 = 12;
const LIST_OFFSETS: i16 = 7;
pub(super) const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

pub(super) struct Checker<'a> {
    connection: Connection<()>,
    pub(super) shared: &'a mut Shared,
    pub(super) until: Instant,
}

impl<'a> Checker<'a> {
    async fn connect(shared: &'a mut Shared) -> Option<Self> {
        let address = shared.address.clone()?;
        let connection = Connection::open(&shared.net, &address).await;
        if connection.is_none() {
            shared.model.fail("nobody listens");
        }
        Some(Self { connection: connection?, shared, until: Instant::now() + PATIENCE })
    }

    /// Everything that is known is there, and nothing else.
    pub(super) async fn check(shared: &'a mut Shared) {
        let Some(mut checker) = Self::connect(shared).await else { return };
        checker.shared.settled = true;
        checker.topics().await;
        checker.logs().await;
        checker.offsets().await;
        checker.transactions(false).await;
        checker.shared.settled = false;
    }

    /// Everything takes more: partitions, topics, groups, offsets, producer ids.
    pub(super) async fn serves(shared: &'a mut Shared) {
        let Some(mut checker) = Self::connect(shared).await else { return };
        checker.topics().await;
        let served = checker.serves_all().await;
        if served.is_some() {
            checker.logs().await;
            checker.offsets().await;
            checker.transactions(true).await;
        }
    }

    pub(super) fn is_broken(&self) -> bool {
        self.shared.model.broken().is_some()
    }

    /// The answer to a request; nothing, and a broken promise, when there is none in time.
    pub(super) async fn ask<R: Request>(&mut self, request: &R, version: i16) -> Option<Bytes> {
        if self.is_broken() {
            return None;
        }
        self.connection.send(request, version, Some(()));
        let answer = timeout_at(self.until, self.connection.answer()).await.ok().flatten();
        if answer.is_none() {
            self.shared.model.fail(format!("{:?} is not answered within {PATIENCE:?}", R::KEY));
        }
        answer.map(|((), frame)| frame)
    }

    /// Whether to ask again: while a group is being loaded, for instance.
    pub(super) async fn retries(&mut self, code: i16, what: &str) -> bool {
        if code == 0 || self.is_broken() {
            return false;
        }
        if Instant::now() > self.until {
            self.shared.model.fail(format!("{what}: {} for {PATIENCE:?}", ErrorCode::from_code(code)));
            return false;
        }
        sleep(Duration::from_millis(100)).await;
        true
    }

    async fn topics(&mut self) -> Option<()> {
        let request =
            MetadataRequest { topics: None, allow_auto_topic_creation: false, ..Default::default() };
        let answer = decoded::<MetadataRequest>(self.ask(&request, METADATA).await?, METADATA);
        let mut listed = BTreeMap::new();
        for topic in &answer.topics {
            let name = topic.name.as_deref().unwrap_or_default().to_owned();
            let bad = topic.partitions.iter().find(|partition| partition.error_code != 0);
            let code = bad.map_or(topic.error_code, |partition| partition.error_code);
            self.shared.model.check(code == 0, || {
                format!("topic {name}: {} after a start without faults", ErrorCode::from_code(code))
            });
            if !topic.is_internal {
                listed.insert(topic.topic_id, (name, topic.partitions.len() as i32));
            }
        }
        self.shared.note(format!("  {} topics", listed.len()));
        self.shared.model.listed(&listed);
        Some(())
    }

    async fn logs(&mut self) -> Option<()> {
        for place in self.shared.model.places() {
            self.log(place).await?;
        }
        Some(())
    }

    async fn log(&mut self, place: Place) -> Option<()> {
        let known = self.shared.model.known_ends(place);
        let start = self.list_offset(place, EARLIEST).await?;
        let end = self.list_offset(place, LATEST).await?;
        let now_ms = self.shared.now_ms();
        self.shared.model.ends(place, known, (start, end), now_ms);
        let mut offset = start;
        while offset < end {
            let asked = reader::asked(place, offset, false, self.shared);
            let frame = self.ask(&reader::fetch(place, offset, 0, 1 << 20), reader::FETCH).await?;
            let (found, next) = reader::fetched(asked, frame, self.shared);
            // Retention may take what is being read.
            if found.error_code == ErrorCode::OffsetOutOfRange.code() && found.log_start_offset > offset {
                offset = found.log_start_offset;
                continue;
            }
            self.shared.model.check(found.error_code == 0 && next > offset, || {
                format!("offset {offset} of {start} to {end} cannot be read: error {}", found.error_code)
            });
            if self.is_broken() {
                return None;
            }
            offset = next;
        }
        let start = self.shared.model.known_ends(place).0;
        self.shared.model.read_whole(place, start, end);
        Some(())
    }

    pub(super) async fn list_offset(&mut self, place: Place, timestamp: i64) -> Option<i64> {
        let partition =
            ListOffsetsPartition { partition_index: place.1, timestamp, ..ListOffsetsPartition::default() };
        let name = self.shared.model.topics[&place.0].name.as_str().into();
        let topic = ListOffsetsTopic { name, partitions: vec![partition], ..ListOffsetsTopic::default() };
        let request =
            ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..ListOffsetsRequest::default() };
        let frame = self.ask(&request, LIST_OFFSETS).await?;
        let answer = decoded::<ListOffsetsRequest>(frame, LIST_OFFSETS).topics.remove(0).partitions.remove(0);
        let code = ErrorCode::from_code(answer.error_code);
        self.shared.model.check(answer.error_code == 0, || format!("a partition has no offsets: {code}"));
        (answer.error_code == 0).then_some(answer.offset)
    }

    async fn offsets(&mut self) -> Option<()> {
        for place in self.shared.model.places() {
            for group in ["lone", "group"] {
                self.offset(group, place).await?;
            }
        }
        Some(())
    }

    async fn offset(&mut self, group: &str, place: Place) -> Option<()> {
        loop {
            let (request, question) = committer::question(group, place, self.shared);
            let frame = self.ask(&request, committer::FETCH).await?;
            let code = committer::told(&question, frame, self.shared);
            if !self.retries(code, "the question after an offset").await {
                return Some(());
            }
        }
    }

    async fn serves_all(&mut self) -> Option<()> {
        let id = self.creates_and_deletes().await?;
        self.shared.model.created(id, "fresh", 1);
        for place in self.shared.model.places() {
            self.takes(place).await?;
        }
        self.commits((id, 0)).await?;
        let request = InitProducerIdRequest { transaction_timeout_ms: 1_000, ..Default::default() };
        let version = producer::INIT_PRODUCER_ID;
        loop {
            let answer = decoded::<InitProducerIdRequest>(self.ask(&request, version).await?, version);
            if !self.retries(answer.error_code, "a producer id").await {
                self.shared.model.producer_id(answer.producer_id);
                break;
            }
        }
        self.joins().await
    }

    /// Gives the id of a topic that is left.
    async fn creates_and_deletes(&mut self) -> Option<Uuid> {
        let first = self.creates("fresh", 1).await?;
        loop {
            let frame = self.ask(&admin::delete(first), admin::DELETE).await?;
            let code = decoded::<DeleteTopicsRequest>(frame, admin::DELETE).responses[0].error_code;
            if !self.retries(code, "the deletion of a topic").await {
                break;
            }
        }
        self.creates("fresh", 1).await
    }

    /// Before anybody else does anything: the topic that stays.
    pub(super) async fn prepare(shared: &'a mut Shared) {
        let Some(mut checker) = Self::connect(shared).await else { return };
        if let Some(id) = checker.creates(KEPT, KEPT_PARTITIONS).await {
            checker.shared.model.created(id, KEPT, KEPT_PARTITIONS);
        }
    }

    async fn creates(&mut self, name: &str, partitions: i32) -> Option<Uuid> {
        loop {
            let frame = self.ask(&admin::create(name, partitions), admin::CREATE).await?;
            let answer = decoded::<CreateTopicsRequest>(frame, admin::CREATE).topics.remove(0);
            if !self.retries(answer.error_code, "the creation of a topic").await {
                return (!self.is_broken()).then_some(answer.topic_id);
            }
        }
    }

    async fn takes(&mut self, place: Place) -> Option<()> {
        loop {
            let number = self.shared.number();
            let mut batch = BatchBuilder::new(BatchOptions::default());
            let now_ms = self.shared.now_ms();
            batch.append(now_ms, None, Some(value_of(number, 3).as_bytes()), []).unwrap();
            let batch = batch.build().unwrap();
            self.shared.model.sent(number, place, now_ms, batch.len() as u64);
            let request = producer::produce(place, batch, -1);
            let answer = producer::produced(self.ask(&request, producer::PRODUCE).await?);
            if !self.retries(answer.error_code, "a record").await {
                self.shared.model.acknowledged(number, Some(answer.base_offset));
                return Some(());
            }
        }
    }

    async fn commits(&mut self, place: Place) -> Option<()> {
        loop {
            let (request, sent) = committer::commit("lone", place, committer::NOBODY, self.shared)?;
            let frame = self.ask(&request, committer::COMMIT).await?;
            let code = committer::committed(&sent, frame, self.shared);
            if !self.retries(code, "a commit").await {
                return Some(());
            }
        }
    }

    /// The group is there for a new member, whatever became of the others.
    async fn joins(&mut self) -> Option<()> {
        let mut id = String::new();
        loop {
            let joined = self.ask(&member::join("group", &id, None), member::JOIN).await?;
            let joined = decoded::<JoinGroupRequest>(joined, member::JOIN);
            joined.member_id.as_str().clone_into(&mut id);
            if self.retries(joined.error_code, "joining").await {
                continue;
            }
            let caller = Caller { id: &id, instance: None, generation: joined.generation_id };
            let request = member::sync("group", caller, &member::named(&joined), self.shared);
            let synced = decoded::<SyncGroupRequest>(self.ask(&request, member::SYNC).await?, member::SYNC);
            if !self.retries(synced.error_code, "syncing").await {
                return Some(());
            }
        }
    }
}
