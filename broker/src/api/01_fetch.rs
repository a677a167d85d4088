//! Fetch, key 1: versions 4 to 18.
//!
//! Records are not read here: a response names the places in the segment files, and the connection sends them from
//! there. Where the places of the last batches are known, nothing waits for the disk; otherwise its threads look,
//! beside the work on later requests. Whole batches are sent, from the one that holds the offset; the first batch of
//! the first partition that has any is sent whatever the limits say, so that a consumer never gets stuck. A partition
//! that is named twice is answered twice, within the same limits. Readers of committed records are told which
//! transactions among them were aborted. A fetch of a session (KIP-227) is one of all partitions in it, and
//! only its answer is another ([`fetch_visits`](super::fetch_visits)). Not there yet: followers and reading from
//! followers.
//!
//! # When a fetch is answered
//!
//! At once, when it has what it asked for or there is nothing to wait for: `min_bytes` are there (or `max_bytes`, if
//! those are fewer), it does not want to wait, or no partition is left that could bring more, because all of them
//! failed or none was named. Nor does one wait that names more partitions than this broker may have (`max.partitions`):
//! it would be looked through at every move of any. Nor one for which its connection has no room left, because of
//! others that wait ([`Peer::room_to_wait`](super::Peer::room_to_wait)).
//!
//! At once, too, when a partition failed in a way that the client answers by doing something else: OFFSET_OUT_OF_RANGE
//! (it seeks) and FENCED_LEADER_EPOCH (it validates its position).
//!
//! Otherwise it waits for the partitions that are well. The others failed in a way that the client can only answer by
//! asking again: the topic, its id or the partition is not known, its log cannot be read, its leader epoch is not known
//! yet. Answered at once, a consumer of one deleted topic and one live one would ask thousands of times a second; so
//! they are told with the rest, after `max_wait_ms` at the latest. Kafka does the same for what its metadata does not
//! know.
//!
//! The wait ends before its time when enough has become visible, when the broker stops, and when any partition fares
//! otherwise than when the fetch came: it was deleted or created, got a new leader epoch, lost the offset to retention,
//! or can no longer be read. Partitions count down what is missing, all together, and wake the fetch when it may be
//! there; what moves before that is not looked at.
//!
//! A disk that hangs holds only its own partitions: what it has not found by [`PATIENCE`] is answered as if there were
//! nothing yet.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use klamm_protocol::messages::fetch::{
    AbortedTransaction as AbortedInResponse, FetchPartition, FetchTopic, FetchableTopicResponse,
    PartitionData,
};
use klamm_protocol::messages::{FetchRequest, FetchResponse};
use klamm_protocol::{ErrorCode, Records, UnknownTags};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::context::named;
use super::fetch_visits::{Visit, named_bytes, partition_count};
use super::leader_hints::tell_leaders;
use super::{Answer, Call, Context, Peer, Refusal, Reply, Response};
use crate::controller::{Logs, View};
use crate::log::AbortedTransaction;
use crate::partition::{Isolation, LogRead, Partition, ReadError, StoredRecords, Waiter, Wanted, Watching};
use crate::quota::Rate;

pub(super) const VERSIONS: RangeInclusive<i16> = 4..=18;
/// From here on topics are named by their id.
const TOPIC_IDS: i16 = 13;
/// How long a fetch waits for a disk at least, however little it wants to wait for records.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let mut request: FetchRequest = call.decode()?;
    let reply = call.reply();
    let visit = match enter(context, &call, &mut request) {
        Ok(visit) => visit,
        Err(error) => return call.answer(&refused(error, 0)),
    };
    request.max_bytes = request.max_bytes.min(context.fetch_quota_bytes(call.client_name()));
    let started = Instant::now();
    let end = End {
        context: context.clone(),
        peer: call.peer.clone(),
        // A copy: a slice would keep the frame.
        client_id: call.client_name().to_owned(),
        visit,
        reply,
    };
    let known = match look_without_disk(context, &request, reply) {
        Some(found) if found.is_due(&request, &found.fates) => {
            return end.respond(&request, found).map(Answer::Ready);
        }
        known => known,
    };
    let max_wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let patience = started + max_wait.max(PATIENCE);
    let held_bytes = call.read_bytes().max(named_bytes(&request));
    let Some(room) = call.peer.room_to_wait(held_bytes) else {
        let found = match known {
            Some(found) => found,
            None => look(context, &request, reply, patience).await,
        };
        return end.respond(&request, found).map(Answer::Ready);
    };
    let context = context.clone();
    let request = without_frame(request);
    Ok(Answer::later(0, async move {
        let _room = room;
        let first = match known {
            Some(found) => found.fates,
            None => {
                let found = look(&context, &request, reply, patience).await;
                if found.is_due(&request, &found.fates) {
                    return end.respond(&request, found).map(Some);
                }
                found.fates
            }
        };
        let found = wait(&context, &request, reply, &first, started + max_wait).await;
        end.respond(&request, found).map(Some)
    }))
}

