//! Members of one group against leaders that keep Kafka's rules, thousands of histories: every record is accepted by
//! somebody, none by two whose acknowledgements were taken, and nobody waits for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use klamm_protocol::ErrorCode;
use tokio::time::Instant;

use super::tests::{LASTS, record, rules, slot};
use super::*;
use crate::runtime::SeededRng;

const RECORDS: i64 = 30;
const MEMBERS: usize = 3;
const NODES: i32 = 2;
const PARTITIONS: i32 = 3;
const STEPS: usize = 3_000;

/// What a leader knows of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Available,
    /// By whom, and until when.
    Acquired(usize, Instant),
    Done,
}

/// The leaders: Kafka's rules of sessions and locks.
struct Cluster {
    records: BTreeMap<(i32, i64), State>,
    /// The epoch that the next request of a member to a node must have.
    sessions: BTreeMap<(usize, i32), i32>,
    leaders: BTreeMap<i32, i32>,
    accepted: BTreeMap<(i32, i64), usize>,
}

impl Cluster {
    fn expire(&mut self, now: Instant) {
        for state in self.records.values_mut() {
            if matches!(state, State::Acquired(_, until) if *until <= now) {
                *state = State::Available;
            }
        }
    }

    fn release(&mut self, member: usize, node: i32) {
        let led: BTreeSet<i32> = self.led_by(node);
        for ((partition, _), state) in &mut self.records {
            if led.contains(partition) && matches!(state, State::Acquired(holder, _) if *holder == member) {
                *state = State::Available;
            }
        }
    }

    fn led_by(&self, node: i32) -> BTreeSet<i32> {
        self.leaders.iter().filter(|(_, leader)| **leader == node).map(|(partition, _)| *partition).collect()
    }

    /// The leader gets another id, and what was locked by the old one is not any more.
    fn move_leader(&mut self, partition: i32, node: i32) {
        self.leaders.insert(partition, node);
        for ((of, _), state) in &mut self.records {
            if *of == partition && matches!(state, State::Acquired(..)) {
                *state = State::Available;
            }
        }
    }

    fn answer(&mut self, member: usize, send: &Send, rng: &SeededRng, now: Instant) -> Answer {
        self.expire(now);
        let expected = self.sessions.get(&(member, send.node)).copied();
        let refused = |code| Answer { code: Some(code), ..Answer::default() };
        match (send.epoch, expected) {
            (0, _) => {
                assert!(matches!(send.what, What::Fetch { .. }) && send.said.is_empty(), "{send:?}");
                self.release(member, send.node);
                self.sessions.insert((member, send.node), 1);
            }
            (_, None) => return refused(ErrorCode::ShareSessionNotFound),
            (-1, Some(_)) => drop(self.sessions.remove(&(member, send.node))),
            (epoch, Some(expected)) if epoch == expected => {
                self.sessions.insert((member, send.node), expected + 1);
            }
            _ => return refused(ErrorCode::InvalidShareSessionEpoch),
        }
        let mut parts: BTreeMap<Slot, Part> = BTreeMap::new();
        for (slot, said) in &send.said {
            let code = self.take(member, send.node, slot.partition, said, now);
            parts.entry(*slot).or_insert_with(|| part(*slot)).acknowledged = code;
        }
        if send.epoch == -1 {
            self.release(member, send.node);
        }
        if matches!(send.what, What::Fetch { .. }) {
            for partition in self.led_by(send.node) {
                let most = rng.below(4) as usize;
                let free = self
                    .records
                    .iter_mut()
                    .filter(|((of, _), state)| *of == partition && **state == State::Available);
                let mut records = Vec::new();
                for ((_, offset), state) in free.take(most) {
                    *state = State::Acquired(member, now + LASTS);
                    records.push((record(partition, *offset), 1));
                }
                parts.entry(slot(partition)).or_insert_with(|| part(slot(partition))).records = records;
            }
        }
        Answer { lasts: LASTS, renews: true, parts: parts.into_values().collect(), ..Answer::default() }
    }

    /// All of a partition's acknowledgements, or none.
    fn take(
        &mut self,
        member: usize,
        node: i32,
        partition: i32,
        said: &super::super::locks::Said,
        now: Instant,
    ) -> ErrorCode {
        if self.leaders.get(&partition) != Some(&node) {
            return ErrorCode::NotLeaderOrFollower;
        }
        let mut changes = Vec::new();
        for batch in &said.batches {
            for (offset, at) in (batch.first_offset..=batch.last_offset).zip(0..) {
                let kinds = &batch.acknowledge_types;
                let kind = *kinds.get(at).or(kinds.first()).unwrap();
                let state = self.records.get(&(partition, offset));
                if !matches!(state, Some(State::Acquired(holder, _)) if *holder == member) {
                    return ErrorCode::InvalidRecordState;
                }
                changes.push((offset, kind));
            }
        }
        for (offset, kind) in changes {
            let state = match kind {
                1 => {
                    *self.accepted.entry((partition, offset)).or_default() += 1;
                    State::Done
                }
                2 => State::Available,
                4 => State::Acquired(member, now + LASTS),
                other => panic!("nobody said {other}"),
            };
            self.records.insert((partition, offset), state);
        }
        ErrorCode::None
    }
}

fn part(slot: Slot) -> Part {
    let (code, acknowledged) = (ErrorCode::None, ErrorCode::None);
    Part { slot, code, acknowledged, records: Vec::new(), passed_over: Vec::new(), broken: None }
}

struct OneMember {
    sharing: Sharing,
    held: Vec<Handed>,
    under_way: Vec<(Send, Instant)>,
    /// Acknowledgements that the group is said to have taken.
    told_done: u64,
    told_failed: u64,
    said: u64,
}

