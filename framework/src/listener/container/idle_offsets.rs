//! Offsets that no record takes along: behind what was skipped, and of places that were sought. They go in
//! transactions, too: a commit outside of them could come late, and undo a later one.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use klamm_client::{
    ConsumeError, ErrorCode, GroupMetadata, TopicPartition, TransactionError, TransactionalProducer,
};

use tokio::time::timeout;

use super::conducting::{Halt, Wrong, member, producer_in, ready};
use super::faults::Fault;
use super::shared::Shared;
use super::transactions::{Desk, Transactions, Turn};
use crate::listener::flow::PartId;

/// How long a commit may take that takes no record along.
const COMMIT_MAX: Duration = Duration::from_secs(10);

impl Shared {
    /// Commits what is safe to commit of these partitions. Where a transaction is under way, that does it.
    pub(super) async fn commit_in_transactions(
        &self,
        transactions: &Transactions,
        parts: &[PartId],
    ) -> Result<(), ConsumeError> {
        let due = self.look(|flow| {
            let due = flow.committable(parts).into_iter();
            due.map(|safe| (safe.part, transactions.desk(safe.part, &safe.place))).collect::<Vec<_>>()
        });
        let commits = due.iter().map(|(part, desk)| async move {
            let Some(mut turn) = desk.free_turn() else { return Ok(()) };
            let committed = in_time(commit_alone(self, transactions, desk, &mut turn, *part)).await;
            committed.map_err(|wrong| self.not_committed(&desk.place, &wrong))
        });
        join_all(commits).await.into_iter().collect()
    }

    /// Ends what the last owners of these partitions left open: their committed offsets are not told before.
    pub(super) async fn take_over_places(&self, transactions: &Transactions, places: &[TopicPartition]) {
        let taking = places.iter().map(|place| async move {
            let taken = async {
                let mut producer = transactions.producer(place).map_err(|error| error.to_string())?;
                producer.begin().await.map(drop).map_err(|error| error.to_string())
            };
            if let Ok(Err(reason)) = timeout(COMMIT_MAX, taken).await {
                tracing::debug!(listener = %self.scope.id, partition = %place, reason, "it was not taken over yet");
            }
        });
        join_all(taking).await;
    }

    /// Commits where partitions begin. Nobody works on them yet.
    pub(super) async fn commit_starts_in_transactions(
        &self,
        transactions: &Transactions,
        starts: HashMap<TopicPartition, i64>,
    ) -> Result<(), ConsumeError> {
        let commits = starts.into_iter().map(|(place, offset)| async move {
            let Some(group) = member(self) else { return Ok(()) };
            let committed = async {
                let mut producer = None;
                let producer = producer_in(&mut producer, transactions, &place)?;
                commit(producer, (place.clone(), offset), &group).await
            };
            in_time(committed).await.map_err(|wrong| self.not_committed(&place, &wrong))
        });
        join_all(commits).await.into_iter().collect()
    }

    fn not_committed(&self, partition: &TopicPartition, wrong: &Wrong) -> ConsumeError {
        // Who asked says it louder.
        tracing::debug!(listener = %self.scope.id, %partition, reason = wrong.text, "an offset was not committed");
        ConsumeError::Commit {
            group: Arc::clone(&self.scope.group),
            partition: partition.clone(),
            code: ErrorCode::CoordinatorNotAvailable,
        }
    }
}

/// Rebalances wait for it. What is under way then is ended before the next transaction of its partition.
async fn in_time(commit: impl Future<Output = Result<(), Wrong>>) -> Result<(), Wrong> {
    let committed = timeout(COMMIT_MAX, commit).await;
    committed.unwrap_or_else(|_| Err(Wrong::passing("the coordinator did not answer in time")))
}

async fn commit_alone(
    shared: &Shared,
    transactions: &Transactions,
    desk: &Desk,
    Turn { producer, notes }: &mut Turn,
    part: PartId,
) -> Result<(), Wrong> {
    if notes.unknown.is_some() {
        // What is known to be safe may be behind what was committed.
        return Ok(());
    }
    let committed = commit_place(shared, producer_in(producer, transactions, &desk.place)?, part).await;
    if let Err(Wrong { fault: Fault::Fenced, .. }) = &committed {
        *producer = None;
    }
    committed
}

/// Commits where a partition stands, with nothing else.
///
/// # Errors
/// It is not known to be committed.
pub(super) async fn commit_place(
    shared: &Shared,
    producer: &mut TransactionalProducer,
    part: PartId,
) -> Result<(), Wrong> {
    let (group, safe) = match ready(shared, part, &[]) {
        Ok(ready) => ready,
        Err(Halt::Wrong(wrong)) => return Err(wrong),
        // Another member commits.
        Err(_) => return Ok(()),
    };
    commit(producer, (safe.place.clone(), safe.offset), &group).await?;
    shared.change(|flow| flow.committed(&[safe]));
    Ok(())
}

async fn commit(
    producer: &mut TransactionalProducer,
    offset: (TopicPartition, i64),
    group: &GroupMetadata,
) -> Result<(), Wrong> {
    let wrong = |error: TransactionError| Wrong::of_step(&error);
    let transaction = producer.begin().await.map_err(wrong)?;
    transaction.send_offsets([offset], group).await.map_err(wrong)?;
    transaction.commit().await.map_err(wrong)
}
