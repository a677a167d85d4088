//! `ConsumerHandle`: what can be asked of a consumer from elsewhere while it reads.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::ConsumeError;
use crate::types::TopicPartition;

/// Controls a [`Consumer`](super::Consumer) from any task. Cheap to clone; it does not keep the consumer alive.
#[derive(Debug, Clone)]
pub struct ConsumerHandle {}

/// Who this consumer is in its group.
#[derive(Debug, Clone, PartialEq, Eq)]
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

impl ConsumerHandle {
    /// Commits offsets (of the next record to process: last processed + 1) and waits for the answer. Legal from inside
    /// [`RebalanceListener::revoked`](super::RebalanceListener::revoked). Retried within `request_timeout`.
    ///
    /// # Errors
    /// No group; the group refused (the partition may belong to another member); no coordinator in time.
    pub async fn commit(&self, _offsets: HashMap<TopicPartition, i64>) -> Result<(), ConsumeError> {
        Err(ConsumeError::Closed)
    }

    /// Commits in the background. Calls made before the last one was sent are merged into it; the newest offset of a partition
    /// wins. A refused commit is logged.
    pub fn commit_async(&self, _offsets: HashMap<TopicPartition, i64>) {}

    /// Commits everything handed out so far.
    ///
    /// # Errors
    /// As [`ConsumerHandle::commit`].
    pub async fn commit_position(&self) -> Result<(), ConsumeError> {
        Err(ConsumeError::Closed)
    }

    /// Stops handing out records of these partitions, from the next record on; what is fetched already is kept. Partitions
    /// that are not assigned are ignored.
    pub fn pause(&self, _partitions: &[TopicPartition]) {}

    /// Undoes [`ConsumerHandle::pause`].
    pub fn resume(&self, _partitions: &[TopicPartition]) {}

    /// The paused ones among the assigned partitions.
    pub fn paused(&self) -> Vec<TopicPartition> {
        Vec::new()
    }

    /// Goes on from `offset`: the next record handed out of this partition is the first at or after it.
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`].
    pub fn seek(&self, _partition: &TopicPartition, _offset: i64) -> Result<(), ConsumeError> {
        Err(ConsumeError::Closed)
    }

    /// Goes on from the oldest record.
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`].
    pub fn seek_to_beginning(&self, _partition: &TopicPartition) -> Result<(), ConsumeError> {
        Err(ConsumeError::Closed)
    }

    /// Goes on after the newest record.
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`].
    pub fn seek_to_end(&self, _partition: &TopicPartition) -> Result<(), ConsumeError> {
        Err(ConsumeError::Closed)
    }

    /// The offset of the next record to be handed out; `None` while it is being looked up or the partition is not assigned.
    pub fn position(&self, _partition: &TopicPartition) -> Option<i64> {
        None
    }

    /// The group's committed offsets; partitions without one are missing from the answer.
    ///
    /// # Errors
    /// No group; no coordinator in time.
    pub async fn committed(
        &self,
        _partitions: &[TopicPartition],
    ) -> Result<HashMap<TopicPartition, i64>, ConsumeError> {
        Err(ConsumeError::Closed)
    }

    /// The partitions that this consumer owns now.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        Vec::new()
    }

    /// Records between the position and the end of the partition, as of the last fetch; `None` before it.
    pub fn lag(&self, _partition: &TopicPartition) -> Option<i64> {
        None
    }

    /// The offsets of the oldest records.
    ///
    /// # Errors
    /// A partition that does not exist; no broker in time.
    pub async fn beginning_offsets(
        &self,
        _partitions: &[TopicPartition],
    ) -> Result<HashMap<TopicPartition, i64>, ConsumeError> {
        Err(ConsumeError::Closed)
    }

    /// The offsets after the newest records that this consumer may see.
    ///
    /// # Errors
    /// A partition that does not exist; no broker in time.
    pub async fn end_offsets(
        &self,
        _partitions: &[TopicPartition],
    ) -> Result<HashMap<TopicPartition, i64>, ConsumeError> {
        Err(ConsumeError::Closed)
    }

    /// For each partition the first offset whose timestamp is at or after the given one (milliseconds since the Unix epoch), `None`
    /// if there is none.
    ///
    /// # Errors
    /// A partition that does not exist; no broker in time.
    pub async fn offsets_for_time(
        &self,
        _timestamps: &HashMap<TopicPartition, i64>,
    ) -> Result<HashMap<TopicPartition, Option<i64>>, ConsumeError> {
        Err(ConsumeError::Closed)
    }

    /// Who this consumer is in its group; `None` without a group.
    pub fn group_metadata(&self) -> Option<GroupMetadata> {
        None
    }
}
