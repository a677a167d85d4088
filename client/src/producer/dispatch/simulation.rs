//! Producers against brokers that lose requests, answers and leaders: thousands of histories, each from a seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::ProduceResponse;
use klamm_protocol::messages::produce::{LeaderIdAndEpoch, PartitionProduceResponse, TopicProduceResponse};
use tokio::time::Instant;

use super::tests::{Load, Nodes, Store, rules};
use super::*;
use crate::producer::lane::{Identity, Stamp};
use crate::runtime::{Rng, SeededRng};

const PARTITIONS: usize = 3;
const NODES: u64 = 2;
const RECORDS: u32 = 120;
/// More records in a batch are too many for the brokers.
const MOST_RECORDS: i32 = 6;
const TIMEOUT: Duration = Duration::from_secs(20);

/// What a broker has of a partition, by Kafka's rules. All brokers have the same.
#[derive(Default)]
struct Log {
    batches: Vec<(Option<Stamp>, i32)>,
    values: Vec<u32>,
}

impl Log {
    fn append(&mut self, stamp: Option<Stamp>, values: &[u32]) -> ErrorCode {
        let records = values.len() as i32;
        if records > MOST_RECORDS {
            return ErrorCode::MessageTooLarge;
        }
        if let Some(Stamp { identity, sequence }) = stamp {
            let own: Vec<(Stamp, i32)> = self
                .batches
                .iter()
                .filter_map(|(stamp, records)| Some((((*stamp)?), *records)))
                .filter(|(stamp, _)| stamp.identity.producer_id == identity.producer_id)
                .collect();
            let epoch = own.last().map_or(identity.epoch, |(last, _)| last.identity.epoch);
            if identity.epoch < epoch {
                return ErrorCode::InvalidProducerEpoch;
            }
            let mut recent = own.iter().rev().filter(|(other, _)| other.identity == identity).take(5);
            if recent.clone().any(|(other, count)| other.sequence == sequence && *count == records) {
                return ErrorCode::None;
            }
            let expected = match recent.next() {
                Some((last, records)) => last.sequence + records,
                None if own.is_empty() => sequence,
                None => 0,
            };
            if sequence != expected {
                return ErrorCode::OutOfOrderSequenceNumber;
            }
        }
        self.batches.push((stamp, records));
        self.values.extend(values);
        ErrorCode::None
    }
}

/// A request on its way: the node, and slot, stamp and values of each batch.
type Message = (i32, Vec<(Slot, Option<Stamp>, Vec<u32>)>);

enum Event {
    Answer { request: u64 },
    Connected { node: i32 },
    Refreshed,
    Identified,
}

struct World {
    rng: SeededRng,
    now: Instant,
    dispatch: Dispatch<Load>,
    store: Store,
    nodes: Nodes,
    logs: Vec<Log>,
    /// Where the leaders really are.
    leaders: Vec<i32>,
    leader_epochs: Vec<i32>,
    messages: BTreeMap<u64, Message>,
    /// Requests per node that are to be answered in order.
    pipelines: BTreeMap<i32, VecDeque<u64>>,
    agenda: BTreeMap<(Instant, u64), Event>,
    events: u64,
    identities: i64,
    calm: bool,
    outcomes: BTreeMap<u32, Result<(), bool>>,
    released: u32,
}

impl World {
    fn new(seed: u64, idempotent: bool) -> Self {
        let mut rules = rules();
        rules.idempotent = idempotent;
        rules.delivery_timeout = TIMEOUT;
        rules.rng = Arc::new(SeededRng::new(seed));
        if !idempotent {
            rules.max_in_flight = 1;
        }
        let mut nodes = Nodes::default();
        for partition in 0..PARTITIONS {
            nodes.leaders.insert(partition as i32, 1);
        }
        Self {
            rng: SeededRng::new(seed),
            now: Instant::now(),
            dispatch: Dispatch::new(rules),
            store: Store::default(),
            nodes,
            logs: (0..PARTITIONS).map(|_| Log::default()).collect(),
            leaders: vec![1; PARTITIONS],
            leader_epochs: vec![0; PARTITIONS],
            messages: BTreeMap::new(),
            pipelines: BTreeMap::new(),
            agenda: BTreeMap::new(),
            events: 0,
            identities: 0,
            calm: false,
            outcomes: BTreeMap::new(),
            released: 0,
        }
    }

