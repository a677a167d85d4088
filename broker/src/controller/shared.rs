//! What the controller's task shares with those who ask the controller.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};

use super::decide::DeletedTopic;
use super::view::View;

/// What the task shares with those who ask the controller.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) view: watch::Sender<Arc<View>>,
    producer_ids: Mutex<Range<i64>>,
    followers: Mutex<Vec<mpsc::UnboundedSender<DeletedTopic>>>,
}

impl Shared {
    pub(super) fn new(view: View) -> Self {
        Self {
            view: watch::Sender::new(Arc::new(view)),
            producer_ids: Mutex::new(0..0),
            followers: Mutex::default(),
        }
    }

    /// A producer id out of the block, if there are any left.
    pub(super) fn take_producer_id(&self) -> Option<i64> {
        self.producer_ids().next()
    }

    /// Hears of every deletion from now on.
    pub(super) fn follow_deletions(&self) -> mpsc::UnboundedReceiver<DeletedTopic> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.followers.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }

    /// Tells those who follow.
    pub(super) fn tell(&self, deleted: &[DeletedTopic]) {
        if deleted.is_empty() {
            return;
        }
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        followers.retain(|follower| deleted.iter().all(|deleted| follower.send(deleted.clone()).is_ok()));
    }

    /// The block that ids are taken from.
    pub(super) fn producer_ids(&self) -> MutexGuard<'_, Range<i64>> {
        self.producer_ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
