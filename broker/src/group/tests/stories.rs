//! Single groups, step by step.

use bytes::Bytes;
use klamm_protocol::ErrorCode;

use super::sim::*;
use super::*;

#[test]
fn a_first_member_is_told_its_id_then_leads_then_is_stable() {
    let mut sim = Sim::eager();
    let (id, ticket) = sim.join_new("app");
    assert_eq!(id, "app-x");
    let reply = sim.joined(ticket).unwrap();
    assert_eq!((reply.error, reply.generation, reply.leader.as_str()), (ErrorCode::None, 1, "app-x"));
    assert_eq!(reply.protocol.as_deref(), Some("range"));
    assert_eq!(reply.members.len(), 1);
    assert_eq!(sim.state(), "CompletingRebalance");
    assert_eq!(sim.heartbeat(&id, 1), ErrorCode::None);

    let ticket = sim.ask_sync(&id, 1, &[("app-x", "all")]);
    assert_eq!(sim.synced(ticket).unwrap().assignment, "all");
    assert_eq!((sim.state(), sim.records.len()), ("Stable", 1));
    assert_eq!(sim.heartbeat(&id, 1), ErrorCode::None);
    assert_eq!(sim.heartbeat(&id, 0), ErrorCode::IllegalGeneration);
    assert_eq!(sim.heartbeat("other", 1), ErrorCode::UnknownMemberId);
}

#[test]
fn an_old_client_joins_in_one_step() {
    let mut sim = Sim::eager();
    let ticket = sim.ask_join(JoinGroup { knows_member_id_required: false, ..join("old", "") });
    assert_eq!(sim.joined(ticket).unwrap().generation, 1);
}

#[test]
fn a_second_member_makes_the_first_rejoin() {
    let mut sim = Sim::eager();
    let (_, ids) = sim.stable(&["a"]);
    let (b, b_ticket) = sim.join_new("b");
    assert_eq!((sim.state(), sim.joined(b_ticket)), ("PreparingRebalance", None));
    assert_eq!(sim.heartbeat(&ids[0], 1), ErrorCode::RebalanceInProgress);
    let early = sim.ask_sync(&ids[0], 1, &[]);
    assert_eq!(sim.synced(early).unwrap().error, ErrorCode::RebalanceInProgress);
    let a_ticket = sim.ask_join(join("a", &ids[0]));
    let (a_reply, b_reply) = (sim.joined(a_ticket).unwrap(), sim.joined(b_ticket).unwrap());
    assert_eq!((a_reply.generation, b_reply.generation), (2, 2));
    assert_eq!((a_reply.members.len(), b_reply.members.len()), (2, 0));

    // The follower syncs first and waits for the leader.
    let b_sync = sim.ask_sync(&b, 2, &[]);
    assert_eq!(sim.synced(b_sync), None);
    let a_sync = sim.ask_sync(&ids[0], 2, &[(ids[0].as_str(), "p0"), (b.as_str(), "p1")]);
    assert_eq!(sim.synced(a_sync).unwrap().assignment, "p0");
    assert_eq!(sim.synced(b_sync).unwrap().assignment, "p1");
}

#[test]
fn a_member_that_does_not_rejoin_in_time_is_left_behind() {
    let mut sim = Sim::eager();
    let (_, ids) = sim.stable(&["a"]);
    let slow = JoinGroup { session_timeout_ms: 100_000, rebalance_timeout_ms: 5_000, ..join("a", &ids[0]) };
    let ticket = sim.ask_join(slow);
    let generation = sim.joined(ticket).unwrap().generation;
    sim.ask_sync(&ids[0], generation, &[(ids[0].as_str(), "x")]);
    let (b, b_ticket) = {
        let first = sim.ask_join(JoinGroup { rebalance_timeout_ms: 5_000, ..join("b", "") });
        let id = sim.joined(first).unwrap().member_id;
        (id.clone(), sim.ask_join(JoinGroup { rebalance_timeout_ms: 5_000, ..join("b", &id) }))
    };
    sim.pass(4_999);
    assert_eq!(sim.joined(b_ticket), None);
    sim.pass(1);
    let reply = sim.joined(b_ticket).unwrap();
    assert_eq!((reply.leader.as_str(), reply.members.len()), (b.as_str(), 1));
    assert_eq!(sim.heartbeat(&ids[0], generation), ErrorCode::UnknownMemberId);
}

