//! What happens to the offsets of groups: they are committed, at once or when a transaction is, and fetched. How they
//! go is in `removal.rs`.
//!
//! An offset that a transaction writes is pending until the transaction's marker comes. The marker makes it visible,
//! unless one that was written later is visible already, or drops it.

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::ErrorCode;

use super::calls::{Caller, Reply};
use super::changes::{Before, Changes};
use super::coordinator::{Coordinator, group_in, is_group_id};
use super::offset_calls::{Commit, CommittedOffset, FetchOffsets, FetchTopic, FetchedTopic};
use super::offsets::Kept;
use super::records;
use super::removal::take_away;
use super::state::{Group, Turn};
use crate::coordinator::{Effects, Now, Producer, Step};

/// Whose commit it is.
struct Committing<'a> {
    caller: &'a Caller,
    /// The transaction that decides about it.
    producer: Option<Producer>,
}

impl Coordinator {
    /// OffsetCommit: one answer for each offset. The offsets count as committed when the records are durable.
    pub(super) fn commit(
        &mut self,
        now: Now,
        group: &str,
        caller: &Caller,
        commits: Vec<Commit>,
        effects: &mut Effects<Reply>,
    ) -> Vec<ErrorCode> {
        self.commit_as(now, group, &Committing { caller, producer: None }, commits, effects)
    }

    /// TxnOffsetCommit: one answer for each offset. The offsets are pending when the records are durable. The
    /// transaction was open when the marker of this number had been the last, and must not have ended since.
    pub(super) fn commit_in_transaction(
        &mut self,
        now: Now,
        group: &str,
        (caller, producer, marker): (&Caller, Producer, u64),
        commits: Vec<Commit>,
        effects: &mut Effects<Reply>,
    ) -> Vec<ErrorCode> {
        let has_ended = self.producers.ended_since(producer.id, marker).then_some(ErrorCode::InvalidTxnState);
        if let Some(error) = self.producers.refusal(producer).or(has_ended) {
            return vec![error; commits.len()];
        }
        let by = Committing { caller, producer: Some(producer) };
        let codes = self.commit_as(now, group, &by, commits, effects);
        if effects.has_written() {
            let before = self.producers.wrote(producer, false);
            self.epochs.note(effects.step, &producer.id, before);
        }
        codes
    }

