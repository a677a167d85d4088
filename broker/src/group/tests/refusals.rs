//! Who is refused what, and what is told to those who are not.

use bytes::Bytes;
use klamm_protocol::ErrorCode;

use super::sim::*;
use super::*;

fn offers(names: &[&str]) -> Vec<Protocol> {
    let offer =
        |name: &&str| Protocol { name: name.to_string(), metadata: Bytes::from(format!("of {name}")) };
    names.iter().map(offer).collect()
}

fn delayed(max_size: usize) -> Sim {
    Sim::new(GroupConfig { initial_rebalance_delay_ms: 3_000, max_size, ..GroupConfig::default() })
}

#[test]
fn calls_without_a_group_or_for_one_that_is_not_there() {
    let mut sim = Sim::eager();
    for (name, error) in [("", ErrorCode::InvalidGroupId), ("nobody's", ErrorCode::UnknownMemberId)] {
        assert_eq!(sim.sync_error(SyncGroup { group: name.into(), ..sync("m", 1, &[]) }), error);
        assert_eq!(sim.coordinator.heartbeat(sim.now(), name, &caller("m", 1)), error);
        let mut effects = Effects::default();
        let both = [caller("m", 1), caller("n", 1)];
        assert_eq!(sim.coordinator.leave(sim.now(), name, &both, &mut effects), [error, error]);
        let commit = Commit {
            topic: "t".into(),
            topic_id: TOPIC,
            partition: 0,
            offset: 1,
            leader_epoch: -1,
            metadata: String::new(),
        };
        let two = vec![commit.clone(), commit];
        let codes = sim.coordinator.commit(sim.now(), name, &caller("m", 0), two, &mut effects);
        let error = if name.is_empty() { error } else { ErrorCode::IllegalGeneration };
        assert_eq!(codes, [error, error]);
        assert!(effects.records.is_empty() && effects.answers.is_empty());
        assert_eq!((sim.coordinator.describe(name), list_all(&sim.coordinator)), (None, vec![]));
    }
}

#[test]
fn session_timeouts_from_the_least_to_the_most_are_taken() {
    let mut sim = Sim::eager();
    for (session_timeout_ms, error) in [
        (5_999, ErrorCode::InvalidSessionTimeout),
        (6_000, ErrorCode::MemberIdRequired),
        (1_800_000, ErrorCode::MemberIdRequired),
        (1_800_001, ErrorCode::InvalidSessionTimeout),
    ] {
        assert_eq!(sim.join_error(JoinGroup { session_timeout_ms, ..join("a", "") }), error);
    }
}

#[test]
fn groups_are_listed_by_name() {
    let mut sim = Sim::eager();
    sim.stable(&["a"]);
    let mut effects = Effects::default();
    let commit = Commit {
        topic: "t".into(),
        topic_id: TOPIC,
        partition: 0,
        offset: 1,
        leader_epoch: -1,
        metadata: String::new(),
    };
    sim.coordinator.commit(sim.now(), "a loner's", &caller("", -1), vec![commit], &mut effects);
    let listing = |group: &str, protocol_type: &str, state| GroupListing {
        group: group.into(),
        protocol_type: protocol_type.into(),
        state,
    };
    let group = listing(GROUP, "consumer", "Stable");
    assert_eq!(list_all(&sim.coordinator), std::slice::from_ref(&group), "what is not durable is not told");
    sim.take(effects);
    assert_eq!(list_all(&sim.coordinator), [listing("a loner's", "", "Empty"), group]);
}

#[test]
fn a_group_is_described_in_full_while_it_is_stable() {
    let mut sim = Sim::eager();
    let (generation, _) = sim.stable(&["a"]);
    let mut expected = GroupDescription {
        state: "Stable",
        protocol_type: "consumer".into(),
        protocol: "range".into(),
        members: vec![MemberDescription {
            id: "a-x".into(),
            instance_id: None,
            client_id: "a".into(),
            client_host: "/127.0.0.1".into(),
            metadata: Bytes::from_static(b"topics"),
            assignment: Bytes::from_static(b"a-x"),
        }],
    };
    assert_eq!(sim.coordinator.describe(GROUP).as_ref(), Some(&expected));
    // A leader that comes again wants a rebalance, and what it says of itself is new.
    let again =
        JoinGroup { client_host: "/::1".into(), protocols: offers(&["sticky", "range"]), ..join("A", "a-x") };
    let ticket = sim.ask_join(again);
    assert_eq!(sim.joined(ticket).unwrap().generation, generation + 1);
    expected.state = "CompletingRebalance";
    expected.protocol = String::new();
    expected.members[0].client_id = "A".into();
    expected.members[0].client_host = "/::1".into();
    expected.members[0].metadata = Bytes::new();
    expected.members[0].assignment = Bytes::new();
    assert_eq!(sim.coordinator.describe(GROUP).as_ref(), Some(&expected));
    sim.ask_sync("a-x", generation + 1, &[]);
    expected.state = "Stable";
    expected.protocol = "sticky".into();
    expected.members[0].metadata = Bytes::from_static(b"of sticky");
    assert_eq!(sim.coordinator.describe(GROUP), Some(expected), "what nobody assigns is gone");
}

