//! Administration: topics, groups, offsets. Every call about several things gives a result for each of them.

mod handle;
mod types;

pub use crate::cluster::{OffsetAt, OffsetSpec};
pub use handle::Admin;
pub use types::{
    GroupDescription, GroupListing, MemberDescription, NewTopic, PartitionDescription, TopicDescription,
};
