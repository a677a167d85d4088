//! What goes through a listener: records, and records that come back.

use klamm_client::ConsumerRecord;

use crate::listener::failure::Failure;
use crate::listener::flow;

/// A record on its way through a listener.
pub(super) type Item = flow::Item<ConsumerRecord>;

/// Records that failed after their handler had returned.
#[derive(Debug)]
pub(super) struct Back {
    pub(super) items: Vec<Item>,
    pub(super) failure: Failure,
}

/// What a worker of a transactional listener has in hand, and what became of it.
#[derive(Debug, Default)]
pub(super) struct Hand {
    pub(super) items: Vec<Item>,
    /// What comes again, with when.
    pub(super) back: Vec<Item>,
    /// So many were begun.
    pub(super) begun: usize,
    /// The last that was begun, now or before.
    pub(super) begun_to: Option<i64>,
}

impl Hand {
    /// Begins with the first records; the others come again.
    pub(super) fn begin_only(&mut self, count: usize) {
        self.back.extend(self.items.split_off(count));
    }

    /// So many of the records were begun, from the first on.
    pub(super) fn begun(&mut self, count: usize) {
        self.begun = count;
        self.begun_to = self.items[..count].last().map(|item| item.record.offset);
    }
}