#[test]
fn a_full_group_takes_nobody_while_it_gathers() {
    let mut sim = delayed(2);
    let a = sim.ask_join(old_join("a"));
    sim.ask_join(JoinGroup { instance_id: Some("i".into()), ..old_join("b") });
    assert_eq!(sim.join_error(old_join("c")), ErrorCode::GroupMaxSizeReached);
    // Who waits already, and who takes over from one that does, needs no more room.
    let again = sim.ask_join(join("a", "a-x"));
    assert_eq!(sim.joined(a).unwrap().error, ErrorCode::RebalanceInProgress);
    let successor = sim.ask_join(static_join("i", "", "2"));
    assert_eq!((sim.joined(again), sim.joined(successor)), (None, None));
    sim.pass(10_000);
    assert_eq!(sim.joined(again).unwrap().members.len() + sim.joined(successor).unwrap().members.len(), 2);
}

#[test]
fn room_is_for_those_who_come_first() {
    let mut sim =
        Sim::new(GroupConfig { initial_rebalance_delay_ms: 0, max_size: 2, ..GroupConfig::default() });
    sim.stable(&["a", "b"]);
    let a = sim.ask_join(join("a", "a-x"));
    let c = sim.ask_join(old_join("c"));
    assert_eq!((sim.joined(a), sim.joined(c)), (None, None), "only a has come back so far");
    assert_eq!(sim.join_error(join("b", "b-x")), ErrorCode::GroupMaxSizeReached);
}

#[test]
fn a_full_group_takes_its_own_at_rest_and_between() {
    let config = GroupConfig { initial_rebalance_delay_ms: 0, max_size: 1, ..GroupConfig::default() };
    let mut sim = Sim::new(config.clone());
    sim.ask_join(old_join("a"));
    for state in ["CompletingRebalance", "Stable"] {
        assert_eq!(sim.state(), state);
        assert_eq!(sim.join_error(old_join("b")), ErrorCode::GroupMaxSizeReached);
        assert_eq!(sim.join_error(join("a", "a-x")), ErrorCode::None);
        let generation = if state == "Stable" { 2 } else { 1 };
        sim.ask_sync("a-x", generation, &[]);
    }
    let mut sim = Sim::new(config);
    sim.ask_join(static_join("i", "", "1"));
    sim.ask_sync("i-1", 1, &[]);
    assert_eq!(sim.join_error(static_join("i", "", "2")), ErrorCode::None);
    assert_eq!(sim.join_error(static_join("j", "", "1")), ErrorCode::GroupMaxSizeReached);
}

#[test]
fn a_first_member_must_offer_something() {
    let mut sim = Sim::eager();
    let nothing = JoinGroup { protocols: vec![], ..old_join("a") };
    assert_eq!(sim.join_error(nothing), ErrorCode::InconsistentGroupProtocol);
    let no_type = JoinGroup { protocol_type: String::new(), ..old_join("a") };
    assert_eq!(sim.join_error(no_type), ErrorCode::InconsistentGroupProtocol);
    assert_eq!(sim.state(), "Dead");
}

#[test]
fn a_group_that_has_become_empty_may_take_up_another_protocol_type() {
    let mut sim = Sim::eager();
    sim.stable(&["a"]);
    let connect = || JoinGroup { protocol_type: "connect".into(), ..old_join("b") };
    assert_eq!(sim.join_error(connect()), ErrorCode::InconsistentGroupProtocol);
    sim.leave(&[caller("a-x", -1)]);
    let ticket = sim.ask_join(connect());
    assert_eq!(sim.joined(ticket).unwrap().protocol_type.as_deref(), Some("connect"));
    assert_eq!(sim.join_error(old_join("c")), ErrorCode::InconsistentGroupProtocol);
}

