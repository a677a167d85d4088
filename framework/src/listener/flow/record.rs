//! What flows: records on their way, and the names of what they belong to. Pure.

use klamm_client::{ConsumerRecord, TopicPartition};
use tokio::time::Instant;

use crate::listener::dispatch::{Dispatch, Lane};
use crate::listener::ledger;

/// What a record takes in memory beside its key, value and headers.
const RECORD_OVERHEAD_BYTES: usize = 256;

/// A partition from its assignment to its end. When it comes back it is another one: what was begun before says nothing
/// about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PartId {
    pub(super) index: usize,
    pub(super) generation: u64,
}

/// One delivery of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ticket {
    pub(crate) part: PartId,
    pub(super) entry: ledger::Ticket,
}

impl Ticket {
    /// Of its record.
    pub(crate) fn offset(self) -> i64 {
        self.entry.offset
    }
}

/// What flows: a record, as far as it matters here.
pub(crate) trait Payload {
    /// Its place in its partition.
    fn offset(&self) -> i64;
    /// What it takes in memory.
    fn size_bytes(&self) -> usize;
    /// Which records it waits for.
    fn lane(&self, dispatch: Dispatch) -> Lane<'_>;
}

/// A record on its way through the listener.
#[derive(Debug)]
pub(crate) struct Item<T> {
    pub(crate) record: T,
    pub(crate) ticket: Ticket,
    /// Of the delivery that comes next, or runs: from 1.
    pub(crate) attempt: u32,
    pub(crate) first_failure: Option<Instant>,
    /// Not to be begun earlier.
    pub(crate) due: Option<Instant>,
}

/// A record that comes, and when it may be begun with if not at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival<T> {
    pub(crate) record: T,
    pub(crate) due: Option<Instant>,
}

/// What the consumer is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tell {
    Pause(TopicPartition),
    Resume(TopicPartition),
}

impl Payload for ConsumerRecord {
    fn offset(&self) -> i64 {
        self.offset
    }

    fn size_bytes(&self) -> usize {
        self.size_bytes() + RECORD_OVERHEAD_BYTES
    }

    fn lane(&self, dispatch: Dispatch) -> Lane<'_> {
        dispatch.lane_of(self)
    }
}
