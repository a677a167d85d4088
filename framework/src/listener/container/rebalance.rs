//! The listener's hook into rebalances: partitions come and go.

use std::sync::Weak;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use klamm_client::{RebalanceListener, TopicPartition};
use tokio::time::timeout;

use super::shared::Shared;
use crate::listener::flow::PartId;
use crate::listener::observe::Change;

/// Follows the group's assignment. Weak, because the consumer, which keeps this hook, is kept by the poll loop.
#[derive(Debug)]
pub(super) struct Rebalance(pub(super) Weak<Shared>);

#[async_trait]
impl RebalanceListener for Rebalance {
    async fn assigned(&self, places: &[TopicPartition]) {
        let Some(shared) = self.0.upgrade() else { return };
        tracing::debug!(listener = %shared.scope.id, partitions = ?places, "assigned");
        if !places.is_empty() {
            shared.commit_starts(places).await;
        }
        shared.change_and_tell(|flow| {
            // A partition that is assigned anew without having been revoked was lost unnoticed.
            let lost = flow.remove(places);
            lost.iter().for_each(|part| flow.give_up(*part));
            shared.transactions.iter().for_each(|transactions| transactions.gone(&lost));
            flow.assign(places)
        });
        if let Some(transactions) = &shared.transactions {
            let parts =
                shared.look(|flow| places.iter().filter_map(|place| flow.id(place)).collect::<Vec<_>>());
            for part in parts {
                // Nobody receives when the listener has ended.
                let _ = transactions.came.send(part);
            }
        }
        shared.troubles.gone(places);
        shared.is_out.store(false, Ordering::Relaxed);
        shared.observed.rebalanced(Change::Assigned, places);
        shared.assignments.send_modify(|assignments| *assignments += 1);
    }

    async fn revoked(&self, places: &[TopicPartition]) {
        let Some(shared) = self.0.upgrade() else { return };
        tracing::debug!(listener = %shared.scope.id, partitions = ?places, "revoked");
        shared.observed.rebalanced(Change::Revoked, places);
        let parts = remove(&shared, places);
        // What nobody works on does not wait for what somebody does.
        let (idle, busy): (Vec<PartId>, Vec<PartId>) =
            shared.look(|flow| parts.iter().partition(|part| flow.is_idle(**part)));
        leave(&shared, &idle).await;
        if busy.is_empty() {
            return;
        }
        if timeout(shared.settings.revoke_deadline, shared.idle(&busy)).await.is_err() {
            tracing::warn!(
                listener = %shared.scope.id, partitions = ?places,
                "handlers did not finish before their partitions went to another member; those records are delivered \
                 again there"
            );
        }
        leave(&shared, &busy).await;
    }

    async fn lost(&self, places: &[TopicPartition]) {
        let Some(shared) = self.0.upgrade() else { return };
        tracing::warn!(listener = %shared.scope.id, partitions = ?places, "partitions were lost without warning");
        shared.is_out.store(true, Ordering::Relaxed);
        shared.observed.rebalanced(Change::Lost, places);
        let parts = remove(&shared, places);
        give_up(&shared, &parts);
    }
}

/// Takes partitions out. The others have a larger share of the budget from here on.
fn remove(shared: &Shared, places: &[TopicPartition]) -> Vec<PartId> {
    let mut parts = Vec::new();
    shared.change_and_tell(|flow| {
        parts = flow.remove(places);
        flow.use_room()
    });
    shared.troubles.gone(places);
    parts
}

/// The last commit of partitions that go to another member.
async fn leave(shared: &Shared, parts: &[PartId]) {
    if let Err(error) = shared.commit_of(parts).await {
        tracing::warn!(
            listener = %shared.scope.id, %error,
            "the last commit before partitions went to another member failed: records are delivered again there"
        );
    }
    give_up(shared, parts);
}

/// Another member may have them from here on.
fn give_up(shared: &Shared, parts: &[PartId]) {
    shared.change(|flow| parts.iter().for_each(|part| flow.give_up(*part)));
    if let Some(transactions) = &shared.transactions {
        transactions.gone(parts);
    }
}
