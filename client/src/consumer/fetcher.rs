//! The fetching task: keeps a fetch under way to every leader, and finds out where to start.
//!
//! A broker holds a fetch without data for a while. What becomes fetchable meanwhile (a seek, a resumed
//! partition, room in the buffer) must not wait for that, so there are two connections to a broker, and a fetch
//! of what is idle may use the second.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use klamm_protocol::messages::fetch::{FetchPartition, FetchTopic, PartitionData};
use klamm_protocol::messages::{FetchRequest, FetchResponse};
use klamm_protocol::{ErrorCode, Uuid};
use tokio::time::Instant;

use super::builder::{OffsetReset, Subscription};
use super::chunk::{self, Reading};
use super::partitions::{ERROR_PAUSE, Start, Task};
use super::shared::Shared;
use crate::cluster::{self, ClusterView, OffsetAt};
use crate::connection::Links;
use crate::error::{ConsumeError, RequestError};
use crate::group::offsets;
use crate::types::{IsolationLevel, OffsetAndMetadata, TopicPartition};

/// Connections to each broker.
const LANES: usize = 2;
/// From here on topics go by id.
const IDS_FROM: i16 = 13;

/// What the loop waits for.
enum Event {
    Fetched {
        way: Way,
        tasks: Vec<Task>,
        result: Result<FetchResponse, RequestError>,
        names: HashMap<Uuid, Arc<str>>,
    },
    Committed {
        tasks: Vec<Task>,
        result: Result<HashMap<TopicPartition, OffsetAndMetadata>, RequestError>,
    },
    Listed {
        tasks: Vec<Task>,
        result: Result<HashMap<TopicPartition, Result<OffsetAt, ErrorCode>>, RequestError>,
    },
    Refreshed,
}

/// One of the connections to a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Way {
    node: i32,
    lane: usize,
}

/// The task's state.
pub(super) struct Fetcher {
    shared: Arc<Shared>,
    lanes: [Arc<Links>; LANES],
    /// Ways with a fetch on them.
    taken: HashSet<Way>,
    events: FuturesUnordered<BoxFuture<'static, Event>>,
    refreshing: bool,
}

