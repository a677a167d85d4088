//! Groups and offsets that somebody deletes, and offsets of topics to which nobody subscribes any more: stories.
//! Random histories are in `atomicity.rs`.

use std::collections::BTreeSet;

use bytes::Bytes;
use klamm_protocol::ErrorCode;

use super::super::records::{group_tombstone, offset_tombstone};
use super::sim::*;
use super::transactions::producer;
use super::*;
use crate::coordinator::Core;

const WEEK_MS: i64 = 7 * 24 * 60 * 60 * 1_000;

/// What a consumer says of itself that subscribes to these topics.
fn subscribes(topics: &[&str]) -> Bytes {
    let mut said = vec![0, 0, 0, 0, 0, u8::try_from(topics.len()).unwrap()];
    for topic in topics {
        said.extend([0, u8::try_from(topic.len()).unwrap()]);
        said.extend(topic.as_bytes());
    }
    said.into()
}

fn consumer_of(topics: &[&str], id: &str) -> JoinGroup {
    let protocols = vec![Protocol { name: "range".into(), metadata: subscribes(topics) }];
    JoinGroup { protocols, knows_member_id_required: false, ..join("a", id) }
}

impl Sim {
    fn delete(&mut self) -> (ErrorCode, Vec<StoredRecord>) {
        let mut effects = Effects::default();
        let code = self.coordinator.delete_group(GROUP, &mut effects);
        let records = effects.records.clone();
        self.take(effects);
        (code, records)
    }

    fn delete_offsets(
        &mut self,
        topics: &[(&str, &[i32])],
    ) -> (Result<Vec<ErrorCode>, ErrorCode>, Vec<StoredRecord>) {
        let topics: Vec<(String, Vec<i32>)> =
            topics.iter().map(|(topic, partitions)| ((*topic).to_owned(), partitions.to_vec())).collect();
        let mut effects = Effects::default();
        let codes = self.coordinator.delete_offsets(GROUP, &topics, &mut effects);
        let records = effects.records.clone();
        self.take(effects);
        (codes, records)
    }

    /// A transaction's offset for partition 0 of a topic.
    fn pend_for(&mut self, id: i64, topic: &str, offset: i64) {
        let (topic_id, metadata) = (TOPIC, String::new());
        let commit =
            Commit { topic: topic.into(), topic_id, partition: 0, offset, leader_epoch: -1, metadata };
        let mut effects = Effects::default();
        let by = (&caller("", -1), producer(id), u64::MAX);
        let codes = self.coordinator.commit_in_transaction(self.now(), GROUP, by, vec![commit], &mut effects);
        assert_eq!(codes, [ErrorCode::None]);
        self.take(effects);
    }

    fn commit_transaction(&mut self, id: i64) {
        let mut effects = Effects::default();
        let code = self.coordinator.end_transaction(self.now(), producer(id), true, &mut effects);
        assert_eq!(code, ErrorCode::None);
        self.take(effects);
    }

    /// One stable member with these topics, which commits an offset for each of the others.
    fn alone(&mut self, topics: &[&str], commits: &[&str]) -> String {
        let ticket = self.ask_join(consumer_of(topics, ""));
        let joined = self.joined(ticket).unwrap();
        self.ask_sync(&joined.member_id, joined.generation, &[(&joined.member_id, "p")]);
        for topic in commits {
            assert_eq!(self.commit(&caller(&joined.member_id, joined.generation), topic, 7), ErrorCode::None);
        }
        joined.member_id
    }

    fn expire(&mut self) -> Vec<StoredRecord> {
        let mut effects = Effects::default();
        self.coordinator.expire(self.now(), &mut effects);
        let records = effects.records.clone();
        self.take(effects);
        records
    }

    fn topics(&self) -> Vec<String> {
        self.coordinator.all_committed(GROUP).into_keys().collect()
    }
}

fn gone(topic: &str) -> StoredRecord {
    offset_tombstone(GROUP, topic, 0).unwrap()
}

#[test]
fn a_group_goes_with_its_offsets_and_only_without_members() {
    let mut sim = Sim::eager();
    assert_eq!(sim.delete(), (ErrorCode::GroupIdNotFound, vec![]));
    let id = sim.alone(&["t"], &["t", "u"]);
    assert_eq!(sim.delete(), (ErrorCode::NonEmptyGroup, vec![]));
    sim.ask_join(consumer_of(&["t"], &id));
    assert_eq!((sim.state(), sim.delete()), ("CompletingRebalance", (ErrorCode::NonEmptyGroup, vec![])));
    sim.ask_join(old_join("b"));
    assert_eq!((sim.state(), sim.delete()), ("PreparingRebalance", (ErrorCode::NonEmptyGroup, vec![])));
    assert_eq!(sim.topics(), ["t", "u"]);
    assert_eq!(sim.leave(&[caller(&id, -1), caller("b-x", -1)]), [ErrorCode::None; 2]);
    assert_eq!(sim.state(), "Empty");
    let tombstones = vec![gone("t"), gone("u"), group_tombstone(GROUP).unwrap()];
    assert_eq!(sim.delete(), (ErrorCode::None, tombstones));
    assert_eq!((sim.state(), sim.coordinator.next_deadline()), ("Dead", None));
    assert_eq!(sim.delete(), (ErrorCode::GroupIdNotFound, vec![]));
    let restarted = sim.restarted(GroupConfig::default());
    assert_eq!((restarted.state(), restarted.topics().len()), ("Dead", 0));
}

