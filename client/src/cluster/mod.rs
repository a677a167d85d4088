//! What is known of the cluster, how it is asked for, and what everything made from one client shares.
//!
//! ```text
//! core.rs           Core: settings, metadata and connections of one client
//! metadata.rs       brokers, topics, leaders: a view, and the requests that renew it
//! list_offsets.rs   offsets by place or time, at the partitions' leaders
//! epoch_ends.rs     where leader epochs end, at the partitions' leaders
//! ```

mod core;
mod epoch_ends;
mod list_offsets;
mod metadata;

pub(crate) use core::Core;
pub(crate) use epoch_ends::{Epochs, epoch_ends};
pub use list_offsets::{OffsetAt, OffsetSpec};
pub(crate) use list_offsets::{ask_leader, list_offsets};
pub(crate) use metadata::{AllTopics, ClusterView, Metadata, TopicView};

/// Views for the tests of what decides by them.
#[cfg(test)]
pub(crate) use metadata::testing;
