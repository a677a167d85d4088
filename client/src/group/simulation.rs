//! Many members and a small model of a coordinator on a virtual clock: lost messages, silent and moving coordinators,
//! slow listeners, members that come and go. What must always hold is checked after every event.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_protocol::ErrorCode;
use klamm_runtime::{Rng, SeededRng};
use tokio::time::Instant;

use super::assignors::Assignor;
use super::event::{Effect, Event, Failure, GroupProtocol, Joined, JoinedMember, Settings, Topics};
use super::member::Member;
use super::protocol::MemberShare;
use super::simulation_epochs::{EpochCoordinator, Said};
use super::strategy::{Shares, Strategy};
use crate::error::RequestError;
use crate::types::TopicPartition;

const SESSION: Duration = Duration::from_secs(10);
const INTERVAL: Duration = Duration::from_secs(1);
const REBALANCE: Duration = Duration::from_secs(20);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

// ---- the coordinator

/// Whose request is to be answered.
type Ticket = (usize, u64);

#[derive(Debug)]
struct Seat {
    node: usize,
    protocols: Vec<(Arc<str>, Bytes)>,
    session_end: Instant,
    join: Option<u64>,
    sync: Option<u64>,
    assigned: MemberShare,
}

#[derive(Debug, PartialEq)]
enum State {
    Empty,
    Preparing(Instant),
    Completing,
    Stable,
}

#[derive(Debug)]
struct Coordinator {
    state: State,
    generation: i32,
    leader: Arc<str>,
    seats: BTreeMap<Arc<str>, Seat>,
    pending: BTreeSet<Arc<str>>,
    ids: u32,
    moved_until: Instant,
    /// When somebody was dropped for silence, and who.
    expelled: Vec<(Instant, usize)>,
}

type Answers = Vec<(usize, Event)>;

fn refusal(code: ErrorCode) -> Failure {
    Failure::Coordinator { code, member_id: None }
}

impl Coordinator {
    fn join(
        &mut self,
        (node, attempt): Ticket,
        id: Arc<str>,
        protocols: Vec<(Arc<str>, Bytes)>,
        now: Instant,
    ) -> Answers {
        if id.is_empty() {
            self.ids += 1;
            let id: Arc<str> = Arc::from(format!("m{}", self.ids));
            self.pending.insert(Arc::clone(&id));
            let failure = Failure::Coordinator { code: ErrorCode::MemberIdRequired, member_id: Some(id) };
            return vec![(node, Event::JoinAnswered(attempt, Err(failure)))];
        }
        if !self.seats.contains_key(&id) && !self.pending.remove(&id) {
            return vec![(node, Event::JoinAnswered(attempt, Err(refusal(ErrorCode::UnknownMemberId))))];
        }
        let seat = Seat {
            node,
            protocols,
            session_end: now + SESSION,
            join: Some(attempt),
            sync: None,
            assigned: MemberShare::default(),
        };
        self.seats.insert(id, seat);
        let mut answers = self.prepare(now);
        answers.extend(self.complete(now, false));
        answers
    }

    fn prepare(&mut self, now: Instant) -> Answers {
        if matches!(self.state, State::Preparing(_)) {
            return Vec::new();
        }
        self.state = State::Preparing(now + REBALANCE);
        let waiting = self.seats.values_mut().filter_map(|seat| Some((seat.node, seat.sync.take()?)));
        waiting
            .map(|(node, sync)| {
                (node, Event::SyncAnswered(sync, Err(refusal(ErrorCode::RebalanceInProgress))))
            })
            .collect()
    }

    fn complete(&mut self, now: Instant, forced: bool) -> Answers {
        if !matches!(self.state, State::Preparing(_))
            || (!forced && self.seats.values().any(|seat| seat.join.is_none()))
        {
            return Vec::new();
        }
        for seat in self.seats.values().filter(|seat| seat.join.is_none()) {
            self.expelled.push((now, seat.node));
        }
        self.seats.retain(|_, seat| seat.join.is_some());
        self.generation += 1;
        let Some(leader) = self.seats.keys().next().cloned() else {
            self.state = State::Empty;
            return Vec::new();
        };
        self.leader = leader;
        self.state = State::Completing;
        let seats: Vec<JoinedMember> = self
            .seats
            .iter()
            .map(|(id, seat)| JoinedMember {
                id: Arc::clone(id),
                instance_id: None,
                metadata: seat.protocols[0].1.clone(),
            })
            .collect();
        let mut answers = Vec::new();
        for (id, seat) in &mut self.seats {
            seat.session_end = now + SESSION;
            let leads = *id == self.leader;
            let joined = Joined {
                generation: self.generation,
                member_id: Arc::clone(id),
                leads,
                skip_assignment: false,
                assignor: Arc::clone(&seat.protocols[0].0),
                members: if leads { seats.clone() } else { Vec::new() },
            };
            answers.push((seat.node, Event::JoinAnswered(seat.join.take().unwrap(), Ok(joined))));
        }
        answers
    }