#[test]
fn a_group_that_was_never_written_down_has_no_tombstone_of_its_own() {
    let mut sim = Sim::eager();
    sim.commit(&caller("", -1), "t", 1);
    assert_eq!(sim.delete(), (ErrorCode::None, vec![gone("t")]));
    // An id has been handed out, and is good no more.
    assert_eq!(sim.join_error(join("a", "")), ErrorCode::MemberIdRequired);
    assert_eq!(sim.delete(), (ErrorCode::None, vec![]));
    assert_eq!(sim.join_error(join("a", "a-x")), ErrorCode::UnknownMemberId);
    assert_eq!(sim.coordinator.next_deadline(), None);
}

/// As in Kafka: the tombstone is outside of the transaction, and counts at once.
#[test]
fn what_a_transaction_has_pending_goes_and_its_marker_does_not_bring_it_back() {
    let mut sim = Sim::eager();
    sim.commit(&caller("", -1), "t", 5);
    sim.pend_for(1, "t", 6);
    sim.pend_for(2, "u", 7);
    assert_eq!(sim.delete(), (ErrorCode::None, vec![gone("t"), gone("u")]), "one for each partition");
    assert!(sim.coordinator.all_pending().is_empty());
    let mut restarted = sim.restarted(GroupConfig::default());
    for sim in [&mut sim, &mut restarted] {
        sim.commit_transaction(1);
        assert_eq!((sim.topics().len(), sim.state()), (0, "Dead"));
        // What the same transaction commits afterwards counts.
        sim.pend_for(2, "u", 8);
        sim.commit_transaction(2);
        assert_eq!(sim.coordinator.committed(GROUP, "u", 0).unwrap().offset, 8);
    }
}

#[test]
fn a_group_is_there_again_when_its_deletion_is_undone() {
    let mut sim = Sim::eager();
    let id = sim.alone(&["t"], &["t"]);
    assert_eq!(sim.leave(&[caller(&id, -1)]), [ErrorCode::None]);
    sim.pend_for(1, "u", 3);
    let (before, pending) = (sim.coordinator.written_groups(), sim.coordinator.all_pending());
    let mut effects = Effects::new(9, usize::MAX);
    assert_eq!(sim.coordinator.delete_group(GROUP, &mut effects), ErrorCode::None);
    assert_eq!(sim.coordinator.existence_rests_on(GROUP), 9, "that there is none");
    assert_eq!(sim.state(), "Empty", "that it is gone is not durable");
    sim.coordinator.roll_back(sim.now(), 8, &mut Effects::new(9, usize::MAX));
    assert_eq!((sim.coordinator.written_groups(), sim.coordinator.all_pending()), (before, pending));
    assert_eq!(sim.coordinator.existence_rests_on(GROUP), 0);
    sim.commit_transaction(1);
    assert_eq!(sim.topics(), ["t", "u"]);
}

#[test]
fn offsets_of_an_empty_group_are_deleted_one_by_one() {
    let mut sim = Sim::eager();
    let nothing: &[(&str, &[i32])] = &[];
    assert_eq!(sim.delete_offsets(&[("t", &[0])]), (Err(ErrorCode::GroupIdNotFound), vec![]));
    assert_eq!(
        sim.coordinator.delete_offsets("", &[], &mut Effects::default()),
        Err(ErrorCode::InvalidGroupId)
    );
    for topic in ["t", "u"] {
        sim.commit(&caller("", -1), topic, 1);
    }
    sim.pend_for(1, "t", 2);
    sim.pend_for(1, "v", 2);
    assert_eq!(sim.delete_offsets(nothing), (Ok(vec![]), vec![]));
    // Partition 1 has none, which is no error, and needs no record.
    let (codes, records) = sim.delete_offsets(&[("t", &[1, 0]), ("v", &[0])]);
    assert_eq!((codes, records), (Ok(vec![ErrorCode::None; 3]), vec![gone("t"), gone("v")]));
    sim.commit_transaction(1);
    assert_eq!(sim.topics(), ["u"]);
    assert_eq!(sim.delete_offsets(&[("u", &[0])]).1, [gone("u")]);
    assert_eq!(sim.state(), "Dead", "nothing is left of it");
}

