//! The container runs one listener: a poll loop that never waits for a handler, workers, commits, and an orderly end.

mod ack_call;
mod commits;
mod dead_letter;
mod handle;
mod partition;
mod poll;
mod shared;
mod start_offsets;
mod status;
mod worker;

pub use handle::ListenerHandle;
pub(crate) use poll::{Container, Surroundings};
pub use status::{DrainReport, ListenerFailure, UnfinishedRecord};