    fn commit_as(
        &mut self,
        now: Now,
        name: &str,
        by: &Committing<'_>,
        commits: Vec<Commit>,
        effects: &mut Effects<Reply>,
    ) -> Vec<ErrorCode> {
        let count = commits.len();
        if !is_group_id(name) {
            return vec![ErrorCode::InvalidGroupId; count];
        }
        if by.caller.generation >= 0 && !self.groups.contains_key(name) {
            return vec![ErrorCode::IllegalGeneration; count];
        }
        self.group(name, now);
        let metadata_max_bytes = self.config.offset_metadata_max_bytes;
        let mut changes = std::mem::take(&mut self.committed);
        let commit_all = |group: &mut Group, turn: &mut Turn<'_>| {
            let allowed = match by.producer {
                None => group.may_commit(turn, by.caller),
                Some(_) => group.may_commit_in_transaction(by.caller),
            };
            if let Err(error) = allowed {
                return vec![error; count];
            }
            let last = last_of_each(&commits, metadata_max_bytes);
            let one = |(place, commit): (usize, Commit)| {
                if commit.metadata.len() > metadata_max_bytes {
                    return ErrorCode::OffsetMetadataTooLarge;
                }
                if !last.contains(&place) {
                    return ErrorCode::None;
                }
                commit_one(group, turn, by.producer, commit, &mut changes)
            };
            commits.into_iter().enumerate().map(one).collect()
        };
        let codes = self.turn(now, name, effects, commit_all).unwrap_or_default();
        self.committed = changes;
        codes
    }

    /// The number of the last marker.
    pub(super) fn last_marker(&self) -> u64 {
        self.producers.last_marker()
    }

    /// A transaction has been decided: what it has written becomes visible, or never was.
    pub(super) fn end_transaction(
        &mut self,
        now: Now,
        producer: Producer,
        commit: bool,
        effects: &mut Effects<Reply>,
    ) -> ErrorCode {
        if let Some(error) = self.producers.refusal(producer) {
            return error;
        }
        effects.marker(producer, commit);
        let before = self.producers.wrote(producer, true);
        self.epochs.note(effects.step, &producer.id, before);
        for name in self.committed.groups_of(producer.id) {
            for before in self.decide(now, &name, producer.id, commit) {
                let group = group_in(&mut self.groups, &name, now);
                self.committed.note(effects.step, group, before);
            }
            self.tidy(&name);
        }
        ErrorCode::None
    }

    /// The marker of a transaction in the log.
    pub(super) fn replay_marker(&mut self, now: Now, producer: Producer, commit: bool) {
        self.producers.wrote(producer, true);
        for name in self.committed.groups_of(producer.id) {
            self.decide(now, &name, producer.id, commit);
            let group = group_in(&mut self.groups, &name, now);
            self.committed.look_at(group, producer.id);
        }
    }

    /// Decides what a transaction has written for a group; gives what was there before.
    fn decide(&mut self, now: Now, name: &str, producer_id: i64, commit: bool) -> Vec<Before> {
        let mut replaced = Vec::new();
        let group = group_in(&mut self.groups, name, now);
        for (topic, partition) in group.pending_offsets.of_producer(producer_id) {
            let pending = group.pending_offsets.set(&topic, partition, producer_id, None);
            if let Some(kept) = pending.as_ref().filter(|_| commit)
                && kept.order > group.offsets.order(&topic, partition)
            {
                let kept = group.offsets.set(&topic, partition, kept.clone());
                replaced.push(Before { topic: topic.clone(), partition, producer_id: None, kept });
            }
            replaced.push(Before { topic, partition, producer_id: Some(producer_id), kept: pending });
        }
        replaced
    }

    /// The record of an offset in the log, or its tombstone.
    pub(super) fn replay_offset(
        &mut self,
        now: Now,
        name: &str,
        producer: Option<Producer>,
        (topic, partition): (&str, i32),
        offset: Option<CommittedOffset>,
    ) {
        let Some(offset) = offset else {
            // Whoever writes it: as in Kafka, it takes away what is pending, too.
            if let Some(group) = self.groups.get_mut(name) {
                for before in take_away(group, topic, partition) {
                    before.producer_id.into_iter().for_each(|id| self.committed.look_at(group, id));
                }
            }
            return;
        };
        let kept = Kept { offset, order: self.committed.next_order() };
        let group = group_in(&mut self.groups, name, now);
        match producer {
            None => drop(group.offsets.set(topic, partition, kept)),
            Some(producer) => {
                group.pending_offsets.set(topic, partition, producer.id, Some(kept));
                self.committed.look_at(group, producer.id);
                self.producers.wrote(producer, false);
            }
        }
    }

    /// Undoes a change of a group's offsets.
    pub(super) fn put_back(&mut self, now: Now, name: &str, before: Before) {
        let Before { topic, partition, producer_id, kept } = before;
        let group = group_in(&mut self.groups, name, now);
        match (producer_id, kept) {
            (Some(id), kept) => {
                group.pending_offsets.set(&topic, partition, id, kept);
                self.committed.look_at(group, id);
            }
            (None, Some(kept)) => drop(group.offsets.set(&topic, partition, kept)),
            (None, None) => drop(group.offsets.remove(&topic, partition)),
        }
    }

    /// OffsetFetch: what is committed, and what the answer rests on. An offset that was committed for another topic of
    /// the same name is none.
    pub(super) fn fetch(&self, fetch: &FetchOffsets) -> (Vec<FetchedTopic>, Step) {
        let group = self.groups.get(&fetch.group);
        let offsets = group.map(|group| &group.offsets);
        let mut found: Vec<FetchedTopic> = match &fetch.topics {
            Some(topics) => {
                let of_topic = |topic: &FetchTopic| {
                    let one = |partition: &i32| {
                        let found = offsets.and_then(|offsets| offsets.get(&topic.name, *partition));
                        (*partition, found.filter(|found| found.topic_id == topic.id).cloned())
                    };
                    let partitions = topic.partitions.iter().map(one).collect();
                    FetchedTopic {
                        name: topic.name.clone(),
                        id: topic.id,
                        partitions,
                        unstable: BTreeSet::new(),
                    }
                };
                topics.iter().map(of_topic).collect()
            }
            None => offsets.map(super::offsets::Offsets::by_topic_and_id).unwrap_or_default(),
        };
        let pending = group.map(|group| &group.pending_offsets);
        if let Some(pending) = pending.filter(|pending| fetch.require_stable && !pending.is_empty()) {
            for topic in &mut found {
                let asked = topic.partitions.iter().map(|(partition, _)| *partition);
                let is_unstable = |partition: &i32| pending.has(&topic.name, *partition, topic.id);
                topic.unstable = asked.filter(is_unstable).collect();
            }
        }
        (found, self.committed.pending(&fetch.group))
    }
}

/// The places of the commits that no later one of the same request replaces: they alone need a record.
fn last_of_each(commits: &[Commit], metadata_max_bytes: usize) -> BTreeSet<usize> {
    let last: BTreeMap<(&str, i32), usize> = commits
        .iter()
        .enumerate()
        .filter(|(_, commit)| commit.metadata.len() <= metadata_max_bytes)
        .map(|(place, commit)| ((commit.topic.as_str(), commit.partition), place))
        .collect();
    last.into_values().collect()
}

fn commit_one(
    group: &mut Group,
    turn: &mut Turn<'_>,
    producer: Option<Producer>,
    commit: Commit,
    changes: &mut Changes,
) -> ErrorCode {
    let Commit { topic, partition, .. } = commit;
    let offset = CommittedOffset {
        topic_id: commit.topic_id,
        offset: commit.offset,
        leader_epoch: commit.leader_epoch,
        metadata: commit.metadata,
        committed_at_ms: turn.now.wall_ms,
    };
    let Ok(record) = records::offset_record(&group.id, &topic, partition, &offset) else {
        return ErrorCode::OffsetMetadataTooLarge;
    };
    let kept = Kept { offset, order: changes.next_order() };
    let kept = match producer {
        None => {
            turn.effects.write(record);
            group.offsets.set(&topic, partition, kept)
        }
        Some(producer) => {
            turn.effects.write_as(producer, record);
            group.pending_offsets.set(&topic, partition, producer.id, Some(kept))
        }
    };
    let producer_id = producer.map(|producer| producer.id);
    changes.note(turn.effects.step, group, Before { topic, partition, producer_id, kept });
    ErrorCode::None
}
