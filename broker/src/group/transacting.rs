//! What transactions ask of the groups: where one lives, offsets that wait for the end, and the end.

use klamm_protocol::ErrorCode;

use super::calls::{Caller, Command, Reply};
use super::coordinator::{Coordinator, is_group_id};
use super::offset_calls::Commit;
use super::service::{CANNOT_BE_WRITTEN, GroupService, reply};
use crate::coordinator::Producer;

/// How far the markers of a group's partition had come. To be had before the transaction coordinator is asked whether a
/// transaction is open, and given with what the transaction commits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TransactionGuard {
    /// The number of the last one.
    marker: u64,
}

impl GroupService {
    /// The partition of `__consumer_offsets` that a group lives in, which a transaction that commits offsets for it
    /// takes part in. Creates the topic if need be.
    ///
    /// # Errors
    /// `INVALID_GROUP_ID`, which trying again does not help, and `COORDINATOR_NOT_AVAILABLE`.
    pub(crate) async fn partition_of(&self, group: &str) -> Result<i32, ErrorCode> {
        if !is_group_id(group) {
            return Err(ErrorCode::InvalidGroupId);
        }
        self.prepare().await?;
        let partition = self.runtime.partition(group).and_then(|partition| i32::try_from(partition).ok());
        partition.ok_or(ErrorCode::CoordinatorNotAvailable)
    }

    /// What [`Self::commit_in_transaction`] has to be given.
    ///
    /// # Errors
    /// `COORDINATOR_NOT_AVAILABLE`, and `COORDINATOR_LOAD_IN_PROGRESS` while the partition is loading.
    pub(crate) fn transaction_guard(&self, group: &str) -> Result<TransactionGuard, ErrorCode> {
        let shard = self.runtime.shard(group).ok_or(ErrorCode::CoordinatorNotAvailable)?;
        Ok(TransactionGuard { marker: shard.ask(Coordinator::last_marker)? })
    }

    /// TxnOffsetCommit, of a transaction in which the group's partition takes part: one code for each offset, when
    /// they are durably pending. They are committed with the transaction. `INVALID_TXN_STATE` says that it has ended
    /// since the guard was taken.
    pub(crate) async fn commit_in_transaction(
        &self,
        group: &str,
        (producer_id, producer_epoch, guard): (i64, i16, TransactionGuard),
        caller: Caller,
        commits: Vec<Commit>,
    ) -> Vec<ErrorCode> {
        let count = commits.len();
        let producer = Producer { id: producer_id, epoch: producer_epoch };
        let (group_id, marker) = (group.to_owned(), guard.marker);
        let command = Command::CommitInTransaction { group: group_id, caller, producer, marker, commits };
        let waiting = self.submit(group, command).await;
        match reply(waiting, CANNOT_BE_WRITTEN).await {
            Ok(Reply::Codes(codes)) => codes,
            Ok(_) => vec![ErrorCode::UnknownServerError; count],
            Err(error) => vec![error; count],
        }
    }

    /// Ends a transaction in a partition of `__consumer_offsets`: what it has committed for the groups there becomes
    /// visible, or is dropped, and that is durable when this answers. To be said again after an error; a second marker
    /// of the same decision changes nothing.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC_OR_PARTITION` when there is no such partition, `INVALID_PRODUCER_EPOCH` when the producer has
    /// gone on, `INVALID_PRODUCER_ID_MAPPING` when nobody has this id: trying again does not help. Any other says that
    /// the marker is not durable yet, and may be or not when the broker starts again.
    pub(crate) async fn write_marker(
        &self,
        partition: i32,
        producer_id: i64,
        producer_epoch: i16,
        commit: bool,
    ) -> Result<(), ErrorCode> {
        let shards = self.runtime.shards();
        let shard = usize::try_from(partition).ok().and_then(|partition| shards.get(partition));
        let shard = shard.ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let shard = shard.as_ref().ok_or(ErrorCode::CoordinatorNotAvailable)?;
        let producer = Producer { id: producer_id, epoch: producer_epoch };
        let waiting = shard.submit(Command::EndTransaction { producer, commit }).await;
        match reply(Ok(waiting), CANNOT_BE_WRITTEN).await? {
            Reply::Codes(codes) if codes == [ErrorCode::None] => Ok(()),
            Reply::Codes(codes) => Err(codes.first().copied().unwrap_or(ErrorCode::UnknownServerError)),
            _ => Err(ErrorCode::UnknownServerError),
        }
    }
}