/// Makes the request name all partitions that it is for, and counts those that it did not name.
///
/// # Errors
/// What is wrong with the request as a whole.
fn enter(context: &Context, call: &Call, request: &mut FetchRequest) -> Result<Visit, ErrorCode> {
    let from_follower = request.replica_id >= 0 || request.replica_state.replica_id >= 0;
    if from_follower {
        // There are no other replicas, whatever the sender says it is (CVE-2018-1288).
        return Err(ErrorCode::InvalidRequest);
    }
    let visit = context.fetch_visits().enter(request, call.version >= TOPIC_IDS)?;
    if let Visit::Next { .. } = visit {
        call.charge_elements(partition_count(request), size_of::<FetchPartition>());
    }
    Ok(visit)
}

fn refused(error: ErrorCode, session_id: i32) -> FetchResponse {
    FetchResponse { error_code: error.code(), session_id, ..FetchResponse::default() }
}

/// What it takes to answer.
struct End {
    context: Arc<Context>,
    peer: Arc<Peer>,
    client_id: String,
    visit: Visit,
    reply: Reply,
}

impl End {
    fn respond(&self, request: &FetchRequest, found: Found) -> Result<Response, Refusal> {
        let Found { mut response, slices, .. } = found;
        let by_id = self.reply.version >= TOPIC_IDS;
        match self.context.fetch_visits().leave(self.visit, request, by_id, &mut response) {
            Ok(()) => {
                tell_leaders(&mut response, self.reply.version, &self.context, &self.peer);
                let answer = self.reply.encode_with(&response, slices)?;
                let used = (Rate::Fetched, answer.encoded.total_len());
                match self.context.charge(&self.peer, &self.client_id, used) {
                    0 => Ok(answer),
                    throttle_time_ms => {
                        response.throttle_time_ms = throttle_time_ms;
                        self.reply.encode_with(&response, answer.slices)
                    }
                }
            }
            Err(error) => self.reply.encode(&refused(error, response.session_id)),
        }
    }
}

/// What is needed to wait, cut loose from the frame: its strings are slices of it, and a few of them would keep all of
/// its bytes, and those read along with it, for as long as the fetch waits.
fn without_frame(request: FetchRequest) -> FetchRequest {
    let loose = |partition: FetchPartition| FetchPartition { unknown_tags: UnknownTags::NONE, ..partition };
    let topics = request.topics.into_iter().map(|topic| FetchTopic {
        topic: topic.topic.to_string().into(),
        topic_id: topic.topic_id,
        partitions: topic.partitions.into_iter().map(loose).collect(),
        ..FetchTopic::default()
    });
    FetchRequest {
        max_wait_ms: request.max_wait_ms,
        min_bytes: request.min_bytes,
        max_bytes: request.max_bytes,
        isolation_level: request.isolation_level,
        topics: topics.collect(),
        ..FetchRequest::default()
    }
}

