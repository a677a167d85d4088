//! What every request handler can reach.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use klamm_protocol::{ErrorCode, Uuid};
use klamm_runtime::{Clock, Rng};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::fetch_visits::FetchVisits;
use super::throttle::Throttle;
use crate::config::{BrokerConfig, Endpoint};
use crate::controller::{Controller, Topic, View};
use crate::group::GroupService;
use crate::ids::fresh_uuid;
use crate::partition::LogManager;
use crate::quiet::QuietLog;
use crate::quota::{Rate, burst_bytes};
use crate::txn::TransactionService;

/// The broker, as request handlers see it.
#[derive(Debug)]
pub(crate) struct Context {
    config: BrokerConfig,
    cluster_id: String,
    controller: Arc<Controller>,
    logs: Arc<LogManager>,
    coordinators: Coordinators,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    fetch_visits: FetchVisits,
    throttle: Throttle,
    quiet_log: QuietLog,
    stopping: watch::Receiver<bool>,
}

/// What is kept for clients beside their records.
#[derive(Debug)]
pub(crate) struct Coordinators {
    /// Groups and their offsets.
    pub(crate) groups: Arc<GroupService>,
    /// Transactional ids.
    pub(crate) transactions: Arc<TransactionService>,
}

/// The other side of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Host and port.
    pub(crate) address: String,
    /// The host alone.
    pub(crate) host: String,
    /// What clients that came this way are told to connect to.
    pub(crate) advertised: Endpoint,
    waiting: Arc<Semaphore>,
    muted_until: Mutex<Option<Instant>>,
}

/// How much the fetches of one connection may have asked for that wait at the same time, in bytes of their requests.
/// They may wait for weeks, so that they do not count as requests that are worked on (`queued.max.request.bytes`),
/// where they would keep all others out. A fetch of ten thousand partitions has a third of a megabyte.
const WAITING_BYTES_MAX: usize = 4 << 20;

impl Peer {
    pub(crate) fn new(address: String, host: String, advertised: Endpoint) -> Self {
        let waiting = Arc::new(Semaphore::new(WAITING_BYTES_MAX));
        Self { address, host, advertised, waiting, muted_until: Mutex::default() }
    }

    /// No request of this one is looked at before that.
    pub(super) fn mute(&self, until: Instant) {
        let mut muted_until = self.muted_until.lock().unwrap_or_else(PoisonError::into_inner);
        *muted_until = (*muted_until).max(Some(until));
    }

    /// Until when no request is looked at, if any was ever put off.
    pub(crate) fn muted_until(&self) -> Option<Instant> {
        *self.muted_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for a fetch of so many bytes to wait, given back when dropped; none when others take it.
    pub(crate) fn room_to_wait(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.waiting.clone().try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()
    }
}

impl Context {
    pub(crate) fn new(
        config: BrokerConfig,
        cluster_id: String,
        state: (Arc<Controller>, Arc<LogManager>),
        coordinators: Coordinators,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let (controller, logs) = state;
        Self {
            fetch_visits: FetchVisits::new(&config, rng.clone()),
            config,
            cluster_id,
            controller,
            logs,
            coordinators,
            clock,
            rng,
            throttle: Throttle::default(),
            quiet_log: QuietLog::default(),
            stopping,
        }
    }

    pub(crate) fn config(&self) -> &BrokerConfig {
        &self.config
    }

    pub(crate) fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    pub(crate) fn controller(&self) -> &Controller {
        &self.controller
    }

    pub(crate) fn logs(&self) -> &Arc<LogManager> {
        &self.logs
    }

    /// Whether a partition has no leader, because the disk of its log directory has failed.
    pub(crate) fn is_offline(&self, view: &View, topic: &Topic, index: i32) -> bool {
        match view.log(topic, index) {
            Ok(log) => log.is_in_failed_dir(),
            Err(_) => self.logs.is_presumed_offline(&topic.name, index, topic.id),
        }
    }

    pub(crate) fn groups(&self) -> &Arc<GroupService> {
        &self.coordinators.groups
    }

    pub(crate) fn transactions(&self) -> &Arc<TransactionService> {
        &self.coordinators.transactions
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.controller.view()
    }

    /// Follows the metadata.
    pub(crate) fn views(&self) -> watch::Receiver<Arc<View>> {
        self.controller.views()
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// An id that nobody has.
    pub(crate) fn fresh_id(&self) -> Uuid {
        fresh_uuid(&*self.rng)
    }

    pub(super) fn fetch_visits(&self) -> &FetchVisits {
        &self.fetch_visits
    }

    /// A client has used so many bytes. For how many milliseconds it is not listened to (KIP-219), which it has to be
    /// told.
    pub(super) fn charge(&self, peer: &Peer, client_id: &str, used: (Rate, usize)) -> i32 {
        let view = self.view();
        let quotas = view.image.client_quotas();
        if quotas.is_empty() {
            return 0;
        }
        let wait_ms = self.throttle.charge(quotas, client_id, used);
        if wait_ms > 0 {
            peer.mute(Instant::now() + Duration::from_millis(u64::from(wait_ms)));
        }
        i32::try_from(wait_ms).unwrap_or(i32::MAX)
    }

    /// What a fetch may bring at most, as in Kafka: what is more than a client may use at once would have to be waited
    /// for afterwards, for hours perhaps, in which its connection is good for nothing.
    pub(super) fn fetch_quota_bytes(&self, client_id: &str) -> i32 {
        let view = self.view();
        let bytes = burst_bytes(view.image.client_quotas(), client_id, Rate::Fetched);
        // Too large a number becomes the largest.
        bytes.map_or(i32::MAX, |bytes| bytes as i32)
    }

    pub(crate) fn quiet_log(&self) -> &QuietLog {
        &self.quiet_log
    }

    /// Turns true when the broker begins to stop: then nobody shall wait for more.
    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.clone()
    }
}

/// What a producer is told that another one has taken the place of: old clients know one word for it.
pub(super) fn told_of_fencing(error: ErrorCode, knows_fencing: bool) -> ErrorCode {
    match error {
        ErrorCode::ProducerFenced if !knows_fencing => ErrorCode::InvalidProducerEpoch,
        told => told,
    }
}

/// The topic that a request names, by id or by name according to its version.
pub(crate) fn named<'a>(
    view: &'a View,
    by_id: bool,
    id: Uuid,
    name: &str,
) -> Result<&'a Arc<Topic>, ErrorCode> {
    if by_id {
        view.image.topic_by_id(id).ok_or(ErrorCode::UnknownTopicId)
    } else {
        view.image.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition)
    }
}

/// When the time is over that a request allows for what it asks for; nothing when it sets no limit.
pub(super) fn deadline(timeout_ms: i32) -> Option<Instant> {
    let timeout_ms = u64::try_from(timeout_ms).ok().filter(|timeout_ms| *timeout_ms > 0)?;
    Some(Instant::now() + Duration::from_millis(timeout_ms))
}

/// What a request names, each once and in its order. Answered as often as it is named, a small request could ask for
/// more than there is memory for.
pub(super) fn each_once<T, K: Hash + Eq>(named: Vec<T>, key: impl Fn(&T) -> K) -> impl Iterator<Item = T> {
    let mut seen = HashSet::new();
    named.into_iter().filter(move |one| seen.insert(key(one)))
}
