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

pub(crate) use core::Core;
pub use core::{Answer, Effects, Now, Step, StoredRecord, Ticket};
pub(crate) use durable_log::PartitionLog;
pub(crate) use journal::Journal;
pub(crate) use runtime::Runtime;
pub(crate) use shard::Shard;
#[cfg(test)]
pub(crate) use tests::world::World;
pub(crate) use timers::Timers;