    fn later(&mut self, milliseconds: u64, event: Event) {
        let at = self.now + Duration::from_millis(self.rng.below(milliseconds));
        self.agenda.insert((at, self.events), event);
        self.events += 1;
    }

    fn step(&mut self) {
        loop {
            self.dispatch.pass(self.now, &mut self.store, &self.nodes);
            let commands = self.dispatch.commands();
            if commands.is_empty() {
                return;
            }
            for command in commands {
                self.run_command(command);
            }
        }
    }

    fn run_command(&mut self, command: Command<Load>) {
        match command {
            Command::Connect { node } => self.later(300, Event::Connected { node }),
            Command::Refresh => self.later(300, Event::Refreshed),
            Command::Identify => self.later(300, Event::Identified),
            Command::Send { node, request } => {
                let batches = self.dispatch.flight(request).iter();
                let batches = batches
                    .map(|flying| (flying.slot, flying.batch.stamp, flying.batch.batch.values.clone()));
                let message = (node, batches.collect::<Vec<_>>());
                let slots: BTreeSet<Slot> = message.1.iter().map(|batch| batch.0).collect();
                assert_eq!(slots.len(), message.1.len(), "one batch of each partition");
                self.messages.insert(request, message);
                self.pipelines.entry(node).or_default().push_back(request);
                self.later(400, Event::Answer { request });
            }
            Command::Learn(hint) => {
                let partition = hint.partition.partition;
                self.nodes.leaders.insert(partition, hint.leader);
                self.nodes.version += 1;
            }
            Command::Decide { promise, outcome } => {
                let outcome = outcome.map(drop).map_err(|error| error.may_have_been_written());
                for value in promise {
                    self.outcomes.entry(value).or_insert(outcome);
                }
            }
            Command::Release { batch } => self.released += batch.values.len() as u32,
            Command::Shrink { .. } | Command::Report { .. } => {}
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Connected { node } => {
                let fails = !self.calm && self.rng.below(4) == 0;
                let result = if fails { Err(lost()) } else { Ok(()) };
                if result.is_ok() {
                    self.nodes.connected.insert(node);
                }
                self.dispatch.connected(node, result);
            }
            Event::Refreshed => {
                if self.calm || self.rng.below(3) > 0 {
                    for (partition, leader) in self.leaders.iter().enumerate() {
                        self.nodes.leaders.insert(partition as i32, *leader);
                    }
                    self.nodes.version += 1;
                }
                self.dispatch.refreshed();
            }
            Event::Identified => {
                self.identities += 1;
                self.dispatch.identified(Ok(Identity { producer_id: self.identities, epoch: 0 }));
            }
            Event::Answer { request } => self.answer(request),
        }
    }

    /// Everything up to this request is answered in order, or the connection breaks.
    fn answer(&mut self, until: u64) {
        let Some((node, _)) = self.messages.get(&until) else { return };
        let node = *node;
        let breaks = !self.calm && self.rng.below(6) == 0;
        while let Some(request) = self.pipelines.entry(node).or_default().pop_front() {
            let Some((_, batches)) = self.messages.remove(&request) else { continue };
            let served = !breaks || self.rng.below(2) == 0;
            let answer = served.then(|| self.serve(node, batches));
            let result = if breaks { Err(lost()) } else { answer.ok_or_else(lost) };
            self.dispatch.answered(request, result, self.now);
            if breaks && !served {
                // What came behind on this connection was not read either.
                while let Some(request) = self.pipelines.entry(node).or_default().pop_front() {
                    self.messages.remove(&request);
                    self.dispatch.answered(request, Err(lost()), self.now);
                }
            }
            if request == until && !breaks {
                break;
            }
        }
        if breaks {
            self.nodes.connected.remove(&node);
        }
    }

