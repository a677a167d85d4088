//! `ShareRecord`: a record that is locked for this consumer.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::locks::Verdict;
use super::shared::Shared;
use super::sharing::Handed;
use crate::consumer::ConsumerRecord;
use crate::error::{RequestError, ShareError};

/// A record that no other member of the group gets while its lock lasts (the group's `share.record.lock.duration.ms`,
/// by default 30 s).
///
/// Say what became of it with [`accept`](Self::accept), [`release`](Self::release) or [`reject`](Self::reject), from
/// any task and in any order. What is said is sent within a fraction of a second, or at once by
/// [`ShareConsumer::commit`](super::ShareConsumer::commit). A record that is dropped without a word stays locked: it
/// comes again, to any member, when its lock runs out or the consumer is closed (with implicit acknowledgement it is
/// accepted by asking for more).
pub struct ShareRecord {
    handed: Handed,
    shared: Arc<Shared>,
}

impl ShareRecord {
    pub(super) fn new(handed: Handed, shared: Arc<Shared>) -> Self {
        Self { handed, shared }
    }

    /// How often the record was handed out, to any member, this time included: 1 is the first time. The broker gives
    /// it up after `group.share.delivery.count.limit` times, by default 5.
    pub fn delivery_count(&self) -> u16 {
        u16::try_from(self.handed.deliveries).unwrap_or(0)
    }

    /// It is done.
    ///
    /// # Errors
    /// [`ShareError::LockLost`]: it may be with another member already, and will be done again.
    pub fn accept(self) -> Result<(), ShareError> {
        self.decide(Verdict::Accept)
    }

    /// It was not done: it comes again, to any member, unless this was its last delivery.
    ///
    /// # Errors
    /// [`ShareError::LockLost`]: it comes again anyway.
    pub fn release(self) -> Result<(), ShareError> {
        self.decide(Verdict::Release)
    }

    /// It can never be done: nobody gets it again.
    ///
    /// # Errors
    /// [`ShareError::LockLost`]: it comes again.
    pub fn reject(self) -> Result<(), ShareError> {
        self.decide(Verdict::Reject)
    }

    fn decide(self, verdict: Verdict) -> Result<(), ShareError> {
        self.shared.decide(self.handed.node, self.handed.id, verdict)
    }

    /// Prolongs the lock by the group's `share.record.lock.duration.ms` from now on, and waits until that is so (Apache
    /// Kafka from 4.2). A fetch that is under way is waited for, at most `fetch_max_wait`. When the future is dropped,
    /// the lock may be prolonged all the same.
    ///
    /// # Errors
    /// [`ShareError::LockLost`]: it ran out before. [`ShareError::CannotRenew`]: the broker is too old. No answer
    /// within `request_timeout` after that fetch.
    pub async fn renew(&mut self) -> Result<(), ShareError> {
        let (node, id) = (self.handed.node, self.handed.id);
        let mut progress = self.shared.progress();
        self.shared.renew(node, id)?;
        let answered = async {
            while self.shared.is_renewing(node, id)? {
                // The sender lives as long as the shared state.
                let _ = progress.changed().await;
            }
            Ok(())
        };
        let timeout = self.shared.config.patience();
        tokio::time::timeout(timeout, answered).await.unwrap_or_else(|_| {
            let last = Arc::from("no answer");
            Err(RequestError::Deadline { what: "renewing a lock", after: timeout, last }.into())
        })
    }
}

/// The record itself.
impl Deref for ShareRecord {
    type Target = ConsumerRecord;

    fn deref(&self) -> &ConsumerRecord {
        &self.handed.record
    }
}

impl fmt::Debug for ShareRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShareRecord")
            .field("record", &self.handed.record)
            .field("delivery_count", &self.handed.deliveries)
            .finish_non_exhaustive()
    }
}
