//! What is known of the cluster, how it is asked for, and what everything made from one client shares.
//!
//! ```text
//! core.rs           Core: settings, metadata and connections of one client
//! view.rs           brokers, topics, leaders as they were last seen    (pure)
//! cache.rs          the view that everything shares, and the requests that renew it
//! list_offsets.rs   offsets by place or time, at the partitions' leaders
//! epoch_ends.rs     where leader epochs end, at the partitions' leaders
//! ```

mod cache;
mod core;
mod epoch_ends;
mod list_offsets;
mod view;

pub(crate) use cache::{AllTopics, Followed, Metadata};
pub use core::Client;
pub(crate) use core::Core;
pub(crate) use epoch_ends::{Epochs, epoch_ends};
pub use list_offsets::{OffsetAt, OffsetSpec};
pub(crate) use list_offsets::{ask_leader, list_offsets};
pub(crate) use view::{ClusterView, LeaderHint, TopicView};

#[cfg(test)]
pub(crate) use view::PartitionView;

/// Views for the tests of what decides by them.
#[cfg(test)]
pub(crate) use view::testing;
