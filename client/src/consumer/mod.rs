//! Reading: background fetching, group membership, offsets.
//!
//! ```text
//! record.rs      what is handed out
//! builder.rs     how a consumer is made
//! settings.rs    its settings, also from text
//! stream.rs      Consumer: the stream of records
//! handle.rs      ConsumerHandle: pause, seek, commit, look-ups
//! listener.rs    the hook into rebalances
//! interceptor.rs the hooks into records and commits
//! positions.rs   one partition: where to go on, and how that is found and checked (pure)
//! partitions.rs  all of them: assignment, pausing, the buffer and its budget     (pure)
//! lookups.rs     what they need to be asked, and what the answers mean           (pure)
//! fetching.rs    which of them go into which fetch                               (pure)
//! session.rs     what a broker remembers between fetches                         (pure)
//! chunk.rs       fetched bytes to records                                        (pure)
//! fetcher.rs     the task that asks and fetches
//! commit.rs      the order of commits                                              (pure)
//! committer.rs   makes them
//! standing.rs    where a consumer stands in its group
//! metrics.rs     what is told to the program's metrics recorder
//! membership.rs  what membership of a group does to its consumer
//! shared.rs      what all of these share; committing
//! ```
//!
#![doc = include_str!("reading.md")]

mod builder;
mod chunk;
mod commit;
mod committer;
mod fetcher;
mod fetching;
mod handle;
mod interceptor;
mod listener;
mod lookups;
mod membership;
mod metrics;
mod partitions;
mod positions;
mod record;
mod session;
mod settings;
mod shared;
#[cfg(test)]
mod simulation;
mod standing;
mod stream;

pub use crate::group::{Assignor, GroupMember, GroupMetadata, GroupProtocol, MemberShare, PartitionAssignor};
pub use builder::ConsumerBuilder;
pub use handle::ConsumerHandle;
pub use interceptor::ConsumerInterceptor;
pub use listener::RebalanceListener;
pub use record::{BatchRoom, ConsumerRecord, ConsumerRecords};
pub use settings::OffsetReset;
pub use stream::Consumer;
