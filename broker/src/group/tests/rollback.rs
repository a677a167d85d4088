//! Groups on a log that refuses, gets lost and loses power: what was told is durable, and what is undone is as if it
//! had never been.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use klamm_protocol::{ErrorCode, Uuid};

use super::super::records::StoredGroup;
use super::sim::*;
use super::*;
use crate::controller::{MetadataRecord, View};
use crate::coordinator::World;

const UNAVAILABLE: ErrorCode = ErrorCode::CoordinatorNotAvailable;

/// What is written down of each group.
type Written = BTreeMap<String, (Option<StoredGroup>, BTreeMap<String, BTreeMap<i32, CommittedOffset>>)>;

fn written(coordinator: &Coordinator) -> Written {
    coordinator
        .written_groups()
        .into_iter()
        .filter(|(_, (group, offsets))| group.is_some() || !offsets.is_empty())
        .collect()
}

fn fresh() -> Coordinator {
    Coordinator::new(GroupConfig { initial_rebalance_delay_ms: 0, ..GroupConfig::default() })
}

fn effects(step: Step) -> Effects<Reply> {
    Effects::new(step, usize::MAX)
}

fn a_commit(topic: &str, partition: i32, offset: i64) -> Commit {
    Commit {
        topic: topic.into(),
        topic_id: TOPIC,
        partition,
        offset,
        leader_epoch: -1,
        metadata: String::new(),
    }
}

fn answers(effects: Effects<Reply>) -> Vec<(Ticket, Reply, Step)> {
    effects.answers.into_iter().map(|answer| (answer.ticket, answer.reply, answer.rests_on)).collect()
}

#[test]
fn a_commit_that_is_undone_leaves_what_was_there_before() {
    let mut sim = Sim::eager();
    sim.commit(&caller("", -1), "t", 5);
    let coordinator = &mut sim.coordinator;
    let before = written(coordinator);
    let now = Now { ms: 1, wall_ms: 1 };
    let mut second = effects(2);
    let commits = vec![a_commit("t", 0, 6), a_commit("t", 1, 7), a_commit("t", 0, 8)];
    assert_eq!(coordinator.commit(now, GROUP, &caller("", -1), commits, &mut second), [ErrorCode::None; 3]);
    assert_eq!(second.records.len(), 2, "what a later offset of the request replaces is not written");
    assert_eq!(coordinator.committed(GROUP, "t", 0).unwrap().offset, 8);
    coordinator.commit(now, "other", &caller("", -1), vec![a_commit("t", 0, 1)], &mut effects(3));
    assert!(coordinator.describe("other").is_none() && list_all(coordinator).len() == 1);
    let mut undone = effects(2);
    coordinator.roll_back(now, 1, &mut undone);
    assert_eq!((written(coordinator), answers(undone)), (before, vec![]));
    assert_eq!(list_all(coordinator).len(), 1);
}

#[test]
fn who_waits_for_an_assignment_that_is_undone_is_told_and_can_come_back() {
    let mut sim = Sim::eager();
    let (generation, ids) = sim.stable(&["a"]);
    let (b, b_join) = sim.join_new("b");
    let a_join = sim.ask_join(join("", &ids[0]));
    assert_eq!(sim.joined(a_join).unwrap().generation, generation + 1);
    let _ = sim.joined(b_join).unwrap();
    sim.ask_sync(&b, generation + 1, &[]);
    let before = written(&sim.coordinator);
    let now = sim.now();
    let mut assigned = effects(2);
    let assignments = [(ids[0].as_str(), "1"), (b.as_str(), "2")];
    sim.coordinator.sync(now, 99, sync(&ids[0], generation + 1, &assignments), &mut assigned);
    assert_eq!(assigned.answers.len(), 2);
    assert!(assigned.answers.iter().all(|answer| answer.rests_on == 2));
    assert_eq!(sim.state(), "CompletingRebalance", "it is not told that it is stable before that is durable");
    // A third one begins to wait meanwhile.
    let mut joining = effects(3);
    sim.coordinator.join(now, 100, join("c", ""), &mut joining);
    assert_eq!(answers(joining)[0].2, 2, "what it is told rests on the assignment");
    let mut rejoining = effects(3);
    sim.coordinator.join(now, 101, join("", &ids[0]), &mut rejoining);
    assert_eq!(answers(rejoining), []);

    let mut undone = effects(2);
    sim.coordinator.roll_back(now, 1, &mut undone);
    let told = Reply::Join(JoinReply::error(UNAVAILABLE, &ids[0]));
    assert_eq!(answers(undone), [(101, told, 0)]);
    assert_eq!((written(&sim.coordinator), sim.state()), (before, "Stable"));
    assert_eq!(sim.heartbeat(&ids[0], generation), ErrorCode::None, "as after a restart");
    assert_eq!(sim.heartbeat(&b, generation), ErrorCode::UnknownMemberId);
    sim.pass(9_999);
    assert_eq!(sim.state(), "Stable", "with one session to be heard of");
    sim.pass(1);
    assert_eq!(sim.state(), "Empty");
    sim.stable(&["d"]);
}

