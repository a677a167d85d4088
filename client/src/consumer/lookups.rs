//! What a consumer's partitions need to be asked, of whom, and what the answers mean for where they go on. Pure.
//!
//! Questions go by broker and answers count by partition: a partition whose leader is down, whose topic is missing or
//! whose committed offset is not stable yet keeps no other from starting.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use klamm_protocol::{ErrorCode, Uuid};
use tokio::time::Instant;

use super::partitions::{Cell, Partitions};
use super::positions::{Anchor, ERROR_PAUSE, Known, Leader, Place, Start, Step, Verdict, by_policy, judge};
use crate::cluster::{ClusterView, OffsetAt};
use crate::error::ConsumeError;
use crate::types::TopicPartition;

/// A partition that something is asked for. The cell says as of when.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) partition: TopicPartition,
    pub(super) cell: Arc<Cell>,
}

/// A partition that can be fetched.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) ask: Ask,
    pub(super) leader: Leader,
    pub(super) offset: i64,
    pub(super) topic_id: Uuid,
    /// When to look at it over a connection that does not wait; `None` is at once, because there may be records.
    pub(super) peek_at: Option<Instant>,
    /// When it last brought records: who waited longest goes first.
    pub(super) served: u64,
}

/// What is to be asked now.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Committed offsets, of the group's coordinator.
    pub(super) committed: Vec<Ask>,
    /// Offsets of places, by leader.
    pub(super) find: BTreeMap<i32, Vec<(Ask, Leader, Place)>>,
    /// Ends of leader epochs, by leader.
    pub(super) check: BTreeMap<i32, Vec<(Ask, Leader, Anchor)>>,
    /// Records, by broker. Which of them are fetched now is another matter.
    pub(super) fetch: BTreeMap<i32, Vec<Wanted>>,
    /// Metadata is to be asked for.
    pub(super) refresh: bool,
    /// When time alone brings more.
    pub(super) wake_at: Option<Instant>,
}

impl Plan {
    fn wake(&mut self, at: Instant) {
        self.wake_at = Some(self.wake_at.map_or(at, |other| other.min(at)));
    }
}

impl Partitions {
    /// All that can be asked now. Look-ups count as asked from here on.
    pub(super) fn plan(&mut self, view: &ClusterView, now: Instant) -> Plan {
        let mut plan = Plan { refresh: std::mem::take(&mut self.stale), ..Plan::default() };
        if self.is_finished() {
            return plan;
        }
        let share = self.share();
        let names: Vec<TopicPartition> = self
            .all
            .iter()
            .filter(|(_, partition)| partition.is_active())
            .map(|(name, _)| name.clone())
            .collect();
        for name in names {
            let known = known(view, &name);
            // A start that was not committed leads to another question at once.
            while self.plan_one(&name, known, share, now, &mut plan) {}
        }
        plan
    }

    /// Adds one partition's step; whether there is another one to be taken at once.
    fn plan_one(
        &mut self,
        name: &TopicPartition,
        known: Known,
        share: usize,
        now: Instant,
        plan: &mut Plan,
    ) -> bool {
        let pauses = self.rules.pauses;
        let has_group = self.rules.has_group;
        let Some(partition) = self.all.get_mut(name) else { return false };
        if partition.position.anchor().is_some() && !partition.wants_records(share) {
            return false;
        }
        let step = partition.position.step(known, now, pauses);
        let ask = Ask { partition: name.clone(), cell: Arc::clone(&partition.cell) };
        match step {
            Step::Wait => {}
            Step::Rest(until) => plan.wake(until),
            Step::Refresh(again) => {
                plan.refresh = true;
                plan.wake(again);
            }
            Step::Committed if has_group => {
                partition.position.ask();
                plan.committed.push(ask);
            }
            Step::Committed => {
                self.not_committed(&ask, now);
                return true;
            }
            Step::Find(leader, place) => {
                partition.position.ask();
                plan.find.entry(leader.node).or_default().push((ask, leader, place));
            }
            Step::Check(leader, anchor) => {
                partition.position.ask();
                plan.check.entry(leader.node).or_default().push((ask, leader, anchor));
            }
            Step::Fetch { node, leader, offset } => plan.fetch.entry(node).or_default().push(Wanted {
                ask,
                leader,
                offset,
                topic_id: known.topic_id,
                peek_at: partition.position.peek_at(),
                served: partition.served,
            }),
            Step::Recreated => return self.recreated(name, now),
        }
        false
    }

