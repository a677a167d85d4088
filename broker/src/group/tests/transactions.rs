//! Offsets that transactions commit: stories. Random histories are in `atomicity.rs`.

use klamm_protocol::{ErrorCode, Uuid};

use super::super::records::{group_tombstone, offset_tombstone};
use super::sim::*;
use super::*;
use crate::coordinator::Producer;

const WEEK_MS: i64 = 7 * 24 * 60 * 60 * 1_000;
const OTHER_TOPIC: Uuid = Uuid::from_u128(8);

pub(super) fn producer(id: i64) -> Producer {
    Producer { id, epoch: 0 }
}

fn a_commit(topic: &str, partition: i32, offset: i64) -> Commit {
    let (topic_id, metadata) = (TOPIC, String::new());
    Commit { topic: topic.into(), topic_id, partition, offset, leader_epoch: -1, metadata }
}

impl Sim {
    fn commit_as(&mut self, id: i64, caller: &Caller, commits: Vec<Commit>) -> Vec<ErrorCode> {
        let marker = self.coordinator.last_marker();
        self.commit_since(id, marker, caller, commits)
    }

    fn commit_since(
        &mut self,
        id: i64,
        marker: u64,
        caller: &Caller,
        commits: Vec<Commit>,
    ) -> Vec<ErrorCode> {
        let mut effects = Effects::default();
        let by = (caller, producer(id), marker);
        let codes = self.coordinator.commit_in_transaction(self.now(), GROUP, by, commits, &mut effects);
        self.take(effects);
        codes
    }

    /// Commits an offset for partition 0 of `t`, as nobody.
    fn pend(&mut self, id: i64, offset: i64) {
        let commits = vec![a_commit("t", 0, offset)];
        assert_eq!(self.commit_as(id, &caller("", -1), commits), [ErrorCode::None]);
    }

    fn end(&mut self, id: i64, commit: bool) {
        let mut effects = Effects::default();
        let code = self.coordinator.end_transaction(self.now(), producer(id), commit, &mut effects);
        assert_eq!(code, ErrorCode::None);
        assert!(effects.records.is_empty() && effects.has_written(), "a marker and nothing beside it");
        self.take(effects);
    }

    /// What is committed for partition 0 of `t`.
    fn visible(&self) -> Option<i64> {
        self.coordinator.committed(GROUP, "t", 0).map(|offset| offset.offset)
    }

    fn pending(&self) -> Vec<(i64, i64)> {
        let pending = self.coordinator.all_pending().into_iter();
        pending.map(|((_, _, _, producer_id), offset)| (producer_id, offset.offset)).collect()
    }

    /// Whether who asks for what is stable is told of partition 0 of `t`, and what it is told.
    fn stable_of(&self, id: Uuid) -> Option<Option<i64>> {
        let topics = vec![FetchTopic { name: "t".into(), id, partitions: vec![0] }];
        let fetch = FetchOffsets { group: GROUP.into(), topics: Some(topics), require_stable: true };
        let (mut found, rests_on) = self.coordinator.fetch(&fetch);
        assert_eq!((found.len(), rests_on), (1, 0));
        let topic = found.remove(0);
        assert_eq!(topic.partitions.len(), 1);
        let offset = topic.partitions[0].1.as_ref().map(|offset| offset.offset);
        if topic.unstable.contains(&0) { None } else { Some(offset) }
    }
}

#[test]
fn an_offset_is_visible_when_its_transaction_is_committed() {
    let mut sim = Sim::eager();
    sim.commit(&caller("", -1), "t", 5);
    sim.pend(1, 6);
    assert_eq!((sim.visible(), sim.pending()), (Some(5), vec![(1, 6)]));
    sim.pend(1, 7);
    assert_eq!(sim.pending(), [(1, 7)], "the last one of a transaction counts");
    sim.end(2, true);
    assert_eq!((sim.visible(), sim.pending()), (Some(5), vec![(1, 7)]), "another producer's end");
    sim.end(1, true);
    assert_eq!((sim.visible(), sim.pending()), (Some(7), vec![]));
    sim.end(1, true);
    assert_eq!(sim.visible(), Some(7), "a second marker finds nothing");
    sim.pend(1, 8);
    sim.end(1, false);
    assert_eq!((sim.visible(), sim.pending()), (Some(7), vec![]));
}