#[test]
fn a_group_that_is_gone_but_not_durably_is_still_shown() {
    let week_ms = GroupConfig::default().offsets_retention_ms;
    let mut sim = Sim::eager();
    let (generation, ids) = sim.stable(&["a"]);
    sim.commit(&caller(&ids[0], generation), "t", 1);
    sim.leave(&[caller(&ids[0], -1)]);
    let (listed, before) = (list_all(&sim.coordinator), written(&sim.coordinator));
    sim.now_ms += week_ms;
    let now = sim.now();
    let mut expired = effects(2);
    sim.coordinator.expire(now, &mut expired);
    assert_eq!(expired.records.len(), 2);
    assert_eq!((list_all(&sim.coordinator), sim.state()), (listed.clone(), "Empty"));
    let fetch = FetchOffsets { group: GROUP.into(), topics: None, require_stable: false };
    assert_eq!(sim.coordinator.fetch(&fetch), (vec![], 2), "that there is nothing rests on the tombstones");
    sim.coordinator.roll_back(now, 1, &mut effects(2));
    assert_eq!((list_all(&sim.coordinator), written(&sim.coordinator)), (listed, before));
    let mut expired = effects(2);
    sim.coordinator.expire(now, &mut expired);
    sim.coordinator.durable(2);
    assert_eq!((list_all(&sim.coordinator), sim.state()), (vec![], "Dead"));
    assert_eq!(sim.coordinator.fetch(&fetch), (vec![], 0));
}

#[test]
fn an_offset_belongs_to_one_topic_and_not_to_its_name() {
    let mut sim = Sim::eager();
    sim.commit(&caller("", -1), "t", 5);
    let now = sim.now();
    let (old, new) = (TOPIC, Uuid::from_u128(99));
    let asked = |id| FetchOffsets {
        group: GROUP.into(),
        topics: Some(vec![FetchTopic { name: "t".into(), id, partitions: vec![0, 1] }]),
        require_stable: false,
    };
    let found = |sim: &Sim, id| {
        let partitions = sim.coordinator.fetch(&asked(id)).0.remove(0).partitions;
        partitions.into_iter().map(|(_, offset)| offset.map(|offset| offset.offset)).collect::<Vec<_>>()
    };
    assert_eq!((found(&sim, old), found(&sim, new)), (vec![Some(5), None], vec![None, None]));
    // The old topic goes, but its tombstone is undone. Nobody who asks of the new one sees it.
    sim.coordinator.topic_deleted(old, "t", &mut effects(2));
    assert_eq!(found(&sim, old), [None, None]);
    sim.coordinator.roll_back(now, 1, &mut effects(2));
    assert_eq!((found(&sim, old), found(&sim, new)), (vec![Some(5), None], vec![None, None]));
    // The next sweep takes it away.
    let mut swept = effects(2);
    sim.coordinator.sweep_topics(|_| Some(new), &mut swept);
    assert_eq!(swept.records.len(), 1);
}

/// Records from before there were ids are taken by name when they are loaded, and belong to that topic from then on.
#[test]
fn an_offset_without_an_id_is_adopted_by_the_topic_of_its_name() {
    let metadata = String::new();
    let committed =
        CommittedOffset { topic_id: Uuid::ZERO, offset: 3, leader_epoch: -1, metadata, committed_at_ms: 5 };
    let mut coordinator = fresh();
    let now = Now { ms: 1, wall_ms: 1 };
    for topic in ["here", "gone"] {
        let record = super::super::records::offset_record(GROUP, topic, 0, &committed).unwrap();
        coordinator.replay(now, None, &record).unwrap();
    }
    coordinator.replayed(now);
    let mut deleted = effects(1);
    coordinator.topic_deleted(TOPIC, "gone", &mut deleted);
    assert_eq!(deleted.records.len(), 1, "before it is adopted it goes with whatever topic of its name goes");
    coordinator.roll_back(now, 0, &mut effects(1));
    let mut loaded = effects(1);
    let id_of = |topic: &str| (topic == "here").then_some(TOPIC);
    coordinator.adopt_topics(id_of, &mut loaded);
    assert_eq!(loaded.records.len(), 1);
    assert_eq!(coordinator.committed(GROUP, "here", 0).unwrap().topic_id, TOPIC);
    assert_eq!(coordinator.committed(GROUP, "gone", 0), None);
    // Not even when its tombstone could not be written does a topic that comes later get it.
    coordinator.roll_back(now, 0, &mut effects(1));
    assert!(!coordinator.committed(GROUP, "gone", 0).unwrap().topic_id.is_zero());
    coordinator.topic_deleted(Uuid::from_u128(98), "here", &mut effects(1));
    assert!(coordinator.committed(GROUP, "here", 0).is_some());
}