    /// The group has no offset for this partition: the policy says where to start.
    fn not_committed(&mut self, ask: &Ask, now: Instant) {
        let policy = by_policy(self.rules.reset);
        let Some(partition) = self.current(&ask.partition, &ask.cell) else { return };
        match policy {
            Some(place) => partition.position.look(Start::Find(place)),
            None => {
                partition.position.rest(now + ERROR_PAUSE);
                self.report(ConsumeError::NoOffset { partition: ask.partition.clone(), offset: None });
            }
        }
    }

    /// The group's coordinator answered. Partitions missing from `offsets` have no committed offset.
    pub(super) fn committed_found(
        &mut self,
        asked: &[Ask],
        offsets: &HashMap<TopicPartition, Result<Anchor, ErrorCode>>,
        now: Instant,
    ) {
        let pauses = self.rules.pauses;
        for ask in asked {
            let Some(partition) = self.current(&ask.partition, &ask.cell) else { continue };
            match offsets.get(&ask.partition) {
                Some(Ok(anchor)) => {
                    partition.position.found(*anchor, None);
                    partition.cell.begin(anchor.offset, true);
                }
                Some(Err(code)) if code.is_retriable() => partition.position.failed(now, pauses, None),
                Some(Err(code)) => {
                    partition.position.rest(now + ERROR_PAUSE);
                    let partition = ask.partition.clone();
                    self.report(ConsumeError::Fetch { partition, code: *code });
                }
                None => self.not_committed(ask, now),
            }
        }
    }

