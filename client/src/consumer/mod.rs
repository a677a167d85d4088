//! Reading: background fetching, group membership, offsets.
//!
//! ```text
//! record.rs      what is handed out
//! builder.rs     settings
//! settings.rs    the same as text
//! stream.rs      Consumer: the stream of records
//! handle.rs      ConsumerHandle: pause, seek, commit, look-ups
//! listener.rs    the hook into rebalances
//! partitions.rs  positions, what is fetched and may be                           (pure)
//! chunk.rs       fetched bytes to records                                        (pure)
//! fetcher.rs     the task that fetches
//! membership.rs  the task of a group member: join, heartbeat, rebalance, leave
//! shared.rs      what all of these share; committing
//! ```

mod builder;
mod chunk;
mod fetcher;
mod handle;
mod listener;
mod membership;
mod partitions;
mod record;
mod settings;
mod shared;
mod stream;

pub use crate::group::Assignor;
pub use builder::{ConsumerBuilder, OffsetReset};
pub use handle::{ConsumerHandle, GroupMetadata};
pub use listener::RebalanceListener;
pub use record::{ConsumerRecord, ConsumerRecords};
pub use stream::Consumer;
