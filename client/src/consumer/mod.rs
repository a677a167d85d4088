//! Reading: background fetching, group membership, offsets.
//!
//! ```text
//! record.rs      what is handed out
//! builder.rs     settings
//! stream.rs      Consumer: the stream of records
//! handle.rs      ConsumerHandle: pause, seek, commit, look-ups
//! listener.rs    the hook into rebalances
//! state.rs       positions, what is fetched and may be                           (pure)
//! chunk.rs       fetched bytes to records                                        (pure)
//! fetcher.rs     the task that fetches
//! group.rs       the task of a group member: join, heartbeat, rebalance, leave
//! membership.rs  its requests
//! assignors.rs   how a leader shares out partitions                              (pure)
//! protocol.rs    what members tell each other                                    (pure)
//! shared.rs      what all of these share; committing
//! ```

mod assignors;
mod builder;
mod chunk;
mod fetcher;
mod group;
mod handle;
mod listener;
mod membership;
mod protocol;
mod record;
mod shared;
mod state;
mod stream;

pub use builder::{Assignor, ConsumerBuilder, OffsetReset};
pub use handle::{ConsumerHandle, GroupMetadata};
pub use listener::RebalanceListener;
pub(crate) use protocol::decode_assignment;
pub use record::{ConsumerRecord, ConsumerRecords};
pub use stream::Consumer;