/// As in Kafka, where the record's offset in the log decides.
#[test]
fn what_was_written_later_wins_whenever_it_was_committed() {
    let mut sim = Sim::eager();
    sim.pend(1, 1);
    sim.commit(&caller("", -1), "t", 2);
    sim.end(1, true);
    assert_eq!(sim.visible(), Some(2), "committed plainly, after the pending one was written");
    sim.pend(1, 3);
    sim.pend(2, 4);
    sim.end(2, true);
    assert_eq!(sim.visible(), Some(4));
    sim.end(1, true);
    assert_eq!(sim.visible(), Some(4), "the other transaction wrote after it");
    sim.pend(1, 5);
    sim.pend(2, 6);
    sim.pend(1, 7);
    sim.end(2, true);
    sim.end(1, true);
    assert_eq!(sim.visible(), Some(7), "an offset is as late as it was written last");
}

#[test]
fn who_asks_for_what_is_stable_is_not_told_what_may_change() {
    let mut sim = Sim::eager();
    assert_eq!(sim.stable_of(TOPIC), Some(None));
    sim.commit(&caller("", -1), "t", 5);
    sim.pend(1, 6);
    sim.pend(2, 7);
    assert_eq!((sim.stable_of(TOPIC), sim.stable_of(OTHER_TOPIC)), (None, Some(None)));
    sim.end(1, true);
    assert_eq!((sim.stable_of(TOPIC), sim.visible()), (None, Some(6)), "another one is open");
    sim.end(2, false);
    assert_eq!(sim.stable_of(TOPIC), Some(Some(6)));
}

#[test]
fn who_asks_for_everything_is_told_which_of_it_may_change() {
    let mut sim = Sim::eager();
    for topic in ["t", "u"] {
        sim.commit(&caller("", -1), topic, 5);
    }
    let commits = vec![a_commit("t", 0, 6), a_commit("t", 1, 6)];
    sim.commit_as(1, &caller("", -1), commits);
    let found = |require_stable| {
        let fetch = FetchOffsets { group: GROUP.into(), topics: None, require_stable };
        let found = sim.coordinator.fetch(&fetch).0.into_iter();
        found.map(|topic| (topic.name, topic.partitions.len(), topic.unstable)).collect::<Vec<_>>()
    };
    let all = |unstable: &[i32]| {
        let unstable = unstable.iter().copied().collect();
        vec![("t".to_owned(), 1, unstable), ("u".to_owned(), 1, [].into())]
    };
    // As in Kafka, what is only pending is not named.
    assert_eq!((found(false), found(true)), (all(&[]), all(&[0])));
}

