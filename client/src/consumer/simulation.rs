//! The consumer's cores against a model of a cluster, on a clock of its own, by the thousand and from seeds: logs grow,
//! leaders move and lose records, brokers fall over, forget sessions and ask to be left alone, while partitions are
//! sought, paused and reassigned.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_protocol::messages::fetch::{FetchableTopicResponse, PartitionData};
use klamm_protocol::messages::{FetchRequest, FetchResponse};
use klamm_protocol::records::{BatchBuilder, BatchOptions, patch};
use klamm_protocol::{ErrorCode, Records, Uuid};
use tokio::time::Instant;

use super::chunk::{Chunk, Reading};
use super::fetching::{Fetch, FetchRules, Fetching, Line, NoAnswer, Way};
use super::lookups::{Ask, Plan};
use super::partitions::{Cell, Handed, Partitions, Rules};
use super::positions::{Anchor, Leader, Pauses, Place, Start};
use super::settings::OffsetReset;
use crate::cluster::{ClusterView, OffsetAt, testing};
use crate::runtime::{Rng, SeededRng};
use crate::types::TopicPartition;

const PREFETCH: usize = 4_000;
const PARTITION_BYTES: usize = 1_000;
const MAX_WAIT: Duration = Duration::from_millis(500);
/// No batch of the model is larger.
const LARGEST_BATCH: usize = 700;

#[derive(Debug, Clone)]
struct Batch {
    base: i64,
    count: i64,
    epoch: i32,
    bytes: Bytes,
}

#[derive(Debug, Default)]
struct Log {
    leader: i32,
    epoch: i32,
    batches: Vec<Batch>,
    /// Where it lost records, and to which offset others that lost some may have been set back.
    truncations: Vec<i64>,
}

impl Log {
    fn end(&self) -> i64 {
        self.batches.last().map_or(0, |batch| batch.base + batch.count)
    }

    /// The greatest epoch not above `epoch`, and where it ends.
    fn epoch_end(&self, epoch: i32) -> (i32, i64) {
        let found = self.batches.iter().rev().find(|batch| batch.epoch <= epoch);
        match found {
            _ if epoch >= self.epoch => (self.epoch, self.end()),
            Some(batch) => (batch.epoch, batch.base + batch.count),
            None => (-1, -1),
        }
    }
}

#[derive(Debug, Default)]
struct Broker {
    down: bool,
    no_sessions: bool,
    sessions: BTreeMap<i32, ModelSession>,
    muted_until: Option<Instant>,
}

#[derive(Debug, Default)]
struct ModelSession {
    next_epoch: i32,
    /// Offset, leader epoch and most bytes, in the order in which answers are filled.
    partitions: Vec<(i32, (i64, i32))>,
}

enum Event {
    Arrives(Fetch),
    Answer(Way, Result<FetchResponse, NoAnswer>),
    Found(i32, Vec<(Ask, Leader, Place)>),
    Checked(i32, Vec<(Ask, Leader, Anchor)>),
    Refreshed,
}

/// A fetch that a broker holds.
struct Held {
    way: Way,
    /// Partition, offset and leader epoch, in the order in which the answer is filled.
    wanted: Vec<(i32, (i64, i32))>,
    session: i32,
    full: bool,
    request: FetchRequest,
    until: Instant,
}

struct World {
    rng: SeededRng,
    now: Instant,
    logs: Vec<Log>,
    brokers: BTreeMap<i32, Broker>,
    view: ClusterView,
    partitions: Partitions,
    fetching: Fetching,
    events: BTreeMap<(Instant, u64), Event>,
    held: Vec<Held>,
    count: u64,
    refreshing: bool,
    /// Whether brokers ask to be left alone now and then.
    throttles: bool,
    wake_at: Option<Instant>,
    current: Option<(Chunk, Arc<Cell>)>,
    /// The offset that must come next, of what was sought or begun.
    expected: BTreeMap<i32, i64>,
    /// What the program has last seen at an offset.
    seen: BTreeMap<i32, BTreeMap<i64, Bytes>>,
    sent: Vec<(Instant, Way, usize)>,
}

