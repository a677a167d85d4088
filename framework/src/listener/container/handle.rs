//! `ListenerHandle`: what can be known of a listener from outside while it runs.

use std::sync::Arc;

use tokio::sync::watch;

use super::shared::Shared;
use super::status::{Ended, ListenerFailure};
use crate::listener::ack::AckError;

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