#[test]
fn a_member_may_commit_in_a_transaction_and_a_stranger_may_not() {
    let mut sim = Sim::eager();
    let one = |sim: &mut Sim, caller: &Caller| sim.commit_as(1, caller, vec![a_commit("t", 0, 1)])[0];
    let instance = |name: &str, id: &str, generation| Caller {
        instance_id: Some(name.into()),
        ..caller(id, generation)
    };
    assert_eq!(one(&mut sim, &caller("m", 0)), ErrorCode::IllegalGeneration, "there is no such group");
    assert_eq!(sim.state(), "Dead");
    assert_eq!(one(&mut sim, &caller("m", -1)), ErrorCode::None, "nobody is in the group");
    assert_eq!(sim.state(), "Empty");
    assert_eq!(one(&mut sim, &caller("m", 0)), ErrorCode::UnknownMemberId);
    let (generation, ids) = sim.stable(&["a"]);
    let id = ids[0].as_str();
    assert_eq!(one(&mut sim, &caller(id, generation)), ErrorCode::None);
    assert_eq!(one(&mut sim, &caller("", -1)), ErrorCode::None, "older clients do not say who they are");
    assert_eq!(one(&mut sim, &caller("", generation)), ErrorCode::UnknownMemberId);
    assert_eq!(one(&mut sim, &caller("x", -1)), ErrorCode::UnknownMemberId);
    assert_eq!(one(&mut sim, &caller(id, -1)), ErrorCode::IllegalGeneration);
    assert_eq!(one(&mut sim, &caller(id, generation - 1)), ErrorCode::IllegalGeneration);
    assert_eq!(one(&mut sim, &instance("i", "", -1)), ErrorCode::UnknownMemberId);
    // It is refused nothing between two generations, and lives no longer for it.
    let (_, b_join) = sim.join_new("b");
    let a_join = sim.ask_join(join("", id));
    assert!(sim.joined(a_join).is_some() && sim.joined(b_join).is_some());
    assert_eq!(sim.state(), "CompletingRebalance");
    assert_eq!(sim.commit(&caller(id, generation + 1), "t", 1), ErrorCode::RebalanceInProgress);
    assert_eq!(one(&mut sim, &caller(id, generation + 1)), ErrorCode::None);
}

#[test]
fn a_commit_in_a_transaction_is_no_sign_of_life() {
    let mut sim = Sim::eager();
    let (generation, ids) = sim.stable(&["a"]);
    sim.pass(9_999);
    let commits = vec![a_commit("t", 0, 1)];
    assert_eq!(sim.commit_as(1, &caller(&ids[0], generation), commits), [ErrorCode::None]);
    sim.pass(1);
    assert_eq!(sim.state(), "Empty");
}

#[test]
fn a_static_member_is_fenced_in_transactions_too() {
    let mut sim = Sim::eager();
    let first = sim.ask_join(static_join("i", "", "1"));
    let reply = sim.joined(first).unwrap();
    let old = Caller { instance_id: Some("i".into()), ..caller(&reply.member_id, reply.generation) };
    assert_eq!(sim.commit_as(1, &old, vec![a_commit("t", 0, 1)]), [ErrorCode::None]);
    let stranger = Caller { member_id: "x".into(), ..old };
    assert_eq!(sim.commit_as(1, &stranger, vec![a_commit("t", 0, 2)]), [ErrorCode::FencedInstanceId]);
    assert_eq!(sim.pending(), [(1, 1)]);
}

/// The transaction was open when the transaction coordinator was asked, and has ended since: nobody would ever end it.
#[test]
fn what_comes_after_its_marker_is_refused() {
    let mut sim = Sim::eager();
    let before = sim.coordinator.last_marker();
    sim.end(1, false);
    let one = |sim: &mut Sim, id, marker| {
        sim.commit_since(id, marker, &caller("", -1), vec![a_commit("t", 0, 1), a_commit("t", 1, 1)])
    };
    assert_eq!(one(&mut sim, 1, before), [ErrorCode::InvalidTxnState; 2]);
    assert_eq!((sim.state(), sim.pending()), ("Dead", vec![]));
    assert_eq!(one(&mut sim, 2, before), [ErrorCode::None; 2], "it was another one's");
    let after = sim.coordinator.last_marker();
    assert_eq!(one(&mut sim, 1, after), [ErrorCode::None; 2]);
}