#[test]
fn silence_ends_a_session_exactly_at_its_timeout() {
    let mut sim = Sim::eager();
    let (generation, ids) = sim.stable(&["a"]);
    sim.pass(9_999);
    assert_eq!(sim.heartbeat(&ids[0], generation), ErrorCode::None);
    sim.pass(9_999);
    assert_eq!(sim.state(), "Stable");
    sim.pass(1);
    assert_eq!(sim.state(), "Empty");
    assert_eq!(sim.heartbeat(&ids[0], generation), ErrorCode::UnknownMemberId);
}

#[test]
fn a_member_that_never_syncs_is_removed_so_that_the_others_go_on() {
    let mut sim = Sim::eager();
    let (_, ids) = sim.stable(&["a"]);
    let (_, b_ticket) = sim.join_new("b");
    let a_ticket = sim.ask_join(join("a", &ids[0]));
    let generation = sim.joined(a_ticket).unwrap().generation;
    assert!(sim.joined(b_ticket).is_some());
    sim.ask_sync(&ids[0], generation, &[(ids[0].as_str(), "x")]);
    for _ in 0..7 {
        sim.pass(9_000);
        sim.heartbeat(&ids[0], generation);
    }
    assert_eq!(sim.heartbeat(&ids[0], generation), ErrorCode::RebalanceInProgress);
    let again = sim.ask_join(join("a", &ids[0]));
    assert_eq!(sim.joined(again).unwrap().members.len(), 1);
}

#[test]
fn an_empty_group_waits_for_more_members_and_a_late_one_prolongs_the_wait() {
    let mut sim = Sim::new(GroupConfig { initial_rebalance_delay_ms: 3_000, ..GroupConfig::default() });
    let (_, a) = sim.join_new("a");
    sim.pass(2_000);
    let (_, b) = sim.join_new("b");
    sim.pass(1_000);
    assert_eq!(sim.joined(a), None, "prolonged because b came");
    sim.pass(3_000);
    assert_eq!(sim.joined(a).unwrap().members.len() + sim.joined(b).unwrap().members.len(), 2);
}

#[test]
fn protocols_are_voted_on_and_strangers_refused() {
    let mut sim = Sim::new(GroupConfig { initial_rebalance_delay_ms: 3_000, ..GroupConfig::default() });
    let offers = |names: &[&str]| -> Vec<Protocol> {
        names.iter().map(|name| Protocol { name: name.to_string(), metadata: Bytes::new() }).collect()
    };
    let join_with = |client: &str, names: &[&str]| JoinGroup {
        knows_member_id_required: false,
        protocols: offers(names),
        ..join(client, "")
    };
    let tickets = [
        sim.ask_join(join_with("a", &["x", "range"])),
        sim.ask_join(join_with("b", &["sticky", "range", "roundrobin"])),
        sim.ask_join(join_with("c", &["roundrobin", "range", "sticky"])),
    ];
    let odd = sim.ask_join(join_with("d", &["y"]));
    assert_eq!(sim.joined(odd).unwrap().error, ErrorCode::InconsistentGroupProtocol);
    let other_type =
        sim.ask_join(JoinGroup { protocol_type: "connect".into(), ..join_with("e", &["range"]) });
    assert_eq!(sim.joined(other_type).unwrap().error, ErrorCode::InconsistentGroupProtocol);
    sim.pass(10_000);
    for ticket in tickets {
        assert_eq!(sim.joined(ticket).unwrap().protocol.as_deref(), Some("range"));
    }
}

#[test]
fn bad_requests_are_refused_by_name() {
    let mut sim = Sim::eager();
    let error = |sim: &mut Sim, join: JoinGroup| {
        let ticket = sim.ask_join(join);
        sim.joined(ticket).unwrap().error
    };
    assert_eq!(
        error(&mut sim, JoinGroup { group: String::new(), ..join("a", "") }),
        ErrorCode::InvalidGroupId
    );
    let short = JoinGroup { session_timeout_ms: 5_999, ..join("a", "") };
    assert_eq!(error(&mut sim, short), ErrorCode::InvalidSessionTimeout);
    let long = JoinGroup { session_timeout_ms: 1_800_001, ..join("a", "") };
    assert_eq!(error(&mut sim, long), ErrorCode::InvalidSessionTimeout);
    assert_eq!(error(&mut sim, join("a", "never-seen")), ErrorCode::UnknownMemberId);
    let ticket = sim.ask_sync("nobody", 1, &[]);
    assert_eq!(sim.synced(ticket).unwrap().error, ErrorCode::UnknownMemberId);
    assert_eq!(sim.leave(&[caller("nobody", -1)]), [ErrorCode::UnknownMemberId]);
    assert_eq!(sim.state(), "Dead", "refused calls leave no group behind");
}

