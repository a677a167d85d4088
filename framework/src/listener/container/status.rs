//! What can be known of a listener from outside while it runs and when it has ended.

use std::fmt;
use std::sync::Arc;

use klamm_client::ConsumeError;
use thiserror::Error;
use tokio::sync::watch;

use super::shared::Shared;
use crate::listener::ack::AckError;
use crate::listener::failure::Failure;

/// Why a listener ended by itself.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum ListenerFailure {
    /// A record failed, and the failure policy says to stop. It is not committed and comes again after a restart.
    #[error("{topic}-{partition}, offset {offset}: {failure}")]
    Record {
        /// Its topic.
        topic: Arc<str>,
        /// Its partition.
        partition: i32,
        /// Its offset.
        offset: i64,
        /// Why it failed.
        failure: Arc<Failure>,
    },
    /// The consumer met an error that retrying does not cure.
    #[error(transparent)]
    Consumer(#[from] ConsumeError),
    /// The consumer ended without saying why. This is a defect of klamm.
    #[error("its consumer ended unexpectedly")]
    Ended,
}

/// A record that was begun with and not finished when its listener ended. It is not committed
/// and will be delivered again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedRecord {
    /// The listener's id.
    pub listener: Arc<str>,
    /// The record's topic.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
}

impl fmt::Display for UnfinishedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}-{} offset {}", self.listener, self.topic, self.partition, self.offset)
    }
}

/// How a shutdown went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Records that were in work, in retry or not acknowledged at the deadline.
    pub unfinished: Vec<UnfinishedRecord>,
    /// The listeners whose last commit failed: what they finished since the commit before may be delivered again.
    pub uncommitted: Vec<Arc<str>>,
}

impl DrainReport {
    /// Whether everything that was begun is finished and committed.
    pub fn is_clean(&self) -> bool {
        self.unfinished.is_empty() && self.uncommitted.is_empty()
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.unfinished.extend(other.unfinished);
        self.uncommitted.extend(other.uncommitted);
    }
}

/// How a container ended.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) report: DrainReport,
    pub(crate) failure: Option<ListenerFailure>,
}

/// A look at one running listener. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ListenerHandle {
    pub(super) shared: Arc<Shared>,
    pub(super) ended: watch::Receiver<Option<Ended>>,
}

impl ListenerHandle {
    /// The listener's id.
    pub fn id(&self) -> &str {
        &self.shared.scope.id
    }

    /// The listener's group.
    pub fn group(&self) -> &str {
        &self.shared.scope.group
    }

    /// How many records it has finished since it started: handled, dead-lettered or skipped.
    pub fn handled(&self) -> u64 {
        *self.shared.handled.borrow()
    }

    /// How many records it holds that are not finished.
    pub fn unfinished(&self) -> usize {
        self.shared.partitions().iter().map(|partition| partition.load().0).sum()
    }

    /// How many of them failed and wait for another attempt.
    pub fn in_retry(&self) -> usize {
        self.shared.partitions().iter().map(|partition| partition.load().1).sum()
    }

    /// The partitions it is assigned.
    pub fn assignment(&self) -> Vec<klamm_client::TopicPartition> {
        self.shared.partitions().iter().map(|partition| partition.place.clone()).collect()
    }

    /// Waits until it has finished `records` records since it started, and until what is finished is committed.
    ///
    /// # Errors
    /// When the commit fails, or the listener ends before.
    pub async fn wait_handled(&self, records: u64) -> Result<(), AckError> {
        let mut handled = self.shared.handled.subscribe();
        let mut ended = self.ended.clone();
        tokio::select! {
            _ = handled.wait_for(|handled| *handled >= records) => {}
            _ = ended.wait_for(Option::is_some) => return Err(AckError::Gone),
        }
        self.shared.commits.flush().await
    }

    /// Whether it has ended.
    pub fn is_running(&self) -> bool {
        self.ended.borrow().is_none()
    }

    /// Waits until it ends by itself, and says why. Resolves with `None` when it is shut down.
    pub async fn failure(&self) -> Option<ListenerFailure> {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.as_ref().and_then(|ended| ended.failure.clone()),
            // The container's task panicked: it did not get to say anything.
            Err(_) => Some(ListenerFailure::Ended),
        }
    }
}
