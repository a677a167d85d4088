//! What the consumer, its records and its task share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_protocol::Uuid;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::locks::{LockId, Loss, Tally, Verdict};
use super::settings::ShareConfig;
use super::sharing::{Rules, Sharing};
use crate::cluster::Core;
use crate::error::ShareError;
use crate::types::TopicPartition;

/// How long what was said of records waits for company. Short beside any lock.
const LINGER: Duration = Duration::from_millis(100);

/// Shared by everything that belongs to one share consumer.
pub(super) struct Shared {
    pub(super) core: Arc<Core>,
    pub(super) config: ShareConfig,
    /// Members name themselves.
    pub(super) member_id: Arc<str>,
    sharing: Mutex<Sharing>,
    /// Wakes the task.
    pub(super) work: Notify,
    /// Wakes whoever waits for records or answers.
    progress: watch::Sender<()>,
    /// What is subscribed to now.
    pub(super) topics: watch::Sender<Vec<Arc<str>>>,
}

impl Shared {
    pub(super) fn new(core: Arc<Core>, config: ShareConfig) -> Self {
        let rules = Rules {
            mode: config.acquire,
            max_wait: config.fetch_max_wait,
            linger: LINGER,
            backoff: core.backoff(),
            rng: Arc::clone(&core.config.rng),
        };
        Self {
            member_id: Uuid::from_random(core.config.rng.next_u128()).to_string().into(),
            sharing: Mutex::new(Sharing::new(rules)),
            work: Notify::new(),
            progress: watch::Sender::default(),
            topics: watch::Sender::new(config.topics.clone()),
            core,
            config,
        }
    }

    pub(super) fn sharing(&self) -> MutexGuard<'_, Sharing> {
        self.sharing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees what changes from now on.
    pub(super) fn progress(&self) -> watch::Receiver<()> {
        self.progress.subscribe()
    }

    /// Something changed that somebody may wait for.
    pub(super) fn tell(&self) {
        self.progress.send_replace(());
    }

    /// There is something to do for the task.
    pub(super) fn work(&self) {
        self.work.notify_one();
    }

    pub(super) fn decide(&self, node: i32, id: LockId, verdict: Verdict) -> Result<(), ShareError> {
        let decided = self.sharing().decide(node, id, verdict, Instant::now());
        if decided.map_err(|_| self.lock_lost(id))? {
            // Only the first has to be waited for.
            self.work();
        }
        Ok(())
    }

    /// Asks for a lock to be prolonged.
    pub(super) fn renew(&self, node: i32, id: LockId) -> Result<(), ShareError> {
        let renewed = {
            let mut sharing = self.sharing();
            if !sharing.can_renew(node) && sharing.is_renewing(node, id, Instant::now()).is_ok() {
                return Err(ShareError::CannotRenew { partition: sharing.named(id.slot) });
            }
            sharing.renew(node, id, Instant::now())
        };
        self.work();
        renewed.map_err(|_| self.lock_lost(id))
    }

    /// Whether the answer to that has not come yet.
    pub(super) fn is_renewing(&self, node: i32, id: LockId) -> Result<bool, ShareError> {
        let renewing = self.sharing().is_renewing(node, id, Instant::now());
        renewing.map_err(|_| self.lock_lost(id))
    }

    fn lock_lost(&self, id: LockId) -> ShareError {
        ShareError::LockLost { partition: self.sharing().named(id.slot), offset: id.offset }
    }
}

/// What became of the acknowledgements of one partition, as the program is told.
pub(super) fn told(partition: &TopicPartition, tally: Tally) -> Result<u64, ShareError> {
    let Some((records, loss)) = tally.failed else { return Ok(tally.done) };
    let (reason, possibly_acknowledged) = match loss {
        Loss::Refused(code) => (Arc::from(format!("the broker answered {code}")), false),
        Loss::RanOut => (Arc::from("the locks ran out"), false),
        Loss::SessionEnded => (Arc::from("the share session ended before they were sent"), false),
        Loss::Unanswered => (Arc::from("no answer came"), true),
    };
    Err(ShareError::NotAcknowledged { partition: partition.clone(), records, reason, possibly_acknowledged })
}
