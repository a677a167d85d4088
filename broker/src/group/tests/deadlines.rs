//! What happens when: at the instant, one millisecond before, and never too late because a timer was forgotten.

use klamm_protocol::ErrorCode;

use super::sim::*;
use super::*;

fn delayed() -> Sim {
    Sim::new(GroupConfig { initial_rebalance_delay_ms: 3_000, ..GroupConfig::default() })
}

fn next(sim: &Sim) -> Option<i64> {
    sim.coordinator.next_deadline()
}

/// What came and went used to stay in the timers until its deadline: with long session timeouts and long group names
/// a single client could fill the broker's memory.
#[test]
fn clients_that_come_and_go_leave_no_timer_behind() {
    let mut sim = Sim::eager();
    assert_eq!(next(&sim), None);
    let first = sim.ask_join(join("a", ""));
    assert_eq!(next(&sim), Some(10_000));
    let id = sim.joined(first).unwrap().member_id;
    assert_eq!(sim.leave(&[caller(&id, -1)]), [ErrorCode::None]);
    assert_eq!((sim.state(), next(&sim)), ("Dead", None));

    let (generation, ids) = sim.stable(&["b"]);
    assert_eq!(next(&sim), Some(10_000));
    sim.pass(1_000);
    assert_eq!(sim.commit(&caller(&ids[0], generation), "t", 1), ErrorCode::None);
    assert_eq!(next(&sim), Some(11_000), "a commit is a sign of life");
    assert_eq!(sim.leave(&[caller(&ids[0], -1)]), [ErrorCode::None]);
    assert_eq!((sim.state(), next(&sim)), ("Empty", None));
}

#[test]
fn the_next_deadline_is_the_earliest_of_sessions_phases_and_ids_handed_out() {
    let mut sim = delayed();
    sim.ask_join(old_join("a"));
    assert_eq!(next(&sim), Some(3_000), "the initial delay");
    sim.pass(3_000);
    assert_eq!((sim.state(), next(&sim)), ("CompletingRebalance", Some(13_000)), "the session");
    sim.ask_sync("a-x", 1, &[]);
    assert_eq!((sim.state(), next(&sim)), ("Stable", Some(13_000)));
    sim.pass(1_000);
    sim.join_error(JoinGroup { session_timeout_ms: 7_000, ..join("b", "") });
    assert_eq!(next(&sim), Some(11_000), "the id that b has not used yet");
    sim.pass(1_000);
    sim.ask_join(JoinGroup { rebalance_timeout_ms: 5_000, ..join("b", "b-x") });
    // The others' rebalance timeout is the longer one, and they are waited for. Their sessions go on.
    assert_eq!((sim.state(), next(&sim)), ("PreparingRebalance", Some(13_000)));
    assert_eq!(sim.heartbeat("a-x", 1), ErrorCode::RebalanceInProgress);
    let long = JoinGroup { session_timeout_ms: 200_000, ..join("a", "a-x") };
    sim.ask_join(long);
    assert_eq!((sim.state(), next(&sim)), ("CompletingRebalance", Some(15_000)), "the session of b");
    // One that waits for the leader is not expected to say anything: what is left is the time to sync.
    sim.ask_sync("b-x", 2, &[]);
    assert_eq!(next(&sim), Some(65_000));
    sim.ask_sync("a-x", 2, &[]);
    assert_eq!((sim.state(), next(&sim)), ("Stable", Some(15_000)));
}

#[test]
fn nothing_happens_before_its_time() {
    let mut sim = Sim::eager();
    sim.stable(&["a"]);
    for (ms, state) in [(9_999, "Stable"), (10_000, "Empty")] {
        let mut effects = Effects::default();
        sim.coordinator.on_time(Now { ms, wall_ms: ms }, &mut effects);
        sim.coordinator.durable(effects.step);
        assert_eq!((sim.state(), effects.answers.len()), (state, 0));
        assert_eq!(
            effects.records.len(),
            usize::from(state == "Empty"),
            "the end of the generation is written"
        );
    }
}

#[test]
fn an_id_that_was_handed_out_is_good_for_one_session() {
    for (waited_ms, error) in [(9_999, None), (10_000, Some(ErrorCode::UnknownMemberId))] {
        let mut sim = Sim::eager();
        sim.pass(500);
        sim.stable(&["a"]);
        let id = {
            let ticket = sim.ask_join(join("b", ""));
            sim.joined(ticket).unwrap().member_id
        };
        // Another one ends before.
        sim.join_error(JoinGroup { session_timeout_ms: 6_000, ..join("c", "") });
        sim.pass(6_000);
        assert_eq!(sim.join_error(join("c", "c-x")), ErrorCode::UnknownMemberId);
        sim.heartbeat("a-x", 1);
        sim.pass(waited_ms - 6_000);
        let ticket = sim.ask_join(join("b", &id));
        assert_eq!(sim.joined(ticket).map(|reply| reply.error), error, "after {waited_ms} ms");
    }
}

