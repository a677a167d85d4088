//! What a consumer's partitions need to be asked, of whom, and what the answers mean for where they go on. Pure.
//!
//! Questions go by broker and answers count by partition: a partition whose leader is down, whose topic is missing or
//! whose committed offset is not stable yet keeps no other from starting.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use klamm_protocol::{ErrorCode, Uuid};
use tokio::time::Instant;

use super::partitions::{Cell, Partitions};
use super::positions::{Anchor, ERROR_PAUSE, Known, Leader, Place, Start, Step, Verdict, judge};
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
    /// Whether no fetch in a session has asked for it since it was assigned, and no answer told where its records end.
    pub(super) is_new: bool,
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
                is_new: partition.is_new && partition.high_watermark.is_none(),
            }),
            Step::Recreated => return self.recreated(name, now),
        }
        false
    }

    /// The group has no offset for this partition: the policy says where to start.
    fn not_committed(&mut self, ask: &Ask, now: Instant) {
        let policy = self.policy(&ask.partition);
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
        match (self.policy(name), common) {
            (None, _) => {
                if let Some(partition) = self.all.get_mut(name) {
                    partition.position.rest(now + ERROR_PAUSE);
                }
                let partition = name.clone();
                self.report(ConsumeError::LogTruncation { partition, offset: position, diverged_at });
            }
            (Some(_), Some(common)) => {
                let end = common.offset;
                tracing::warn!(partition = %name, position, end, "the log lost records; reading goes on at its end");
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
        match self.policy(name) {
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
        let (policy, pauses) = (self.policy(&ask.partition), self.rules.pauses);
        let Some(partition) = self.current(&ask.partition, &ask.cell) else { return };
        if partition.position.leaves_replica() {
            // A replica may lag behind, its leader is asked before anything is given up.
            return partition.position.unasked();
        }
        match policy {
            Some(place) => {
                let name = &ask.partition;
                tracing::warn!(partition = %name, offset, ?place, "the position is not in the log; it is reset");
                partition.position.reset(place, now, pauses);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use klamm_protocol::records::{BatchBuilder, BatchOptions};

    use super::super::chunk::{self, Chunk, Reading};
    use super::super::partitions::Rules;
    use super::super::positions::Pauses;
    use super::super::settings::OffsetReset;
    use super::*;
    use crate::cluster::testing;

    fn name(partition: i32) -> TopicPartition {
        TopicPartition::new("t", partition)
    }

    fn partitions(reset: OffsetReset, has_group: bool, starts: &[Start]) -> Partitions {
        let pauses = Pauses { first: Duration::from_millis(100), longest: Duration::from_secs(1) };
        let mut partitions =
            Partitions::new(Rules { prefetch_bytes: 1_000, partition_bytes: 100, reset, has_group, pauses });
        for (partition, start) in (0..).zip(starts) {
            partitions.add(name(partition), *start, false);
        }
        partitions
    }

    const COMMITTED: Start = Start::Committed;

    /// Partition 0 led by 1, 1 by 2, 2 by nobody, 3 by 1; epoch 4 everywhere.
    fn view() -> ClusterView {
        testing::view("t", &[(1, 4), (2, 4), (-1, 4), (1, 4)])
    }

    fn moved() -> ClusterView {
        testing::view("t", &[(1, 5)])
    }

    fn asked<T>(asks: &[(Ask, Leader, T)]) -> Vec<i32> {
        asks.iter().map(|(ask, ..)| ask.partition.partition).collect()
    }

    fn found(offset: Option<i64>) -> Option<Result<OffsetAt, ErrorCode>> {
        Some(Ok(OffsetAt { offset, timestamp_ms: None, leader_epoch: Some(2) }))
    }

    /// Resolves partition 0 to an offset of epoch 2, checked against epoch 4.
    fn at(reset: OffsetReset, offset: i64) -> Partitions {
        let mut state = partitions(reset, false, &[Start::Find(Place::Earliest)]);
        let plan = state.plan(&view(), Instant::now());
        state.place_found(&plan.find[&1][0], found(Some(offset)), Instant::now());
        state
    }

    /// A chunk with the record at this offset.
    fn a_record(offset: i64) -> Chunk {
        let mut batch = BatchBuilder::new(BatchOptions { base_offset: offset, ..BatchOptions::default() });
        batch.append(0, None, Some(&[0; 9]), std::iter::empty::<(&str, Option<&[u8]>)>()).unwrap();
        let reading = Reading {
            check_crcs: true,
            max_batch_bytes: 1_000,
            committed_only: false,
            together_bytes: 1_000,
        };
        chunk::read(&name(0), Anchor::from(offset), batch.build().unwrap(), &[], offset + 1, reading)
    }

    fn told(state: &mut Partitions) -> String {
        let error = state.take_error().unwrap().to_string();
        assert!(!state.has_errors());
        error
    }

    #[test]
    fn questions_go_by_leader_and_who_has_none_keeps_nobody_waiting() {
        let now = Instant::now();
        let starts = [Start::Find(Place::Earliest), Start::Find(Place::Latest), Start::At(3), Start::At(7)];
        let mut state = partitions(OffsetReset::Latest, false, &starts);
        let plan = state.plan(&view(), now);
        assert!(plan.refresh && plan.committed.is_empty() && plan.check.is_empty());
        assert_eq!(plan.wake_at, Some(now + Duration::from_millis(100)));
        assert_eq!((asked(&plan.find[&1]), asked(&plan.find[&2])), (vec![0], vec![1]));
        assert_eq!(plan.find[&1][0].2, Place::Earliest);
        assert_eq!(plan.fetch.keys().copied().collect::<Vec<_>>(), [1]);
        assert_eq!((plan.fetch[&1][0].offset, plan.fetch[&1].len()), (7, 1));
        let again = state.plan(&view(), now);
        assert!(again.find.is_empty() && !again.refresh, "those are asked");
        let missing = state.plan(&ClusterView::default(), now);
        assert!(missing.refresh && missing.fetch.is_empty());
        state.stale = true;
        assert!(state.plan(&view(), now).refresh);
        state.finish();
        assert!(state.plan(&view(), now).fetch.is_empty());
    }

    #[test]
    fn committed_offsets_count_by_partition() {
        let now = Instant::now();
        let mut state = partitions(OffsetReset::Earliest, true, &[COMMITTED; 4]);
        let asks = state.plan(&view(), now).committed;
        assert_eq!(asks.len(), 4);
        assert!(state.plan(&view(), now).committed.is_empty());
        let answers = HashMap::from([
            (name(0), Ok(Anchor { offset: 5, epoch: Some(3) })),
            (name(2), Err(ErrorCode::UnstableOffsetCommit)),
            (name(3), Err(ErrorCode::TopicAuthorizationFailed)),
        ]);
        state.committed_found(&asks, &answers, now);
        assert_eq!((state.position(&name(0)), state.position(&name(1))), (Some(5), None));
        assert_eq!(told(&mut state), "t-3: the broker answered TOPIC_AUTHORIZATION_FAILED");
        let plan = state.plan(&view(), now);
        assert_eq!(asked(&plan.check[&1]), [0], "a committed epoch is checked");
        assert_eq!(asked(&plan.find[&2]), [1], "it has none");
        assert_eq!(plan.wake_at, Some(now + Duration::from_millis(100)));
        let later = state.plan(&view(), now + Duration::from_millis(100));
        assert_eq!(later.committed[0].partition, name(2));
        assert_eq!(state.plan(&view(), now + ERROR_PAUSE).committed[0].partition, name(3));
    }

    #[test]
    fn without_a_commit_the_policy_decides() {
        let now = Instant::now();
        for (reset, place) in [
            (OffsetReset::Earliest, Place::Earliest),
            (OffsetReset::Latest, Place::Latest),
            (OffsetReset::ByDuration(Duration::from_secs(9)), Place::Ago(Duration::from_secs(9))),
        ] {
            let mut state = partitions(reset, false, &[COMMITTED]);
            assert_eq!(state.plan(&view(), now).find[&1][0].2, place);
            let mut state = partitions(reset, true, &[COMMITTED]);
            let asks = state.plan(&view(), now).committed;
            state.committed_found(&asks, &HashMap::new(), now);
            assert_eq!(state.plan(&view(), now).find[&1][0].2, place);
        }
        let mut state = partitions(OffsetReset::None, false, &[COMMITTED]);
        let plan = state.plan(&view(), now);
        assert_eq!(plan.wake_at, Some(now + ERROR_PAUSE));
        assert_eq!(told(&mut state), "t-0: no committed offset; set `auto_offset_reset` or seek");
        state.plan(&view(), now + ERROR_PAUSE);
        assert!(state.has_errors(), "it is told again");
    }

    #[test]
    fn a_place_is_found_or_looked_for_again() {
        let now = Instant::now();
        let mut state = at(OffsetReset::None, 8);
        assert_eq!((state.position(&name(0)), state.positions(true)[&name(0)]), (Some(8), 8));
        assert_eq!(state.plan(&view(), now).fetch[&1][0].offset, 8);
        let look = |place, answer| {
            let mut state = partitions(OffsetReset::None, false, &[Start::Find(place)]);
            let plan = state.plan(&view(), now);
            state.place_found(&plan.find[&1][0], answer, now);
            state
        };
        for place in [Place::Time(5), Place::Ago(Duration::from_secs(1))] {
            let plan = look(place, found(None)).plan(&view(), now);
            assert_eq!(plan.find[&1][0].2, Place::Latest, "nothing is as young");
        }
        for answer in [None, found(None)] {
            let plan = look(Place::Earliest, answer).plan(&view(), now);
            assert_eq!(plan.wake_at, Some(now + Duration::from_millis(100)));
        }
        let mut refused = look(Place::Earliest, Some(Err(ErrorCode::NotLeaderOrFollower)));
        assert!(refused.plan(&view(), now).refresh);
        assert_eq!(asked(&refused.plan(&moved(), now).find[&1]), [0], "the next leader is asked at once");
        let mut forbidden = look(Place::Earliest, Some(Err(ErrorCode::TopicAuthorizationFailed)));
        assert_eq!(told(&mut forbidden), "t-0: the broker answered TOPIC_AUTHORIZATION_FAILED");
        assert_eq!(forbidden.plan(&view(), now).wake_at, Some(now + ERROR_PAUSE));
    }

    #[test]
    fn an_answer_for_what_was_sought_meanwhile_counts_for_nothing() {
        let now = Instant::now();
        let mut state = partitions(OffsetReset::Earliest, true, &[COMMITTED]);
        let asks = state.plan(&view(), now).committed;
        state.seek(&name(0), Start::Find(Place::Latest), None);
        state.committed_found(&asks, &HashMap::from([(name(0), Ok(5.into()))]), now);
        state.not_answered(&asks, now);
        let plan = state.plan(&view(), now);
        assert_eq!(asked(&plan.find[&1]), [0]);
        state.seek(&name(0), Start::At(1), None);
        state.place_found(&plan.find[&1][0], found(Some(9)), now);
        state.refused(&plan.find[&1][0].0, plan.find[&1][0].1, ErrorCode::InvalidRequest, now);
        state.out_of_range(&plan.find[&1][0].0, 5, now);
        assert_eq!(state.position(&name(0)), Some(1));
        assert!(!state.has_errors());
        let check = (plan.find[&1][0].0.clone(), plan.find[&1][0].1, Anchor { offset: 9, epoch: Some(2) });
        state.checked(&check, Some(Ok((2, 0))), now);
        assert_eq!(state.plan(&view(), now).fetch[&1][0].offset, 1);
    }

    /// What a new leader says of a position at 8 of epoch 2, when the program has seen everything before `seen`.
    fn check(
        now: Instant,
        reset: OffsetReset,
        seen: i64,
        answer: Option<Result<(i32, i64), ErrorCode>>,
    ) -> Partitions {
        let mut state = at(reset, seen);
        state.all.get_mut(&name(0)).unwrap().position.found(Anchor { offset: 8, epoch: Some(2) }, Some(4));
        let plan = state.plan(&moved(), now);
        assert!(plan.fetch.is_empty());
        state.checked(&plan.check[&1][0], answer, now);
        state
    }

    #[test]
    fn a_log_that_lost_records_is_noticed() {
        let now = Instant::now();
        for answer in [None, Some(Ok((2, 8)))] {
            let mut state = check(now, OffsetReset::None, 8, answer);
            assert_eq!(state.plan(&moved(), now).fetch[&1][0].offset, 8, "{answer:?}");
        }
        // The program has not seen them: they are fetched again, whatever the policy.
        let mut state = check(now, OffsetReset::None, 5, Some(Ok((2, 6))));
        assert!(!state.has_errors());
        assert_eq!(state.position(&name(0)), Some(5));
        let again = state.plan(&moved(), now);
        assert_eq!(again.check[&1][0].2, Anchor { offset: 5, epoch: Some(2) });
        // It has.
        let mut state = check(now, OffsetReset::Latest, 8, Some(Ok((1, 6))));
        assert_eq!(state.position(&name(0)), Some(6), "the log goes on from there");
        assert_eq!(state.plan(&moved(), now).check[&1][0].2, Anchor { offset: 6, epoch: Some(1) });
        let mut state = check(now, OffsetReset::Earliest, 8, Some(Ok((-1, -1))));
        assert_eq!(state.plan(&moved(), now).find[&1][0].2, Place::Earliest);
        // And there is no policy.
        let mut state = check(now, OffsetReset::None, 8, Some(Ok((1, 6))));
        let lost = "t-0: records before offset 8 are lost";
        let hint = "; set `auto_offset_reset` or seek";
        assert_eq!(told(&mut state), format!("{lost}, from offset 6 on the log has others{hint}"));
        assert_eq!(state.plan(&moved(), now).wake_at, Some(now + ERROR_PAUSE));
        let mut state = check(now, OffsetReset::None, 8, Some(Ok((-1, -1))));
        assert_eq!(told(&mut state), format!("{lost}{hint}"));
        let mut state = check(now, OffsetReset::None, 8, Some(Err(ErrorCode::FencedLeaderEpoch)));
        assert!(state.plan(&moved(), now).refresh);
    }

    #[test]
    fn a_position_out_of_range_is_reset_or_told() {
        let now = Instant::now();
        let ask = |state: &mut Partitions| state.plan(&view(), now).fetch[&1][0].ask.clone();
        let mut state = at(OffsetReset::Latest, 8);
        let asked = ask(&mut state);
        state.out_of_range(&asked, 8, now);
        assert_eq!(state.plan(&view(), now).find[&1][0].2, Place::Latest);
        let mut state = at(OffsetReset::None, 8);
        let asked = ask(&mut state);
        state.out_of_range(&asked, 8, now);
        assert_eq!(told(&mut state), "t-0: offset 8 is not in the log; set `auto_offset_reset` or seek");
        assert_eq!(state.plan(&view(), now).wake_at, Some(now + ERROR_PAUSE));
        // What was fetched before is still to be read: the position is the reader's until it has come that far.
        let mut state = at(OffsetReset::Latest, 8);
        let asked = ask(&mut state);
        assert!(state.fetched(&asked.partition, &asked.cell, a_record(8), now));
        state.out_of_range(&asked, 9, now);
        let find = state.plan(&view(), now).find;
        state.place_found(&find[&1][0], found(Some(20)), now);
        assert_eq!((state.position(&name(0)), state.plan(&view(), now).fetch[&1][0].offset), (Some(8), 20));
        // With nothing left to read it is where reading goes on.
        let mut state = at(OffsetReset::Latest, 8);
        let asked = ask(&mut state);
        state.out_of_range(&asked, 8, now);
        let find = state.plan(&view(), now).find;
        state.place_found(&find[&1][0], found(Some(20)), now);
        assert_eq!(state.position(&name(0)), Some(20));
        // A replica may lag behind: its leader is asked.
        let mut state = at(OffsetReset::None, 8);
        let asked = ask(&mut state);
        state.all.get_mut(&name(0)).unwrap().position.prefer(2, now + ERROR_PAUSE);
        state.all.get_mut(&name(0)).unwrap().position.ask();
        state.out_of_range(&asked, 8, now);
        assert_eq!(state.plan(&view(), now).fetch[&1][0].offset, 8);
    }

    #[test]
    fn a_topic_made_anew_is_begun_by_policy() {
        let now = Instant::now();
        let anew = |id| testing::view_with_id("t", Uuid::from_u128(id), &[(1, 0)]);
        let mut state = at(OffsetReset::Latest, 8);
        assert_eq!(state.plan(&anew(1), now).check.len(), 1, "another epoch");
        let mut state = at(OffsetReset::Latest, 8);
        let same = testing::view_with_id("t", Uuid::from_u128(1), &[(1, 4)]);
        assert_eq!(state.plan(&same, now).fetch[&1][0].topic_id, Uuid::from_u128(1));
        let plan = state.plan(&anew(2), now);
        assert_eq!(plan.find[&1][0].2, Place::Latest);
        assert_eq!(state.position(&name(0)), None);
        let mut state = at(OffsetReset::None, 8);
        state.plan(&same, now);
        assert_eq!(state.plan(&anew(2), now).fetch.len(), 0);
        assert_eq!(told(&mut state), "t-0: offset 8 is not in the log; set `auto_offset_reset` or seek");
        assert_eq!(state.plan(&anew(2), now).wake_at, Some(now + ERROR_PAUSE));
    }
}
