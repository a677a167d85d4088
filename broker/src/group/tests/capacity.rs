//! `group.max.size`, and who is told what while a group is between two generations: transition by transition as in
//! Kafka's coordinator of classic groups.

use klamm_protocol::ErrorCode;

use super::sim::*;
use super::*;

fn of_at_most(max_size: usize) -> GroupConfig {
    GroupConfig { initial_rebalance_delay_ms: 0, max_size, ..GroupConfig::default() }
}

fn join_as(id: &str) -> JoinGroup {
    join("", id)
}

/// The bound may have been lowered between two starts.
#[test]
fn a_group_that_is_too_large_when_it_is_loaded_sheds_the_last_to_join() {
    let mut sim = Sim::eager();
    let (generation, ids) = sim.stable(&["a", "b", "c"]);
    let mut sim = sim.restarted(of_at_most(2));
    assert_eq!(sim.state(), "PreparingRebalance");
    assert_eq!(sim.heartbeat(&ids[0], generation), ErrorCode::RebalanceInProgress);
    let first = sim.ask_join(join_as(&ids[2]));
    let second = sim.ask_join(join_as(&ids[0]));
    assert_eq!((sim.joined(first), sim.joined(second)), (None, None), "the third is waited for");
    let refused = sim.ask_join(join_as(&ids[1]));
    let refused = sim.joined(refused).unwrap();
    assert_eq!((refused.error, refused.member_id.as_str()), (ErrorCode::GroupMaxSizeReached, ""));
    let joined = sim.joined(first).expect("nobody else is waited for");
    assert_eq!((joined.error, joined.generation), (ErrorCode::None, generation + 1));
    assert_eq!(sim.joined(second).unwrap().generation, generation + 1);
    assert_eq!(sim.heartbeat(&ids[1], generation), ErrorCode::UnknownMemberId);
}

#[test]
fn a_group_that_is_just_full_when_it_is_loaded_goes_on() {
    let mut sim = Sim::eager();
    let (generation, ids) = sim.stable(&["a", "b"]);
    let mut sim = sim.restarted(of_at_most(2));
    assert_eq!(sim.state(), "Stable");
    assert_eq!(sim.heartbeat(&ids[0], generation), ErrorCode::None);
    // And if nobody says anything for as long as a session takes, it is empty.
    sim.pass(9_999);
    assert_eq!(sim.coordinator.describe(GROUP).unwrap().members.len(), 2);
    sim.pass(1);
    assert_eq!(sim.state(), "Empty");
}

/// Members that do not join in time are gone with the rebalance, also when it began with the loading.
#[test]
fn a_group_that_is_too_large_goes_on_with_those_who_come_in_time() {
    let mut sim = Sim::eager();
    let (generation, ids) = sim.stable(&["a", "b", "c"]);
    let mut sim = sim.restarted(of_at_most(2));
    let lively = |id: &str| JoinGroup { session_timeout_ms: 100_000, ..join_as(id) };
    let first = sim.ask_join(lively(&ids[1]));
    for _ in 0..11 {
        sim.pass(5_000);
        assert_eq!(sim.heartbeat(&ids[0], generation), ErrorCode::RebalanceInProgress);
        assert_eq!(sim.heartbeat(&ids[2], generation), ErrorCode::RebalanceInProgress);
    }
    sim.pass(4_999);
    assert_eq!(sim.joined(first), None);
    sim.pass(1);
    assert_eq!(sim.joined(first).unwrap().generation, generation + 1);
    assert_eq!(sim.heartbeat(&ids[0], generation + 1), ErrorCode::UnknownMemberId);
}

#[test]
fn static_members_are_shed_too_and_a_restarted_one_keeps_its_place() {
    let mut sim = Sim::eager();
    for (instance, fresh) in [("i", "1"), ("j", "1")] {
        sim.ask_join(static_join(instance, "", fresh));
    }
    let tickets: Vec<Ticket> =
        ["i", "j"].iter().map(|name| sim.ask_join(static_join(name, &format!("{name}-1"), ""))).collect();
    let (_, leader) = (tickets, sim.coordinator.describe(GROUP).unwrap());
    assert_eq!(leader.members.len(), 2);
    for name in ["i-1", "j-1"] {
        sim.ask_sync_with(SyncGroup {
            member_id: name.into(),
            ..sync(name, 2, &[("i-1", "p"), ("j-1", "q")])
        });
    }
    assert_eq!(sim.state(), "Stable");

    let mut full = sim.restarted(of_at_most(2));
    let again = full.ask_join(static_join("j", "", "2"));
    let again = full.joined(again).unwrap();
    assert_eq!((again.error, again.member_id.as_str(), full.state()), (ErrorCode::None, "j-2", "Stable"));

    let mut sim = sim.restarted(of_at_most(1));
    let first = sim.ask_join(static_join("j", "", "2"));
    assert_eq!(sim.joined(first), None);
    assert_eq!(sim.join_error(static_join("i", "", "2")), ErrorCode::GroupMaxSizeReached);
    assert_eq!(sim.joined(first).unwrap().error, ErrorCode::None, "the place of the other is gone");
    let ids: Vec<String> =
        sim.coordinator.describe(GROUP).unwrap().members.into_iter().map(|m| m.id).collect();
    assert_eq!(ids, ["j-2"]);
}