fn name(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

impl World {
    fn new(seed: u64, partitions: i32, brokers: i32) -> Self {
        let rng = SeededRng::new(seed);
        let reading = Reading {
            check_crcs: false,
            max_batch_bytes: 1 << 20,
            committed_only: false,
            together_bytes: PARTITION_BYTES,
        };
        let mut world = Self {
            now: Instant::now(),
            logs: (0..partitions).map(|_| Log::default()).collect(),
            brokers: (1..=brokers).map(|node| (node, Broker::default())).collect(),
            view: ClusterView::default(),
            partitions: Partitions::new(Rules {
                prefetch_bytes: PREFETCH,
                partition_bytes: PARTITION_BYTES,
                reset: OffsetReset::Earliest,
                has_group: false,
                pauses: Pauses { first: Duration::from_millis(100), longest: Duration::from_secs(1) },
            }),
            fetching: Fetching::new(FetchRules {
                max_wait: MAX_WAIT,
                min_bytes: 1,
                max_bytes: 3_000,
                partition_bytes: PARTITION_BYTES,
                isolation: 0,
                rack: Arc::from(""),
                replica_age: Duration::from_secs(300),
                reading,
            }),
            events: BTreeMap::new(),
            held: Vec::new(),
            count: 0,
            refreshing: false,
            throttles: true,
            wake_at: None,
            current: None,
            expected: BTreeMap::new(),
            seen: BTreeMap::new(),
            sent: Vec::new(),
            rng,
        };
        for partition in 0..partitions {
            world.logs[partition as usize].leader = 1 + world.below(brokers as u64) as i32;
            world.own(partition);
        }
        if world.chance(30) {
            world.brokers.values_mut().for_each(|broker| broker.no_sessions = true);
        }
        world.view = world.true_view();
        world
    }

    fn below(&self, bound: u64) -> u64 {
        self.rng.below(bound)
    }

    fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn any_partition(&self) -> i32 {
        self.below(self.logs.len() as u64) as i32
    }

    fn true_view(&self) -> ClusterView {
        let leaders: Vec<(i32, i32)> = self.logs.iter().map(|log| (log.leader, log.epoch)).collect();
        testing::view_with_id("t", Uuid::from_bytes([7; 16]), &leaders)
    }

    fn own(&mut self, partition: i32) {
        self.partitions.add(name(partition), Start::Committed, false);
        self.expected.insert(partition, 0);
    }

    fn after(&mut self, millis: u64, event: Event) {
        self.count += 1;
        self.events.insert((self.now + Duration::from_millis(millis), self.count), event);
    }

    // ---- the cluster

    fn append(&mut self, partition: i32) {
        let padding = vec![self.below(256) as u8; self.below(150) as usize];
        let count = 1 + self.below(3) as i64;
        let log = &mut self.logs[partition as usize];
        let base = log.end();
        let mut builder = BatchBuilder::new(BatchOptions { base_offset: base, ..BatchOptions::default() });
        for at in 0..count {
            let value = [&log.epoch.to_be_bytes()[..], &(base + at).to_be_bytes(), &padding].concat();
            builder.append(0, None, Some(&value), std::iter::empty::<(&str, Option<&[u8]>)>()).unwrap();
        }
        let mut bytes = builder.build().unwrap().to_vec();
        patch::set_leader_epoch(&mut bytes, log.epoch).unwrap();
        assert!(bytes.len() <= LARGEST_BATCH);
        log.batches.push(Batch { base, count, epoch: log.epoch, bytes: bytes.into() });
    }

    fn move_leader(&mut self, partition: i32, lose: bool) {
        let leader = 1 + self.below(self.brokers.len() as u64) as i32;
        let keep = match lose {
            true => self.below(1 + self.logs[partition as usize].batches.len() as u64) as usize,
            false => usize::MAX,
        };
        let log = &mut self.logs[partition as usize];
        log.leader = leader;
        log.epoch += 1;
        if keep < log.batches.len() {
            log.batches.truncate(keep);
            log.truncations.push(log.end());
        }
    }

    /// Takes in a fetch: with sessions, as KIP-227 has it.
    fn arrives(&mut self, fetch: Fetch) {
        let Fetch { way, request, .. } = fetch;
        let broker = self.brokers.get_mut(&way.node).unwrap();
        if broker.down {
            return self.after(3, Event::Answer(way, Err(NoAnswer::Failed)));
        }
        let named: Vec<(i32, (i64, i32))> = request
            .topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .map(|part| (part.partition, (part.fetch_offset, part.current_leader_epoch)))
            .collect();
        let refuse = |code: ErrorCode| FetchResponse { error_code: code.code(), ..Default::default() };
        let (session, full, wanted) = match (request.session_id, request.session_epoch) {
            (0, -1) => (0, true, named),
            (id, 0) => {
                broker.sessions.remove(&id);
                let id = if broker.no_sessions { 0 } else { 1 + (self.count as i32) };
                if id != 0 {
                    broker.sessions.insert(id, ModelSession { next_epoch: 1, partitions: named.clone() });
                }
                (id, true, named)
            }
            (id, epoch) => {
                let Some(session) = broker.sessions.get_mut(&id) else {
                    return self.after(1, Event::Answer(way, Ok(refuse(ErrorCode::FetchSessionIdNotFound))));
                };
                if session.next_epoch != epoch {
                    return self
                        .after(1, Event::Answer(way, Ok(refuse(ErrorCode::InvalidFetchSessionEpoch))));
                }
                session.next_epoch += 1;
                for (partition, wanted) in named {
                    match session.partitions.iter_mut().find(|(other, _)| *other == partition) {
                        Some(known) => known.1 = wanted,
                        None => session.partitions.push((partition, wanted)),
                    }
                }
                let forgotten = request.forgotten_topics_data.iter().flat_map(|topic| &topic.partitions);
                let forgotten: BTreeSet<i32> = forgotten.copied().collect();
                session.partitions.retain(|(partition, _)| !forgotten.contains(partition));
                (id, false, session.partitions.clone())
            }
        };
        let until = self.now + Duration::from_millis(request.max_wait_ms as u64);
        self.held.push(Held { way, wanted, session, full, request, until });
    }

    /// Answers the fetches that are due.
    fn serve(&mut self) {
        let mut at = 0;
        while at < self.held.len() {
            let (answer, due) = self.look(&self.held[at]);
            let node = self.held[at].way.node;
            let failed = self.brokers[&node].down;
            if !due && !failed && self.held[at].until > self.now {
                at += 1;
                continue;
            }
            let held = self.held.remove(at);
            let mut answer = if failed { Err(NoAnswer::Failed) } else { Ok(answer) };
            let delay = 1 + self.below(3);
            if self.throttles
                && self.chance(3)
                && let Ok(answer) = &mut answer
            {
                answer.throttle_time_ms = 1 + self.below(200) as i32;
            }
            self.after(delay, Event::Answer(held.way, answer));
        }
    }

    fn look(&self, held: &Held) -> (FetchResponse, bool) {
        let (mut bytes, mut errors) = (0_usize, false);
        let mut parts = Vec::new();
        let most = held.request.max_bytes as usize;
        for &(partition, (offset, epoch)) in &held.wanted {
            let log = &self.logs[partition as usize];
            let code = match () {
                () if log.leader != held.way.node => ErrorCode::NotLeaderOrFollower,
                () if epoch >= 0 && epoch < log.epoch => ErrorCode::FencedLeaderEpoch,
                () if epoch > log.epoch => ErrorCode::UnknownLeaderEpoch,
                () if offset > log.end() || offset < 0 => ErrorCode::OffsetOutOfRange,
                () => ErrorCode::None,
            };
            errors |= code != ErrorCode::None;
            let mut records = Vec::new();
            if code == ErrorCode::None {
                for batch in log.batches.iter().filter(|batch| batch.base + batch.count > offset) {
                    let fits = bytes + batch.bytes.len() <= most
                        && records.len() + batch.bytes.len() <= PARTITION_BYTES;
                    if !fits && (bytes > 0 || !records.is_empty()) {
                        break;
                    }
                    bytes += batch.bytes.len();
                    records.extend_from_slice(&batch.bytes);
                }
            }
            if held.full || code != ErrorCode::None || !records.is_empty() {
                parts.push(PartitionData {
                    partition_index: partition,
                    error_code: code.code(),
                    high_watermark: log.end(),
                    records: Some(Records::Bytes(records.into())),
                    ..Default::default()
                });
            }
        }
        let topic = FetchableTopicResponse {
            topic_id: Uuid::from_bytes([7; 16]),
            partitions: parts,
            ..Default::default()
        };
        let answer = FetchResponse { session_id: held.session, responses: vec![topic], ..Default::default() };
        (answer, errors || bytes >= held.request.min_bytes as usize || held.wanted.is_empty())
    }

    // ---- the shell

    fn dispatch(&mut self) {
        let Plan { committed, find, check, fetch, refresh, wake_at } =
            self.partitions.plan(&self.view, self.now);
        assert!(committed.is_empty());
        let (fetches, fetch_at) = self.fetching.send(&mut self.partitions, fetch, self.now);
        self.wake_at = [wake_at, fetch_at].into_iter().flatten().min();
        if refresh && !self.refreshing {
            self.refreshing = true;
            let delay = 5 + self.below(20);
            self.after(delay, Event::Refreshed);
        }
        for (node, asked) in find {
            self.after(2, Event::Found(node, asked));
        }
        for (node, asked) in check {
            self.after(2, Event::Checked(node, asked));
        }
        for fetch in fetches {
            let muted = self.brokers[&fetch.way.node].muted_until;
            assert!(muted.is_none_or(|until| until <= self.now), "a broker that throttles is left alone");
            let names = fetch.request.topics.iter().map(|topic| topic.partitions.len()).sum::<usize>()
                + fetch.request.forgotten_topics_data.len();
            self.sent.push((self.now, fetch.way, names));
            let delay = 1 + self.below(2);
            self.after(delay, Event::Arrives(fetch));
        }
        self.check_budget();
    }

    /// What waits and what is under way fits, but for the batch by which each answer may be too large.
    fn check_budget(&self) {
        let too_large = 2 * self.brokers.len() * LARGEST_BATCH;
        // What the reader held when its partition was paused comes back on top.
        let put_back = PARTITION_BYTES + LARGEST_BATCH;
        let bytes = self.partitions.buffered() + self.fetching.reserved();
        assert!(bytes <= PREFETCH + too_large + put_back, "{bytes}");
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrives(fetch) => self.arrives(fetch),
            Event::Answer(way, answer) => {
                let throttle_ms = answer.as_ref().map_or(0, |answer| answer.throttle_time_ms as u64);
                let until = Some(self.now + Duration::from_millis(throttle_ms));
                let broker = self.brokers.get_mut(&way.node).unwrap();
                broker.muted_until = broker.muted_until.max(until);
                self.fetching.answered(&mut self.partitions, way, answer, self.now);
            }
            Event::Refreshed => {
                self.refreshing = false;
                self.view = self.true_view();
            }
            Event::Found(node, asked) => {
                if self.brokers[&node].down {
                    return self.partitions.not_answered(asked.iter().map(|(ask, ..)| ask), self.now);
                }
                for one in &asked {
                    let log = &self.logs[one.0.partition.partition as usize];
                    let found = match log.leader == node {
                        true => Ok(OffsetAt { offset: Some(0), timestamp_ms: None, leader_epoch: None }),
                        false => Err(ErrorCode::NotLeaderOrFollower),
                    };
                    self.partitions.place_found(one, Some(found), self.now);
                }
            }
            Event::Checked(node, asked) => {
                if self.brokers[&node].down {
                    return self.partitions.not_answered(asked.iter().map(|(ask, ..)| ask), self.now);
                }
                for one in &asked {
                    let log = &self.logs[one.0.partition.partition as usize];
                    let answer = match (log.leader == node, one.1.epoch.cmp(&log.epoch)) {
                        (false, _) => Err(ErrorCode::NotLeaderOrFollower),
                        (_, std::cmp::Ordering::Less) => Err(ErrorCode::FencedLeaderEpoch),
                        (_, std::cmp::Ordering::Greater) => Err(ErrorCode::UnknownLeaderEpoch),
                        _ => Ok(log.epoch_end(one.2.epoch.unwrap())),
                    };
                    self.partitions.checked(one, Some(answer), self.now);
                }
            }
        }
    }

    // ---- the program

    /// Reads up to `most` records. Returns how many there were.
    fn read(&mut self, most: u64) -> u64 {
        let mut read = 0;
        while read < most {
            let Some((chunk, cell)) = &mut self.current else {
                self.current = self.partitions.take();
                match self.current {
                    Some(_) => continue,
                    None => break,
                }
            };
            let partition = chunk.partition.partition;
            match cell.hand_out(|| (chunk.next(), chunk.position())) {
                Handed::Given(record) => {
                    let record = record.unwrap();
                    read += 1;
                    self.check_record(partition, record.offset, record.value.unwrap());
                }
                Handed::Paused => {
                    let (chunk, cell) = self.current.take().unwrap();
                    self.partitions.put_back(chunk, &cell);
                }
                Handed::Empty | Handed::Dead => self.current = None,
            }
        }
        assert!(self.partitions.take_error().is_none());
        read
    }

    /// Every record once and in order, except where the log itself went back.
    fn check_record(&mut self, partition: i32, offset: i64, value: Bytes) {
        let expected = *self.expected.get(&partition).unwrap_or_else(|| panic!("{partition} is not owned"));
        if offset != expected {
            let truncations = &self.logs[partition as usize].truncations;
            let lost = truncations.iter().any(|&end| end < expected);
            let back_to = offset < expected && (offset == 0 || truncations.contains(&offset));
            assert!(lost && back_to, "{partition}: {offset} instead of {expected}, {truncations:?}");
        }
        assert_eq!(value[4..12], offset.to_be_bytes());
        self.expected.insert(partition, offset + 1);
        self.seen.entry(partition).or_default().insert(offset, value.slice(..4));
    }

    fn seek(&mut self, partition: i32) {
        let end = self.logs[partition as usize].end();
        let offset = self.below(end as u64 + 1) as i64;
        if self.partitions.seek(&name(partition), Start::At(offset), None) {
            self.expected.insert(partition, offset);
            self.seen.remove(&partition);
        }
    }

    fn meddle(&mut self) {
        let partition = self.any_partition();
        match self.below(24) {
            0..10 => self.append(partition),
            10 | 11 => self.seek(partition),
            12 | 13 => {
                self.partitions.pause(&name(partition), true);
            }
            14..17 => {
                self.partitions.pause(&name(partition), false);
            }
            17 => self.move_leader(partition, false),
            18 => self.move_leader(partition, true),
            19 => {
                let node = 1 + self.below(self.brokers.len() as u64) as i32;
                let down = self.chance(50);
                let broker = self.brokers.get_mut(&node).unwrap();
                broker.down = down;
                broker.sessions.clear();
            }
            20 => {
                let node = 1 + self.below(self.brokers.len() as u64) as i32;
                self.brokers.get_mut(&node).unwrap().sessions.clear();
            }
            21 => {
                self.partitions.remove(&[name(partition)]);
                self.expected.remove(&partition);
                self.seen.remove(&partition);
            }
            _ => {
                if !self.expected.contains_key(&partition) {
                    self.own(partition);
                }
            }
        }
    }

    // ---- time

    /// Lets `millis` pass, with everything that happens meanwhile; `read` says whether the program reads.
    fn pass(&mut self, millis: u64, read: bool) {
        let end = self.now + Duration::from_millis(millis);
        if read {
            self.read(u64::MAX);
        }
        self.dispatch();
        loop {
            self.serve();
            let event_at = self.events.keys().next().map(|(at, _)| *at);
            let held_at = self.held.iter().map(|held| held.until).min();
            let next = [event_at, held_at, self.wake_at].into_iter().flatten().min();
            let Some(next) = next.filter(|&at| at <= end) else { break };
            assert!(
                next > self.now
                    || event_at == Some(next)
                    || self.wake_at == Some(next)
                    || held_at == Some(next)
            );
            self.now = self.now.max(next);
            while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let event = entry.remove();
                self.handle(event);
            }
            if read {
                self.read(u64::MAX);
            }
            self.dispatch();
        }
        self.now = end;
    }

    /// All is well, and everything there is gets read.
    fn heal(&mut self) {
        self.brokers.values_mut().for_each(|broker| broker.down = false);
        for partition in 0..self.logs.len() as i32 {
            self.partitions.pause(&name(partition), false);
            self.append(partition);
        }
        self.pass(10_000, true);
        for (&partition, &expected) in &self.expected {
            let log = &self.logs[partition as usize];
            assert_eq!(expected, log.end(), "{partition} is read to its end");
            let seen = self.seen.get(&partition).cloned().unwrap_or_default();
            for batch in &log.batches {
                for offset in batch.base..batch.base + batch.count {
                    if let Some(epoch) = seen.get(&offset) {
                        assert_eq!(**epoch, batch.epoch.to_be_bytes(), "{partition}: {offset} is of the log");
                    }
                }
            }
            let first = seen.keys().next().copied().unwrap_or(expected);
            assert_eq!(seen.range(first..expected).count() as i64, expected - first, "{partition}: gaps");
        }
    }

    /// Nothing happens: nothing is asked but one held fetch of each broker, which names nothing.
    fn rest(&mut self) {
        self.pass(2_000, true);
        let from = self.now;
        self.pass(5_000, true);
        let sessions = self.brokers.values().all(|broker| !broker.no_sessions);
        let mut held = BTreeMap::new();
        for (at, way, names) in self.sent.iter().filter(|(at, ..)| *at >= from) {
            assert_eq!(way.line, Line::Patient, "{:?} after all was quiet", *at - from);
            assert!(!sessions || *names == 0, "an idle partition is named");
            *held.entry(way.node).or_insert(0) += 1;
        }
        assert!(held.values().all(|&count| count <= 11), "{held:?}");
    }
}