#[test]
fn a_group_holds_at_most_max_size_members() {
    let config = GroupConfig { initial_rebalance_delay_ms: 0, max_size: 2, ..GroupConfig::default() };
    let mut sim = Sim::new(config);
    let (_, ids) = sim.stable(&["a", "b"]);
    let third = sim.ask_join(join("c", ""));
    assert_eq!(sim.joined(third).unwrap().error, ErrorCode::GroupMaxSizeReached);
    sim.leave(&[caller(&ids[1], -1)]);
    let again = sim.ask_join(join("c", ""));
    assert_eq!(sim.joined(again).unwrap().error, ErrorCode::MemberIdRequired);
}

#[test]
fn a_restarted_static_member_takes_its_place_without_a_rebalance_and_the_old_one_is_fenced() {
    let mut sim = Sim::eager();
    let ticket = sim.ask_join(static_join("i", "", "1"));
    let reply = sim.joined(ticket).unwrap();
    assert_eq!((reply.error, reply.member_id.as_str()), (ErrorCode::None, "i-1"));
    sim.ask_sync("i-1", 1, &[("i-1", "mine")]);

    let ticket = sim.ask_join(static_join("i", "", "2"));
    let reply = sim.joined(ticket).unwrap();
    assert_eq!((reply.generation, reply.member_id.as_str(), reply.leader.as_str()), (1, "i-2", "i-2"));
    assert!(reply.skip_assignment);
    assert_eq!(sim.state(), "Stable");
    let sync = sim.ask_sync("i-2", 1, &[]);
    assert_eq!(sim.synced(sync).unwrap().assignment, "mine");
    let old = Caller { member_id: "i-1".into(), instance_id: Some("i".into()), generation: 1 };
    assert_eq!(sim.coordinator.heartbeat(sim.now(), GROUP, &old), ErrorCode::FencedInstanceId);

    // A client that cannot be told to skip its assignment is told of a leader that is not itself.
    let old_client = JoinGroup { knows_skip_assignment: false, ..static_join("i", "", "3") };
    let ticket = sim.ask_join(old_client);
    let reply = sim.joined(ticket).unwrap();
    assert_eq!(
        (reply.member_id.as_str(), reply.leader.as_str(), reply.skip_assignment),
        ("i-3", "i-2", false)
    );

    let by_instance = Caller { member_id: String::new(), instance_id: Some("i".into()), generation: -1 };
    assert_eq!(sim.leave(&[by_instance.clone(), by_instance]), [ErrorCode::None, ErrorCode::UnknownMemberId]);
    assert_eq!(sim.state(), "Empty");
}

#[test]
fn a_static_member_that_is_away_keeps_its_place_through_a_rebalance() {
    let mut sim = Sim::eager();
    sim.ask_join(JoinGroup { session_timeout_ms: 600_000, ..static_join("i", "", "1") });
    sim.ask_sync("i-1", 1, &[("i-1", "mine")]);
    let (_, ticket) = sim.join_new("b");
    sim.pass(60_000);
    let reply = sim.joined(ticket).unwrap();
    assert_eq!((reply.generation, reply.members.len()), (2, 2), "i is still a member");
}

#[test]
fn offsets_are_committed_by_members_and_by_loners() {
    let mut sim = Sim::eager();
    let loner = caller("", -1);
    assert_eq!(sim.commit(&loner, "t", 5), ErrorCode::None);
    assert_eq!(sim.coordinator.committed(GROUP, "t", 0).unwrap().offset, 5);
    assert_eq!(sim.coordinator.committed(GROUP, "t", 1), None);
    let (generation, ids) = sim.stable(&["a"]);
    assert_eq!(sim.commit(&loner, "t", 6), ErrorCode::UnknownMemberId, "the group has members now");
    assert_eq!(sim.commit(&caller(&ids[0], generation - 1), "t", 6), ErrorCode::IllegalGeneration);
    assert_eq!(sim.commit(&caller(&ids[0], generation), "t", 6), ErrorCode::None);
    let long = "x".repeat(4_096);
    let member = caller(&ids[0], generation);
    assert_eq!(sim.commit_with(&member, "t", 7, &long), ErrorCode::None);
    assert_eq!(sim.commit_with(&member, "t", 8, &(long + "x")), ErrorCode::OffsetMetadataTooLarge);
    assert_eq!(sim.coordinator.committed(GROUP, "t", 0).unwrap().offset, 7);
    assert_eq!(
        sim.coordinator.commit(sim.now(), "new", &caller("m", 3), vec![], &mut Effects::default()),
        []
    );
}

