//! The user's hook into rebalances.

use async_trait::async_trait;

use crate::types::TopicPartition;

/// Told when partitions come and go. Every method may take its time, bounded by the rebalance timeout: heartbeats go on
/// meanwhile. One call runs at a time. A call that takes longer is dropped at its next `await`.
///
/// With cooperative assignors and with KIP-848 the slices hold only what changes; with the others every rebalance
/// revokes everything first.
#[async_trait]
pub trait RebalanceListener: Send + Sync + 'static {
    /// A rebalance is over, and these partitions were added: none, perhaps. Fetching starts after this returns, so
    /// seeking here is exact.
    async fn assigned(&self, partitions: &[TopicPartition]) {
        let _ = partitions;
    }

    /// Partitions are about to go to another member, or the consumer closes; never called for none. No record of them
    /// is handed out any more, and they are still owned: the last commit belongs here
    /// ([`ConsumerHandle::commit`](super::ConsumerHandle::commit) is legal).
    async fn revoked(&self, partitions: &[TopicPartition]) {
        let _ = partitions;
    }

    /// Partitions went away without warning (the group dropped this member, or its coordinator was silent for a session
    /// timeout): another member may own them already, and a commit is refused. Never called for none.
    async fn lost(&self, partitions: &[TopicPartition]) {
        self.revoked(partitions).await;
    }
}