#[test]
fn members_are_named_after_their_instance_or_their_client() {
    let mut sim = delayed(10);
    let id = |sim: &mut Sim, join: JoinGroup| {
        let ticket = sim.ask_join(join);
        sim.joined(ticket).unwrap().member_id
    };
    assert_eq!(id(&mut sim, JoinGroup { fresh_id: "1".into(), ..join("app", "") }), "app-1");
    let named = JoinGroup { protocols: vec![], ..static_join("i", "given", "2") };
    assert_eq!(id(&mut sim, named), "given", "a refusal repeats what was asked");
    sim.ask_join(static_join("i", "", "3"));
    assert_eq!(sim.coordinator.describe(GROUP).unwrap().members[0].id, "i-3");
}

#[test]
fn an_id_handed_out_is_for_one_without_an_instance() {
    let mut sim = Sim::eager();
    sim.join_error(join("a", ""));
    assert_eq!(sim.join_error(static_join("i", "a-x", "1")), ErrorCode::UnknownMemberId);
    assert_eq!(sim.join_error(join("a", "b-x")), ErrorCode::UnknownMemberId);
    assert_eq!(sim.join_error(join("a", "a-x")), ErrorCode::None);
    let named = Caller { instance_id: Some("i".into()), ..caller("a-x", -1) };
    assert_eq!(sim.leave(&[named]), [ErrorCode::UnknownMemberId]);
    sim.join_error(join("b", ""));
    let named = Caller { instance_id: Some("i".into()), ..caller("b-x", -1) };
    assert_eq!(sim.leave(&[named, caller("b-x", -1)]), [ErrorCode::UnknownMemberId, ErrorCode::None]);
    assert_eq!(sim.join_error(join("b", "b-x")), ErrorCode::UnknownMemberId, "it was given back");
}

/// The answer to a JoinGroup was lost: whoever asks again with the same words gets it again.
#[test]
fn an_answer_is_repeated_while_its_generation_lasts() {
    let mut sim = Sim::eager();
    sim.stable(&["a"]);
    let b = sim.ask_join(old_join("b"));
    let a = sim.ask_join(join("a", "a-x"));
    for (id, client, ticket) in [("a-x", "a", a), ("b-x", "b", b)] {
        let again = sim.ask_join(join(client, id));
        assert_eq!(sim.joined(again), sim.joined(ticket));
        assert_eq!(sim.joined(again).unwrap().members.len(), if id == "a-x" { 2 } else { 0 });
    }
    assert_eq!(sim.state(), "CompletingRebalance");
    sim.ask_sync("b-x", 2, &[]);
    sim.ask_sync("a-x", 2, &[]);
    let again = sim.ask_join(join("b", "b-x"));
    assert_eq!((sim.joined(again), sim.state()), (sim.joined(b), "Stable"));
    // A leader that asks again wants a new assignment.
    let ticket = sim.ask_join(join("a", "a-x"));
    assert_eq!((sim.joined(ticket), sim.state()), (None, "PreparingRebalance"));
}

#[test]
fn who_offers_something_else_begins_a_rebalance() {
    for state in ["CompletingRebalance", "Stable"] {
        let mut sim = Sim::eager();
        sim.stable(&["a"]);
        sim.ask_join(old_join("b"));
        sim.ask_join(join("a", "a-x"));
        if state == "Stable" {
            sim.ask_sync("b-x", 2, &[]);
            sim.ask_sync("a-x", 2, &[]);
        }
        assert_eq!(sim.state(), state);
        let other = JoinGroup { protocols: offers(&["range", "sticky"]), ..join("b", "b-x") };
        let b = sim.ask_join(other);
        assert_eq!((sim.joined(b), sim.state()), (None, "PreparingRebalance"));
        let a = sim.ask_join(join("a", "a-x"));
        let reply = sim.joined(a).unwrap();
        let member = |id: &str, metadata: &'static str| JoinedMember {
            id: id.into(),
            instance_id: None,
            metadata: Bytes::from_static(metadata.as_bytes()),
        };
        let expected = JoinReply {
            error: ErrorCode::None,
            generation: 3,
            protocol_type: Some("consumer".into()),
            protocol: Some("range".into()),
            leader: "a-x".into(),
            member_id: "a-x".into(),
            skip_assignment: false,
            members: vec![member("a-x", "topics"), member("b-x", "of range")],
        };
        assert_eq!(reply, expected);
        assert_eq!(
            sim.joined(b).unwrap(),
            JoinReply { member_id: "b-x".into(), members: vec![], ..expected }
        );
    }
}

