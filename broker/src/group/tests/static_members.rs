//! Members with a `group.instance.id`: they are away for a while, come back as somebody else, and keep their place.

use bytes::Bytes;
use klamm_protocol::ErrorCode;

use super::sim::*;
use super::*;

fn named(instance: &str, id: &str, generation: i32) -> Caller {
    Caller { instance_id: Some(instance.into()), ..caller(id, generation) }
}

fn patient(join: JoinGroup) -> JoinGroup {
    JoinGroup { session_timeout_ms: 900_000, ..join }
}

fn heartbeat(sim: &mut Sim, caller: &Caller) -> ErrorCode {
    sim.coordinator.heartbeat(sim.now(), GROUP, caller)
}

/// A leads without an instance, `i-1` follows with one; both are stable in the second generation.
fn followed_by_i() -> Sim {
    let mut sim = Sim::eager();
    sim.ask_join(patient(old_join("a")));
    sim.ask_sync("a-x", 1, &[]);
    sim.ask_join(static_join("i", "", "1"));
    sim.ask_join(patient(join("a", "a-x")));
    sim.ask_sync("i-1", 2, &[]);
    sim.ask_sync("a-x", 2, &[("i-1", "p1")]);
    assert_eq!(sim.state(), "Stable");
    sim
}

#[test]
fn who_speaks_for_an_instance_is_checked() {
    let mut sim = followed_by_i();
    assert_eq!(heartbeat(&mut sim, &named("i", "i-1", 2)), ErrorCode::None);
    assert_eq!(heartbeat(&mut sim, &named("i", "a-x", 2)), ErrorCode::FencedInstanceId);
    assert_eq!(heartbeat(&mut sim, &named("j", "i-1", 2)), ErrorCode::UnknownMemberId);
    assert_eq!(sim.join_error(static_join("i", "i-0", "1")), ErrorCode::FencedInstanceId);
    let fenced = SyncGroup { instance_id: Some("i".into()), ..sync("a-x", 2, &[]) };
    assert_eq!(sim.sync_error(fenced), ErrorCode::FencedInstanceId);
    assert_eq!(
        sim.leave(&[named("i", "a-x", -1), named("j", "", -1)]),
        [ErrorCode::FencedInstanceId, ErrorCode::UnknownMemberId]
    );
    assert_eq!(sim.leave(&[named("i", "", -1)]), [ErrorCode::None]);
    assert_eq!(heartbeat(&mut sim, &named("i", "i-1", 2)), ErrorCode::UnknownMemberId);
}

#[test]
fn a_follower_that_restarts_is_told_of_its_leader_and_its_session_begins_anew() {
    for knows_skip_assignment in [true, false] {
        let mut sim = followed_by_i();
        let written = sim.records.len();
        sim.pass(9_000);
        let ticket = sim.ask_join(JoinGroup { knows_skip_assignment, ..static_join("i", "", "2") });
        let expected = JoinReply {
            error: ErrorCode::None,
            generation: 2,
            protocol_type: Some("consumer".into()),
            protocol: Some("range".into()),
            leader: "a-x".into(),
            member_id: "i-2".into(),
            skip_assignment: false,
            members: vec![],
        };
        assert_eq!(sim.joined(ticket), Some(expected));
        assert_eq!((sim.state(), sim.records.len()), ("Stable", written + 1), "the new id is written down");
        assert_eq!(
            sim.restarted(GroupConfig::default()).coordinator.describe(GROUP),
            sim.coordinator.describe(GROUP)
        );
        let ticket = sim.ask_sync("i-2", 2, &[]);
        assert_eq!(sim.synced(ticket).unwrap().assignment, "p1");
        sim.pass(9_999);
        assert_eq!(sim.coordinator.describe(GROUP).unwrap().members.len(), 2);
        sim.pass(1);
        assert_eq!(sim.coordinator.describe(GROUP).unwrap().members.len(), 1);
    }
}

#[test]
fn a_leader_that_restarts_stays_the_leader() {
    let mut sim = Sim::eager();
    sim.ask_join(static_join("z", "", "1"));
    sim.ask_sync("z-1", 1, &[("z-1", "mine")]);
    sim.ask_join(patient(old_join("a")));
    sim.ask_join(static_join("z", "z-1", ""));
    sim.ask_sync("z-1", 2, &[("z-1", "mine")]);
    let ticket = sim.ask_join(static_join("z", "", "2"));
    let reply = sim.joined(ticket).unwrap();
    assert_eq!((reply.leader.as_str(), reply.skip_assignment, reply.members.len()), ("z-2", true, 2));
    // An older client gets the name of the leader that was, and no members to assign to.
    let old = JoinGroup { knows_skip_assignment: false, ..static_join("z", "", "3") };
    let ticket = sim.ask_join(old);
    let reply = sim.joined(ticket).unwrap();
    assert_eq!((reply.leader.as_str(), reply.skip_assignment, reply.members.len()), ("z-2", false, 0));
    // It leads all the same: only its SyncGroup ends the next rebalance.
    sim.ask_join(old_join("b"));
    sim.ask_join(patient(join("a", "a-x")));
    let ticket = sim.ask_join(static_join("z", "z-3", ""));
    assert_eq!(sim.joined(ticket).unwrap().leader, "z-3");
}