/// Looks again whenever enough may have changed, until the answer is due or the time is up.
async fn wait(
    context: &Arc<Context>,
    request: &FetchRequest,
    reply: Reply,
    first: &[ErrorCode],
    deadline: Instant,
) -> Found {
    let mut stopping = context.stopping();
    let mut views = context.views();
    let patience = deadline.max(Instant::now() + PATIENCE);
    let waiter = Waiter::new(isolation(request));
    loop {
        // First listen, then look: what comes in between is heard.
        views.mark_unchanged();
        let view = context.view();
        let topics: Vec<_> = logs_of_topics(&view, request, reply).collect();
        let _watched: Vec<Watching> = logs(&view, request, reply).map(|log| log.watch_for(&waiter)).collect();
        drop(view);
        loop {
            waiter.begin();
            let found = look(context, request, reply, patience).await;
            if found.is_due(request, first) || *stopping.borrow() || Instant::now() >= deadline {
                return found;
            }
            let missing_bytes = found.enough - found.bytes;
            drop(found);
            tokio::select! {
                // The same history makes the same moves.
                biased;
                () = waiter.wait_for(missing_bytes) => {}
                () = news_of(&topics, &mut views, request, reply) => break,
                () = sleep_until(deadline) => {}
                _ = stopping.wait_for(|stopping| *stopping) => {}
            }
        }
    }
}

/// The partitions that are there.
fn logs<'a>(
    view: &'a View,
    request: &'a FetchRequest,
    reply: Reply,
) -> impl Iterator<Item = &'a Arc<Partition>> {
    request.topics.iter().flat_map(move |wanted| {
        let topic = named(view, reply.version >= TOPIC_IDS, wanted.topic_id, &wanted.topic).ok();
        let partitions = wanted.partitions.iter();
        partitions.filter_map(move |partition| view.log(topic?, partition.partition).ok())
    })
}

/// The logs of each topic in the request; nothing where there is no such topic.
fn logs_of_topics(view: &View, request: &FetchRequest, reply: Reply) -> impl Iterator<Item = Option<Logs>> {
    request.topics.iter().map(move |wanted| {
        let topic = named(view, reply.version >= TOPIC_IDS, wanted.topic_id, &wanted.topic).ok()?;
        view.logs(topic).cloned()
    })
}

/// Waits until one of the topics is no longer what it was. The metadata changes with every topic that is created, and
/// every fetch that waits hears of it: to look through all of their partitions each time held the broker up for
/// seconds.
async fn news_of(
    before: &[Option<Logs>],
    views: &mut watch::Receiver<Arc<View>>,
    request: &FetchRequest,
    reply: Reply,
) {
    let differ = |before: &Option<Logs>, now: &Option<Logs>| match (before, now) {
        (Some(before), Some(now)) => !Arc::ptr_eq(before, now),
        (before, now) => before.is_some() != now.is_some(),
    };
    while views.changed().await.is_ok() {
        let view = views.borrow_and_update().clone();
        if before.iter().zip(logs_of_topics(&view, request, reply)).any(|(before, now)| differ(before, &now))
        {
            return;
        }
    }
    // There is no more metadata to come.
    std::future::pending::<()>().await;
}

/// What one look at the logs found.
struct Found {
    response: FetchResponse,
    slices: Vec<StoredRecords>,
    bytes: usize,
    /// How many bytes make the answer due.
    enough: usize,
    /// How many bytes the answer may have.
    max_bytes: usize,
    isolation: Isolation,
    /// How each partition fared, in the order of the request.
    fates: Vec<ErrorCode>,
}

impl Found {
    fn nothing(context: &Context, request: &FetchRequest) -> Self {
        let max_bytes = usize::try_from(request.max_bytes).unwrap_or(0).min(context.config().fetch_max_bytes);
        let too_many = partition_count(request) > context.config().max_partitions;
        let enough = usize::try_from(request.min_bytes).unwrap_or(0).min(max_bytes);
        Self {
            response: FetchResponse::default(),
            slices: Vec::new(),
            bytes: 0,
            enough: if too_many { 0 } else { enough },
            max_bytes,
            isolation: isolation(request),
            fates: Vec::new(),
        }
    }

    /// Whether to answer now rather than to wait; `first` is how the partitions fared when the fetch came.
    fn is_due(&self, request: &FetchRequest, first: &[ErrorCode]) -> bool {
        let nothing_to_wait_for = !self.fates.contains(&ErrorCode::None);
        request.max_wait_ms <= 0
            || self.bytes >= self.enough
            || nothing_to_wait_for
            || self.fates.iter().any(|fate| asks_for_action(*fate))
            || self.fates != first
    }

    /// What is to be read of a partition, with the room that those before it have left.
    fn wanted(&self, partition: &FetchPartition) -> Wanted {
        wanted(partition, self.max_bytes.saturating_sub(self.bytes), self.bytes == 0, self.isolation)
    }