/// The log would refuse its marker, and take back what others have written meanwhile.
#[test]
fn a_producer_whose_epoch_is_over_is_refused() {
    let mut sim = Sim::eager();
    let now = sim.now();
    let at = |epoch| Producer { id: 1, epoch };
    let commit = |sim: &mut Sim, epoch| {
        let mut effects = Effects::default();
        let (by, commits) = ((&caller("", -1), at(epoch), 99), vec![a_commit("t", 0, 1)]);
        let codes = sim.coordinator.commit_in_transaction(now, GROUP, by, commits, &mut effects);
        assert_eq!(effects.has_written(), codes == [ErrorCode::None]);
        sim.take(effects);
        codes[0]
    };
    let end = |sim: &mut Sim, epoch| {
        let mut effects = Effects::default();
        let code = sim.coordinator.end_transaction(now, at(epoch), true, &mut effects);
        assert_eq!(effects.has_written(), code == ErrorCode::None);
        sim.take(effects);
        code
    };
    let over = ErrorCode::InvalidProducerEpoch;
    assert_eq!((commit(&mut sim, 3), commit(&mut sim, 2), end(&mut sim, 2)), (ErrorCode::None, over, over));
    assert_eq!(
        commit(&mut sim.restarted(GroupConfig::default()), 2),
        over,
        "what is pending tells of it, too"
    );
    assert_eq!((sim.pending(), end(&mut sim, 4)), (vec![(1, 1)], ErrorCode::None));
    assert_eq!((commit(&mut sim, 3), end(&mut sim, 3), sim.visible()), (over, over, Some(1)));
    let mut restarted = sim.restarted(GroupConfig::default());
    assert_eq!((commit(&mut restarted, 3), commit(&mut restarted, 4)), (over, ErrorCode::None));
    assert_eq!(end(&mut restarted, -1), ErrorCode::InvalidProducerIdMapping);
    // What is undone was nobody's epoch.
    let mut undone = Effects::new(9, usize::MAX);
    sim.coordinator.end_transaction(now, at(7), true, &mut undone);
    sim.coordinator.roll_back(now, 8, &mut Effects::new(9, usize::MAX));
    assert_eq!(commit(&mut sim, 4), ErrorCode::None);
    assert_eq!(sim.coordinator.epochs.keys().count(), 0, "what is durable needs no way back");
}

#[test]
fn names_and_metadata_are_bounded_in_transactions_too() {
    let mut sim = Sim::eager();
    let now = sim.now();
    let mut commit = |len: usize| {
        let (by, commits) = ((&caller("", -1), producer(1), 0), vec![a_commit("t", 0, 1)]);
        sim.coordinator.commit_in_transaction(now, &"g".repeat(len), by, commits, &mut Effects::new(1, 9_999))
    };
    assert_eq!(commit(0), [ErrorCode::InvalidGroupId]);
    assert_eq!((commit(1_025), commit(1_024)), (vec![ErrorCode::InvalidGroupId], vec![ErrorCode::None]));
    let mut sim = Sim::eager();
    let long = Commit { metadata: "m".repeat(4_097), ..a_commit("t", 0, 1) };
    let commits = vec![a_commit("t", 0, 2), long.clone(), a_commit("t", 0, 3)];
    let codes = [ErrorCode::None, ErrorCode::OffsetMetadataTooLarge, ErrorCode::None];
    assert_eq!(sim.commit_as(1, &caller("", -1), commits), codes);
    assert_eq!((sim.pending(), sim.records.len()), (vec![(1, 3)], 1), "what is replaced is not written");
    let mut sim = Sim::eager();
    assert_eq!(sim.commit_as(1, &caller("", -1), vec![long]), [ErrorCode::OffsetMetadataTooLarge]);
    assert_eq!(sim.state(), "Dead");
}

#[test]
fn a_deleted_topic_takes_what_is_pending_for_it() {
    let mut sim = Sim::eager();
    sim.commit(&caller("", -1), "t", 5);
    sim.commit_as(1, &caller("", -1), vec![a_commit("t", 0, 6), a_commit("t", 1, 6), a_commit("u", 0, 6)]);
    sim.pend(2, 7);
    let mut effects = Effects::default();
    sim.coordinator.topic_deleted(TOPIC, "t", &mut effects);
    let gone = |partition| offset_tombstone(GROUP, "t", partition).unwrap();
    assert_eq!(effects.records, [gone(0), gone(1)], "one tombstone for each partition");
    sim.take(effects);
    assert_eq!((sim.visible(), sim.pending()), (None, vec![(1, 6)]));
    assert_eq!(sim.restarted(GroupConfig::default()).pending(), [(1, 6)]);
    sim.end(1, true);
    sim.end(2, true);
    assert_eq!(sim.visible(), None);
    assert_eq!(sim.coordinator.committed(GROUP, "u", 0).map(|offset| offset.offset), Some(6));
}

