//! What goes into the decisions and what comes out of them.

use std::sync::Arc;

use klamm_protocol::Uuid;
use tokio::time::Instant;

use crate::cluster::LeaderHint;
use crate::error::{ProduceError, RequestError};
use crate::producer::delivery::Acknowledged;
use crate::types::TopicPartition;

/// The number of a partition among those that have had records.
pub(in crate::producer) type Slot = usize;

/// Something to do.
#[derive(Debug)]
pub(in crate::producer) enum Command<B: Parcel> {
    /// Make a connection and tell how it ended.
    Connect { node: i32 },
    /// Refresh the metadata and tell when that ended.
    Refresh,
    /// Ask for a producer id until there is one or asking is of no use.
    Identify,
    /// Write the batches of this request and tell the answer.
    Send { node: i32, request: u64 },
    /// A broker told where a partition is.
    Learn(LeaderHint),
    /// The records of a batch meet their fate.
    Decide { promise: B::Promise, outcome: Result<Acknowledged, ProduceError> },
    /// A batch is done with: its room is free.
    Release { batch: B },
    /// Batches of this partition have at most this size from now on: the broker refused larger ones.
    Shrink { slot: Slot, bytes: usize },
    /// A request failed; `first` of a series that nobody else tells of.
    Report { node: i32, error: RequestError, first: bool },
}

/// A batch as far as decisions about it go.
pub(in crate::producer) trait Parcel: Sized {
    /// What its records wait for.
    type Promise: std::fmt::Debug;

    fn promise(&self) -> Self::Promise;
    fn records(&self) -> i32;
    /// What it takes in a request.
    fn bytes(&self) -> usize;
    fn created(&self) -> Instant;
    /// Whether the broker may have it: what its records are told if nobody decides any more.
    fn doubt(&mut self, possibly_written: bool);
    /// Notes its last failure.
    fn note(&mut self, why: Arc<str>);
    fn noted(&self) -> Option<Arc<str>>;
    /// Its two halves; itself when it has no halves.
    fn halve(self) -> Result<[Self; 2], Self>;
}

/// What waits to be sent.
pub(in crate::producer) trait Waiting<B> {
    /// The slots in which something happened since this was asked last.
    fn changed(&mut self) -> Vec<Slot>;
    fn partition(&self, slot: Slot) -> Option<&TopicPartition>;
    /// When the first batch of a slot is ready to be sent; `None` without one that can be taken.
    fn ready_at(&self, slot: Slot, now: Instant) -> Option<Instant>;
    /// What that batch takes in a request.
    fn next_bytes(&self, slot: Slot) -> usize;
    /// When the oldest record that waits came.
    fn oldest(&self, slot: Slot) -> Option<Instant>;
    /// Takes the first batch, ready or not.
    fn take(&mut self, slot: Slot) -> Option<B>;
    /// Forgets a slot, unless it has records.
    fn forget(&mut self, slot: Slot) -> bool;
}

/// The brokers.
pub(in crate::producer) trait Cluster {
    /// Changes with what `leader` says.
    fn version(&self) -> u64;
    fn leader(&self, partition: &TopicPartition) -> Option<i32>;
    /// Which of the topics that had this name it is, where brokers tell.
    fn topic_id(&self, partition: &TopicPartition) -> Option<Uuid>;
    /// Whether a broker takes records by their topic's id.
    fn goes_by_id(&self, node: i32) -> bool;
    fn connected(&self, node: i32) -> bool;
}