    /// A question could not be put, or was not answered: these partitions ask again after a pause.
    pub(super) fn not_answered<'a>(&mut self, asked: impl IntoIterator<Item = &'a Ask>, now: Instant) {
        let pauses = self.rules.pauses;
        for ask in asked {
            if let Some(partition) = self.current(&ask.partition, &ask.cell) {
                partition.position.failed(now, pauses, None);
            }
        }
    }

    /// A leader told the offset of a place, or why not.
    pub(super) fn place_found(
        &mut self,
        (ask, leader, place): &(Ask, Leader, Place),
        found: Option<Result<OffsetAt, ErrorCode>>,
        now: Instant,
    ) {
        let pauses = self.rules.pauses;
        let Some(partition) = self.current(&ask.partition, &ask.cell) else { return };
        match found {
            Some(Ok(OffsetAt { offset: Some(offset), leader_epoch, .. })) => {
                let nothing_waits = partition.has_nothing_waiting();
                partition.position.found(Anchor { offset, epoch: leader_epoch }, Some(leader.epoch));
                partition.cell.begin(offset, nothing_waits);
            }
            // Nothing is as young as that: what comes next is.
            Some(Ok(_)) if matches!(place, Place::Time(_) | Place::Ago(_)) => {
                partition.position.look(Start::Find(Place::Latest));
            }
            Some(Ok(_)) | None => partition.position.failed(now, pauses, None),
            Some(Err(code)) => self.refused(ask, *leader, code, now),
        }
    }

    /// A leader told where the epoch of a position ends (epoch and end offset), or why not; `None` when it cannot tell.
    pub(super) fn checked(
        &mut self,
        (ask, leader, anchor): &(Ask, Leader, Anchor),
        answer: Option<Result<(i32, i64), ErrorCode>>,
        now: Instant,
    ) {
        let verdict = match answer {
            // Older brokers: there is nothing to go by.
            None => Verdict::Holds,
            Some(Ok((epoch, end_offset))) => judge(*anchor, epoch, end_offset),
            Some(Err(code)) => return self.refused(ask, *leader, code, now),
        };
        let Some(partition) = self.current(&ask.partition, &ask.cell) else { return };
        match verdict {
            Verdict::Holds => partition.position.holds(leader.epoch),
            Verdict::Diverged(common) => self.truncated(&ask.partition, common, now),
        }
    }

    /// The log lost records that were fetched. What the program did not see yet is fetched again; when it has seen
    /// records that are gone, the policy says what happens.
    fn truncated(&mut self, name: &TopicPartition, common: Option<Anchor>, now: Instant) {
        let Some(position) = self.position(name) else { return };
        if let Some(common) = common.filter(|common| common.offset >= position) {
            tracing::warn!(partition = %name, end = common.offset, "the log lost records after this; fetched again");
            return self.refetch(name, Anchor { offset: position, epoch: common.epoch });
        }
        let diverged_at = common.map(|common| common.offset);
        match (by_policy(self.rules.reset), common) {
            (None, _) => {
                if let Some(partition) = self.all.get_mut(name) {
                    partition.position.rest(now + ERROR_PAUSE);
                }
                let partition = name.clone();
                self.report(ConsumeError::LogTruncation { partition, offset: position, diverged_at });
            }
            (Some(_), Some(common)) => {
                tracing::warn!(partition = %name, position, end = common.offset, "the log lost records; reading goes on at its end");
                self.seek(name, Start::At(common.offset), common.epoch);
            }
            (Some(place), None) => {
                tracing::warn!(partition = %name, position, ?place, "the log is another one; the position is reset");
                self.seek(name, Start::Find(place), None);
            }
        }
    }

    /// The topic was deleted and made anew: the position means nothing in it. Whether there is a step to take at once.
    fn recreated(&mut self, name: &TopicPartition, now: Instant) -> bool {
        match by_policy(self.rules.reset) {
            Some(place) => {
                tracing::warn!(partition = %name, ?place, "the topic was made anew; the position is reset");
                self.seek(name, Start::Find(place), None)
            }
            None => {
                let offset = self.position(name);
                if let Some(partition) = self.all.get_mut(name) {
                    partition.position.rest(now + ERROR_PAUSE);
                }
                self.report(ConsumeError::NoOffset { partition: name.clone(), offset });
                false
            }
        }
    }

    /// The position is not in the log.
    pub(super) fn out_of_range(&mut self, ask: &Ask, offset: i64, now: Instant) {
        let policy = by_policy(self.rules.reset);
        let Some(partition) = self.current(&ask.partition, &ask.cell) else { return };
        if partition.position.leaves_replica() {
            // A replica may lag behind, its leader is asked before anything is given up.
            return partition.position.unasked();
        }
        match policy {
            Some(place) => {
                tracing::warn!(partition = %ask.partition, offset, ?place, "the position is not in the log; it is reset");
                partition.position.look(Start::Find(place));
            }
            None => {
                partition.position.rest(now + ERROR_PAUSE);
                let partition = ask.partition.clone();
                self.report(ConsumeError::NoOffset { partition, offset: Some(offset) });
            }
        }
    }

    /// A broker refused: another attempt, perhaps at another broker, or a word to the program.
    pub(super) fn refused(&mut self, ask: &Ask, leader: Leader, code: ErrorCode, now: Instant) {
        let pauses = self.rules.pauses;
        let Some(partition) = self.current(&ask.partition, &ask.cell) else { return };
        if code.is_retriable() {
            tracing::debug!(partition = %ask.partition, %code, "asked again later");
            partition.position.failed(now, pauses, Some(leader));
            self.stale = true;
            return;
        }
        partition.position.rest(now + ERROR_PAUSE);
        self.report(ConsumeError::Fetch { partition: ask.partition.clone(), code });
    }
}

/// What the view has of a partition.
fn known(view: &ClusterView, name: &TopicPartition) -> Known {
    let topic_id = view.usable(&name.topic).map_or(Uuid::ZERO, |topic| topic.id);
    let leader = view.usable(&name.topic).and_then(|_| view.partition(&name.topic, name.partition));
    let leader =
        leader.and_then(|partition| Some(Leader { node: partition.leader?, epoch: partition.leader_epoch }));
    Known { topic_id, leader }
}