#[test]
fn a_group_keeps_the_offsets_of_what_it_subscribes_to() {
    let mut sim = Sim::eager();
    let id = sim.alone(&["t", "v"], &["t", "u"]);
    let asked: &[(&str, &[i32])] = &[("t", &[0, 5]), ("u", &[0]), ("v", &[0])];
    let subscribed = ErrorCode::GroupSubscribedToTopic;
    let codes = vec![subscribed, subscribed, ErrorCode::None, subscribed];
    assert_eq!(sim.delete_offsets(asked), (Ok(codes), vec![gone("u")]));
    let mut sim = sim.restarted(GroupConfig::default());
    assert_eq!(sim.delete_offsets(&[("t", &[0])]).0, Ok(vec![subscribed]), "known after a restart, too");
    // The next generation subscribes to something else.
    sim.ask_join(consumer_of(&["w"], &id));
    assert_eq!(sim.state(), "CompletingRebalance");
    assert_eq!(sim.delete_offsets(&[("t", &[0])]), (Ok(vec![ErrorCode::None]), vec![gone("t")]));
    assert_eq!(sim.leave(&[caller(&id, -1)]), [ErrorCode::None]);
    assert_eq!(sim.delete_offsets(&[("w", &[0])]).0, Ok(vec![ErrorCode::None]), "nobody subscribes any more");
}

#[test]
fn offsets_of_members_that_are_no_consumers_stay_while_they_are_there() {
    let mut sim = Sim::eager();
    let connect = JoinGroup { protocol_type: "connect".into(), ..old_join("a") };
    sim.ask_join(connect);
    sim.ask_sync("a-x", 1, &[("a-x", "p")]);
    assert_eq!(sim.commit(&caller("a-x", 1), "t", 1), ErrorCode::None);
    assert_eq!(sim.delete_offsets(&[("t", &[0])]), (Err(ErrorCode::NonEmptyGroup), vec![]));
    sim.pass(5_000);
    assert_eq!(sim.leave(&[caller("a-x", -1)]), [ErrorCode::None]);
    assert_eq!(sim.delete_offsets(&[("t", &[0])]).0, Ok(vec![ErrorCode::None]));
}

/// What a consumer says that we do not understand may be a subscription to anything.
#[test]
fn offsets_of_a_group_that_does_not_say_what_it_subscribes_to_stay() {
    let mut sim = Sim::eager();
    let (generation, ids) = sim.stable(&["a"]);
    assert_eq!(sim.commit(&caller(&ids[0], generation), "t", 1), ErrorCode::None);
    assert_eq!(sim.delete_offsets(&[("t", &[0])]).0, Ok(vec![ErrorCode::GroupSubscribedToTopic]));
}

/// KIP-211: the group lives, and has not committed anything for the topic in a week.
#[test]
fn offsets_of_topics_that_a_living_group_does_not_subscribe_to_any_more_expire() {
    let config =
        GroupConfig { initial_rebalance_delay_ms: 0, offsets_retention_ms: 5_000, ..GroupConfig::default() };
    let mut sim = Sim::new(config.clone());
    let id = sim.alone(&["t"], &["t", "u", "v"]);
    sim.pend_for(1, "v", 9);
    sim.pass(4_999);
    assert_eq!(sim.expire(), []);
    assert_eq!(sim.heartbeat(&id, 1), ErrorCode::None);
    sim.pass(1);
    let mut restarted = sim.restarted(config);
    assert_eq!(restarted.expire(), [gone("u")], "known after a restart, too");
    // Nothing goes while the group is between generations.
    let waits = sim.ask_join(consumer_of(&["t"], &id));
    assert_eq!(
        (sim.joined(waits).is_some(), sim.state(), sim.expire()),
        (true, "CompletingRebalance", vec![])
    );
    sim.ask_sync(&id, 2, &[(&id, "p")]);
    assert_eq!(sim.expire(), [gone("u")], "not what is subscribed to, nor what a transaction may change");
    sim.commit_transaction(1);
    assert_eq!(sim.topics(), ["t", "v"]);
    sim.pass(1);
    assert_eq!(sim.expire(), [gone("v")], "it is as old as it was written");
    assert_eq!((sim.expire(), sim.topics()), (vec![], vec!["t".to_owned()]));
}