/// One that joins for the first time waits without a session, for it does not know yet who it is.
#[test]
fn a_newcomer_that_waits_is_given_up_after_five_minutes() {
    let config = GroupConfig { initial_rebalance_delay_ms: 600_000, ..GroupConfig::default() };
    let mut sim = Sim::new(config);
    sim.pass(70);
    let ticket = sim.ask_join(old_join("a"));
    assert_eq!(next(&sim), Some(300_070));
    sim.pass(299_999);
    assert_eq!((sim.joined(ticket), sim.state()), (None, "PreparingRebalance"));
    sim.pass(1);
    assert_eq!(sim.joined(ticket).unwrap().error, ErrorCode::UnknownMemberId);
    assert_eq!((sim.state(), next(&sim)), ("Dead", None));
}

/// Each newcomer prolongs the wait by the delay, all of them together by no more than the rebalance timeout.
#[test]
fn the_initial_wait_ends_with_the_rebalance_timeout() {
    let mut sim = delayed();
    let first = |client: &str| JoinGroup { rebalance_timeout_ms: 10_000, ..old_join(client) };
    let a = sim.ask_join(first("a"));
    for (pass_ms, client) in [(2_000, "b"), (3_000, "c"), (3_000, "d")] {
        sim.pass(pass_ms);
        sim.ask_join(first(client));
    }
    sim.pass(999);
    assert_eq!(next(&sim), Some(9_000));
    sim.pass(1);
    assert_eq!(next(&sim), Some(10_000), "there is one second left");
    sim.ask_join(first("e"));
    sim.pass(999);
    assert_eq!(sim.joined(a), None);
    sim.pass(1);
    assert_eq!(sim.joined(a).unwrap().members.len(), 5);
}

#[test]
fn the_initial_wait_is_not_prolonged_when_nobody_came_since() {
    let mut sim = delayed();
    let a = sim.ask_join(old_join("a"));
    sim.pass(2_999);
    sim.ask_join(old_join("b"));
    sim.pass(1);
    assert_eq!((sim.joined(a), next(&sim)), (None, Some(6_000)));
    sim.pass(2_999);
    assert_eq!(sim.joined(a), None);
    sim.pass(1);
    assert_eq!(sim.joined(a).unwrap().members.len(), 2);
}

#[test]
fn a_rebalance_timeout_below_the_initial_delay_does_not_prolong() {
    let mut sim = delayed();
    let short = |client: &str| JoinGroup { rebalance_timeout_ms: 1_000, ..old_join(client) };
    let a = sim.ask_join(short("a"));
    sim.pass(1_000);
    sim.ask_join(short("b"));
    sim.pass(1_999);
    assert_eq!(sim.joined(a), None);
    sim.pass(1);
    assert_eq!(sim.joined(a).unwrap().members.len(), 2);
}

/// The longest rebalance timeout of all members counts.
#[test]
fn a_rebalance_waits_for_the_slowest() {
    let mut sim = Sim::eager();
    let long = |join: JoinGroup| JoinGroup { session_timeout_ms: 900_000, ..join };
    sim.ask_join(long(old_join("a")));
    sim.ask_sync("a-x", 1, &[]);
    sim.pass(1_000);
    let b = sim.ask_join(JoinGroup { rebalance_timeout_ms: 1_000, ..long(old_join("b")) });
    assert_eq!(next(&sim), Some(61_000));
    sim.pass(59_999);
    assert_eq!(sim.joined(b), None);
    sim.pass(1);
    let reply = sim.joined(b).unwrap();
    assert_eq!((reply.generation, reply.members.len(), reply.leader.as_str()), (2, 1, "b-x"));
    assert_eq!(sim.heartbeat("a-x", 1), ErrorCode::UnknownMemberId);
}

#[test]
fn a_rebalance_waits_for_an_id_that_was_handed_out() {
    for leaves in [true, false] {
        let mut sim = Sim::eager();
        sim.stable(&["a"]);
        sim.join_error(join("b", ""));
        let c = sim.ask_join(old_join("c"));
        let a = sim.ask_join(join("a", "a-x"));
        assert_eq!((sim.joined(a), sim.joined(c)), (None, None), "b may come");
        if leaves {
            assert_eq!(sim.leave(&[caller("b-x", -1)]), [ErrorCode::None]);
        } else {
            sim.pass(9_999);
            assert_eq!(sim.joined(a), None);
            sim.pass(1);
        }
        assert_eq!(sim.joined(a).unwrap().members.len() + sim.joined(c).unwrap().members.len(), 2);
    }
}

#[test]
fn one_that_never_syncs_goes_when_the_rebalance_timeout_has_passed() {
    let mut sim = Sim::eager();
    let long =
        |join: JoinGroup| JoinGroup { session_timeout_ms: 900_000, rebalance_timeout_ms: 20_000, ..join };
    sim.ask_join(long(old_join("a")));
    sim.ask_sync("a-x", 1, &[]);
    sim.pass(1_000);
    sim.ask_join(long(old_join("b")));
    sim.ask_join(long(join("a", "a-x")));
    sim.ask_sync("a-x", 2, &[("a-x", "all")]);
    assert_eq!((sim.state(), next(&sim)), ("Stable", Some(21_000)));
    sim.pass(19_999);
    let mut effects = Effects::default();
    sim.coordinator.on_time(sim.now(), &mut effects);
    assert_eq!(sim.heartbeat("b-x", 2), ErrorCode::None);
    sim.pass(1);
    assert_eq!(sim.heartbeat("b-x", 2), ErrorCode::UnknownMemberId);
    assert_eq!(sim.heartbeat("a-x", 2), ErrorCode::RebalanceInProgress);
    let again = sim.ask_join(long(join("a", "a-x")));
    assert_eq!(sim.joined(again).unwrap().generation, 3);
    sim.ask_sync("a-x", 3, &[]);
    sim.pass(60_000);
    assert_eq!(sim.heartbeat("a-x", 3), ErrorCode::None, "who has synced stays");
}

