//! The storage half of the broker: partitions on real files and on a disk in memory that crashes,
//! tears and fails on command.

#![allow(clippy::unwrap_used)] // Helpers of tests fail like tests.

mod aborted;
mod acknowledged;
mod attacked;
mod compaction;
mod compaction_disk;
mod compaction_random;
mod durability;
mod ends;
mod failing_steps;
mod flush_limits;
mod gated;
mod log_settings;
mod log_starts;
mod model;
mod open_files;
mod produce_rules;
mod recovery;
mod retention;
mod support;
mod transacted;
mod transactions;
mod walls;