#[test]
fn names_are_bounded_on_the_way_in() {
    let mut sim = Sim::eager();
    let instance = |len| JoinGroup { instance_id: Some("i".repeat(len)), ..join("c", "") };
    assert_eq!(sim.join_error(instance(250)), ErrorCode::InvalidRequest);
    assert_eq!(sim.join_error(instance(249)), ErrorCode::None);
    let group = |len| "g".repeat(len);
    assert_eq!(sim.join_error(JoinGroup { group: group(1_025), ..join("c", "") }), ErrorCode::InvalidGroupId);
    assert_eq!(
        sim.join_error(JoinGroup { group: group(1_024), ..join("c", "") }),
        ErrorCode::MemberIdRequired
    );
    let now = sim.now();
    let mut commit = |len: usize| {
        let commits = vec![a_commit("t", 0, 1)];
        sim.coordinator.commit(now, &group(len), &caller("", -1), commits, &mut effects(2))
    };
    assert_eq!((commit(1_025), commit(1_024)), (vec![ErrorCode::InvalidGroupId], vec![ErrorCode::None]));
}

/// A string that a record has no room for refuses the step, and the group is as it was.
#[test]
fn a_generation_that_cannot_be_written_is_refused() {
    let mut sim = Sim::eager();
    let long = "p".repeat(40_000);
    let ticket = sim.ask_join(JoinGroup { protocol_type: long, ..old_join("a") });
    assert_eq!(sim.joined(ticket).unwrap().generation, 1);
    let mut assigned = effects(2);
    let now = sim.now();
    sim.coordinator.sync(now, 50, sync("a-x", 1, &[]), &mut assigned);
    assert_eq!((assigned.refused, assigned.records.len()), (Some(ErrorCode::UnknownServerError), 0));
    sim.coordinator.roll_back(now, 1, &mut effects(2));
    assert_eq!(sim.state(), "Dead");
}

fn view(id: Uuid) -> Arc<View> {
    let mut view = View::default();
    view.image.apply(&MetadataRecord::Topic { name: "t".into(), id });
    Arc::new(view)
}

/// Members that do what they are told, commits, topics that come and go, and a log that does what it pleases.
fn history(seed: u64) -> (World<Coordinator>, usize) {
    let mut world: World<Coordinator> = World::new(seed, fresh);
    let mut members: BTreeMap<Ticket, (String, String)> = BTreeMap::new();
    let mut known: Vec<(String, JoinReply)> = Vec::new();
    let mut commits: BTreeMap<Ticket, (String, i64)> = BTreeMap::new();
    let mut topic = Uuid::from_u128(1);
    let mut durably_told = 0;
    for number in 1..world.below(150) + 10 {
        let group = format!("g{}", world.below(3));
        let picked = usize::try_from(world.below(known.len() as u64 + 1)).unwrap();
        let member = known.get(picked).filter(|(of, _)| *of == group).map(|(_, reply)| reply.clone());
        match world.below(16) {
            0 | 1 => {
                let id = member.map(|member| member.member_id).unwrap_or_default();
                let request =
                    JoinGroup { group: group.clone(), fresh_id: number.to_string(), ..join("c", &id) };
                let request = JoinGroup { knows_member_id_required: number % 2 == 0, ..request };
                members.insert(world.ask(Command::Join(request)), (group, id));
            }
            2 | 3 => {
                let Some(member) = member else { continue };
                let assignments: Vec<(&str, &str)> =
                    member.members.iter().map(|one| (one.id.as_str(), one.id.as_str())).collect();
                let request = SyncGroup { group, ..sync(&member.member_id, member.generation, &assignments) };
                world.ask(Command::Sync(request));
            }
            4 => {
                let caller =
                    member.map_or_else(|| caller("nobody", 1), |m| caller(&m.member_id, m.generation));
                world.ask(Command::Heartbeat { group, caller });
            }
            5..8 => {
                let caller = member.map_or_else(|| caller("", -1), |m| caller(&m.member_id, m.generation));
                let offset = i64::try_from(number).unwrap();
                let commit = Commit { topic_id: topic, ..a_commit("t", 0, offset) };
                let command = Command::Commit { group: group.clone(), caller, commits: vec![commit] };
                commits.insert(world.ask(command), (group, offset));
            }
            8 => {
                let callers = vec![member.map_or_else(|| caller("x", -1), |m| caller(&m.member_id, -1))];
                world.ask(Command::Leave { group, callers });
            }
            9 => {
                let topics = Some(vec![FetchTopic { name: "t".into(), id: topic, partitions: vec![0] }]);
                world.ask(Command::Fetch(FetchOffsets { group, topics, require_stable: number % 2 == 0 }));
            }
            10 if number % 4 == 0 => {
                let id = std::mem::replace(&mut topic, Uuid::from_u128(u128::from(number) + 1));
                world.inform(Command::TopicDeleted { id, name: "t".into() });
            }
            11 if number % 4 == 0 => world.inform(Command::Expire(view(topic))),
            _ => world.happen(Some(Command::Loaded(view(topic)))),
        }
        durably_told += heard(&mut world, &mut members, &mut known, &mut commits, topic);
    }
    world.settle(Some(Command::Loaded(view(topic))));
    (world, durably_told)
}