    fn serve(&mut self, node: i32, batches: Vec<(Slot, Option<Stamp>, Vec<u32>)>) -> ProduceResponse {
        let refusals = [
            ErrorCode::NotEnoughReplicas,
            ErrorCode::LeaderNotAvailable,
            ErrorCode::NotEnoughReplicasAfterAppend,
        ];
        let mut parts = Vec::new();
        for (slot, stamp, values) in batches {
            let at = self.store.partition(slot).unwrap().partition;
            let index = at as usize;
            let mut part = PartitionProduceResponse { index: at, ..Default::default() };
            let code = match self.rng.below(12) {
                _ if self.leaders[index] != node => {
                    let (leader_id, leader_epoch) = (self.leaders[index], self.leader_epochs[index]);
                    if self.rng.below(2) == 0 {
                        part.current_leader =
                            LeaderIdAndEpoch { leader_id, leader_epoch, ..Default::default() };
                    }
                    ErrorCode::NotLeaderOrFollower
                }
                draw @ 0..2 if !self.calm => refusals[draw as usize],
                2 if !self.calm => match self.logs[index].append(stamp, &values) {
                    ErrorCode::None => refusals[2],
                    code => code,
                },
                _ => self.logs[index].append(stamp, &values),
            };
            part.error_code = code.code();
            parts.push(part);
        }
        let topic =
            TopicProduceResponse { name: "t".into(), partition_responses: parts, ..Default::default() };
        ProduceResponse { responses: vec![topic], ..Default::default() }
    }

    /// Time goes on to whatever is next.
    fn advance(&mut self, limit: Instant) -> bool {
        let event = self.agenda.first_key_value().map(|(&(at, _), _)| at);
        let Some(next) = event.into_iter().chain(self.dispatch.wake_at()).min().filter(|&at| at <= limit)
        else {
            self.now = limit;
            return false;
        };
        self.now = self.now.max(next);
        while let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let event = entry.remove();
            self.handle(event);
        }
        self.step();
        true
    }
}

fn lost() -> RequestError {
    RequestError::Disconnected { address: Arc::from("a:1"), reason: Arc::from("lost") }
}

fn run(seed: u64, idempotent: bool) {
    let mut world = World::new(seed, idempotent);
    let mut sent: Vec<Vec<u32>> = vec![Vec::new(); PARTITIONS];
    let mut next = 0;
    while next < RECORDS {
        let partition = world.rng.below(PARTITIONS as u64) as usize;
        let count = 1 + world.rng.below(12) as u32;
        let values: Vec<u32> = (next..next + count).collect();
        sent[partition].extend(&values);
        world.store.add(partition as i32, values, world.now);
        next += count;
        world.step();
        if world.rng.below(8) == 0 {
            let moved = world.rng.below(PARTITIONS as u64) as usize;
            world.leaders[moved] = 1 + world.rng.below(NODES) as i32;
            world.leader_epochs[moved] += 1;
        }
        let pause = if world.rng.below(10) == 0 { 30_000 } else { 500 };
        let limit = world.now + Duration::from_millis(world.rng.below(pause));
        while world.advance(limit) {}
    }
    world.calm = true;
    let limit = world.now + 10 * TIMEOUT;
    while world.advance(limit) {}

    for (partition, sent) in sent.iter().enumerate() {
        let log = &world.logs[partition].values;
        let context = format!("seed {seed}, partition {partition}: {sent:?} sent, {log:?} written");
        if idempotent {
            assert!(log.is_sorted_by(|a, b| a < b), "reordered or repeated: {context}");
        }
        let written: BTreeSet<u32> = log.iter().copied().collect();
        for value in sent {
            match world.outcomes.get(value) {
                None => panic!("nobody told what became of {value}: {context}"),
                Some(Ok(())) => assert!(written.contains(value), "{value} is lost: {context}"),
                Some(Err(false)) => assert!(!written.contains(value), "{value} is there: {context}"),
                Some(Err(true)) => {}
            }
        }
    }
    assert_eq!(world.released, next, "seed {seed}: all room is given back");
    assert!(world.dispatch.flights.is_empty(), "seed {seed}");
    assert!(world.dispatch.entries.is_empty(), "seed {seed}: idle lanes are forgotten");
    let timers = world.dispatch.at.len() + world.dispatch.care.len() + world.dispatch.leaderless.len();
    assert_eq!(timers, 0, "seed {seed}");
}

#[test]
fn whatever_happens_nothing_acknowledged_is_lost_repeated_or_reordered() {
    for seed in 0..2_000 {
        run(seed, true);
    }
}

#[test]
fn without_idempotence_nothing_acknowledged_is_lost() {
    for seed in 0..500 {
        run(seed, false);
    }
}