/// Whoever is fenced takes nobody's place away.
#[test]
fn a_fenced_member_that_is_turned_away_removes_nobody() {
    let mut sim = Sim::eager();
    sim.ask_join(static_join("i", "", "1"));
    sim.ask_sync_with(sync("i-1", 1, &[("i-1", "p")]));
    let mut sim = sim.restarted(of_at_most(0));
    assert_eq!(sim.state(), "PreparingRebalance");
    assert_eq!(sim.join_error(static_join("i", "i-0", "")), ErrorCode::GroupMaxSizeReached);
    assert_eq!(sim.coordinator.describe(GROUP).unwrap().members.len(), 1);
    assert_eq!(sim.join_error(static_join("i", "i-1", "")), ErrorCode::GroupMaxSizeReached);
    assert_eq!(sim.state(), "Empty");
}

#[test]
fn an_id_that_was_handed_out_is_good_no_more_when_its_bearer_is_turned_away() {
    let mut sim = Sim::new(of_at_most(1));
    assert_eq!(sim.join_error(join("a", "")), ErrorCode::MemberIdRequired);
    let other = sim.ask_join(old_join("b"));
    sim.ask_sync("b-x", 1, &[("b-x", "p")]);
    assert_eq!(sim.joined(other).unwrap().error, ErrorCode::None);
    assert_eq!(sim.join_error(join("a", "a-x")), ErrorCode::GroupMaxSizeReached);
    assert_eq!(sim.leave(&[caller("b-x", -1)]), [ErrorCode::None]);
    assert_eq!(sim.join_error(join("a", "a-x")), ErrorCode::UnknownMemberId);
}

/// A group whose last member has gone while it was waiting for more is not empty yet.
#[test]
fn the_type_of_a_group_that_waits_for_members_stays() {
    let config = GroupConfig { initial_rebalance_delay_ms: 3_000, ..GroupConfig::default() };
    let mut sim = Sim::new(config);
    for ms in [3_000, 0] {
        sim.ask_join(old_join("a"));
        sim.pass(ms);
        assert_eq!(sim.leave(&[caller("a-x", -1)]), [ErrorCode::None]);
    }
    assert_eq!(sim.state(), "PreparingRebalance");
    let other = JoinGroup { protocol_type: "connect".into(), ..old_join("b") };
    assert_eq!(sim.join_error(other.clone()), ErrorCode::InconsistentGroupProtocol);
    // And it is nobody's who is outside of it.
    assert_eq!(sim.commit(&caller("", -1), "t", 1), ErrorCode::UnknownMemberId);
    sim.pass(3_000);
    assert_eq!(sim.state(), "Empty");
    assert_eq!(sim.commit(&caller("", -1), "t", 1), ErrorCode::None);
    let ticket = sim.ask_join(other);
    sim.pass(3_000);
    assert_eq!(sim.joined(ticket).unwrap().protocol_type.as_deref(), Some("connect"));
}

/// What is wrong for good is said before what passes.
#[test]
fn a_sync_of_another_protocol_is_told_so_whatever_the_group_does() {
    let mut sim = Sim::eager();
    let (generation, ids) = sim.stable(&["a", "b"]);
    let wrong_type = SyncGroup { protocol_type: Some("connect".into()), ..sync(&ids[0], generation, &[]) };
    let wrong_name = SyncGroup { protocol: Some("sticky".into()), ..sync(&ids[0], generation, &[]) };
    for wrong in [&wrong_type, &wrong_name] {
        assert_eq!(sim.sync_error(wrong.clone()), ErrorCode::InconsistentGroupProtocol);
    }
    sim.ask_join(join_as(&ids[0]));
    assert_eq!(sim.state(), "PreparingRebalance");
    for wrong in [wrong_type, wrong_name] {
        assert_eq!(sim.sync_error(wrong), ErrorCode::InconsistentGroupProtocol);
    }
    assert_eq!(sim.sync_error(sync(&ids[0], generation, &[])), ErrorCode::RebalanceInProgress);
}
