//! `Ack`: acknowledging by hand, from the handler or from anywhere later.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

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

    /// The records of the batch up to this one, counted from 0, need no more work.
    fn acknowledge_up_to(&self, index: usize) -> Result<(), AckError>;

    /// What is not acknowledged is wanted again after this time.
    fn put_off(&self, delay: Duration);

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
    /// [`Ack::up_to`] was called when nothing was left to acknowledge: all of it was, or the handler had failed, and
    /// the failure policy has the rest.
    #[error("too late: what this acknowledges is acknowledged already, or went to the failure policy")]
    Over,
    /// [`Ack::up_to`] was called with a record that the batch does not have, or that was acknowledged before.
    #[error(
        "there is no record {index} to acknowledge: the batch has {count}, counted from 0, and the first {done} are \
         acknowledged"
    )]
    Index {
        /// What was asked for.
        index: usize,
        /// How many, from the first, are acknowledged.
        done: usize,
        /// How many records the handler's batch has.
        count: usize,
    },
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

    /// Marks the records of a batch up to this one, itself included and counted from 0, as done. The others still need
    /// to be acknowledged, by another `up_to` or all together; what is left when the handler fails, or drops this, goes
    /// to the failure policy. A record that is alone has the index 0.
    ///
    /// # Errors
    /// [`AckError::Index`] where there is no such record, or it was acknowledged before; [`AckError::Over`] when all of
    /// them were, or the handler has failed.
    pub fn up_to(&self, index: usize) -> Result<(), AckError> {
        self.target.as_ref().map_or(Ok(()), |target| target.acknowledge_up_to(index))
    }

    /// Not now: what is not acknowledged comes again after this time, before later records of its partition (by key,
    /// of its key). Other partitions are not held up, nor is the listener's place in its group, however long it takes.
    ///
    /// This is no failure: no policy is asked, and [`attempt`](crate::RecordMeta) does not count it. What the handler
    /// returns afterwards is of no consequence. It may be called when the handler has returned, too; later records are
    /// not held up then, and may be handled before.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use klamm::prelude::*;
    /// #[kafka_listener(topics = "letters", group = "post", batch, ack = manual)]
    /// async fn post(letters: Batch<Value<String>>, ack: Ack) -> Result<(), Error> {
    ///     for (index, letter) in letters.iter().enumerate() {
    ///         if !has_room(letter) {
    ///             // This one and those behind it come again.
    ///             ack.nack(Duration::from_secs(10));
    ///             return Ok(());
    ///         }
    ///         ack.up_to(index)?;
    ///     }
    ///     Ok(())
    /// }
    /// # fn has_room(_: &Value<String>) -> bool { true }
    /// # fn main() {}
    /// ```
    pub fn nack(self, delay: Duration) {
        if let Some(target) = &self.target {
            target.put_off(delay);
        }
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