#[test]
fn everybody_that_is_silent_goes_in_one_look() {
    let mut sim = Sim::eager();
    sim.stable(&["a", "b", "c"]);
    sim.pass(10_000);
    assert_eq!((sim.state(), next(&sim)), ("Empty", None));
    let mut never_synced = Sim::eager();
    let long = |join: JoinGroup| JoinGroup { session_timeout_ms: 900_000, ..join };
    never_synced.ask_join(long(old_join("a")));
    never_synced.ask_join(long(old_join("b")));
    never_synced.ask_join(long(join("a", "a-x")));
    assert_eq!(next(&never_synced), Some(60_000));
    never_synced.pass(60_000);
    assert_eq!((never_synced.state(), next(&never_synced)), ("Empty", None));
}

/// A member that waits for us cannot send heartbeats, so its session begins when it is answered.
#[test]
fn a_session_begins_with_each_answer() {
    let mut sim = Sim::eager();
    let silent_since = |sim: &mut Sim, id: &str, generation: i32| {
        let start_ms = sim.now_ms;
        sim.pass(9_999);
        assert_ne!(sim.heartbeat(id, generation + 7), ErrorCode::UnknownMemberId, "{id} since {start_ms}");
        sim.pass(1);
        assert_eq!(sim.heartbeat(id, generation + 7), ErrorCode::UnknownMemberId, "{id} since {start_ms}");
    };
    let others_live = |join: JoinGroup| JoinGroup { session_timeout_ms: 900_000, ..join };
    sim.ask_join(others_live(old_join("a")));
    sim.ask_sync("a-x", 1, &[]);
    // JoinGroup.
    sim.ask_join(old_join("b"));
    sim.pass(30_000);
    sim.ask_join(others_live(join("a", "a-x")));
    silent_since(&mut sim, "b-x", 2);
    // SyncGroup: one waits for its leader, which syncs late.
    let rejoin = |sim: &mut Sim, fresh: &str| {
        let ticket = sim.ask_join(JoinGroup { fresh_id: fresh.into(), ..old_join("b") });
        let leader = sim.ask_join(others_live(join("a", "a-x")));
        let generation = sim.joined(leader).unwrap().generation;
        let id = sim.joined(ticket).unwrap().member_id;
        let sync = sim.ask_sync(&id, generation, &[]);
        sim.pass(40_000);
        assert_eq!(sim.synced(sync), None);
        (id, generation, sync)
    };
    let (id, generation, sync) = rejoin(&mut sim, "2");
    sim.ask_sync("a-x", generation, &[]);
    assert_eq!(sim.synced(sync).unwrap().error, ErrorCode::None);
    silent_since(&mut sim, &id, generation);
    // A SyncGroup that a rebalance ends.
    let (id, generation, sync) = rejoin(&mut sim, "3");
    sim.ask_join(others_live(old_join("c")));
    assert_eq!(sim.synced(sync).unwrap().error, ErrorCode::RebalanceInProgress);
    silent_since(&mut sim, &id, generation);
}

#[test]
fn a_session_begins_anew_with_each_sign_of_life() {
    type Sign = fn(&mut Sim);
    let signs: [(&str, Sign); 4] = [
        ("heartbeat", |sim| assert_eq!(sim.heartbeat("a-x", 1), ErrorCode::None)),
        ("commit", |sim| assert_eq!(sim.commit(&caller("a-x", 1), "t", 1), ErrorCode::None)),
        ("sync", |sim| assert_eq!(sim.sync_error(sync("a-x", 1, &[])), ErrorCode::None)),
        ("an unchanged follower joins", |sim| assert_eq!(sim.join_error(join("b", "b-x")), ErrorCode::None)),
    ];
    for (name, sign) in signs {
        let mut sim = Sim::eager();
        // Only a follower can join without a rebalance, so for that b is the one that lives.
        let lives = if name.ends_with("joins") {
            let (_, ids) = sim.stable(&["a", "b"]);
            assert_eq!(ids, ["a-x", "b-x"]);
            "b-x"
        } else {
            sim.stable(&["a"]);
            "a-x"
        };
        sim.pass(9_000);
        sign(&mut sim);
        sim.pass(9_999);
        assert_ne!(sim.heartbeat(lives, 99), ErrorCode::UnknownMemberId, "{name}");
        sim.pass(1);
        assert_eq!(sim.heartbeat(lives, 99), ErrorCode::UnknownMemberId, "{name}");
    }
}
