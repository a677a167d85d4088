//! Random histories of a group: members come, answer, fall silent, leave and restart in any order,
//! and some things always hold.

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::ErrorCode;
use proptest::prelude::*;

use super::sim::*;
use super::*;

/// A client that does what a consumer does, when the history lets it act.
#[derive(Debug, Default, Clone)]
struct Client {
    id: String,
    generation: i32,
    joining: Option<Ticket>,
    syncing: Option<Ticket>,
    leader_of: Option<Vec<String>>,
    assignment: Option<(i32, String)>,
}

#[derive(Debug, Clone)]
enum Step {
    /// The client does the next thing its protocol asks for.
    Act(usize),
    /// The client forgets everything: its process died and started again.
    Die(usize),
    Leave(usize),
    Pass(i64),
    /// The broker is killed and reads its log.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..4_usize).prop_map(Step::Act),
        1 => (0..4_usize).prop_map(Step::Die),
        1 => (0..4_usize).prop_map(Step::Leave),
        3 => (1..4_000_i64).prop_map(Step::Pass),
        1 => (4_000..70_000_i64).prop_map(Step::Pass),
        1 => Just(Step::Restart),
    ]
}

/// Which clients believe to own what, by generation: the leader hands out `part-<n>` to the n-th member.
fn check(sim: &Sim, clients: &[Client], seen: &mut BTreeMap<i32, BTreeMap<String, String>>) {
    let Some(group) = sim.coordinator.describe(GROUP) else { return };
    let ids: BTreeSet<&String> = group.members.iter().map(|member| &member.id).collect();
    assert_eq!(ids.len(), group.members.len());
    match group.state {
        "Stable" => {
            for member in &group.members {
                assert!(!member.assignment.is_empty(), "{} has no assignment", member.id);
            }
            let parts: BTreeSet<&[u8]> = group.members.iter().map(|member| &member.assignment[..]).collect();
            assert_eq!(parts.len(), group.members.len(), "two members own the same");
        }
        "Empty" => assert!(group.members.is_empty()),
        "PreparingRebalance" | "CompletingRebalance" => {}
        other => panic!("state {other}"),
    }
    for client in clients {
        if let Some((generation, part)) = &client.assignment {
            let owners = seen.entry(*generation).or_default();
            let before = owners.insert(part.clone(), client.id.clone());
            assert!(
                before.is_none_or(|id| id == client.id),
                "two owners of {part} in generation {generation}"
            );
        }
    }
}

fn collect(sim: &Sim, client: &mut Client) {
    if let Some(reply) = client.joining.and_then(|ticket| sim.joined(ticket)) {
        client.joining = None;
        match reply.error {
            ErrorCode::None => {
                client.generation = reply.generation;
                client.leader_of = (reply.leader == reply.member_id)
                    .then(|| reply.members.iter().map(|member| member.id.clone()).collect());
                client.id = reply.member_id;
                client.syncing = Some(0);
            }
            ErrorCode::MemberIdRequired => client.id = reply.member_id,
            ErrorCode::UnknownMemberId => *client = Client::default(),
            ErrorCode::RebalanceInProgress => {}
            other => panic!("{other:?}"),
        }
    }
    if let Some(reply) = client.syncing.filter(|ticket| *ticket > 0).and_then(|ticket| sim.synced(ticket)) {
        client.syncing = None;
        match reply.error {
            ErrorCode::None => {
                let part = String::from_utf8(reply.assignment.to_vec()).unwrap();
                client.assignment = Some((client.generation, part));
            }
            ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration => *client = Client::default(),
            ErrorCode::RebalanceInProgress => client.generation = 0,
            other => panic!("{other:?}"),
        }
    }
}

fn act(sim: &mut Sim, name: usize, fresh: usize, client: &mut Client) {
    if client.joining.is_some() || client.syncing.is_some_and(|ticket| ticket > 0) {
        return;
    }
    if client.syncing == Some(0) {
        let parts: Vec<(String, String)> = client
            .leader_of
            .take()
            .unwrap_or_default()
            .into_iter()
            .enumerate()
            .map(|(index, id)| (id, format!("part-{index}")))
            .collect();
        let parts: Vec<(&str, &str)> = parts.iter().map(|(id, part)| (id.as_str(), part.as_str())).collect();
        client.syncing = Some(sim.ask_sync(&client.id, client.generation, &parts));
    } else if client.generation > 0 {
        match sim.heartbeat(&client.id, client.generation) {
            ErrorCode::None => {}
            ErrorCode::RebalanceInProgress => {
                let ticket = sim.ask_join(join(&format!("c{name}"), &client.id));
                client.joining = Some(ticket);
                client.generation = 0;
            }
            ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration => *client = Client::default(),
            other => panic!("{other:?}"),
        }
    } else {
        let request = JoinGroup { fresh_id: fresh.to_string(), ..join(&format!("c{name}"), &client.id) };
        client.joining = Some(sim.ask_join(request));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nothing_is_owned_twice_and_every_group_comes_to_rest(
        steps in prop::collection::vec(step(), 1..120),
        delay in prop_oneof![Just(0), Just(3_000)],
    ) {
        let config = GroupConfig { initial_rebalance_delay_ms: delay, ..GroupConfig::default() };
        let mut sim = Sim::new(config.clone());
        let mut clients = vec![Client::default(); 4];
        let mut seen = BTreeMap::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Act(index) => act(&mut sim, index, number, &mut clients[index]),
                Step::Die(index) => clients[index] = Client::default(),
                Step::Leave(index) => {
                    let id = std::mem::take(&mut clients[index]).id;
                    sim.leave(&[caller(&id, -1)]);
                }
                Step::Pass(ms) => sim.pass(ms),
                Step::Restart => {
                    let mut next = sim.restarted(config.clone());
                    next.records = std::mem::take(&mut sim.records);
                    sim = next;
                    for client in &mut clients {
                        // Their connections are gone, and with them every request under way.
                        client.joining = None;
                        client.syncing = None;
                        client.assignment = None;
                    }
                    // A generation that was never stored may be given out again.
                    seen.clear();
                }
            }
            for client in &mut clients {
                collect(&sim, client);
            }
            check(&sim, &clients, &mut seen);
        }
        // When everybody keeps at it, the group becomes stable with all of them in it.
        for round in 0..400 {
            for (index, client) in clients.iter_mut().enumerate() {
                collect(&sim, client);
                act(&mut sim, index, 1_000 + round * 10 + index, client);
            }
            sim.pass(500);
        }
        for client in &mut clients {
            collect(&sim, client);
        }
        check(&sim, &clients, &mut seen);
        let group = sim.coordinator.describe(GROUP).unwrap();
        prop_assert_eq!((group.state, group.members.len()), ("Stable", 4));
    }
}
