//! The fetching task: asks what the cores want asked, and tells them what was answered.
//!
//! There are two connections to a broker, one for each line of `fetching.rs`; look-ups go over the prompt one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use klamm_protocol::messages::{FetchRequest, FetchResponse};
use klamm_protocol::{ApiKey, ErrorCode};
use tokio::time::Instant;
use tracing::{Instrument, debug_span};

use super::chunk::Reading;
use super::fetching::{Fetch, FetchRules, Fetching, Line, NoAnswer, Way};
use super::lookups::{Ask, Plan};
use super::positions::{Anchor, Leader, Place};
use super::settings::{ConsumerConfig, Subscription};
use super::shared::Shared;
use crate::cluster::{self, Epochs, Followed, OffsetAt};
use crate::connection::{Connection, Links};
use crate::error::RequestError;
use crate::group::offsets;
use crate::observe::ClientEvent;
use crate::types::{IsolationLevel, OffsetAndMetadata, TopicPartition};

/// How often metrics are told where the consumer stands, while anything happens.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

type Answers<T> = HashMap<TopicPartition, Result<T, ErrorCode>>;

/// What the loop waits for.
enum Event {
    Fetched {
        way: Way,
        /// The answer, and the connection that it came over.
        result: Result<(FetchResponse, Connection), Missing>,
    },
    Committed {
        asked: Vec<Ask>,
        result: Result<Answers<Anchor>, RequestError>,
    },
    Found {
        asked: Vec<(Ask, Leader, Place)>,
        result: Result<Answers<OffsetAt>, RequestError>,
    },
    Checked {
        asked: Vec<(Ask, Leader, Anchor)>,
        result: Result<Option<Epochs>, RequestError>,
    },
    Refreshed,
    Learned,
}

/// Why a fetch brought nothing.
enum Missing {
    /// It belongs to a session on a connection that is gone.
    SessionGone,
    Failed(RequestError),
}

impl From<RequestError> for Missing {
    fn from(error: RequestError) -> Self {
        Self::Failed(error)
    }
}

/// The task's state.
pub(super) struct Fetcher {
    shared: Arc<Shared>,
    fetching: Fetching,
    patient: Arc<Links>,
    prompt: Arc<Links>,
    /// The connections that fetch sessions belong to.
    sessions: BTreeMap<i32, Connection>,
    events: FuturesUnordered<BoxFuture<'static, Event>>,
    refreshing: bool,
    /// Topics of partitions assigned by hand that were asked about, which may have created them.
    learned: BTreeSet<Arc<str>>,
    followed: Arc<Followed>,
    /// As of which assignment they are.
    assignment: Option<u64>,
    /// When metrics are told next where the consumer stands, unless that many partitions are not assigned any more.
    sample_at: Option<(Instant, usize)>,
}