/// Looks at the answers: whatever they say is in the durable part of the log.
fn heard(
    world: &mut World<Coordinator>,
    members: &mut BTreeMap<Ticket, (String, String)>,
    known: &mut Vec<(String, JoinReply)>,
    commits: &mut BTreeMap<Ticket, (String, i64)>,
    topic: Uuid,
) -> usize {
    let told = world.take_told();
    let mut count = 0;
    if told.is_empty() {
        return 0;
    }
    let durable: BTreeSet<Vec<u8>> = world
        .durable_records()
        .filter_map(|record| record.value.as_ref().map(|value| value.to_vec()))
        .collect();
    let has_offset =
        |offset: i64| durable.iter().any(|value| value.get(2..10) == Some(&offset.to_be_bytes()[..]));
    for (ticket, told) in told {
        let (joined, commit) = (members.remove(&ticket), commits.remove(&ticket));
        match told {
            Ok(Reply::Join(reply)) if reply.error == ErrorCode::None => {
                known.push((joined.unwrap().0, reply));
            }
            Ok(Reply::Join(reply)) if reply.error == ErrorCode::MemberIdRequired => {
                known.push((joined.unwrap().0, reply));
            }
            Ok(Reply::Sync(reply)) if !reply.assignment.is_empty() => {
                let is_in = |value: &Vec<u8>| {
                    value.windows(reply.assignment.len()).any(|part| part == reply.assignment)
                };
                assert!(durable.iter().any(is_in), "an assignment that is not durable");
                count += 1;
            }
            Ok(Reply::Codes(codes)) => {
                if let Some((_, offset)) = commit.filter(|_| codes == [ErrorCode::None]) {
                    assert!(has_offset(offset), "a commit that is not durable");
                    count += 1;
                }
            }
            Ok(Reply::Offsets(found)) => {
                for (_, offset) in found.into_iter().flat_map(|topic| topic.partitions) {
                    let Some(offset) = offset else { continue };
                    // One of a topic that was deleted in the meantime may be taken back already.
                    assert!(offset.topic_id != topic || has_offset(offset.offset));
                    count += 1;
                }
            }
            _ => {}
        }
    }
    count
}

#[test]
fn whatever_the_log_does_groups_are_what_it_says() {
    let (mut refused, mut crashes, mut told) = (0, 0, 0);
    for seed in 0..1_500 {
        let (mut world, durably_told) = history(seed);
        let expected = written(&world.replayed());
        let found = world.look(written);
        assert_eq!(found, expected, "seed {seed}: rolled back is as if replayed");
        // Everybody is told in the end: members fall silent, and nobody waits for them.
        for _ in 0..200 {
            world.pass(5_000);
            world.settle(None);
        }
        assert!(world.all_are_answered(), "seed {seed}: an answer was lost");
        refused += world.refused;
        crashes += world.crashes;
        told += durably_told;
    }
    assert!(
        refused > 200 && crashes > 50 && told > 2_000,
        "{refused} refused, {crashes} crashes, {told} told"
    );
}

#[test]
fn the_same_seed_writes_the_same_log() {
    for seed in [7, 8, 9] {
        assert_eq!(history(seed).0.log(), history(seed).0.log());
    }
    assert_ne!(history(7).0.log(), history(8).0.log());
}