/// As in Kafka: who left nothing is not remembered.
#[test]
fn an_empty_group_without_offsets_goes_at_once() {
    let mut sim = Sim::eager();
    let id = sim.alone(&["t"], &[]);
    assert_eq!(sim.expire(), []);
    assert_eq!(sim.leave(&[caller(&id, -1)]), [ErrorCode::None]);
    assert_eq!(sim.state(), "Empty");
    assert_eq!(sim.expire(), [group_tombstone(GROUP).unwrap()]);
    assert_eq!(sim.state(), "Dead");

    let id = sim.alone(&["t"], &["t"]);
    assert_eq!(sim.leave(&[caller(&id, -1)]), [ErrorCode::None]);
    sim.pass(WEEK_MS - 1);
    assert_eq!(sim.expire(), []);
    assert_eq!(sim.delete_offsets(&[("t", &[0])]).1, [gone("t")]);
    assert_eq!((sim.expire(), sim.state()), (vec![group_tombstone(GROUP).unwrap()], "Dead"));
}

/// What cannot be written in one step is refused as a whole; what goes by itself goes in several.
#[test]
fn a_step_that_would_be_too_large_is_no_half_deletion() {
    let mut sim = Sim::eager();
    let topics: BTreeSet<String> = (0..20).map(|number| format!("t{number:02}")).collect();
    for topic in &topics {
        sim.commit(&caller("", -1), topic, 1);
    }
    let mut effects = Effects::new(9, 400);
    sim.coordinator.delete_group(GROUP, &mut effects);
    assert_eq!(effects.records.len(), 20, "the engine undoes it");
    sim.coordinator.roll_back(sim.now(), 8, &mut Effects::new(9, 400));
    assert_eq!(sim.topics().len(), 20);
    sim.pass(WEEK_MS);
    let mut effects = Effects::new(9, 400);
    sim.coordinator.expire(sim.now(), &mut effects);
    assert!((1..20).contains(&effects.records.len()), "{}", effects.records.len());
    assert_eq!(sim.topics().len(), 20 - effects.records.len());
}

/// Unless somebody asks for it: then it goes at once, in as many steps as it takes.
#[test]
fn what_is_too_much_for_one_step_goes_in_several_when_somebody_asks_for_it() {
    // Each takes 54 bytes, so that fourteen are half a step.
    const MAX_BYTES: usize = 1_500;
    let topics: Vec<String> = (0..40).map(|number| format!("t{number:02}")).collect();
    let some = |count: usize| topics[..count].iter().map(|topic| (topic.clone(), vec![0])).collect();
    let of_topics = |count| Command::DeleteOffsets { group: GROUP.to_owned(), topics: some(count) };
    for (command, sizes, left) in [
        (Command::DeleteGroup { group: GROUP.to_owned() }, vec![14, 14, 12], 0),
        (of_topics(39), vec![14, 14, 11], 1),
        (of_topics(14), vec![14], 26),
        (of_topics(13), vec![13], 27),
    ] {
        let mut sim = Sim::eager();
        for topic in &topics {
            sim.commit(&caller("", -1), topic, 1);
        }
        let (mut found, mut step) = (Vec::new(), 100);
        loop {
            let mut effects = Effects::new(step, MAX_BYTES);
            Core::begin(&mut sim.coordinator, &command, &mut effects);
            if !effects.has_written() {
                break;
            }
            assert!(effects.has_room_for(0) && effects.answers.is_empty());
            found.push(effects.records.len());
            // It may be taken back.
            sim.coordinator.roll_back(sim.now(), step - 1, &mut Effects::default());
            assert_eq!(sim.topics().len(), 40 - found[..found.len() - 1].iter().sum::<usize>());
            let mut effects = Effects::new(step, MAX_BYTES);
            Core::begin(&mut sim.coordinator, &command, &mut effects);
            sim.take(effects);
            step += 1;
        }
        let mut effects = Effects::new(step, MAX_BYTES);
        let now = sim.now();
        Core::on(&mut sim.coordinator, now, 1, command, &mut effects);
        assert!(effects.has_room_for(0) && effects.answers.len() == 1);
        found.extend(effects.has_written().then_some(effects.records.len()));
        sim.take(effects);
        assert_eq!((found, sim.topics().len()), (sizes, left));
    }
}

/// Members keep what they have.
#[test]
fn nothing_is_begun_that_is_refused() {
    let mut sim = Sim::eager();
    sim.alone(&["t"], &["t", "u"]);
    let named = || vec![("t".to_owned(), vec![0])];
    for (command, codes) in [
        (Command::DeleteGroup { group: GROUP.to_owned() }, vec![ErrorCode::NonEmptyGroup]),
        (Command::DeleteOffsets { group: GROUP.to_owned(), topics: named() }, vec![]),
    ] {
        let mut effects = Effects::new(9, 1);
        Core::begin(&mut sim.coordinator, &command, &mut effects);
        assert!(!effects.has_written(), "{codes:?}");
    }
    assert_eq!(sim.topics(), ["t", "u"]);
}