fn seeds(count: u64) -> std::ops::Range<u64> {
    let seed = std::env::var("KLAMM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0_u64);
    seed * count..(seed + 1) * count
}

#[test]
fn every_record_comes_once_and_in_order_whatever_happens() {
    for seed in seeds(250) {
        let shape = SeededRng::new(seed ^ 0xfeed);
        let mut world = World::new(seed, 1 + shape.below(8) as i32, 1 + shape.below(3) as i32);
        for _ in 0..150 {
            world.meddle();
            let reads = world.chance(70);
            if reads {
                let most = 1 + world.below(20);
                world.read(most);
            }
            let millis = [0, 1, 5, 30, 200][world.below(5) as usize];
            world.pass(millis, false);
        }
        world.heal();
        world.rest();
    }
}

/// Today's figure was as long as `fetch_max_wait`: an idle partition that is sought had to wait until the broker
/// answered what it held.
#[test]
fn a_seek_waits_for_nothing() {
    for seed in seeds(100) {
        let mut world = World::new(seed, 4, 1);
        world.throttles = false;
        for partition in [0, 0, 1, 1, 2, 3] {
            world.append(partition);
        }
        world.pass(3_000, true);
        for partition in [0, 1, 0] {
            assert!(world.partitions.seek(&name(partition), Start::At(0), None));
            world.expected.insert(partition, 0);
            world.pass(20, true);
            let end = world.logs[partition as usize].end();
            assert_eq!(world.expected[&partition], end, "seed {seed}: {partition}");
            world.pass(300, true);
        }
    }
}

/// A busy partition beside an idle one that is paused and sought all the time loses nothing of its speed.
#[test]
fn idle_partitions_do_not_slow_down_busy_ones() {
    for seed in seeds(20) {
        let mut world = World::new(seed, 3, 1);
        world.throttles = false;
        world.pass(1_000, true);
        for _ in 0..2_000 {
            world.append(0);
        }
        let end = world.logs[0].end();
        let mut passed = 0;
        while world.expected[&0] < end {
            let idle = 1 + world.below(2) as i32;
            match world.below(3) {
                0 => drop(world.partitions.seek(&name(idle), Start::At(0), None)),
                1 => drop(world.partitions.pause(&name(idle), true)),
                _ => drop(world.partitions.pause(&name(idle), false)),
            }
            world.pass(50, true);
            passed += 1;
            // A round of at most 9 ms brings two batches or more, of 2,000.
            assert!(passed < 180, "seed {seed}: {} of {end}", world.expected[&0]);
        }
    }
}

/// More partitions than the budget has room for, all of them full: each gets its turn.
#[test]
fn no_partition_starves() {
    for seed in seeds(10) {
        let mut world = World::new(seed, 40, 2);
        for _ in 0..30 {
            (0..40).for_each(|partition| world.append(partition));
        }
        world.pass(2_500, true);
        let least = world.expected.values().min().copied().unwrap();
        assert!(least > 0, "seed {seed}: {:?}", world.expected);
    }
}
