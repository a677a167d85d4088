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
//! commit.rs      the order of commits                                              (pure)
//! committer.rs   makes them
//! membership.rs  what membership of a group does to its consumer
//! shared.rs      what all of these share; committing
//! ```

mod builder;
mod chunk;
mod commit;
mod committer;
mod fetcher;
mod handle;
mod listener;
mod membership;
mod partitions;
mod record;
mod settings;
mod shared;
mod stream;

pub use crate::group::{Assignor, GroupMember, GroupProtocol, PartitionAssignor};
pub use builder::{ConsumerBuilder, OffsetReset};
pub use handle::{ConsumerHandle, GroupMetadata};
pub use listener::RebalanceListener;
pub use record::{ConsumerRecord, ConsumerRecords};
pub use stream::Consumer;