impl Fetcher {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            fetching: Fetching::new(fetch_rules(&shared.config, shared.core.config.metadata_max_age)),
            followed: shared.core.metadata.follow(&[]),
            assignment: None,
            shared,
            patient: Arc::default(),
            prompt: Arc::default(),
            sessions: BTreeMap::new(),
            events: FuturesUnordered::new(),
            refreshing: false,
            learned: BTreeSet::new(),
            sample_at: None,
        }
    }

    /// Runs until it is aborted.
    pub(super) async fn run(mut self) {
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
        self.learn_topics();
        let shared = Arc::clone(&self.shared);
        let view = shared.core.metadata.view();
        let mut partitions = shared.partitions();
        let plan = partitions.plan(&view, now);
        let Plan { committed, find, check, fetch, refresh, wake_at } = plan;
        let (fetches, fetch_at) = self.fetching.send(&mut partitions, fetch, now);
        let news = partitions.has_errors();
        let assigned = partitions.all.len();
        let due = self.sample_at.is_none_or(|(at, before)| at <= now || before != assigned);
        let sample = due.then(|| partitions.sample());
        drop(partitions);
        if let Some(sample) = sample {
            self.sample_at = Some((now + SAMPLE_EVERY, assigned));
            shared.metrics.sample(&sample);
        }
        if news {
            shared.reader.wake();
        }
        if refresh {
            self.refresh();
        }
        if !committed.is_empty() {
            self.find_committed(committed);
        }
        for (node, asked) in find {
            self.find_places(node, asked);
        }
        for (node, asked) in check {
            self.check_epochs(node, asked);
        }
        for fetch in fetches {
            self.fetch(fetch);
        }
        [wake_at, fetch_at].into_iter().flatten().min()
    }

    fn find_committed(&self, asked: Vec<Ask>) {
        let shared = Arc::clone(&self.shared);
        self.events.push(Box::pin(async move {
            let partitions: Vec<TopicPartition> = asked.iter().map(|ask| ask.partition.clone()).collect();
            let result = match &shared.offsets {
                Some(link) => offsets::committed_each(&shared.core, link, Some(&partitions)).await,
                None => Ok(HashMap::new()),
            };
            let anchored = |offsets: offsets::Committed| {
                let anchor = |at: OffsetAndMetadata| Anchor { offset: at.offset, epoch: at.leader_epoch };
                offsets.into_iter().map(|(partition, at)| (partition, at.map(anchor))).collect()
            };
            Event::Committed { asked, result: result.map(anchored) }
        }));
    }

    fn find_places(&self, node: i32, asked: Vec<(Ask, Leader, Place)>) {
        let (shared, links) = (Arc::clone(&self.shared), Arc::clone(&self.prompt));
        self.events.push(Box::pin(async move {
            let now_ms = shared.core.config.clock.now_ms();
            let wanted: Vec<(&TopicPartition, i64)> =
                asked.iter().map(|(ask, _, place)| (&ask.partition, place.wire(now_ms))).collect();
            let isolation = shared.config.isolation;
            let result = cluster::ask_leader(&shared.core, &links, node, &wanted, isolation).await;
            Event::Found { result: result.map(|found| found.into_iter().collect()), asked }
        }));
    }

    fn check_epochs(&self, node: i32, asked: Vec<(Ask, Leader, Anchor)>) {
        let (shared, links) = (Arc::clone(&self.shared), Arc::clone(&self.prompt));
        self.events.push(Box::pin(async move {
            let wanted: Vec<(&TopicPartition, i32, i32)> = asked
                .iter()
                .map(|(ask, leader, anchor)| (&ask.partition, leader.epoch, anchor.epoch.unwrap_or(-1)))
                .collect();
            let result = match cluster::epoch_ends(&shared.core, &links, node, &wanted).await {
                Ok(ends) => Ok(Some(ends)),
                Err(RequestError::Unsupported { .. }) => Ok(None),
                Err(error) => Err(error),
            };
            Event::Checked { asked, result }
        }));
    }

    fn fetch(&self, fetch: Fetch) {
        let Fetch { way, request, cap, in_session } = fetch;
        let shared = Arc::clone(&self.shared);
        let links = match way.line {
            Line::Patient => Arc::clone(&self.patient),
            Line::Prompt => Arc::clone(&self.prompt),
        };
        let session = self.sessions.get(&way.node).cloned();
        let partitions: usize = request.topics.iter().map(|topic| topic.partitions.len()).sum();
        let span = debug_span!("fetch", node = way.node, held = way.line == Line::Patient, partitions);
        self.events.push(Box::pin(async move {
            let answer = async {
                let connection = links.connection(&shared.core, way.node).await?;
                if in_session && !session.is_some_and(|session| session.is(&connection)) {
                    return Err(Missing::SessionGone);
                }
                let version = connection.version_up_to::<FetchRequest>(cap)?;
                // The broker may rightly hold the fetch for `fetch_max_wait`.
                let timeout = shared.config.request_timeout + shared.config.fetch_max_wait;
                let answer = connection.start(&request, version)?.within(timeout).await?;
                Ok((answer, connection))
            };
            Event::Fetched { way, result: answer.instrument(span).await }
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

    /// The first look at the topics of partitions assigned by hand, which may create them. A member's topics are its
    /// group task's.
    fn learn_topics(&mut self) {
        if !matches!(self.shared.config.subscription, Subscription::Partitions(_)) {
            return;
        }
        let (assignment, topics) = {
            let partitions = self.shared.partitions();
            if self.assignment == Some(partitions.changes()) {
                return;
            }
            (partitions.changes(), partitions.topics())
        };
        self.assignment = Some(assignment);
        self.followed.set(topics.iter().cloned());
        // What is given up and comes back is a new topic to us.
        self.learned.retain(|topic| topics.contains(topic));
        let new: Vec<Arc<str>> = topics.into_iter().filter(|topic| !self.learned.contains(topic)).collect();
        if new.is_empty() {
            return;
        }
        self.learned.extend(new.iter().cloned());
        let core = Arc::clone(&self.shared.core);
        let view = core.metadata.view();
        let unknown: Vec<Arc<str>> = new.into_iter().filter(|topic| view.usable(topic).is_none()).collect();
        if unknown.is_empty() {
            return;
        }
        self.events.push(Box::pin(async move {
            if let Err(error) = core.ask_metadata(Some(&unknown), core.config.allow_auto_create_topics).await
            {
                tracing::debug!(%error, "the assigned topics are not known yet");
            }
            Event::Learned
        }));
    }

    fn handle(&mut self, event: Event) {
        let now = Instant::now();
        let shared = Arc::clone(&self.shared);
        match event {
            Event::Refreshed => self.refreshing = false,
            Event::Learned => {}
            Event::Committed { asked, result: Ok(found) } => {
                shared.partitions().committed_found(&asked, &found, now);
            }
            Event::Committed { asked, result: Err(error) } => self.failed(asked.iter(), error, now),
            Event::Found { asked, result: Ok(mut found) } => {
                let mut partitions = shared.partitions();
                for one in &asked {
                    partitions.place_found(one, found.remove(&one.0.partition), now);
                }
            }
            Event::Found { asked, result: Err(error) } => {
                self.failed(asked.iter().map(|(ask, ..)| ask), error, now);
            }
            Event::Checked { asked, result: Ok(ends) } => {
                let mut partitions = shared.partitions();
                for one in &asked {
                    let answer = ends.as_ref().map(|ends| ends.get(&one.0.partition).copied());
                    match answer {
                        Some(None) => partitions.not_answered([&one.0], now),
                        answer => partitions.checked(one, answer.flatten(), now),
                    }
                }
            }
            Event::Checked { asked, result: Err(error) } => {
                self.failed(asked.iter().map(|(ask, ..)| ask), error, now);
            }
            Event::Fetched { way, result } => self.fetched(way, result, now),
        }
    }

    fn fetched(&mut self, way: Way, result: Result<(FetchResponse, Connection), Missing>, now: Instant) {
        let answer = match result {
            Ok((answer, connection)) => {
                if way.line == Line::Patient {
                    self.sessions.insert(way.node, connection);
                }
                self.note_throttle(way.node, answer.throttle_time_ms);
                Ok(answer)
            }
            Err(Missing::SessionGone) => Err(NoAnswer::SessionGone),
            Err(Missing::Failed(error)) => {
                tracing::debug!(node = way.node, %error, "a fetch failed");
                if !error.is_retriable() {
                    self.shared.tell_reader(error.into());
                }
                Err(NoAnswer::Failed)
            }
        };
        let news = self.fetching.answered(&mut self.shared.partitions(), way, answer, now);
        for brought in self.fetching.take_brought() {
            self.shared.metrics.fetched(&brought);
        }
        for hint in self.fetching.hints() {
            self.shared.core.metadata.learn_leader(&hint);
        }
        if news {
            self.shared.reader.wake();
        }
    }

    fn note_throttle(&self, node: i32, pause_ms: i32) {
        let pause = Duration::from_millis(u64::try_from(pause_ms).unwrap_or(0));
        if pause.is_zero() {
            return;
        }
        self.shared.metrics.throttled(pause);
        let api = ApiKey::Fetch;
        self.shared.core.config.observers.tell(|| ClientEvent::Throttled { node, api, pause });
    }

    /// A look-up failed. One that only took too long is tried again without a word.
    fn failed<'a>(&self, asked: impl IntoIterator<Item = &'a Ask>, error: RequestError, now: Instant) {
        tracing::debug!(%error, "a look-up failed");
        let mut partitions = self.shared.partitions();
        partitions.not_answered(asked, now);
        partitions.stale = true;
        drop(partitions);
        if !error.is_retriable() {
            self.shared.tell_reader(error.into());
        }
    }
}

/// What fetches ask for, and how answers are read. `replica_age`: how long a nearer replica is read from before the
/// leader is asked again.
fn fetch_rules(config: &ConsumerConfig, replica_age: Duration) -> FetchRules {
    FetchRules {
        max_wait: config.fetch_max_wait,
        min_bytes: config.fetch_min_bytes,
        max_bytes: config.fetch_max_bytes,
        partition_bytes: config.partition_fetch_bytes,
        isolation: config.isolation.wire(),
        rack: config.rack.clone().unwrap_or_default(),
        replica_age,
        reading: Reading {
            check_crcs: config.check_crcs,
            max_batch_bytes: config.max_batch_bytes,
            committed_only: config.isolation == IsolationLevel::ReadCommitted,
            together_bytes: config.partition_fetch_bytes,
        },
    }
}