impl OneMember {
    fn settle(&mut self) {
        for tally in self.sharing.take_outcomes().into_values() {
            self.told_done += tally.done;
            self.told_failed += tally.failed.map_or(0, |(count, _)| count);
        }
    }
}

fn place(member: &mut OneMember, leaders: &BTreeMap<i32, i32>) {
    member.sharing.read(&(0..PARTITIONS).map(slot).collect());
    member.sharing.place(|slot| Some(("t".into(), leaders.get(&slot.partition).copied())));
}

fn history(seed: u64) {
    let rng = SeededRng::new(seed);
    let mut now = Instant::now();
    let offsets = (0..PARTITIONS).flat_map(|partition| (0..RECORDS).map(move |offset| (partition, offset)));
    let mut cluster = Cluster {
        records: offsets.map(|at| (at, State::Available)).collect(),
        sessions: BTreeMap::new(),
        leaders: (0..PARTITIONS).map(|partition| (partition, partition % NODES)).collect(),
        accepted: BTreeMap::new(),
    };
    let mode = if rng.below(2) == 0 { AcquireMode::BatchOptimized } else { AcquireMode::RecordLimit };
    let mut members: Vec<OneMember> = (0..MEMBERS as u64)
        .map(|at| OneMember {
            sharing: Sharing::new(rules(mode, seed + at)),
            held: Vec::new(),
            under_way: Vec::new(),
            told_done: 0,
            told_failed: 0,
            said: 0,
        })
        .collect();
    members.iter_mut().for_each(|member| place(member, &cluster.leaders));
    let mut steps = 0;
    while cluster.accepted.len() < cluster.records.len() {
        steps += 1;
        assert!(steps < STEPS, "seed {seed}: not done after {STEPS} steps");
        // Trouble ends after a while, so that what must end can.
        let troubled = steps < STEPS / 4;
        now += Duration::from_millis(rng.below(300));
        if troubled && rng.below(100) == 0 {
            now += LASTS;
        }
        if troubled && rng.below(60) == 0 {
            cluster.move_leader(rng.below(PARTITIONS as u64) as i32, rng.below(NODES as u64) as i32);
        }
        let at = rng.below(MEMBERS as u64) as usize;
        step(&mut members[at], at, &mut cluster, &rng, troubled, now);
    }
    let most = cluster.accepted.values().copied().max();
    assert_eq!(most, Some(1), "seed {seed}: a record was accepted twice");
    for (at, member) in members.iter_mut().enumerate() {
        finish(member, at, &mut cluster, &rng, now, seed);
    }
    let told: u64 = members.iter().map(|member| member.told_done).sum();
    assert!(told >= cluster.accepted.len() as u64 / 2, "seed {seed}: answers get lost, but not that many");
}

fn step(
    member: &mut OneMember,
    at: usize,
    cluster: &mut Cluster,
    rng: &SeededRng,
    troubled: bool,
    now: Instant,
) {
    member.sharing.want(rng.below(3) > 0);
    if std::mem::take(&mut member.sharing.stale) {
        place(member, &cluster.leaders);
    }
    let (sends, _) = member.sharing.send(now);
    for send in sends {
        let mut nodes = member.under_way.iter().map(|(other, _)| other.node);
        assert!(!nodes.any(|node| node == send.node), "two requests to one leader");
        member.under_way.push((send, now));
    }
    if !member.under_way.is_empty() && rng.below(2) == 0 {
        let (send, _) = member.under_way.remove(rng.below(member.under_way.len() as u64) as usize);
        let trouble = if troubled { rng.below(12) } else { 9 };
        let answer = match trouble {
            0 => Err(NoAnswer::Unsent),
            1 => {
                cluster.answer(at, &send, rng, now);
                Err(NoAnswer::Unanswered)
            }
            _ => Ok(cluster.answer(at, &send, rng, now)),
        };
        if answer.is_err() {
            // The connection is gone, and with it the session.
            cluster.sessions.remove(&(at, send.node));
            cluster.release(at, send.node);
        }
        member.sharing.answered(send.node, answer, now);
    }
    let most = 1 + rng.below(3) as usize;
    member.held.extend(member.sharing.take(most, now));
    while !member.held.is_empty() && rng.below(3) > 0 {
        let handed = member.held.remove(0);
        let verdict = match rng.below(8) {
            0 => {
                let renewed = member.sharing.renew(handed.node, handed.id, now);
                member.held.extend(renewed.is_ok().then_some(handed));
                continue;
            }
            1 => Verdict::Release,
            // Forgotten: its lock runs out.
            2 if troubled => continue,
            _ => Verdict::Accept,
        };
        member.said += u64::from(member.sharing.decide(handed.node, handed.id, verdict, now).is_ok());
    }
    if rng.below(5) == 0 {
        member.sharing.flush();
    }
    member.settle();
}

/// Closes: everything that was said has its answer.
fn finish(
    member: &mut OneMember,
    at: usize,
    cluster: &mut Cluster,
    rng: &SeededRng,
    now: Instant,
    seed: u64,
) {
    member.sharing.close();
    for _ in 0..10 {
        let (sends, _) = member.sharing.send(now);
        member.under_way.extend(sends.into_iter().map(|send| (send, now)));
        for (send, _) in std::mem::take(&mut member.under_way) {
            let answer = cluster.answer(at, &send, rng, now);
            member.sharing.answered(send.node, Ok(answer), now);
        }
    }
    member.settle();
    assert!(member.sharing.is_closed() && member.sharing.is_settled(u64::MAX), "seed {seed}");
    assert_eq!(
        member.told_done + member.told_failed,
        member.said,
        "seed {seed}: every verdict has one answer"
    );
}

#[test]
fn every_record_is_accepted_once_whatever_happens() {
    for seed in 0..300 {
        history(seed);
    }
}
