//! `Ack`: acknowledging by hand, from the handler or from anywhere later.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use klamm_client::ConsumeError;
use thiserror::Error;

/// Acknowledges a record (or, in a batch handler, the batch) by hand; needs `ack = manual`.
///
/// It may be moved into another task and used when the work is really done, in any order: commits never pass the lowest
/// offset that is not acknowledged. Returning `Ok` without having used or kept it is a failure: the record goes to the
/// failure policy, because nobody could acknowledge it any more. So is dropping it later.
#[must_use = "a dropped acknowledgement counts as a failure of the record"]
pub struct Ack {
    target: Option<Arc<dyn AckTarget>>,
}

/// The record or batch behind an [`Ack`].
#[async_trait]
pub(crate) trait AckTarget: Send + Sync {
    /// The records need no more work.
    fn acknowledge(&self);

    /// Commits what can be committed, and waits for the answer.
    async fn commit(&self) -> Result<(), AckError>;
}

/// Why an acknowledgement could not be committed at once. The record is marked as done all the same; if its partition
/// is still ours, and was not moved, a later commit covers it.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum AckError {
    /// The cluster refused or did not answer.
    #[error("acknowledged, but not committed: {0}")]
    Commit(#[source] ConsumeError),
    /// The partition was given to another member of the group, or the listener stopped: the
    /// record will be delivered again.
    #[error("too late: the partition is no longer this listener's, the record is delivered again")]
    Gone,
    /// The partition was moved to another place by a seek since the record was delivered: this delivery counts for
    /// nothing. The record comes again if it lies behind that place.
    #[error(
        "void: the partition was moved by a seek since the record was delivered, which counts for nothing"
    )]
    Void,
}

impl Ack {
    pub(crate) fn new(target: Arc<dyn AckTarget>) -> Self {
        Self { target: Some(target) }
    }

    /// An acknowledgement of no record, for calling a handler directly.
    pub fn detached() -> Self {
        Self { target: None }
    }

    /// Marks the record as done; the next commit, within a second, covers it.
    pub fn mark(self) {
        if let Some(target) = &self.target {
            target.acknowledge();
        }
    }

    /// Marks the record as done, commits, and waits for the answer. With earlier records of the partition unfinished
    /// the commit stops below them.
    ///
    /// # Errors
    /// See [`AckError`].
    pub async fn now(self) -> Result<(), AckError> {
        let Some(target) = &self.target else { return Ok(()) };
        target.acknowledge();
        target.commit().await
    }

    pub(crate) fn share(&self) -> Self {
        Self { target: self.target.clone() }
    }
}

impl fmt::Debug for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.target.is_some() { "Ack" } else { "Ack(detached)" })
    }
}