#[test]
fn the_leader_stays_while_it_is_there() {
    let mut sim = Sim::eager();
    sim.stable(&["z", "a", "m"]);
    for (leaver, leader) in [("m", "z-x"), ("z", "a-x")] {
        assert_eq!(sim.leave(&[caller(&format!("{leaver}-x"), -1)]), [ErrorCode::None]);
        let left: Vec<String> =
            sim.coordinator.describe(GROUP).unwrap().members.into_iter().map(|member| member.id).collect();
        let tickets: Vec<Ticket> = left.iter().map(|id| sim.ask_join(join("", id))).collect();
        for ticket in tickets {
            assert_eq!(sim.joined(ticket).unwrap().leader, leader);
        }
    }
}

#[test]
fn who_may_sync() {
    let mut sim = Sim::eager();
    let (generation, _) = sim.stable(&["a"]);
    let a = || sync("a-x", generation, &[]);
    assert_eq!(sim.sync_error(sync("b-x", generation, &[])), ErrorCode::UnknownMemberId);
    for other in [generation - 1, generation + 1] {
        assert_eq!(sim.sync_error(sync("a-x", other, &[])), ErrorCode::IllegalGeneration);
    }
    let named = |protocol_type: &str, protocol: &str| SyncGroup {
        protocol_type: Some(protocol_type.into()),
        protocol: Some(protocol.into()),
        ..a()
    };
    assert_eq!(sim.sync_error(named("connect", "range")), ErrorCode::InconsistentGroupProtocol);
    assert_eq!(sim.sync_error(named("consumer", "sticky")), ErrorCode::InconsistentGroupProtocol);
    for sound in [a(), named("consumer", "range")] {
        let ticket = sim.ask_sync_with(sound);
        let expected = SyncReply {
            error: ErrorCode::None,
            protocol_type: Some("consumer".into()),
            protocol: Some("range".into()),
            assignment: Bytes::from_static(b"a-x"),
        };
        assert_eq!(sim.synced(ticket), Some(expected));
    }
    assert_eq!(sim.records.len(), 1, "only the leader of a new generation writes");
    sim.ask_join(old_join("b"));
    assert_eq!(sim.sync_error(a()), ErrorCode::RebalanceInProgress);
}

#[test]
fn a_second_sync_takes_the_place_of_the_first() {
    let mut sim = Sim::eager();
    sim.stable(&["a"]);
    sim.ask_join(old_join("b"));
    sim.ask_join(join("a", "a-x"));
    let (first, second) = (sim.ask_sync("b-x", 2, &[]), sim.ask_sync("b-x", 2, &[("b-x", "not the leader")]));
    assert_eq!(sim.synced(first), Some(SyncReply::error(ErrorCode::RebalanceInProgress)));
    assert_eq!(sim.synced(second), None);
    let a = sim.ask_sync("a-x", 2, &[("b-x", "p1"), ("nobody", "p2")]);
    assert_eq!(sim.synced(second).unwrap().assignment, "p1");
    assert_eq!(sim.synced(a).unwrap().assignment, "", "the leader kept nothing for itself");
}

#[test]
fn who_may_commit() {
    let mut sim = Sim::eager();
    sim.commit(&caller("", -1), "t", 1);
    assert_eq!(sim.commit(&caller("a-x", 0), "t", 2), ErrorCode::UnknownMemberId);
    sim.stable(&["a"]);
    assert_eq!(sim.commit(&caller("a-x", -1), "t", 2), ErrorCode::IllegalGeneration);
    let fenced = Caller { instance_id: Some("i".into()), ..caller("a-x", 1) };
    assert_eq!(sim.commit(&fenced, "t", 2), ErrorCode::UnknownMemberId);
    sim.ask_join(old_join("b"));
    assert_eq!(sim.commit(&caller("a-x", 1), "t", 3), ErrorCode::None, "before it gives its partitions up");
    sim.ask_join(join("a", "a-x"));
    assert_eq!(sim.state(), "CompletingRebalance");
    assert_eq!(sim.commit(&caller("a-x", 2), "t", 4), ErrorCode::RebalanceInProgress);
    let expected = CommittedOffset {
        topic_id: TOPIC,
        offset: 3,
        leader_epoch: -1,
        metadata: String::new(),
        committed_at_ms: sim.now().wall_ms,
    };
    assert_eq!(sim.coordinator.committed(GROUP, "t", 0), Some(&expected));
}

/// A group that a refused commit made is gone again.
#[test]
fn a_refused_commit_leaves_no_group_behind() {
    let mut sim = Sim::eager();
    let long = "x".repeat(4_097);
    assert_eq!(sim.commit_with(&caller("", -1), "t", 1, &long), ErrorCode::OffsetMetadataTooLarge);
    assert_eq!((sim.state(), sim.records.len()), ("Dead", 0));
}