    /// Begins the answer for a topic.
    fn topic(&mut self, wanted: &FetchTopic) {
        self.response.responses.push(FetchableTopicResponse {
            topic: wanted.topic.clone(),
            topic_id: wanted.topic_id,
            partitions: Vec::with_capacity(wanted.partitions.len()),
            ..FetchableTopicResponse::default()
        });
    }

    /// The answer for the next partition of the topic.
    fn partition(&mut self, index: i32, read: Result<(&Arc<Partition>, LogRead), ErrorCode>) {
        self.fates.push(read.as_ref().err().copied().unwrap_or(ErrorCode::None));
        let answer = match read {
            Ok((log, read)) => self.records(index, log, read),
            Err(error) => failed(index, error),
        };
        if let Some(topic) = self.response.responses.last_mut() {
            topic.partitions.push(answer);
        }
    }

    fn records(&mut self, partition_index: i32, log: &Partition, read: LogRead) -> PartitionData {
        let aborted = read.aborted.iter().map(to_be_left_out).collect();
        let records = if read.slice.is_empty() {
            // Empty, not null: librdkafka takes null for a broken response.
            Records::default()
        } else {
            let token = self.slices.len() as u64;
            let len = read.slice.len;
            self.bytes += len;
            self.slices.push(log.stored(read.slice));
            Records::External { len, token }
        };
        PartitionData {
            partition_index,
            high_watermark: read.high_watermark,
            last_stable_offset: read.last_stable_offset,
            log_start_offset: read.log_start_offset,
            aborted_transactions: (self.isolation == Isolation::ReadCommitted).then_some(aborted),
            records: Some(records),
            ..PartitionData::default()
        }
    }
}

fn to_be_left_out(aborted: &AbortedTransaction) -> AbortedInResponse {
    AbortedInResponse {
        producer_id: aborted.producer_id,
        first_offset: aborted.first_offset,
        ..AbortedInResponse::default()
    }
}

fn isolation(request: &FetchRequest) -> Isolation {
    match request.isolation_level {
        1 => Isolation::ReadCommitted,
        _ => Isolation::ReadUncommitted,
    }
}

/// Whether a client that is told this does something else than to ask again.
fn asks_for_action(fate: ErrorCode) -> bool {
    matches!(fate, ErrorCode::OffsetOutOfRange | ErrorCode::FencedLeaderEpoch)
}

/// What there is for a fetch, as far as nobody has to look at the disk for it; nothing otherwise.
fn look_without_disk(context: &Context, request: &FetchRequest, reply: Reply) -> Option<Found> {
    let view = context.view();
    let mut found = Found::nothing(context, request);
    for wanted in &request.topics {
        found.topic(wanted);
        for partition in &wanted.partitions {
            let read = match log_of(&view, wanted, partition, reply) {
                Err(error) => Err(error),
                Ok(log) => match log.read_known(found.wanted(partition)) {
                    Ok(Some(read)) => Ok((log, read)),
                    Ok(None) => return None,
                    Err(error) => Err(error.error_code()),
                },
            };
            found.partition(partition.partition, read);
        }
    }
    Some(found)
}

/// What there is for a fetch. A disk that does not answer by `patience` has nothing; the others are asked meanwhile.
async fn look(context: &Context, request: &FetchRequest, reply: Reply, patience: Instant) -> Found {
    let view = context.view();
    let mut found = Found::nothing(context, request);
    let mut from_disk = read_from_disk(&view, request, reply, &found, patience).await;
    let mut number = 0;
    for topic in &request.topics {
        found.topic(topic);
        for partition in &topic.partitions {
            let read = match log_of(&view, topic, partition, reply) {
                Err(error) => Err(error),
                Ok(log) => {
                    let wanted = found.wanted(partition);
                    let fits = |read: &LogRead| read.slice.len <= wanted.max_bytes || found.bytes == 0;
                    match from_disk.remove(&number) {
                        Some(Ok(read)) if fits(&read) => Ok((log, read)),
                        Some(Err(error)) => Err(error.error_code()),
                        _ => match read(log, wanted, patience).await {
                            Ok(read) => Ok((log, read)),
                            Err(error) => Err(error.error_code()),
                        },
                    }
                }
            };
            found.partition(partition.partition, read);
            number += 1;
        }
    }
    found
}

