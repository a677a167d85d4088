//! Where a consumer stands in its group, and what it asks of it.

use std::sync::Arc;

use super::settings::Subscription;
use crate::group::Wanted;

/// Where this consumer stands in its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    /// The generation, or the epoch; -1 for none.
    pub(super) generation: i32,
    pub(super) member_id: Arc<str>,
    /// Partitions are being given up: a rebalance will not finish before.
    pub(super) revoking: bool,
}

impl Default for Standing {
    fn default() -> Self {
        Self { generation: -1, member_id: Arc::from(""), revoking: false }
    }
}

/// What a subscription asks of a group; `None` for partitions that are assigned by hand.
pub(super) fn wanted(subscription: &Subscription) -> Option<Wanted> {
    match subscription {
        Subscription::Topics(topics) => Some(Wanted::Topics(topics.clone())),
        Subscription::Pattern(pattern) => Some(Wanted::Pattern(pattern.clone())),
        Subscription::Nothing | Subscription::Partitions(_) => None,
    }
}
