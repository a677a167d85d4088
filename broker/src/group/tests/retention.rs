//! What is forgotten when, and what is written about it.

use bytes::Bytes;
use klamm_protocol::{ErrorCode, Uuid};

use super::super::records::{group_tombstone, offset_record, offset_tombstone};
use super::sim::*;
use super::*;

const WEEK_MS: i64 = 7 * 24 * 60 * 60 * 1_000;

fn expire(sim: &mut Sim) -> Vec<StoredRecord> {
    let mut effects = Effects::default();
    sim.coordinator.expire(sim.now(), &mut effects);
    let records = effects.records.clone();
    sim.take(effects);
    records
}

fn offset_gone(topic: &str) -> StoredRecord {
    offset_tombstone(GROUP, topic, 0).unwrap()
}

#[test]
fn offsets_of_loners_go_one_by_one_and_the_group_with_the_last() {
    let mut sim = Sim::eager();
    assert_eq!(sim.commit(&caller("", -1), "early", 1), ErrorCode::None);
    sim.pass(10);
    assert_eq!(sim.commit(&caller("", -1), "late", 2), ErrorCode::None);
    sim.pass(WEEK_MS - 11);
    assert_eq!(expire(&mut sim), []);
    sim.pass(1);
    assert_eq!(expire(&mut sim), [offset_gone("early")]);
    assert_eq!(sim.coordinator.committed(GROUP, "early", 0), None);
    assert_eq!(sim.coordinator.committed(GROUP, "late", 0).unwrap().offset, 2);
    sim.pass(9);
    assert_eq!(expire(&mut sim), []);
    sim.pass(1);
    assert_eq!(expire(&mut sim), [offset_gone("late")], "the group itself was never stored");
    assert_eq!(sim.state(), "Dead");
}

#[test]
fn a_group_with_somebody_at_the_door_is_kept() {
    let mut sim = Sim::eager();
    assert_eq!(sim.commit(&caller("", -1), "t", 1), ErrorCode::None);
    sim.pass(WEEK_MS - 5_000);
    assert_eq!(sim.join_error(join("a", "")), ErrorCode::MemberIdRequired);
    sim.pass(9_999);
    assert_eq!(expire(&mut sim), []);
    sim.pass(1);
    assert_eq!(expire(&mut sim), [offset_gone("t")]);
}

#[test]
fn a_group_with_members_is_kept_however_old_its_offsets_are() {
    let config =
        GroupConfig { initial_rebalance_delay_ms: 0, offsets_retention_ms: 100, ..GroupConfig::default() };
    let mut sim = Sim::new(config);
    let (generation, ids) = sim.stable(&["a"]);
    assert_eq!(sim.commit(&caller(&ids[0], generation), "t", 1), ErrorCode::None);
    sim.pass(5_000);
    assert_eq!(expire(&mut sim), []);
    assert_eq!(sim.leave(&[caller(&ids[0], -1)]), [ErrorCode::None]);
    sim.pass(99);
    assert_eq!(expire(&mut sim), [], "it counts from when the group became empty");
    sim.pass(1);
    assert_eq!(expire(&mut sim), [offset_gone("t"), group_tombstone(GROUP).unwrap()]);
    assert_eq!(sim.state(), "Dead");
}

/// An administrator may set offsets while nobody consumes; these are as young as any other.
#[test]
fn an_offset_committed_since_the_group_became_empty_keeps_the_group() {
    let config =
        GroupConfig { initial_rebalance_delay_ms: 0, offsets_retention_ms: 100, ..GroupConfig::default() };
    let mut sim = Sim::new(config);
    let (generation, ids) = sim.stable(&["a"]);
    assert_eq!(sim.commit(&caller(&ids[0], generation), "old", 1), ErrorCode::None);
    assert_eq!(sim.leave(&[caller(&ids[0], -1)]), [ErrorCode::None]);
    sim.pass(60);
    assert_eq!(sim.commit(&caller("", -1), "set", 2), ErrorCode::None);
    sim.pass(40);
    assert_eq!(expire(&mut sim), [offset_gone("old")]);
    sim.pass(59);
    assert_eq!((expire(&mut sim), sim.state()), (vec![], "Empty"));
    sim.pass(1);
    assert_eq!(expire(&mut sim), [offset_gone("set"), group_tombstone(GROUP).unwrap()]);
}

#[test]
fn a_group_whose_topics_are_gone_goes_without_a_word() {
    let mut sim = Sim::eager();
    assert_eq!(sim.commit(&caller("", -1), "t", 1), ErrorCode::None);
    let mut effects = Effects::default();
    sim.coordinator.topic_deleted(TOPIC, "other", &mut effects);
    sim.coordinator.topic_deleted(Uuid::from_u128(8), "t", &mut effects);
    assert_eq!(
        effects.records,
        [],
        "neither the same id under another name nor the same name with another id"
    );
    sim.coordinator.topic_deleted(TOPIC, "t", &mut effects);
    assert_eq!((effects.records, sim.state()), (vec![offset_gone("t")], "Empty"));
    assert_eq!((expire(&mut sim), sim.state()), (vec![], "Dead"));
}

#[test]
fn tombstones_are_read_back() {
    let mut sim = Sim::eager();
    let mut replay = |records: &[StoredRecord]| {
        for record in records {
            sim.coordinator.replay(sim.now(), None, record).unwrap();
        }
        sim.coordinator.all_committed(GROUP).into_keys().collect::<Vec<_>>()
    };
    assert!(replay(&[offset_gone("never there")]).is_empty());
    let metadata = String::new();
    let committed =
        CommittedOffset { topic_id: TOPIC, offset: 1, leader_epoch: -1, metadata, committed_at_ms: 5 };
    let stored = |topic| offset_record(GROUP, topic, 0, &committed).unwrap();
    assert_eq!(replay(&[stored("a"), stored("b")]), ["a", "b"]);
    assert_eq!(replay(&[offset_gone("a")]), ["b"]);
    assert!(replay(&[offset_gone("b")]).is_empty());
    assert_eq!(sim.state(), "Empty");
    sim.coordinator.replayed(sim.now());
    assert_eq!(sim.state(), "Dead", "nothing is left of it");

    let mut other = Sim::eager();
    other.stable(&["a"]);
    let mut restarted = other.restarted(GroupConfig::default());
    assert_eq!(restarted.state(), "Stable");
    restarted.coordinator.replay(other.now(), None, &group_tombstone(GROUP).unwrap()).unwrap();
    assert_eq!(restarted.state(), "Dead");
}

#[test]
fn what_cannot_be_read_is_an_error_and_what_is_not_ours_is_skipped() {
    let mut sim = Sim::eager();
    let mut replay = |key: &'static [u8]| {
        sim.coordinator.replay(sim.now(), None, &StoredRecord { key: Bytes::from_static(key), value: None })
    };
    assert!(replay(b"\x00\x01\x00\x09").is_err());
    assert!(replay(b"\x00\x05...").is_ok());
}