/// Of the partitions that the disk has to be asked for, each by its number in the request: what they have, when nobody
/// else takes of the room.
async fn read_from_disk(
    view: &View,
    request: &FetchRequest,
    reply: Reply,
    limits: &Found,
    patience: Instant,
) -> BTreeMap<usize, Result<LogRead, ReadError>> {
    let all = request.topics.iter().flat_map(|topic| topic.partitions.iter().map(move |one| (topic, one)));
    let reads = all.enumerate().filter_map(|(number, (topic, partition))| {
        let log = log_of(view, topic, partition, reply).ok()?;
        let wanted = limits.wanted(partition);
        let unknown = matches!(log.read_known(wanted), Ok(None));
        unknown.then_some(async move { (number, read(log, wanted, patience).await) })
    });
    join_all(reads).await.into_iter().collect()
}

/// The log of a partition, if it leads in the epoch that the client knows.
fn log_of<'a>(
    view: &'a View,
    topic: &FetchTopic,
    wanted: &FetchPartition,
    reply: Reply,
) -> Result<&'a Arc<Partition>, ErrorCode> {
    let topic = named(view, reply.version >= TOPIC_IDS, topic.topic_id, &topic.topic)?;
    let log = view.log(topic, wanted.partition)?;
    check_epoch(log, wanted.current_leader_epoch)?;
    Ok(log)
}

fn wanted(partition: &FetchPartition, room: usize, at_least_one: bool, isolation: Isolation) -> Wanted {
    let max_bytes = usize::try_from(partition.partition_max_bytes).unwrap_or(0).min(room);
    Wanted { offset: partition.fetch_offset, max_bytes, at_least_one, isolation }
}

async fn read(log: &Arc<Partition>, wanted: Wanted, patience: Instant) -> Result<LogRead, ReadError> {
    if let Some(read) = log.read_known(wanted)? {
        return Ok(read);
    }
    match timeout_at(patience, log.read_wanted(wanted)).await {
        Ok(read) => read,
        Err(_) => log.read_nothing(),
    }
}

/// A reader that knows of an older leader must find out where its log ends; one that knows of a newer one is ahead of
/// us.
pub(super) fn check_epoch(log: &Partition, known: i32) -> Result<(), ErrorCode> {
    match known {
        -1 => Ok(()),
        older if older < log.leader_epoch() => Err(ErrorCode::FencedLeaderEpoch),
        newer if newer > log.leader_epoch() => Err(ErrorCode::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}

fn failed(partition_index: i32, error: ErrorCode) -> PartitionData {
    PartitionData {
        partition_index,
        error_code: error.code(),
        high_watermark: -1,
        aborted_transactions: None,
        records: Some(Records::default()),
        ..PartitionData::default()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use klamm_protocol::frame::{decode_request_header, encode_request};
    use klamm_protocol::{Decoder, Message};

    use super::*;

    /// A fetch of fifty bytes that was read along with a request of a hundred megabytes kept them all.
    #[test]
    fn a_fetch_that_waits_holds_nothing_of_its_frame() {
        let tags = || UnknownTags::from_fields([(9, &b"tag"[..])]);
        let partition = FetchPartition { fetch_offset: 5, unknown_tags: tags(), ..FetchPartition::default() };
        let topic = FetchTopic {
            topic: "clicks".into(),
            partitions: vec![partition],
            unknown_tags: tags(),
            ..FetchTopic::default()
        };
        let request = FetchRequest {
            max_wait_ms: 500,
            topics: vec![topic],
            rack_id: "rack".into(),
            unknown_tags: tags(),
            ..FetchRequest::default()
        };
        let frame = encode_request(&request, 12, 1, Some("me")).unwrap();
        let frame = Bytes::from(frame[4..].to_vec());
        let mut input = Decoder::new(frame.clone());
        decode_request_header(&mut input).unwrap();
        let request = FetchRequest::decode(&mut input, 12).unwrap();
        drop(input);
        assert!(!frame.is_unique(), "as it is decoded, it does");
        let loose = without_frame(request);
        assert!(frame.is_unique());
        assert_eq!((&*loose.topics[0].topic, loose.topics[0].partitions[0].fetch_offset), ("clicks", 5));
        assert_eq!(loose.max_wait_ms, 500);
    }
}
