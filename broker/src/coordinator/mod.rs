//! What every coordinator runs on: a pure core, a log of its own, answers when they are durable, and a way back when
//! they are not. Groups are the first core; nothing here knows what a record means.
//!
//! ```text
//! core         what a coordinator is: on(command), on_time, replay, durable, roll_back; its effects
//! journal      the way back: what was there before changes that are not durable
//! timers       when to look at what
//! engine       one partition, pure: order, batches, answers held back, rollback
//! durable_log  what is needed of a log, and how a partition gives it
//! shard        one partition, alive: callers under a lock, one task for the log, the time and loading
//! runtime      all partitions of the topic: which one a key lives in
//! topic        the topic itself: created when it is needed
//! ```
//!
#![doc = include_str!("runtime.md")]

mod core;
mod durable_log;
mod engine;
mod journal;
mod runtime;
mod shard;
#[cfg(test)]
mod tests;
mod timers;
mod topic;

pub(crate) use core::Core;
#[cfg(test)]
pub(crate) use core::{Answer, BatchKind, StoredBatch, replay_batch};
pub(crate) use core::{Effects, Now, Producer, Step, StoredRecord, Ticket};
pub(crate) use durable_log::PartitionLog;
pub(crate) use journal::Journal;
pub(crate) use runtime::Runtime;
pub(crate) use shard::Shard;
#[cfg(test)]
pub(crate) use tests::world::World;
pub(crate) use timers::Timers;
pub(crate) use topic::StateTopic;