#[test]
fn what_was_stored_is_there_after_a_restart() {
    let mut sim = Sim::eager();
    let (generation, ids) = sim.stable(&["a", "b"]);
    sim.commit(&caller(&ids[0], generation), "t", 11);
    let mut next = sim.restarted(GroupConfig::default());
    assert_eq!(next.coordinator.describe(GROUP), sim.coordinator.describe(GROUP));
    assert_eq!(next.coordinator.committed(GROUP, "t", 0), sim.coordinator.committed(GROUP, "t", 0));
    assert_eq!(next.heartbeat(&ids[1], generation), ErrorCode::None);
    next.pass(10_000);
    assert_eq!(next.state(), "Empty", "sessions run again after a restart");
}

#[test]
fn offsets_of_deleted_topics_and_of_abandoned_groups_go_away() {
    let week_ms = GroupConfig::default().offsets_retention_ms;
    let mut sim = Sim::eager();
    let (generation, ids) = sim.stable(&["a"]);
    sim.commit(&caller(&ids[0], generation), "t", 1);
    sim.commit(&caller(&ids[0], generation), "gone", 1);
    let mut effects = Effects::default();
    sim.coordinator.topic_deleted(TOPIC, "gone", &mut effects);
    assert_eq!(effects.records.len(), 1);
    sim.take(effects);
    let expire = |sim: &mut Sim| {
        let mut effects = Effects::default();
        sim.coordinator.expire(sim.now(), &mut effects);
        let count = effects.records.len();
        sim.take(effects);
        count
    };
    sim.pass(9_000);
    assert_eq!(sim.leave(&[caller(&ids[0], -1)]), [ErrorCode::None]);
    sim.pass(week_ms - 1);
    assert_eq!(expire(&mut sim), 0);
    sim.pass(1);
    assert_eq!(expire(&mut sim), 2, "one offset, one group");
    assert_eq!(sim.state(), "Dead");
    assert_eq!(sim.restarted(GroupConfig::default()).state(), "Dead");
}

#[test]
fn offsets_of_topics_that_are_not_there_go_away() {
    let mut sim = Sim::eager();
    for (topic, offset) in [("b", 1), ("a", 2), ("kept", 3)] {
        assert_eq!(sim.commit(&caller("", -1), topic, offset), ErrorCode::None);
    }
    let mut effects = Effects::default();
    sim.coordinator.sweep_topics(|topic| (topic == "kept").then_some(TOPIC), &mut effects);
    assert_eq!(effects.records.len(), 2);
    sim.take(effects);
    let all = sim.coordinator.all_committed(GROUP);
    assert_eq!(all.keys().collect::<Vec<_>>(), ["kept"]);
    assert_eq!(all["kept"][&0].offset, 3);
    assert_eq!(sim.restarted(GroupConfig::default()).coordinator.all_committed(GROUP), all);
    assert!(sim.coordinator.all_committed("another group").is_empty());
}

#[test]
fn offsets_of_consumers_outside_of_groups_expire_one_by_one() {
    let week_ms = GroupConfig::default().offsets_retention_ms;
    let mut sim = Sim::eager();
    sim.commit(&caller("", -1), "old", 1);
    sim.pass(1_000);
    sim.commit(&caller("", -1), "new", 1);
    let left = |sim: &mut Sim| {
        let mut effects = Effects::default();
        sim.coordinator.expire(sim.now(), &mut effects);
        sim.take(effects);
        sim.coordinator.all_committed(GROUP).into_keys().collect::<Vec<_>>()
    };
    sim.pass(week_ms - 1_001);
    assert_eq!(left(&mut sim), ["new", "old"]);
    sim.pass(1);
    assert_eq!(left(&mut sim), ["new"]);
    assert_eq!(sim.state(), "Empty");
    sim.pass(1_000);
    assert_eq!(left(&mut sim), [""; 0]);
    assert_eq!(sim.state(), "Dead");
    assert_eq!(sim.restarted(GroupConfig::default()).state(), "Dead");
}
