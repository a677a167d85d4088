//! `ConsumerHandle`: what can be asked of a consumer from elsewhere while it reads.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::partitions::{Partitions, lag};
use super::positions::{Place, Start};
use super::settings::Subscription;
use super::shared::Shared;
use crate::cluster::{self, OffsetAt, OffsetSpec};
use crate::error::ConsumeError;
use crate::group::{GroupMetadata, Wanted, offsets};
use crate::types::{OffsetAndMetadata, TopicPartition};

/// Controls a [`Consumer`](super::Consumer) from any task. Cheap to clone; it does not keep the consumer alive.
#[derive(Clone)]
pub struct ConsumerHandle {
    shared: Arc<Shared>,
}

impl ConsumerHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Commits offsets (of the next record to process: last processed + 1), plain or with metadata, and waits for the
    /// answer. Legal from inside [`RebalanceListener::revoked`](super::RebalanceListener::revoked). Retried within
    /// `request_timeout`.
    ///
    /// The commits of one consumer are made in the order of the calls: of two that wait for the same partition the
    /// later one counts. When the future is dropped the commit is made all the same.
    ///
    /// # Errors
    /// No group; a partition that this consumer, as a member of its group, does not own (any more); the group refused a
    /// partition (the others are committed); no coordinator in time.
    pub async fn commit<O: Into<OffsetAndMetadata>>(
        &self,
        offsets: impl IntoIterator<Item = (TopicPartition, O)>,
    ) -> Result<(), ConsumeError> {
        let offsets = offsets.into_iter().map(|(partition, offset)| (partition, offset.into()));
        self.shared.commit(offsets.collect()).await
    }

    /// Commits in the background, in the same order as [`ConsumerHandle::commit`]. Calls made before the last one was
    /// sent are merged into one; the newest offset of a partition wins. A refused commit is logged.
    pub fn commit_async<O: Into<OffsetAndMetadata>>(
        &self,
        offsets: impl IntoIterator<Item = (TopicPartition, O)>,
    ) {
        let offsets = offsets.into_iter().map(|(partition, offset)| (partition, offset.into()));
        self.shared.commit_later(offsets.collect());
    }

    /// Commits everything handed out so far.
    ///
    /// # Errors
    /// As [`ConsumerHandle::commit`].
    pub async fn commit_position(&self) -> Result<(), ConsumeError> {
        let positions = self.shared.partitions().positions(false);
        self.commit(positions).await
    }

    /// Subscribes to these topics instead of what the consumer was subscribed to; the group shares out anew, and
    /// partitions of other topics go the way of every rebalance. Legal at any time.
    ///
    /// # Errors
    /// The consumer reads partitions that were assigned by hand.
    pub fn subscribe<T: Into<Arc<str>>>(
        &self,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<(), ConsumeError> {
        let wanted = self.shared.wanted.as_ref().ok_or(ConsumeError::NotSubscribed)?;
        wanted.send_replace(Wanted::Topics(topics.into_iter().map(Into::into).collect()));
        Ok(())
    }

    /// Joins the group anew, which shares out its partitions again (`enforceRebalance`): for a
    /// [`PartitionAssignor`](super::PartitionAssignor) that has something new to tell the leader. Nothing happens
    /// before the first assignment, or where the coordinator shares out
    /// ([`GroupProtocol::Consumer`](super::GroupProtocol)).
    ///
    /// # Errors
    /// The consumer is not in a group.
    pub fn rejoin(&self) -> Result<(), ConsumeError> {
        self.shared.wanted.as_ref().ok_or(ConsumeError::NotSubscribed)?;
        self.shared.rejoins.send_modify(|times| *times += 1);
        Ok(())
    }

    /// Stops handing out records of these partitions, from the next record on; what is fetched already is kept.
    /// Partitions that are not assigned are ignored.
    pub fn pause(&self, partitions: &[TopicPartition]) {
        self.set_paused(partitions, true);
    }

    /// Undoes [`ConsumerHandle::pause`].
    pub fn resume(&self, partitions: &[TopicPartition]) {
        self.set_paused(partitions, false);
    }

    fn set_paused(&self, partitions: &[TopicPartition], paused: bool) {
        let mut state = self.shared.partitions();
        let changed = partitions.iter().filter(|partition| state.pause(partition, paused)).count();
        drop(state);
        if changed > 0 {
            self.shared.fetch.notify_one();
            self.shared.reader.wake();
        }
    }

    /// The paused ones among the assigned partitions.
    pub fn paused(&self) -> Vec<TopicPartition> {
        self.shared.partitions().paused()
    }

    /// Goes on from `offset`: the next record handed out of this partition is the first at or after it.
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`].
    pub fn seek(&self, partition: &TopicPartition, offset: i64) -> Result<(), ConsumeError> {
        self.seek_to(partition, Start::At(offset))
    }

    /// Goes on from the oldest record.
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`].
    pub fn seek_to_beginning(&self, partition: &TopicPartition) -> Result<(), ConsumeError> {
        self.seek_to(partition, Start::Find(Place::Earliest))
    }

    /// Goes on after the newest record.
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`].
    pub fn seek_to_end(&self, partition: &TopicPartition) -> Result<(), ConsumeError> {
        self.seek_to(partition, Start::Find(Place::Latest))
    }

    /// Goes on from the first record whose timestamp is at or after this time (milliseconds since the Unix epoch);
    /// after the newest record if there is none.
    ///
    /// # Errors
    /// [`ConsumeError::NotAssigned`].
    pub fn seek_to_timestamp(
        &self,
        partition: &TopicPartition,
        timestamp_ms: i64,
    ) -> Result<(), ConsumeError> {
        self.seek_to(partition, Start::Find(Place::Time(timestamp_ms)))
    }

    fn seek_to(&self, partition: &TopicPartition, start: Start) -> Result<(), ConsumeError> {
        if !self.shared.partitions().seek(partition, start, None) {
            return Err(ConsumeError::NotAssigned { partition: partition.clone() });
        }
        self.shared.fetch.notify_one();
        Ok(())
    }

    /// The offset of the next record to be handed out; `None` while it is being looked up or the
    /// partition is not assigned.
    pub fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.shared.partitions().position(partition)
    }

    /// The group's committed offsets; partitions without one are missing from the answer.
    ///
    /// # Errors
    /// No group; no coordinator in time.
    pub async fn committed(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<HashMap<TopicPartition, OffsetAndMetadata>, ConsumeError> {
        let link = self.shared.offsets.as_ref().ok_or(ConsumeError::NoGroup)?;
        Ok(offsets::committed(&self.shared.core, link, Some(partitions), self.deadline()).await?)
    }

    /// Reads these partitions from now on, and no others. Those that stay go on where they are; new ones start as with
    /// [`ConsumerBuilder::assign`](super::ConsumerBuilder::assign).
    ///
    /// # Errors
    /// [`ConsumeError::Subscribed`] when the group assigns this consumer's partitions.
    pub fn assign<P: Into<TopicPartition>>(
        &self,
        partitions: impl IntoIterator<Item = P>,
    ) -> Result<(), ConsumeError> {
        let wanted: BTreeSet<TopicPartition> = partitions.into_iter().map(Into::into).collect();
        let given_up = self.assignment().into_iter().filter(|partition| !wanted.contains(partition));
        self.unassign(given_up.collect::<Vec<_>>())?;
        self.assign_also(wanted)
    }

    /// Reads these partitions too.
    ///
    /// # Errors
    /// As [`ConsumerHandle::assign`].
    pub fn assign_also<P: Into<TopicPartition>>(
        &self,
        partitions: impl IntoIterator<Item = P>,
    ) -> Result<(), ConsumeError> {
        let mut state = self.assigned_by_hand()?;
        for partition in partitions {
            state.add(partition.into(), Start::Committed, false);
        }
        drop(state);
        self.shared.fetch.notify_one();
        Ok(())
    }

    /// Reads these partitions no longer: nothing more of them is handed out. Nothing is committed by this.
    ///
    /// # Errors
    /// As [`ConsumerHandle::assign`].
    pub fn unassign<P: Into<TopicPartition>>(
        &self,
        partitions: impl IntoIterator<Item = P>,
    ) -> Result<(), ConsumeError> {
        let partitions: Vec<TopicPartition> = partitions.into_iter().map(Into::into).collect();
        self.assigned_by_hand()?.remove(&partitions);
        self.shared.fetch.notify_one();
        Ok(())
    }

    fn assigned_by_hand(&self) -> Result<MutexGuard<'_, Partitions>, ConsumeError> {
        match self.shared.config.subscription {
            Subscription::Partitions(_) => Ok(self.shared.partitions()),
            _ => Err(ConsumeError::Subscribed),
        }
    }

    /// The partitions that this consumer owns now.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.shared.partitions().assignment()
    }

    /// Records between the position and the end of the partition, as of the last fetch; `None` before it.
    pub fn lag(&self, partition: &TopicPartition) -> Option<i64> {
        self.shared.partitions().lag(partition)
    }

    /// When the partition's leader said last what there is to read, with records or without: [`lag`](Self::lag) is as
    /// of then. `None` before, and of one that is not assigned.
    pub fn heard_at(&self, partition: &TopicPartition) -> Option<Instant> {
        self.shared.partitions().heard_at(partition)
    }

    /// How long the partition has not been read although it was tried: its leader does not answer, refuses, or has what
    /// cannot be read. `None` while all is well, also if there is nothing to read, and of one that is not asked for:
    /// paused, with its share of records waiting here, or not assigned.
    pub fn failing_for(&self, partition: &TopicPartition) -> Option<Duration> {
        let since = self.shared.partitions().failing_since(partition)?;
        Some(Instant::now().saturating_duration_since(since))
    }

    /// Records between the group's committed offsets and the ends of the partitions, asked for now; partitions without
    /// a committed offset are missing from the answer.
    ///
    /// # Errors
    /// No group; no coordinator or leader in time; a partition that does not exist.
    pub async fn committed_lag(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<HashMap<TopicPartition, i64>, ConsumeError> {
        let committed = self.committed(partitions).await?;
        let known: Vec<TopicPartition> =
            partitions.iter().filter(|partition| committed.contains_key(partition)).cloned().collect();
        let ends = self.end_offsets(&known).await?;
        let lags = committed.into_iter().filter_map(|(partition, offset)| {
            let end = *ends.get(&partition)?;
            Some((partition, lag(end, offset.offset)))
        });
        Ok(lags.collect())
    }

    /// The offsets of the oldest records.
    ///
    /// # Errors
    /// A partition that does not exist; no broker in time.
    pub async fn beginning_offsets(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<HashMap<TopicPartition, i64>, ConsumeError> {
        self.ends(partitions, OffsetSpec::Earliest).await
    }

    /// The offsets after the newest records that this consumer may see.
    ///
    /// # Errors
    /// A partition that does not exist; no broker in time.
    pub async fn end_offsets(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<HashMap<TopicPartition, i64>, ConsumeError> {
        self.ends(partitions, OffsetSpec::Latest).await
    }

    /// For each partition the first offset whose timestamp is at or after the given one (milliseconds since the Unix
    /// epoch), `None` if there is none.
    ///
    /// # Errors
    /// A partition that does not exist; no broker in time.
    pub async fn offsets_for_time(
        &self,
        timestamps: &HashMap<TopicPartition, i64>,
    ) -> Result<HashMap<TopicPartition, Option<i64>>, ConsumeError> {
        let found = self.look_up(timestamps).await?;
        Ok(found.into_iter().map(|(partition, found)| (partition, found.offset)).collect())
    }

    /// Who this consumer is in its group; `None` without a group.
    pub fn group_metadata(&self) -> Option<GroupMetadata> {
        let standing = self.shared.standing();
        Some(GroupMetadata {
            group: self.shared.config.group.clone()?,
            generation: standing.generation,
            member_id: standing.member_id,
            group_instance_id: self.shared.config.group_instance_id.clone(),
        })
    }

    /// Until when the group surely counts this consumer in: a session timeout after the last heartbeat that was
    /// answered. `None` while it is no member. What nobody but the owner of a partition may do, and no commit guards,
    /// is not begun later than that: a process that was stopped for longer finds out here before the group tells it.
    pub fn alive_until(&self) -> Option<Instant> {
        self.shared.alive_until()
    }

    async fn ends(
        &self,
        partitions: &[TopicPartition],
        end: OffsetSpec,
    ) -> Result<HashMap<TopicPartition, i64>, ConsumeError> {
        let wanted = partitions.iter().map(|partition| (partition.clone(), end.wire())).collect();
        let found = self.look_up(&wanted).await?;
        Ok(found.into_iter().filter_map(|(partition, found)| Some((partition, found.offset?))).collect())
    }

    async fn look_up(
        &self,
        wanted: &HashMap<TopicPartition, i64>,
    ) -> Result<HashMap<TopicPartition, OffsetAt>, ConsumeError> {
        let core = &self.shared.core;
        let isolation = self.shared.config.isolation;
        let found = cluster::list_offsets(core, &core.links, wanted, isolation, self.deadline()).await?;
        let checked = found.into_iter().map(|(partition, found)| match found {
            Ok(found) => Ok((partition, found)),
            Err(code) => Err(ConsumeError::Fetch { partition, code }),
        });
        checked.collect()
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.shared.config.request_timeout
    }
}

impl fmt::Debug for ConsumerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerHandle").field("config", &self.shared.config).finish_non_exhaustive()
    }
}