    fn check(&mut self, id: &str, generation: i32, now: Instant) -> Result<(), ErrorCode> {
        if now < self.moved_until {
            return Err(ErrorCode::NotCoordinator);
        }
        let Some(seat) = self.seats.get_mut(id) else { return Err(ErrorCode::UnknownMemberId) };
        if generation != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        seat.session_end = now + SESSION;
        match self.state {
            State::Preparing(_) => Err(ErrorCode::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    fn sync(
        &mut self,
        (node, attempt): Ticket,
        id: &str,
        generation: i32,
        assignment: Shares,
        now: Instant,
    ) -> Answers {
        if let Err(code) = self.check(id, generation, now) {
            return vec![(node, Event::SyncAnswered(attempt, Err(refusal(code))))];
        }
        self.seats.get_mut(id).unwrap().sync = Some(attempt);
        if self.state == State::Completing && *self.leader == *id {
            self.state = State::Stable;
            for (id, seat) in &mut self.seats {
                seat.assigned = assignment.get(id).cloned().unwrap_or_default();
            }
        }
        if self.state != State::Stable {
            return Vec::new();
        }
        let waiting = self
            .seats
            .values_mut()
            .filter_map(|seat| Some((seat.node, seat.sync.take()?, seat.assigned.clone())));
        waiting.map(|(node, sync, assigned)| (node, Event::SyncAnswered(sync, Ok(assigned)))).collect()
    }

    fn leave(&mut self, id: &str, now: Instant) -> Answers {
        if self.seats.remove(id).is_none() {
            return Vec::new();
        }
        let mut answers = self.prepare(now);
        answers.extend(self.complete(now, false));
        answers
    }

    fn tick(&mut self, now: Instant) -> Answers {
        let silent: Vec<Arc<str>> = self
            .seats
            .iter()
            .filter(|(_, seat)| seat.session_end <= now && seat.join.is_none())
            .map(|(id, _)| Arc::clone(id))
            .collect();
        let mut answers = Vec::new();
        for id in silent {
            self.expelled.extend(self.seats.get(&id).map(|seat| (now, seat.node)));
            answers.extend(self.leave(&id, now));
        }
        if let State::Preparing(deadline) = self.state
            && deadline <= now
        {
            answers.extend(self.complete(now, true));
        }
        answers
    }

    fn wake_at(&self) -> Option<Instant> {
        let sessions = self.seats.values().filter(|seat| seat.join.is_none()).map(|seat| seat.session_end);
        let deadline = match self.state {
            State::Preparing(deadline) => Some(deadline),
            _ => None,
        };
        sessions.chain(deadline).min()
    }
}

// ---- the world

/// How far a partition has come at a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Held,
    Fetched,
    Stopped,
    Told,
}

#[derive(Debug)]
enum Happening {
    Request(usize, Effect),
    Answer(usize, Event),
    Grow,
    Spam,
}

struct Node {
    member: Member,
    partitions: BTreeMap<TopicPartition, Stage>,
    call: Option<Vec<TopicPartition>>,
    closes_at: Option<Instant>,
    done: bool,
    crashed: bool,
    heartbeats: usize,
}

struct World {
    seed: u64,
    rng: SeededRng,
    now: Instant,
    start: Instant,
    heal_at: Instant,
    queue: BTreeMap<(Instant, u64), Happening>,
    sequence: u64,
    protocol: GroupProtocol,
    coordinator: Coordinator,
    /// In the coordinator's place with KIP-848.
    epochs: EpochCoordinator,
    nodes: Vec<Node>,
    count: i32,
    /// Chances in a hundred.
    lossy: u64,
    slow_listeners: u64,
    /// How long the slow ones may take.
    slowness: Duration,
    /// Look-ups of topics are never answered, once the member has joined.
    deaf_metadata: bool,
}

fn settings(assignor: Assignor, seed: u64) -> Settings {
    Settings {
        protocol: GroupProtocol::Classic,
        strategies: vec![Strategy::BuiltIn(assignor)],
        session_timeout: SESSION,
        heartbeat_interval: INTERVAL,
        rebalance_timeout: REBALANCE,
        retry_backoff: (ms(100), ms(1_000)),
        is_static: false,
        rack: None,
        create_topics: true,
        rng: Arc::new(SeededRng::new(seed)),
    }
}

fn timeout() -> Failure {
    Failure::Request(RequestError::Disconnected { address: "c".into(), reason: "silence".into() })
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        let coordinator = Coordinator {
            state: State::Empty,
            generation: 0,
            leader: "".into(),
            seats: BTreeMap::new(),
            pending: BTreeSet::new(),
            ids: 0,
            moved_until: now,
            expelled: Vec::new(),
        };
        Self {
            seed,
            rng: SeededRng::new(seed),
            now,
            start: now,
            heal_at: now + Duration::from_secs(200),
            queue: BTreeMap::new(),
            sequence: 0,
            protocol: GroupProtocol::Classic,
            coordinator,
            epochs: EpochCoordinator::default(),
            nodes: Vec::new(),
            count: 5,
            lossy: 0,
            slow_listeners: 0,
            slowness: REBALANCE * 6 / 5,
            deaf_metadata: false,
        }
    }

    fn topics(&self) -> Topics {
        Topics { counts: [(Arc::from("t"), self.count)].into(), refused: BTreeMap::new() }
    }

    fn add(&mut self, assignor: Assignor) {
        let settings = Settings { protocol: self.protocol, ..settings(assignor, self.seed) };
        let id: Arc<str> = match self.protocol {
            GroupProtocol::Classic => "".into(),
            GroupProtocol::Consumer => format!("n{}", self.nodes.len()).into(),
        };
        let member = Member::new(settings, vec!["t".into()], id);
        let node = Node {
            member,
            partitions: BTreeMap::new(),
            call: None,
            closes_at: None,
            done: false,
            crashed: false,
            heartbeats: 0,
        };
        self.nodes.push(node);
        self.tell(self.nodes.len() - 1, Event::Started);
    }

    fn later(&mut self, after: Duration, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((self.now + after, self.sequence), happening);
    }

    fn chance(&self, percent: u64) -> bool {
        self.rng.below(100) < percent
    }

    fn is_healed(&self) -> bool {
        self.now >= self.heal_at
    }

    fn tell(&mut self, at: usize, event: Event) {
        if self.nodes[at].crashed {
            return;
        }
        let effects = self.nodes[at].member.on(event, self.now);
        for effect in effects {
            self.run(at, effect);
        }
        self.check();
    }

    fn run(&mut self, at: usize, effect: Effect) {
        let context = format!("seed {}, {:?}, node {at}: {effect:?}", self.seed, self.now - self.start);
        let node = &mut self.nodes[at];
        assert!(!node.done, "{context}");
        match effect {
            Effect::StopHandingOut(partitions) => {
                for partition in partitions {
                    let stage = node.partitions.get_mut(&partition).expect(&context);
                    assert!(!partition.topic.is_empty());
                    *stage = if *stage == Stage::Told { Stage::Told } else { Stage::Stopped };
                }
            }
            Effect::CallAssigned(partitions, _) => {
                assert!(node.call.is_none(), "{context}");
                for partition in &partitions {
                    assert_eq!(node.partitions.insert(partition.clone(), Stage::Held), None, "{context}");
                }
                self.call(at, partitions);
            }
            Effect::CallRevoked(partitions, _) | Effect::CallLost(partitions, _) => {
                assert!(node.call.is_none() && !partitions.is_empty(), "{context}");
                for partition in &partitions {
                    let stage = node.partitions.insert(partition.clone(), Stage::Told);
                    assert_eq!(stage, Some(Stage::Stopped), "{context}");
                }
                self.call(at, partitions);
            }
            Effect::StartFetching(partitions) => {
                for partition in partitions {
                    let stage = node.partitions.insert(partition, Stage::Fetched);
                    assert_eq!(stage, Some(Stage::Held), "{context}");
                }
            }
            Effect::Release(partitions) => {
                for partition in partitions {
                    let stage = node.partitions.remove(&partition);
                    // The deadline of closing does not wait for the listener.
                    let late = node.closes_at.is_some_and(|at| at <= self.now);
                    assert!(
                        stage == Some(Stage::Told) || (late && stage == Some(Stage::Stopped)),
                        "{context}"
                    );
                }
            }
            Effect::Done => {
                node.done = true;
                assert!(node.partitions.is_empty(), "{context}");
            }
            Effect::Identify { .. } => {}
            Effect::Report(_) => panic!("{context}"),
            Effect::AskTopics { ask, create, .. } => {
                if create || !self.deaf_metadata {
                    let answer = Event::TopicsAnswered(ask, Ok(self.topics()));
                    self.later(ms(5), Happening::Answer(at, answer));
                }
            }
            request => {
                if matches!(request, Effect::SendHeartbeat { .. } | Effect::SendBeat { .. }) {
                    node.heartbeats += 1;
                }
                self.send(at, request);
            }
        }
    }

    fn call(&mut self, at: usize, partitions: Vec<TopicPartition>) {
        self.nodes[at].call = Some(partitions);
        let most = if self.chance(self.slow_listeners) { self.slowness.as_millis() as u64 } else { 50 };
        let time = ms(self.rng.below(most)).min(REBALANCE);
        self.later(time, Happening::Answer(at, Event::ListenerReturned));
    }

    fn send(&mut self, at: usize, request: Effect) {
        if !self.is_healed() && self.chance(self.lossy) {
            let quick = self.chance(50);
            if self.chance(50) {
                // It arrives, and the answer is lost.
                let doomed = request.clone();
                self.later(ms(20), Happening::Request(usize::MAX - at, doomed));
            }
            let (answer, patience) = match request {
                Effect::FindCoordinator => (Event::CoordinatorFailed(timeout()), ms(5_000)),
                Effect::SendJoin { attempt, .. } => (Event::JoinAnswered(attempt, Err(timeout())), REBALANCE),
                Effect::SendSync { attempt, .. } => (Event::SyncAnswered(attempt, Err(timeout())), REBALANCE),
                Effect::SendBeat { attempt, .. } => (Event::BeatAnswered(attempt, Err(timeout())), SESSION),
                Effect::SendHeartbeat { attempt, .. } => {
                    (Event::HeartbeatAnswered(attempt, Err(timeout())), SESSION)
                }
                _ => (Event::LeaveAnswered, ms(5_000)),
            };
            return self.later(if quick { ms(1) } else { patience }, Happening::Answer(at, answer));
        }
        let latency = ms(1 + self.rng.below(20));
        self.later(latency, Happening::Request(at, request));
    }

    fn serve(&mut self, at: usize, request: Effect) {
        // Requests whose answers are lost come from a node counted from the end.
        let (at, lost) = if at > usize::MAX / 2 { (usize::MAX - at, true) } else { (at, false) };
        let now = self.now;
        let mut answers = match request {
            Effect::FindCoordinator => vec![(at, Event::CoordinatorFound)],
            Effect::SendJoin { attempt, .. } if now < self.coordinator.moved_until => {
                vec![(at, Event::JoinAnswered(attempt, Err(refusal(ErrorCode::NotCoordinator))))]
            }
            Effect::SendJoin { attempt, member_id, protocols } => {
                self.coordinator.join((at, attempt), member_id, protocols, now)
            }
            Effect::SendSync { attempt, member_id, generation, assignment, .. } => {
                self.coordinator.sync((at, attempt), &member_id, generation, assignment, now)
            }
            Effect::SendHeartbeat { attempt, member_id, generation } => {
                let result = self.coordinator.check(&member_id, generation, now).map_err(refusal);
                vec![(at, Event::HeartbeatAnswered(attempt, result))]
            }
            Effect::SendBeat { attempt, member_id, epoch, topics, owned } => {
                let full = topics.is_some() && owned.is_some();
                let said = Said { node: at, member_id, epoch, full, owned };
                let result = match now < self.coordinator.moved_until {
                    true => Err(ErrorCode::NotCoordinator),
                    false => self.epochs.beat(said, self.count, (SESSION, INTERVAL), now),
                };
                vec![(at, Event::BeatAnswered(attempt, result.map_err(refusal)))]
            }
            Effect::SendLeave { member_id, .. } => {
                self.epochs.leave(&member_id);
                let mut answers = self.coordinator.leave(&member_id, now);
                answers.push((at, Event::LeaveAnswered));
                answers
            }
            other => unreachable!("{other:?}"),
        };
        if lost {
            answers.retain(|(node, _)| *node != at);
        }
        self.answer(answers);
    }

    fn answer(&mut self, answers: Answers) {
        for (node, event) in answers {
            let latency = ms(1 + self.rng.below(20));
            self.later(latency, Happening::Answer(node, event));
        }
    }

    /// Runs to that time after the start.
    fn run_until(&mut self, end: Duration) {
        let end = self.start + end;
        loop {
            let wake =
                self.nodes.iter().filter(|node| !node.crashed).filter_map(|node| node.member.wake_at()).min();
            let queued = self.queue.keys().next().map(|(at, _)| *at);
            let tick = self.coordinator.wake_at().into_iter().chain(self.epochs.wake_at()).min();
            let Some(next) = [wake, queued, tick].into_iter().flatten().min().filter(|next| *next <= end)
            else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            if tick == Some(next) {
                self.epochs.tick(self.now);
                let answers = self.coordinator.tick(self.now);
                self.answer(answers);
            } else if queued == Some(next) {
                let (_, happening) = self.queue.pop_first().unwrap();
                self.happen(happening);
            } else {
                let now = self.now;
                let due = |node: &Node| !node.crashed && node.member.wake_at().is_some_and(|at| at <= now);
                let at = self.nodes.iter().position(due).unwrap();
                self.tell(at, Event::Time);
                let again = self.nodes[at].member.wake_at();
                assert!(again.is_none_or(|at| at > now), "seed {}: it would spin", self.seed);
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Request(at, request) => self.serve(at, request),
            Happening::Answer(at, Event::ListenerReturned) => {
                self.nodes[at].call = None;
                if !self.nodes[at].done {
                    self.tell(at, Event::ListenerReturned);
                }
            }
            Happening::Answer(at, event) => self.tell(at, event),
            Happening::Grow => {
                self.count += 1;
                self.spread_topics();
            }
            Happening::Spam => {
                self.spread_topics();
                if !self.is_healed() {
                    self.later(ms(50), Happening::Spam);
                }
            }
        }
    }

    fn spread_topics(&mut self) {
        let topics = self.topics();
        (0..self.nodes.len()).for_each(|at| self.tell(at, Event::TopicsChanged(topics.clone())));
    }

    /// Nobody hands out what another hands out, as long as the coordinator counts both as members; and nobody goes on
    /// for longer than a session after it was dropped.
    fn check(&self) {
        let mut handed: BTreeMap<&TopicPartition, usize> = BTreeMap::new();
        for (at, node) in self.nodes.iter().enumerate().filter(|(_, node)| !node.crashed) {
            let classic = self.coordinator.seats.values().any(|seat| seat.node == at);
            let is_member = classic || self.epochs.seats.values().any(|seat| seat.node == at);
            let fetched = node.partitions.iter().filter(|(_, stage)| **stage == Stage::Fetched);
            for (partition, _) in fetched {
                if is_member && let Some(other) = handed.insert(partition, at) {
                    panic!(
                        "seed {}, {:?}: {partition} at {other} and {at}",
                        self.seed,
                        self.now - self.start
                    );
                }
                let expelled = self.coordinator.expelled.iter().chain(&self.epochs.expelled);
                let dropped = expelled.rev().find(|(_, node)| *node == at);
                if let Some((when, _)) = dropped.filter(|_| !is_member) {
                    assert!(self.now <= *when + SESSION + ms(50), "seed {}: {at} does not notice", self.seed);
                }
            }
        }
    }

    fn check_settled(&self) {
        let context = format!("seed {}: {:?} {:?}", self.seed, self.coordinator, self.epochs);
        let mut owned = BTreeSet::new();
        for node in self.nodes.iter().filter(|node| !node.crashed && !node.done) {
            assert!(node.call.is_none(), "{context}");
            for (partition, stage) in &node.partitions {
                assert_eq!(*stage, Stage::Fetched, "{context}");
                assert!(owned.insert(partition.clone()), "{context}");
            }
        }
        let live = self.nodes.iter().filter(|node| !node.crashed && !node.done).count();
        if live > 0 {
            assert_eq!(owned.len(), self.count as usize, "{context}");
        }
    }
}

fn assignor(seed: u64) -> Assignor {
    [Assignor::CooperativeSticky, Assignor::Range, Assignor::RoundRobin, Assignor::Sticky][seed as usize % 4]
}

/// Everything goes wrong for a while, in every way; afterwards the group settles, and each partition has one owner.
#[test]
fn a_group_is_sound_through_faults_and_settles_after_them() {
    (0..40).for_each(|seed| go_through_faults(seed, GroupProtocol::Classic));
}

#[test]
fn so_is_a_group_whose_coordinator_assigns() {
    (0..40).for_each(|seed| go_through_faults(seed, GroupProtocol::Consumer));
}

fn go_through_faults(seed: u64, protocol: GroupProtocol) {
    let mut world = World::new(seed);
    world.protocol = protocol;
    world.lossy = world.rng.below(30);
    world.slow_listeners = world.rng.below(30);
    let assignor = assignor(seed);
    world.add(assignor);
    for second in (0..200_u64).step_by(10) {
        world.run_until(Duration::from_secs(second));
        match world.rng.below(12) {
            0..3 if world.nodes.len() < 6 => world.add(assignor),
            3 => {
                let at = world.rng.below(world.nodes.len() as u64) as usize;
                let deadline = world.now + Duration::from_secs(60);
                if !world.nodes[at].done {
                    world.nodes[at].closes_at.get_or_insert(deadline);
                    world.tell(at, Event::Close { deadline, leave: true });
                }
            }
            4 => {
                let at = world.rng.below(world.nodes.len() as u64) as usize;
                world.nodes[at].crashed = true;
            }
            5 => world.coordinator.moved_until = world.now + ms(world.rng.below(15_000)),
            6 => world.later(ms(1), Happening::Grow),
            7 => world.later(ms(1), Happening::Spam),
            _ => {}
        }
    }
    world.slow_listeners = 0;
    world.run_until(Duration::from_secs(360));
    world.check_settled();
}

/// Listeners, look-ups of topics and joins hang, metadata changes twenty times a second: heartbeats go out in time all
/// the same, and the coordinator never drops anybody for silence.
#[test]
fn nothing_holds_up_a_heartbeat() {
    for seed in 0..100 {
        let mut world = World::new(seed);
        world.deaf_metadata = true;
        world.slowness = REBALANCE / 4;
        world.later(ms(1), Happening::Spam);
        let assignor = assignor(seed);
        for second in [0, 3, 50] {
            world.run_until(Duration::from_secs(second));
            world.add(assignor);
            world.slow_listeners = 100;
        }
        world.run_until(Duration::from_secs(150));
        let before: Vec<usize> = world.nodes.iter().map(|node| node.heartbeats).collect();
        assert!(world.nodes.iter().all(|node| node.heartbeats > 0), "seed {seed}");
        world.run_until(Duration::from_secs(190));
        for (node, before) in world.nodes.iter().zip(before) {
            assert!(node.heartbeats >= before + 35, "seed {seed}: {} in 40 s", node.heartbeats - before);
        }
        assert_eq!(world.coordinator.expelled, [], "seed {seed}");
    }
}

/// The coordinator falls silent for good: within a session timeout nothing is handed out any more, and the listener
/// hears that everything is lost.
#[test]
fn a_silent_coordinator_is_noticed_within_a_session() {
    for seed in 0..100 {
        let mut world = World::new(seed);
        world.heal_at = world.now + Duration::from_secs(1_000);
        world.add(assignor(seed));
        world.run_until(Duration::from_secs(20));
        assert_eq!(world.nodes[0].partitions.len(), 5);
        world.lossy = 100;
        world.run_until(Duration::from_secs(20) + SESSION);
        let handing = world.nodes[0].partitions.values().filter(|stage| **stage == Stage::Fetched).count();
        assert_eq!(handing, 0, "seed {seed}");
        world.run_until(Duration::from_secs(21) + SESSION);
        assert!(world.nodes[0].partitions.is_empty(), "seed {seed}");
        world.lossy = 0;
        world.run_until(Duration::from_secs(100));
        world.check_settled();
    }
}