#[test]
fn one_that_restarts_while_it_waits_ends_the_wait_of_the_old_one() {
    // In JoinGroup.
    let mut sim = Sim::new(GroupConfig { initial_rebalance_delay_ms: 3_000, ..GroupConfig::default() });
    let old = sim.ask_join(static_join("i", "", "1"));
    let new = sim.ask_join(static_join("i", "", "2"));
    assert_eq!(sim.joined(old), Some(JoinReply::error(ErrorCode::FencedInstanceId, "i-1")));
    assert_eq!(sim.joined(new), None);
    sim.pass(3_000);
    let reply = sim.joined(new).unwrap();
    assert_eq!((reply.generation, reply.leader.as_str(), reply.members.len()), (1, "i-2", 1));

    // In SyncGroup: the generation it was of is not what the new one has heard of, so there is a new one.
    let mut sim = Sim::eager();
    sim.ask_join(patient(old_join("a")));
    sim.ask_sync("a-x", 1, &[]);
    sim.ask_join(static_join("i", "", "1"));
    sim.ask_join(patient(join("a", "a-x")));
    let old = sim.ask_sync("i-1", 2, &[]);
    let new = sim.ask_join(static_join("i", "", "2"));
    assert_eq!(sim.synced(old), Some(SyncReply::error(ErrorCode::FencedInstanceId)));
    assert_eq!((sim.joined(new), sim.state()), (None, "PreparingRebalance"));
    sim.ask_join(patient(join("a", "a-x")));
    assert_eq!(sim.joined(new).unwrap().generation, 3);
}

#[test]
fn one_that_restarts_with_another_protocol_begins_a_rebalance() {
    let mut sim = Sim::eager();
    sim.ask_join(static_join("i", "", "1"));
    sim.ask_sync("i-1", 1, &[]);
    let only = |name: &str| Protocol { name: name.into(), metadata: Bytes::new() };
    let other = JoinGroup { protocols: vec![only("sticky")], ..static_join("i", "", "2") };
    assert_eq!(sim.join_error(other), ErrorCode::InconsistentGroupProtocol, "the one it replaces has a say");
    let preferred = vec![only("sticky"), only("range")];
    let ticket = sim.ask_join(JoinGroup { protocols: preferred, ..static_join("i", "", "2") });
    let reply = sim.joined(ticket).unwrap();
    assert_eq!((reply.generation, reply.protocol.as_deref()), (2, Some("sticky")));
    assert_eq!(sim.state(), "CompletingRebalance");
}

#[test]
fn one_that_restarts_before_it_has_synced_still_must() {
    let mut sim = Sim::eager();
    sim.ask_join(patient(old_join("a")));
    sim.ask_sync("a-x", 1, &[]);
    sim.ask_join(patient(static_join("i", "", "1")));
    sim.ask_join(patient(join("a", "a-x")));
    sim.ask_sync("a-x", 2, &[]);
    let ticket = sim.ask_join(patient(static_join("i", "", "2")));
    assert_eq!(sim.joined(ticket).unwrap().generation, 2);
    sim.pass(59_999);
    assert_eq!(sim.coordinator.describe(GROUP).unwrap().members.len(), 2);
    sim.pass(1);
    assert_eq!(sim.coordinator.describe(GROUP).unwrap().members.len(), 1);
}

#[test]
fn a_group_of_members_that_are_away_waits_for_one_of_them() {
    let mut sim = Sim::eager();
    sim.ask_join(patient(static_join("i", "", "1")));
    sim.ask_sync("i-1", 1, &[]);
    sim.pass(1_000);
    sim.ask_join(old_join("b"));
    assert_eq!(sim.leave(&[caller("b-x", -1)]), [ErrorCode::None]);
    for deadline_ms in [61_000, 121_000] {
        assert_eq!((sim.state(), sim.coordinator.next_deadline()), ("PreparingRebalance", Some(deadline_ms)));
        sim.pass(60_000);
    }
    assert_eq!(heartbeat(&mut sim, &named("i", "i-1", 1)), ErrorCode::RebalanceInProgress);
    let ticket = sim.ask_join(patient(static_join("i", "i-1", "")));
    let reply = sim.joined(ticket).unwrap();
    assert_eq!(
        (reply.generation, reply.leader.as_str()),
        (2, "i-1"),
        "no generation was begun without members"
    );
}

#[test]
fn an_instance_that_was_given_up_is_a_stranger_again() {
    let mut sim = Sim::eager();
    sim.ask_join(patient(old_join("a")));
    sim.ask_sync("a-x", 1, &[]);
    let ticket = sim.ask_join(static_join("i", "", "1"));
    assert_eq!(sim.leave(&[named("i", "i-1", -1)]), [ErrorCode::None]);
    assert_eq!(sim.joined(ticket), Some(JoinReply::error(ErrorCode::UnknownMemberId, "i-1")));
    assert_eq!(heartbeat(&mut sim, &named("i", "i-1", 1)), ErrorCode::UnknownMemberId);
    sim.ask_join(static_join("i", "", "2"));
    sim.ask_join(patient(join("a", "a-x")));
    assert_eq!(heartbeat(&mut sim, &named("i", "i-2", 2)), ErrorCode::None);
    let sync = sim.ask_sync("i-2", 2, &[]);
    assert_eq!(sim.leave(&[named("i", "", -1)]), [ErrorCode::None]);
    assert_eq!(sim.synced(sync), Some(SyncReply::error(ErrorCode::UnknownMemberId)));
}
