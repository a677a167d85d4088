//! Who a consumer is in its group, for those who commit in its name.

use std::sync::Arc;

/// Who this consumer is in its group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupMetadata {
    /// The group.
    pub group: Arc<str>,
    /// The generation; -1 before the first join and for consumers that assign partitions themselves.
    pub generation: i32,
    /// The member id that the coordinator gave; empty before the first join.
    pub member_id: Arc<str>,
    /// The static member's id.
    pub group_instance_id: Option<Arc<str>>,
}