/// A tombstone would take away what is pending for the topic that has the name now.
#[test]
fn what_is_pending_for_a_newer_topic_of_the_name_is_left_alone() {
    let mut sim = Sim::eager();
    sim.commit(&caller("", -1), "t", 5);
    let newer = Commit { topic_id: OTHER_TOPIC, ..a_commit("t", 0, 1) };
    sim.commit_as(1, &caller("", -1), vec![newer]);
    let mut effects = Effects::default();
    sim.coordinator.topic_deleted(TOPIC, "t", &mut effects);
    sim.coordinator.sweep_topics(|_| Some(OTHER_TOPIC), &mut effects);
    assert_eq!(effects.records, []);
    assert_eq!(sim.stable_of(OTHER_TOPIC), None);
    sim.end(1, true);
    assert_eq!(sim.stable_of(OTHER_TOPIC), Some(Some(1)));
    sim.pend(2, 9);
    sim.coordinator.sweep_topics(|_| Some(OTHER_TOPIC), &mut effects);
    assert_eq!(effects.records, [], "nor what is visible for it");
}

#[test]
fn what_a_transaction_may_change_does_not_expire_nor_does_its_group() {
    let config =
        GroupConfig { initial_rebalance_delay_ms: 0, offsets_retention_ms: 100, ..GroupConfig::default() };
    let mut sim = Sim::new(config);
    let (generation, ids) = sim.stable(&["a"]);
    for topic in ["t", "u"] {
        sim.commit(&caller(&ids[0], generation), topic, 1);
    }
    sim.pend(1, 2);
    sim.leave(&[caller(&ids[0], -1)]);
    sim.pass(WEEK_MS);
    let expire = |sim: &mut Sim| {
        let mut effects = Effects::default();
        sim.coordinator.expire(sim.now(), &mut effects);
        let records = effects.records.clone();
        sim.take(effects);
        records
    };
    assert_eq!(expire(&mut sim), [offset_tombstone(GROUP, "u", 0).unwrap()]);
    assert_eq!((sim.visible(), sim.pending(), sim.state()), (Some(1), vec![(1, 2)], "Empty"));
    sim.end(1, false);
    let both = [offset_tombstone(GROUP, "t", 0).unwrap(), group_tombstone(GROUP).unwrap()];
    assert_eq!(expire(&mut sim), both);
    sim.pend(1, 3);
    sim.pass(WEEK_MS);
    assert_eq!((expire(&mut sim), sim.state()), (vec![], "Empty"), "with nothing but what is pending");
    sim.end(1, false);
    assert_eq!(sim.state(), "Dead", "it goes with the last of it");
}

#[test]
fn a_restart_finds_what_is_pending_and_what_was_decided() {
    let mut sim = Sim::eager();
    sim.commit(&caller("", -1), "t", 5);
    sim.pend(1, 6);
    sim.commit_as(2, &caller("", -1), vec![a_commit("t", 1, 7)]);
    sim.commit_as(3, &caller("", -1), vec![a_commit("t", 2, 8)]);
    sim.end(2, true);
    sim.end(3, false);
    let mut restarted = sim.restarted(GroupConfig::default());
    assert_eq!(restarted.coordinator.all_pending(), sim.coordinator.all_pending());
    assert_eq!(restarted.coordinator.all_committed(GROUP), sim.coordinator.all_committed(GROUP));
    assert_eq!(restarted.coordinator.all_committed(GROUP)["t"].len(), 2);
    restarted.commit(&caller("", -1), "t", 9);
    restarted.end(1, true);
    assert_eq!(restarted.visible(), Some(9), "what comes after a restart is later than what was before");
    let mut restarted = sim.restarted(GroupConfig::default());
    restarted.end(1, true);
    assert_eq!(restarted.visible(), Some(6));
}