impl Fetcher {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            lanes: Default::default(),
            taken: HashSet::new(),
            events: FuturesUnordered::new(),
            refreshing: false,
        }
    }

    /// Runs until it is aborted.
    pub(super) async fn run(mut self) {
        learn_topics(&self.shared).await;
        loop {
            let wake_at = self.dispatch(Instant::now());
            let shared = Arc::clone(&self.shared);
            let timer = async {
                match wake_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shared.fetch.notified() => {}
                Some(event) = self.events.next(), if !self.events.is_empty() => self.handle(event),
                () = timer => {}
            }
        }
    }

    /// Starts all that can be started. Gives the instant at which time alone brings more.
    fn dispatch(&mut self, now: Instant) -> Option<Instant> {
        let view = self.shared.core.metadata.view();
        let (tasks, wake_at) = self.shared.partitions().tasks(now);
        let mut fetch: BTreeMap<i32, Vec<Task>> = BTreeMap::new();
        let mut committed = Vec::new();
        let mut list = Vec::new();
        let mut leaderless = false;
        for task in tasks {
            match task.start {
                Start::Committed if self.shared.offsets.is_some() => committed.push(task),
                Start::Committed => self.start_without_commit(task, &mut list),
                Start::Earliest | Start::Latest => list.push(task),
                Start::At(_) => match view.leader(&task.partition.topic, task.partition.partition) {
                    Some(leader) => fetch.entry(leader).or_default().push(task),
                    None => leaderless = true,
                },
            }
        }
        if leaderless {
            self.refresh();
        }
        if !committed.is_empty() {
            self.find_committed(committed);
        }
        if !list.is_empty() {
            self.find_ends(list);
        }
        for (node, tasks) in fetch {
            let free = (0..LANES).map(|lane| Way { node, lane }).find(|way| !self.taken.contains(way));
            if let Some(way) = free {
                self.fetch(way, tasks, &view);
            }
        }
        wake_at
    }

    fn begin(&self, tasks: &[Task]) {
        let mut partitions = self.shared.partitions();
        tasks.iter().for_each(|task| partitions.begin(task));
    }

    /// Where to start when nothing is committed.
    fn start_without_commit(&self, mut task: Task, list: &mut Vec<Task>) {
        let start = match self.shared.config.offset_reset {
            OffsetReset::Earliest => Some(Start::Earliest),
            OffsetReset::Latest => Some(Start::Latest),
            OffsetReset::None => None,
        };
        match start {
            Some(start) => {
                self.shared.partitions().resolved(&task, start);
                task.start = start;
                list.push(task);
            }
            None => self.no_offset(&task, None),
        }
    }

    fn no_offset(&self, task: &Task, offset: Option<i64>) {
        self.shared.partitions().failed(task, Instant::now() + ERROR_PAUSE);
        self.shared.tell_reader(ConsumeError::NoOffset { partition: task.partition.clone(), offset });
    }

    fn find_committed(&self, tasks: Vec<Task>) {
        self.begin(&tasks);
        let shared = Arc::clone(&self.shared);
        self.events.push(Box::pin(async move {
            let partitions: Vec<TopicPartition> = tasks.iter().map(|task| task.partition.clone()).collect();
            let deadline = Instant::now() + shared.config.request_timeout;
            let result = match &shared.offsets {
                Some(link) => offsets::committed(&shared.core, link, Some(&partitions), deadline).await,
                None => Ok(HashMap::new()),
            };
            Event::Committed { tasks, result }
        }));
    }

    fn find_ends(&self, tasks: Vec<Task>) {
        self.begin(&tasks);
        let (shared, links) = (Arc::clone(&self.shared), Arc::clone(&self.lanes[LANES - 1]));
        self.events.push(Box::pin(async move {
            let place = |task: &Task| if task.start == Start::Earliest { -2 } else { -1 };
            let wanted = tasks.iter().map(|task| (task.partition.clone(), place(task))).collect();
            let deadline = Instant::now() + shared.config.request_timeout;
            let isolation = shared.config.isolation;
            let result = cluster::list_offsets(&shared.core, &links, &wanted, isolation, deadline).await;
            Event::Listed { tasks, result }
        }));
    }

    fn fetch(&mut self, way: Way, tasks: Vec<Task>, view: &ClusterView) {
        self.begin(&tasks);
        self.taken.insert(way);
        let room = self.shared.partitions().room();
        let mut names = HashMap::new();
        let mut topics: BTreeMap<&Arc<str>, FetchTopic> = BTreeMap::new();
        let mut all_ids_known = true;
        for task in &tasks {
            let Start::At(fetch_offset) = task.start else { continue };
            let name = &task.partition.topic;
            let topic = topics.entry(name).or_insert_with(|| {
                let topic_id = view.topics.get(name).map_or(Uuid::ZERO, |topic| topic.id);
                all_ids_known &= topic_id != Uuid::ZERO;
                names.insert(topic_id, Arc::clone(name));
                FetchTopic { topic: (&**name).into(), topic_id, ..Default::default() }
            });
            topic.partitions.push(FetchPartition {
                partition: task.partition.partition,
                fetch_offset,
                partition_max_bytes: wire_size(self.shared.config.partition_fetch_bytes),
                ..Default::default()
            });
        }
        let config = &self.shared.config;
        let request = FetchRequest {
            max_wait_ms: i32::try_from(config.fetch_max_wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: wire_size(config.fetch_min_bytes),
            max_bytes: wire_size(config.fetch_max_bytes.min(room.max(config.partition_fetch_bytes))),
            isolation_level: config.isolation.wire(),
            topics: topics.into_values().collect(),
            ..Default::default()
        };
        let cap = if all_ids_known { i16::MAX } else { IDS_FROM - 1 };
        let (shared, links) = (Arc::clone(&self.shared), Arc::clone(&self.lanes[way.lane]));
        self.events.push(Box::pin(async move {
            let answer = async {
                let connection = links.connection(&shared.core, way.node).await?;
                let version = connection.version_up_to::<FetchRequest>(cap)?;
                // The broker may rightly hold the fetch for `fetch_max_wait`.
                let timeout = shared.config.request_timeout + shared.config.fetch_max_wait;
                connection.start(&request, version)?.within(timeout).await
            };
            Event::Fetched { way, result: answer.await, tasks, names }
        }));
    }

    fn refresh(&mut self) {
        if self.refreshing {
            return;
        }
        self.refreshing = true;
        let core = Arc::clone(&self.shared.core);
        let seen = core.metadata.view().version;
        self.events.push(Box::pin(async move {
            if let Err(error) = core.refresh_metadata(seen).await {
                tracing::debug!(%error, "metadata refresh failed");
                // The next attempt is paced by the cache, but a failure that needs no network would spin.
                tokio::time::sleep(core.config.retry_backoff).await;
            }
            Event::Refreshed
        }));
    }

    fn pause(&self) -> Instant {
        Instant::now() + self.shared.core.config.retry_backoff
    }

    fn fail(&self, tasks: &[Task]) {
        let not_before = self.pause();
        let mut partitions = self.shared.partitions();
        tasks.iter().for_each(|task| partitions.failed(task, not_before));
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Refreshed => self.refreshing = false,
            Event::Committed { tasks, result } => self.committed(&tasks, result),
            Event::Listed { tasks, result } => self.listed(&tasks, result),
            Event::Fetched { way, tasks, result, names } => {
                self.taken.remove(&way);
                match result {
                    Ok(answer) => self.fetched(&tasks, answer, &names),
                    Err(error) => {
                        tracing::debug!(node = way.node, %error, "a fetch failed");
                        self.fail(&tasks);
                        if !error.is_retriable() {
                            self.shared.tell_reader(error.into());
                        }
                        self.refresh();
                    }
                }
            }
        }
    }

    fn committed(
        &self,
        tasks: &[Task],
        result: Result<HashMap<TopicPartition, OffsetAndMetadata>, RequestError>,
    ) {
        match result {
            Ok(offsets) => {
                let mut list = Vec::new();
                for task in tasks {
                    match offsets.get(&task.partition) {
                        Some(committed) => {
                            self.shared.partitions().resolved(task, Start::At(committed.offset));
                        }
                        None => self.start_without_commit(task.clone(), &mut list),
                    }
                }
                // The rest starts with the next pass.
            }
            Err(error) => {
                self.fail(tasks);
                // One that only took too long is tried again without a word.
                if !error.is_retriable() {
                    self.shared.tell_reader(error.into());
                }
            }
        }
    }

    fn listed(
        &self,
        tasks: &[Task],
        result: Result<HashMap<TopicPartition, Result<OffsetAt, ErrorCode>>, RequestError>,
    ) {
        let offsets = match result {
            Ok(offsets) => offsets,
            Err(error) => {
                tracing::debug!(%error, "offset look-up failed");
                return self.fail(tasks);
            }
        };
        for task in tasks {
            match offsets.get(&task.partition) {
                Some(Ok(OffsetAt { offset: Some(offset), .. })) => {
                    self.shared.partitions().resolved(task, Start::At(*offset));
                }
                Some(Err(code)) => {
                    self.shared.partitions().failed(task, Instant::now() + ERROR_PAUSE);
                    self.shared
                        .tell_reader(ConsumeError::Fetch { partition: task.partition.clone(), code: *code });
                }
                _ => self.shared.partitions().failed(task, self.pause()),
            }
        }
    }

    fn fetched(&mut self, tasks: &[Task], answer: FetchResponse, names: &HashMap<Uuid, Arc<str>>) {
        let code = ErrorCode::from_code(answer.error_code);
        if code != ErrorCode::None {
            tracing::debug!(%code, "a fetch was refused");
            self.fail(tasks);
            self.refresh();
            return;
        }
        let mut parts: HashMap<(Arc<str>, i32), PartitionData> = HashMap::new();
        for topic in answer.responses {
            let name = match topic.topic.is_empty() {
                true => names.get(&topic.topic_id).cloned(),
                false => Some(Arc::from(&*topic.topic)),
            };
            let Some(name) = name else { continue };
            parts.extend(
                topic.partitions.into_iter().map(|part| ((Arc::clone(&name), part.partition_index), part)),
            );
        }
        let mut news = false;
        for task in tasks {
            let key = (Arc::clone(&task.partition.topic), task.partition.partition);
            match parts.remove(&key) {
                Some(part) => news |= self.partition_fetched(task, part),
                None => self.shared.partitions().failed(task, self.pause()),
            }
        }
        if news {
            self.shared.reader.wake();
        }
    }

    /// Takes in one partition's part. Returns whether the reader has something new.
    fn partition_fetched(&mut self, task: &Task, part: PartitionData) -> bool {
        let Start::At(position) = task.start else { return false };
        let code = ErrorCode::from_code(part.error_code);
        match code {
            ErrorCode::None => {}
            ErrorCode::OffsetOutOfRange => {
                self.out_of_range(task, position);
                return false;
            }
            ErrorCode::CorruptMessage => {
                self.shared.partitions().failed(task, Instant::now() + ERROR_PAUSE);
                self.shared.tell_reader(ConsumeError::Corrupt {
                    partition: task.partition.clone(),
                    offset: position,
                    reason: Arc::from("the broker found it corrupt"),
                });
                return false;
            }
            code if code.is_retriable() => {
                tracing::debug!(partition = %task.partition, %code, "fetch later");
                self.shared.partitions().failed(task, self.pause());
                self.refresh();
                return false;
            }
            code => {
                self.shared.partitions().failed(task, Instant::now() + ERROR_PAUSE);
                self.shared.tell_reader(ConsumeError::Fetch { partition: task.partition.clone(), code });
                return false;
            }
        }
        let records = part.records.and_then(klamm_protocol::Records::into_bytes).unwrap_or_default();
        let committed_only = self.shared.config.isolation == IsolationLevel::ReadCommitted;
        let reading = Reading {
            check_crcs: self.shared.config.check_crcs,
            max_batch_bytes: self.shared.config.max_batch_bytes,
            committed_only,
        };
        let aborted = part.aborted_transactions.unwrap_or_default();
        let end = if committed_only { part.last_stable_offset } else { part.high_watermark };
        let chunk = chunk::read(&task.partition, position, records, &aborted, end, reading);
        self.shared.partitions().fetched(task, chunk)
    }

    fn out_of_range(&self, task: &Task, position: i64) {
        let start = match self.shared.config.offset_reset {
            OffsetReset::Earliest => Start::Earliest,
            OffsetReset::Latest => Start::Latest,
            OffsetReset::None => return self.no_offset(task, Some(position)),
        };
        tracing::warn!(partition = %task.partition, position, ?start, "the position is not in the log; it is reset");
        self.shared.partitions().resolved(task, start);
    }
}

/// The first look at the topics of partitions assigned by hand, which may create them. A member's
/// topics are its group task's.
async fn learn_topics(shared: &Shared) {
    let Subscription::Partitions(assigned) = &shared.config.subscription else { return };
    let core = &shared.core;
    let view = core.metadata.view();
    let topics: BTreeSet<&Arc<str>> = assigned.iter().map(|partition| &partition.topic).collect();
    let unknown: Vec<Arc<str>> =
        topics.into_iter().filter(|topic| view.usable(topic).is_none()).cloned().collect();
    if unknown.is_empty() {
        return;
    }
    if let Err(error) = core.ask_metadata(Some(&unknown), core.config.allow_auto_create_topics).await {
        tracing::debug!(%error, "the assigned topics are not known yet");
    }
}

fn wire_size(bytes: usize) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}