#[test]
fn a_group_that_is_only_pending_is_shown_when_that_is_durable() {
    let mut sim = Sim::eager();
    let now = sim.now();
    let mut first = Effects::new(1, usize::MAX);
    let (by, commits) = ((&caller("", -1), producer(1), 0), vec![a_commit("t", 0, 1)]);
    sim.coordinator.commit_in_transaction(now, GROUP, by, commits, &mut first);
    assert!(first.has_written() && list_all(&sim.coordinator).is_empty());
    sim.coordinator.durable(1);
    assert_eq!((list_all(&sim.coordinator).len(), sim.state()), (1, "Empty"));
    let (by, commits) = ((&caller("", -1), producer(1), 0), vec![a_commit("t", 1, 1)]);
    sim.coordinator.commit_in_transaction(now, GROUP, by, commits, &mut Effects::new(2, usize::MAX));
    assert_eq!(list_all(&sim.coordinator).len(), 1, "with something that is not durable beside it");
    sim.coordinator.roll_back(now, 1, &mut Effects::new(2, usize::MAX));
    let mut aborted = Effects::new(2, usize::MAX);
    sim.coordinator.end_transaction(now, producer(1), false, &mut aborted);
    assert_eq!(
        (list_all(&sim.coordinator).len(), sim.state()),
        (1, "Empty"),
        "that it is gone is not durable"
    );
    sim.coordinator.roll_back(now, 1, &mut Effects::new(2, usize::MAX));
    assert_eq!((sim.pending(), list_all(&sim.coordinator).len()), (vec![(1, 1)], 1));
    sim.coordinator.end_transaction(now, producer(1), false, &mut aborted);
    sim.coordinator.durable(2);
    assert_eq!((list_all(&sim.coordinator), sim.state()), (vec![], "Dead"));
}

#[test]
fn a_marker_that_is_undone_leaves_what_was_there_before() {
    for commit in [true, false] {
        let mut sim = Sim::eager();
        sim.commit(&caller("", -1), "t", 5);
        sim.pend(1, 6);
        let (committed, pending) = (sim.coordinator.all_committed(GROUP), sim.coordinator.all_pending());
        let now = sim.now();
        sim.coordinator.end_transaction(now, producer(1), commit, &mut Effects::new(2, usize::MAX));
        assert_eq!((sim.visible(), sim.pending()), (Some(if commit { 6 } else { 5 }), vec![]));
        let fetch = FetchOffsets { group: GROUP.into(), topics: None, require_stable: false };
        assert_eq!(sim.coordinator.fetch(&fetch).1, 2, "what is said of it rests on the marker");
        sim.coordinator.roll_back(now, 1, &mut Effects::new(2, usize::MAX));
        assert_eq!(
            (sim.coordinator.all_committed(GROUP), sim.coordinator.all_pending()),
            (committed, pending)
        );
        sim.end(1, true);
        assert_eq!(sim.visible(), Some(6));
    }
}

/// Offsets of Kafka before 4.1 do not say for which topic they are.
#[test]
fn what_is_pending_without_an_id_is_adopted_too() {
    let mut sim = Sim::eager();
    let without = |topic| Commit { topic_id: Uuid::ZERO, ..a_commit(topic, 0, 1) };
    sim.commit_as(1, &caller("", -1), vec![without("t"), without("gone")]);
    let mut effects = Effects::default();
    sim.coordinator.adopt_topics(|topic| (topic == "t").then_some(TOPIC), &mut effects);
    assert_eq!(effects.records, [offset_tombstone(GROUP, "gone", 0).unwrap()]);
    sim.take(effects);
    assert_eq!((sim.stable_of(TOPIC), sim.pending()), (None, vec![(1, 1)]));
}
