//! One decision at a time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use klamm_protocol::ApiKey;
use klamm_protocol::messages::produce::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};

use super::*;
use crate::runtime::SeededRng;

mod deadlines;

const LINGER: Duration = Duration::from_millis(5);
const SECOND: Duration = Duration::from_secs(1);

pub(super) fn rules() -> Rules {
    Rules {
        idempotent: true,
        transactional: false,
        max_in_flight: 5,
        max_request_bytes: 1_000,
        delivery_timeout: 120 * SECOND,
        retry_backoff: Duration::from_millis(100),
        retry_backoff_max: SECOND,
        idle_after: 30 * SECOND,
        rng: Arc::new(SeededRng::new(1)),
    }
}

/// A batch of numbers, each of which takes ten bytes.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) values: Vec<u32>,
    created: Instant,
    doubt: bool,
    note: Option<Arc<str>>,
}

impl Parcel for Load {
    type Promise = Vec<u32>;

    fn promise(&self) -> Vec<u32> {
        self.values.clone()
    }

    fn records(&self) -> i32 {
        self.values.len() as i32
    }

    fn bytes(&self) -> usize {
        self.values.len() * 10
    }

    fn created(&self) -> Instant {
        self.created
    }

    fn doubt(&mut self, possibly_written: bool) {
        self.doubt = possibly_written;
    }

    fn note(&mut self, why: Arc<str>) {
        self.note = Some(why);
    }

    fn noted(&self) -> Option<Arc<str>> {
        self.note.clone()
    }

    fn halve(mut self) -> Result<[Self; 2], Self> {
        if self.values.len() < 2 {
            return Err(self);
        }
        let values = self.values.split_off(self.values.len() / 2);
        let second = Self { values, created: self.created, doubt: self.doubt, note: self.note.clone() };
        Ok([self, second])
    }
}

/// Batches that linger for [`LINGER`], by slot; a partition's slot is its number until it is forgotten.
#[derive(Debug, Default)]
pub(super) struct Store {
    slots: BTreeMap<i32, Slot>,
    partitions: BTreeMap<Slot, TopicPartition>,
    queues: BTreeMap<Slot, VecDeque<Load>>,
    changed: BTreeSet<Slot>,
    /// Whose batches are being closed elsewhere.
    away: BTreeSet<Slot>,
    next: Slot,
}

impl Store {
    pub(super) fn add(&mut self, partition: i32, values: Vec<u32>, now: Instant) -> Slot {
        let slot = *self.slots.entry(partition).or_insert_with(|| {
            self.next += 1;
            self.next - 1
        });
        self.partitions.insert(slot, TopicPartition::new("t", partition));
        let load = Load { values, created: now, doubt: false, note: None };
        self.queues.entry(slot).or_default().push_back(load);
        self.changed.insert(slot);
        slot
    }
}

impl Waiting<Load> for Store {
    fn changed(&mut self) -> Vec<Slot> {
        std::mem::take(&mut self.changed).into_iter().collect()
    }

    fn partition(&self, slot: Slot) -> Option<&TopicPartition> {
        self.partitions.get(&slot)
    }

    fn ready_at(&self, slot: Slot, _now: Instant) -> Option<Instant> {
        self.oldest(slot).filter(|_| !self.away.contains(&slot)).map(|created| created + LINGER)
    }

    fn next_bytes(&self, slot: Slot) -> usize {
        self.queues.get(&slot).and_then(VecDeque::front).map_or(0, Load::bytes)
    }

    fn oldest(&self, slot: Slot) -> Option<Instant> {
        self.queues.get(&slot)?.front().map(|load| load.created)
    }

    fn take(&mut self, slot: Slot) -> Option<Load> {
        self.queues.get_mut(&slot).filter(|_| !self.away.contains(&slot))?.pop_front()
    }

    fn forget(&mut self, slot: Slot) -> bool {
        if self.oldest(slot).is_some() {
            return false;
        }
        self.queues.remove(&slot);
        if let Some(partition) = self.partitions.remove(&slot) {
            self.slots.remove(&partition.partition);
        }
        true
    }
}

#[derive(Debug, Default)]
pub(super) struct Nodes {
    pub(super) version: u64,
    pub(super) leaders: BTreeMap<i32, i32>,
    pub(super) connected: BTreeSet<i32>,
    topic_id: Option<Uuid>,
    by_name: bool,
}

impl Cluster for Nodes {
    fn version(&self) -> u64 {
        self.version
    }

    fn leader(&self, partition: &TopicPartition) -> Option<i32> {
        self.leaders.get(&partition.partition).copied()
    }

    fn topic_id(&self, _partition: &TopicPartition) -> Option<Uuid> {
        self.topic_id
    }

    fn goes_by_id(&self, _node: i32) -> bool {
        !self.by_name
    }

    fn connected(&self, node: i32) -> bool {
        self.connected.contains(&node)
    }
}

/// A dispatch with what it looks at, at a time of its own.
struct Bench {
    dispatch: Dispatch<Load>,
    store: Store,
    nodes: Nodes,
    now: Instant,
    start: Instant,
}

impl Bench {
    /// Partitions 0 to 9 at node 1, which is connected.
    fn new(rules: Rules) -> Self {
        let leaders = (0..10).map(|partition| (partition, 1)).collect();
        let nodes = Nodes { version: 1, leaders, connected: BTreeSet::from([1]), ..Nodes::default() };
        let now = Instant::now();
        Self { dispatch: Dispatch::new(rules), store: Store::default(), nodes, now, start: now }
    }

    /// As `new`, with an identity, and whose partitions 0 to 2 the broker knows.
    fn settled() -> Self {
        Self::settled_by(rules())
    }

    fn settled_by(rules: Rules) -> Self {
        let mut bench = Self::new(rules);
        for partition in 0..3 {
            bench.store.add(partition, vec![1_000], bench.now);
        }
        bench.now += LINGER;
        assert_eq!(bench.pass(), ["identify"]);
        bench.identify(7);
        assert_eq!(bench.pass(), ["send 0 to 1: 0:[1000]@7.0.0 1:[1000]@7.0.0 2:[1000]@7.0.0"]);
        bench.answer(0, ErrorCode::None);
        assert_eq!(bench.pass().len(), 6);
        bench
    }

    fn add(&mut self, partition: i32, value: u32) {
        self.store.add(partition, vec![value], self.now - LINGER);
    }

    fn identify(&mut self, producer_id: i64) {
        self.dispatch.identified(Ok(Identity { producer_id, epoch: 0 }));
    }

    fn pass(&mut self) -> Vec<String> {
        self.dispatch.pass(self.now, &mut self.store, &self.nodes);
        let commands = self.dispatch.commands();
        commands.into_iter().map(|command| self.describe(command)).collect()
    }

    fn describe(&mut self, command: Command<Load>) -> String {
        match command {
            Command::Connect { node } => format!("connect {node}"),
            Command::Refresh => "refresh".to_owned(),
            Command::Identify => "identify".to_owned(),
            Command::Send { node, request } => {
                let mut text = format!("send {request} to {node}:");
                for flying in self.dispatch.flight(request) {
                    let batch = &flying.batch;
                    assert!(batch.batch.doubt);
                    let stamp = batch.stamp.map_or_else(String::new, |stamp| {
                        let Identity { producer_id, epoch } = stamp.identity;
                        format!("@{producer_id}.{epoch}.{}", stamp.sequence)
                    });
                    let again = if flying.fresh || batch.stamp.is_none() { "" } else { " again" };
                    text += &format!(" {}:{:?}{stamp}{again}", flying.slot, batch.batch.values);
                }
                text
            }
            Command::Learn(LeaderHint { partition, leader, leader_epoch, endpoint }) => {
                format!("{partition} is at {leader} since {leader_epoch}: {endpoint:?}")
            }
            Command::Decide { promise, outcome: Ok(acknowledged) } => {
                format!("{promise:?} at {}", acknowledged.base_offset)
            }
            Command::Decide { promise, outcome: Err(error) } => {
                format!("{promise:?} failed, maybe written {}: {error}", error.may_have_been_written())
            }
            Command::Release { batch } => format!("release {:?}", batch.values),
            Command::Shrink { slot, bytes } => format!("shrink {slot} to {bytes}"),
            Command::Report { node, first, .. } => format!("report {node}, first {first}"),
        }
    }

    /// The same answer for every partition of a request.
    fn answer(&mut self, request: u64, code: ErrorCode) {
        self.answer_each(request, |_| PartitionProduceResponse {
            error_code: code.code(),
            base_offset: 50,
            ..Default::default()
        });
    }

    fn answer_each(&mut self, request: u64, part: impl Fn(i32) -> PartitionProduceResponse) {
        let slots: Vec<Slot> = self.dispatch.flight(request).iter().map(|flying| flying.slot).collect();
        let parts = slots.iter().map(|slot| {
            let index = self.store.partition(*slot).unwrap().partition;
            PartitionProduceResponse { index, ..part(index) }
        });
        let endpoint = NodeEndpoint { node_id: 2, host: "two".into(), port: 9, ..Default::default() };
        let topic = TopicProduceResponse {
            name: "t".into(),
            partition_responses: parts.collect(),
            ..Default::default()
        };
        let answer =
            ProduceResponse { responses: vec![topic], node_endpoints: vec![endpoint], ..Default::default() };
        self.dispatch.answered(request, Ok(answer), self.now);
    }

    fn lose(&mut self, request: u64) {
        self.dispatch.answered(request, Err(lost()), self.now);
    }

    fn wakes_in(&self) -> Option<Duration> {
        self.dispatch.wake_at().map(|at| at - self.now)
    }
}

fn lost() -> RequestError {
    RequestError::Disconnected { address: Arc::from("a:1"), reason: Arc::from("lost") }
}

fn silent() -> RequestError {
    RequestError::Timeout { address: Arc::from("a:1"), api: ApiKey::Produce, after: SECOND }
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_record_lingers_and_then_goes_as_soon_as_somebody_is_there() {
    let mut bench = Bench::new(rules());
    bench.nodes.connected.clear();
    assert_eq!((bench.pass(), bench.wakes_in()), (vec![], None));
    bench.store.add(0, vec![1, 2], bench.now);
    assert_eq!((bench.pass(), bench.wakes_in()), (vec![], Some(LINGER)));
    bench.now += LINGER - Duration::from_nanos(1);
    assert_eq!(bench.pass(), NOTHING);
    bench.now += Duration::from_nanos(1);
    assert_eq!(bench.pass(), ["connect 1"]);
    assert_eq!(bench.pass(), NOTHING, "under way");
    bench.dispatch.connected(1, Ok(()));
    bench.nodes.connected.insert(1);
    assert_eq!(bench.pass(), ["identify"]);
    assert_eq!(bench.pass(), NOTHING, "under way");
    assert_eq!(bench.wakes_in(), Some(120 * SECOND - LINGER), "nothing but the deadline");
    bench.identify(7);
    assert_eq!(bench.pass(), ["send 0 to 1: 0:[1, 2]@7.0.0"]);
    bench.answer(0, ErrorCode::None);
    assert_eq!(bench.pass(), ["[1, 2] at 50", "release [1, 2]"]);
    bench.answer(0, ErrorCode::None);
    assert_eq!(bench.pass(), NOTHING, "answered already");
}

#[test]
fn a_request_takes_one_batch_of_each_partition_and_no_more_than_fits() {
    let mut bench = Bench::settled();
    for value in 0..2 {
        for partition in 0..3 {
            bench.add(partition, 10 * value + partition as u32);
        }
    }
    assert_eq!(
        bench.pass(),
        [
            "send 1 to 1: 0:[0]@7.0.1 1:[1]@7.0.1 2:[2]@7.0.1",
            "send 2 to 1: 0:[10]@7.0.2 1:[11]@7.0.2 2:[12]@7.0.2"
        ]
    );
    for partition in 0..3 {
        bench.store.add(partition, vec![0; 50], bench.now - LINGER);
    }
    let sent = bench.pass();
    assert_eq!(sent.len(), 2, "1,000 bytes are two of three");
    assert!(sent[0].contains(" 0:[") && sent[0].contains(" 1:[") && !sent[0].contains(" 2:["));
    assert!(sent[1].contains(" 2:["));
    // One that is too large goes alone, and exactly what fits goes together.
    bench.store.add(0, vec![0; 101], bench.now - LINGER);
    bench.add(1, 5);
    let sent = bench.pass();
    assert_eq!(sent.len(), 1, "five in flight: {sent:?}");
    assert!(sent[0].contains(" 0:") && !sent[0].contains("[5]"));
    bench.store.add(2, vec![0; 99], bench.now - LINGER);
    assert_eq!(bench.pass(), NOTHING);
    bench.answer(1, ErrorCode::None);
    let sent = bench.pass();
    assert!(sent.last().unwrap().starts_with("send 6 to 1: 1:[5]@7.0.53 2:"), "{sent:?}");
}

#[test]
fn what_waits_longest_goes_first() {
    let mut bench = Bench::settled();
    for partition in [2, 0, 1] {
        bench.add(partition, 1);
        bench.nodes.connected.clear();
        bench.pass();
    }
    // More records do not cost a partition its turn.
    bench.add(2, 2);
    bench.pass();
    bench.nodes.connected.insert(1);
    let sent = bench.pass();
    assert_eq!(sent[0], "send 1 to 1: 2:[1]@7.0.1 0:[1]@7.0.1 1:[1]@7.0.1");
}

#[test]
fn without_a_leader_the_metadata_is_asked_until_there_is_one() {
    let mut bench = Bench::settled();
    bench.nodes.leaders.remove(&0);
    bench.add(0, 1);
    assert_eq!(bench.pass(), ["refresh"]);
    assert_eq!(bench.pass(), NOTHING, "under way");
    bench.dispatch.refreshed();
    assert_eq!(bench.pass(), ["refresh"]);
    bench.nodes.version += 1;
    bench.nodes.leaders.insert(0, 2);
    bench.dispatch.refreshed();
    assert_eq!(bench.pass(), ["connect 2"]);
    // The queue follows the leader.
    bench.nodes.version += 1;
    bench.nodes.leaders.insert(0, 1);
    assert_eq!(bench.pass(), ["send 1 to 1: 0:[1]@7.0.1"]);
    bench.dispatch.connected(2, Ok(()));
    assert_eq!(bench.pass(), NOTHING);
}

#[test]
fn a_broker_that_cannot_be_reached_is_reported_once_in_a_series() {
    let mut bench = Bench::settled();
    bench.nodes.connected.clear();
    bench.add(0, 1);
    assert_eq!(bench.pass(), ["connect 1"]);
    // Whoever connects tells of it, to all that share the client.
    bench.dispatch.connected(1, Err(lost()));
    assert_eq!(bench.pass(), ["connect 1", "refresh"]);
    bench.dispatch.connected(1, Err(lost()));
    assert_eq!(bench.pass(), ["connect 1"]);
    bench.dispatch.connected(1, Ok(()));
    bench.nodes.connected.insert(1);
    bench.dispatch.refreshed();
    assert_eq!(bench.pass(), ["send 1 to 1: 0:[1]@7.0.1", "refresh"]);
    bench.lose(1);
    assert_eq!(bench.pass(), ["report 1, first false"], "connecting anew tells more");
    bench.now += SECOND;
    assert_eq!(bench.pass(), ["send 2 to 1: 0:[1]@7.0.1 again"]);
    bench.dispatch.answered(2, Err(silent()), bench.now);
    assert_eq!(bench.pass(), ["report 1, first true"]);
    bench.now += 2 * SECOND;
    bench.pass();
    bench.dispatch.answered(3, Err(silent()), bench.now);
    assert_eq!(bench.pass(), ["report 1, first false"]);
    bench.dispatch.connected(1, Ok(()));
    bench.now += 2 * SECOND;
    bench.pass();
    bench.dispatch.answered(4, Err(silent()), bench.now);
    assert_eq!(bench.pass(), ["report 1, first false"], "that it can be connected to is no answer");
    bench.now += 2 * SECOND;
    bench.pass();
    bench.answer(5, ErrorCode::NotEnoughReplicas);
    bench.now += 2 * SECOND;
    bench.pass();
    bench.dispatch.answered(6, Err(silent()), bench.now);
    assert_eq!(bench.pass(), ["report 1, first true"], "an answer ends a series");
}

#[test]
fn a_retry_pauses_and_the_pauses_grow() {
    let mut bench = Bench::settled();
    bench.add(0, 1);
    bench.pass();
    for (request, nominal_ms) in (1..).zip([100, 200, 400, 800, 1_000]) {
        bench.answer(request, ErrorCode::NotEnoughReplicas);
        assert_eq!(bench.pass(), NOTHING);
        let pause = bench.wakes_in().unwrap();
        let range = Duration::from_millis(nominal_ms * 8 / 10)..=Duration::from_millis(nominal_ms * 12 / 10);
        assert!(range.contains(&pause), "{pause:?} for {nominal_ms} ms");
        bench.now += pause - Duration::from_nanos(1);
        assert_eq!(bench.pass(), NOTHING);
        bench.now += Duration::from_nanos(1);
        assert_eq!(bench.pass(), [format!("send {} to 1: 0:[1]@7.0.1 again", request + 1)]);
    }
}

#[test]
fn a_moved_leader_is_refreshed_or_hinted() {
    let mut bench = Bench::settled();
    bench.add(0, 1);
    bench.pass();
    bench.answer(1, ErrorCode::NotLeaderOrFollower);
    assert_eq!(bench.pass(), ["refresh"]);
    bench.dispatch.refreshed();
    bench.now += SECOND;
    assert_eq!(bench.pass(), ["send 2 to 1: 0:[1]@7.0.1 again"]);
    let hint = |leader_id, leader_epoch| {
        move |_| PartitionProduceResponse {
            error_code: ErrorCode::NotLeaderOrFollower.code(),
            current_leader: LeaderIdAndEpoch { leader_id, leader_epoch, ..Default::default() },
            ..Default::default()
        }
    };
    bench.answer_each(2, hint(2, 6));
    bench.nodes.leaders.insert(0, 2);
    bench.nodes.connected.insert(2);
    assert_eq!(
        bench.pass(),
        ["t-0 is at 2 since 6: Some((\"two\", 9))", "send 3 to 2: 0:[1]@7.0.1 again"],
        "without a pause and without a refresh"
    );
    bench.answer_each(3, hint(1, 6));
    assert_eq!(bench.pass(), ["refresh"], "two brokers point at each other");
    bench.now += SECOND;
    bench.dispatch.refreshed();
    assert_eq!(bench.pass(), ["send 4 to 2: 0:[1]@7.0.1 again"]);
    bench.answer_each(4, hint(3, 7));
    assert_eq!(bench.pass()[0], "t-0 is at 3 since 7: None");
    bench.answer_each(5, hint(-1, 8));
    assert_eq!(bench.pass(), ["refresh"]);
    // The epoch of a topic's first leader is 0.
    let mut bench = Bench::settled();
    bench.add(0, 1);
    bench.pass();
    bench.answer_each(1, hint(2, 0));
    assert_eq!(bench.pass()[0], "t-0 is at 2 since 0: Some((\"two\", 9))");
}

#[test]
fn a_moved_leader_gets_nothing_while_the_old_one_may_answer() {
    let mut bench = Bench::settled();
    bench.add(0, 1);
    bench.pass();
    bench.add(0, 2);
    bench.nodes.leaders.insert(0, 2);
    bench.nodes.connected.insert(2);
    bench.nodes.version += 1;
    assert_eq!(bench.pass(), NOTHING);
    bench.answer(1, ErrorCode::None);
    assert_eq!(bench.pass(), ["[1] at 50", "release [1]", "send 2 to 2: 0:[2]@7.0.2"]);
}

#[test]
fn lost_sequences_go_on_under_the_next_epoch_after_a_pause() {
    let mut bench = Bench::settled();
    bench.add(0, 1);
    bench.add(1, 2);
    bench.pass();
    bench.answer_each(1, |partition| PartitionProduceResponse {
        error_code: if partition == 0 { ErrorCode::OutOfOrderSequenceNumber.code() } else { 0 },
        ..Default::default()
    });
    assert_eq!(bench.pass(), ["[2] at 0", "release [2]"]);
    bench.now += SECOND;
    assert_eq!(bench.pass(), ["send 2 to 1: 0:[1]@7.1.0"]);
    // The others follow when they have nothing under the old one.
    bench.add(1, 3);
    assert_eq!(bench.pass(), ["send 3 to 1: 1:[3]@7.1.0"]);
    bench.answer(3, ErrorCode::ProducerFenced);
    bench.now += SECOND;
    assert_eq!(bench.pass(), ["identify"]);
    bench.identify(8);
    assert_eq!(bench.pass(), ["send 4 to 1: 1:[3]@8.0.0"]);
}

#[test]
fn a_forgotten_producer_does_not_repeat_what_may_be_written() {
    let mut bench = Bench::settled();
    bench.add(0, 1);
    bench.pass();
    bench.add(0, 2);
    bench.pass();
    bench.lose(1);
    bench.lose(2);
    bench.pass();
    bench.now += SECOND;
    assert_eq!(bench.pass(), ["send 3 to 1: 0:[1]@7.0.1 again", "send 4 to 1: 0:[2]@7.0.2 again"]);
    bench.answer(3, ErrorCode::UnknownProducerId);
    let told = bench.pass();
    assert!(
        told[0].starts_with("[1] failed, maybe written true: t-0: the broker answered UNKNOWN_PRODUCER_ID"),
        "{told:?}"
    );
    assert_eq!(told[1..], ["release [1]"]);
    bench.answer(4, ErrorCode::NotEnoughReplicas);
    bench.now += SECOND;
    let told = bench.pass();
    assert!(told[0].starts_with("[2] failed, maybe written true"), "{told:?}");
    bench.add(0, 3);
    assert_eq!(bench.pass(), ["send 5 to 1: 0:[3]@7.1.0"]);
}

#[test]
fn a_batch_that_is_too_large_goes_in_parts() {
    let mut bench = Bench::settled();
    bench.store.add(0, vec![1, 2, 3], bench.now - LINGER);
    bench.add(0, 4);
    assert_eq!(bench.pass(), ["send 1 to 1: 0:[1, 2, 3]@7.0.1", "send 2 to 1: 0:[4]@7.0.4"]);
    bench.answer(1, ErrorCode::MessageTooLarge);
    bench.answer(2, ErrorCode::OutOfOrderSequenceNumber);
    assert_eq!(bench.pass(), ["shrink 0 to 15"]);
    bench.now += SECOND;
    assert_eq!(
        bench.pass(),
        [
            "send 3 to 1: 0:[1]@7.0.1 again",
            "send 4 to 1: 0:[2, 3]@7.0.2 again",
            "send 5 to 1: 0:[4]@7.0.4 again"
        ]
    );
    bench.answer(3, ErrorCode::RecordListTooLarge);
    let told = bench.pass();
    assert_eq!(told[0], "shrink 0 to 5");
    assert!(told[1].starts_with("[1] failed, maybe written false"), "one record has no parts: {told:?}");
    assert_eq!(told[2..], ["release [1]"]);
    bench.answer(4, ErrorCode::OutOfOrderSequenceNumber);
    bench.answer(5, ErrorCode::OutOfOrderSequenceNumber);
    bench.now += SECOND;
    assert_eq!(bench.pass(), ["send 6 to 1: 0:[2, 3]@7.1.0"]);
}

#[test]
fn without_an_identity_what_waits_fails_and_what_comes_asks_again() {
    let mut bench = Bench::new(rules());
    bench.add(0, 1);
    bench.add(1, 2);
    assert_eq!(bench.pass(), ["identify"]);
    bench.dispatch.identified(Err(RequestError::Closed));
    let told = bench.pass();
    assert!(told[0].starts_with("[1] failed, maybe written false"), "{told:?}");
    assert_eq!(told[1], "release [1]");
    assert!(told[2].starts_with("[2] failed, maybe written false"), "{told:?}");
    assert_eq!(told.len(), 4);
    assert_eq!(bench.pass(), NOTHING);
    bench.add(0, 3);
    assert_eq!(bench.pass(), ["identify"]);
}

#[test]
fn a_request_that_is_not_answered_is_done_when_it_is_written() {
    let mut bench = Bench::new(Rules { idempotent: false, ..rules() });
    bench.add(0, 1);
    bench.add(1, 2);
    assert_eq!(bench.pass(), ["send 0 to 1: 0:[1] 1:[2]"]);
    bench.dispatch.written(0, Ok(()), bench.now);
    assert_eq!(bench.pass(), ["[1] at -1", "release [1]", "[2] at -1", "release [2]"]);
    bench.add(0, 3);
    bench.pass();
    bench.dispatch.written(1, Err(lost()), bench.now);
    assert_eq!(bench.pass(), ["report 1, first false", "refresh"]);
    bench.now += SECOND;
    assert_eq!(bench.pass(), ["send 2 to 1: 0:[3]"]);
    bench.dispatch.written(7, Ok(()), bench.now);
    assert_eq!(bench.pass(), NOTHING);
}

#[test]
fn a_batch_that_cannot_be_written_is_left_out() {
    let mut bench = Bench::settled();
    bench.add(0, 1);
    bench.add(1, 2);
    bench.pass();
    assert_eq!(bench.dispatch.unwritable(1, 0, "no", bench.now), 1);
    assert_eq!(bench.dispatch.unwritable(1, 0, "no", bench.now), 1, "it is gone");
    assert_eq!(bench.dispatch.unwritable(9, 0, "no", bench.now), 0);
    let told = bench.pass();
    assert!(told[0].starts_with("[1] failed, maybe written false") && told[0].ends_with("no"), "{told:?}");
    assert_eq!(bench.dispatch.unwritable(1, 1, "no", bench.now), 0);
    assert_eq!(bench.pass().len(), 2);
    assert!(bench.dispatch.flights.is_empty(), "nothing is left of the request");
    bench.add(2, 3);
    assert_eq!(bench.pass(), ["send 2 to 1: 2:[3]@7.0.1"]);
}

#[test]
fn an_answer_that_leaves_a_partition_out_says_nothing() {
    let mut bench = Bench::settled();
    bench.add(0, 1);
    bench.pass();
    bench.dispatch.answered(1, Ok(ProduceResponse::default()), bench.now);
    assert_eq!(bench.pass(), NOTHING);
    bench.now += SECOND;
    assert_eq!(bench.pass(), ["send 2 to 1: 0:[1]@7.0.1 again"]);
    bench.answer(2, ErrorCode::TopicAuthorizationFailed);
    let told = bench.pass();
    assert!(told[0].starts_with("[1] failed, maybe written true"), "{told:?}");
}

#[test]
fn one_failure_breaks_a_transaction_until_another_begins() {
    let mut bench = Bench::new(Rules { transactional: true, ..rules() });
    let given = |epoch| Identity { producer_id: 7, epoch };
    bench.add(0, 1);
    assert_eq!(bench.pass(), NOTHING, "its identity is given to it");
    bench.dispatch.assign(given(0));
    bench.add(1, 2);
    assert_eq!(bench.pass(), ["send 0 to 1: 0:[1]@7.0.0 1:[2]@7.0.0"]);
    bench.add(0, 3);
    bench.add(2, 4);
    assert_eq!(bench.pass(), ["send 1 to 1: 2:[4]@7.0.0"]);
    bench.answer_each(0, |partition| PartitionProduceResponse {
        error_code: if partition == 0 { ErrorCode::InvalidProducerEpoch.code() } else { 0 },
        ..Default::default()
    });
    let told = bench.pass();
    assert!(told[0].starts_with("[1] failed, maybe written false: t-0: the broker answered"), "{told:?}");
    assert_eq!(told[2..4], ["[2] at 0", "release [2]"]);
    assert!(told[4].starts_with("[3] failed, maybe written false: the transaction"), "{told:?}");
    assert!(matches!(bench.dispatch.broken(), Some(ProduceError::TransactionBroken { .. })));
    bench.add(1, 5);
    assert!(bench.pass()[0].starts_with("[5] failed"), "what comes fails too");
    bench.answer(1, ErrorCode::NotEnoughReplicas);
    assert!(bench.pass()[0].starts_with("[4] failed"), "and what would be tried again");
    bench.now += SECOND;
    assert_eq!(bench.pass(), NOTHING);
    bench.dispatch.assign(given(1));
    assert!(bench.dispatch.broken().is_none());
    bench.add(0, 6);
    bench.add(2, 7);
    assert_eq!(bench.pass(), ["send 2 to 1: 0:[6]@7.1.0 2:[7]@7.1.0"]);
    bench.dispatch.break_off(ProduceError::Closed { possibly_written: false });
    bench.add(3, 8);
    let told = bench.pass();
    assert!(told[0].starts_with("[8] failed, maybe written false: the producer is closed"), "{told:?}");
}

#[test]
fn a_deadline_in_flight_breaks_a_transaction_too() {
    let mut bench = Bench::new(Rules { transactional: true, ..rules() });
    bench.dispatch.assign(Identity { producer_id: 7, epoch: 0 });
    bench.add(0, 1);
    bench.pass();
    bench.now += 120 * SECOND;
    bench.add(1, 2);
    let told = bench.pass();
    assert!(told[0].starts_with("[1] failed, maybe written true"), "{told:?}");
    assert!(told[1].starts_with("[2] failed, maybe written false: the transaction"), "{told:?}");
}

/// What is overdue in flight kept its lane under the identity of its transaction, and the records of the next one went
/// out under it too: refused at best, and at worst part of a transaction that was over.
#[test]
fn the_next_transaction_waits_for_what_is_in_flight_of_the_one_before() {
    let mut bench = Bench::new(Rules { transactional: true, ..rules() });
    let given = |epoch| Identity { producer_id: 7, epoch };
    bench.dispatch.assign(given(0));
    bench.add(0, 1);
    assert_eq!(bench.pass(), ["send 0 to 1: 0:[1]@7.0.0"]);
    bench.answer(0, ErrorCode::None);
    assert_eq!(bench.pass(), ["[1] at 50", "release [1]"]);
    bench.add(0, 2);
    assert_eq!(bench.pass(), ["send 1 to 1: 0:[2]@7.0.1"]);
    bench.now += 120 * SECOND;
    assert!(bench.pass()[0].starts_with("[2] failed, maybe written true"));
    bench.dispatch.assign(given(1));
    bench.add(0, 3);
    bench.add(1, 4);
    assert_eq!(bench.pass(), ["send 2 to 1: 1:[4]@7.1.0"], "not under the epoch of the one before");
    bench.answer(1, ErrorCode::None);
    assert_eq!(bench.pass(), ["[2] at 50", "release [2]", "send 3 to 1: 0:[3]@7.1.0"]);
    bench.answer(2, ErrorCode::None);
    bench.answer(3, ErrorCode::None);
    bench.pass();
    // The older flow keeps its epoch after a commit, and its sequences with it.
    bench.dispatch.assign(given(1));
    bench.add(0, 5);
    assert_eq!(bench.pass(), ["send 4 to 1: 0:[5]@7.1.1"]);
}

/// A broker that says that it is not the leader, and that it is, was asked again as fast as it answered.
#[test]
fn a_leader_that_points_to_itself_is_asked_after_a_pause() {
    let mut bench = Bench::settled();
    bench.add(0, 1);
    bench.pass();
    for (request, leader_epoch) in (1..20).zip(6..) {
        bench.answer_each(request, |_| PartitionProduceResponse {
            error_code: ErrorCode::NotLeaderOrFollower.code(),
            current_leader: LeaderIdAndEpoch { leader_id: 1, leader_epoch, ..Default::default() },
            ..Default::default()
        });
        let told = bench.pass();
        assert!(!told.iter().any(|told| told.starts_with("send")), "{request}: {told:?}");
        bench.dispatch.refreshed();
        bench.now += 2 * SECOND;
        assert_eq!(bench.pass(), [format!("send {} to 1: 0:[1]@7.0.1 again", request + 1)]);
    }
}

/// The log of a topic that was made anew knows nobody: it took a batch in the middle of those on their way as the first
/// one, and the others came behind it.
#[test]
fn a_topic_that_was_made_anew_gets_one_batch_until_it_knows_the_producer() {
    let id = |number: u128| Some(Uuid::from_u128(number));
    for by_name in [false, true] {
        let mut bench = Bench::settled();
        bench.nodes.by_name = by_name;
        bench.nodes.topic_id = id(1);
        bench.add(0, 1);
        assert_eq!(bench.pass(), ["send 1 to 1: 0:[1]@7.0.1"]);
        bench.add(0, 2);
        assert_eq!(bench.pass(), ["send 2 to 1: 0:[2]@7.0.2"]);
        bench.nodes.topic_id = id(2);
        bench.add(0, 3);
        let told = bench.pass();
        if by_name {
            assert_eq!(told, ["send 3 to 1: 0:[3]@7.0.3"], "no way to tell them apart");
            continue;
        }
        assert_eq!(told, NOTHING, "until the old one has answered");
        bench.lose(1);
        bench.answer(2, ErrorCode::UnknownTopicId);
        bench.pass();
        bench.dispatch.refreshed();
        bench.now += SECOND;
        assert_eq!(bench.pass(), ["send 3 to 1: 0:[1]@7.1.0"], "what was lost cannot be in the new one");
        assert_eq!(bench.pass(), NOTHING, "one at a time");
        bench.answer(3, ErrorCode::None);
        let told = bench.pass();
        assert_eq!(told[2..], ["send 4 to 1: 0:[2]@7.1.1", "send 5 to 1: 0:[3]@7.1.2"]);
    }
}

/// What goes under no identity, or under one that was given, is nothing to begin anew.
#[test]
fn without_an_identity_of_its_own_a_producer_goes_on_when_a_topic_was_made_anew() {
    for transactional in [false, true] {
        let mut bench = Bench::new(Rules { idempotent: transactional, transactional, ..rules() });
        let stamp = |sequence| if transactional { format!("@7.0.{sequence}") } else { String::new() };
        bench.dispatch.assign(Identity { producer_id: 7, epoch: 0 });
        bench.nodes.topic_id = Some(Uuid::from_u128(1));
        bench.add(0, 1);
        assert_eq!(bench.pass(), [format!("send 0 to 1: 0:[1]{}", stamp(0))]);
        bench.answer(0, ErrorCode::None);
        bench.pass();
        bench.add(0, 2);
        assert_eq!(bench.pass(), [format!("send 1 to 1: 0:[2]{}", stamp(1))]);
        bench.nodes.topic_id = Some(Uuid::from_u128(2));
        bench.add(0, 3);
        assert_eq!(bench.pass(), [format!("send 2 to 1: 0:[3]{}", stamp(2))]);
    }
}

/// With all partitions' slots known, a pass looks at one.
#[test]
fn a_pass_costs_what_is_ready() {
    #[derive(Default)]
    struct Counting {
        store: Store,
        looks: std::cell::Cell<usize>,
    }
    impl Counting {
        fn look(&self) -> &Store {
            self.looks.set(self.looks.get() + 1);
            &self.store
        }
    }
    impl Waiting<Load> for Counting {
        fn changed(&mut self) -> Vec<Slot> {
            self.store.changed()
        }
        fn partition(&self, slot: Slot) -> Option<&TopicPartition> {
            self.look().partition(slot)
        }
        fn ready_at(&self, slot: Slot, now: Instant) -> Option<Instant> {
            self.look().ready_at(slot, now)
        }
        fn next_bytes(&self, slot: Slot) -> usize {
            self.look().next_bytes(slot)
        }
        fn oldest(&self, slot: Slot) -> Option<Instant> {
            self.look().oldest(slot)
        }
        fn take(&mut self, slot: Slot) -> Option<Load> {
            self.look();
            self.store.take(slot)
        }
        fn forget(&mut self, slot: Slot) -> bool {
            self.look();
            self.store.forget(slot)
        }
    }
    let now = Instant::now();
    let mut dispatch: Dispatch<Load> =
        Dispatch::new(Rules { idempotent: false, max_in_flight: 50_000, ..rules() });
    let nodes = Nodes {
        version: 1,
        leaders: (0..10_000).map(|partition| (partition, 1)).collect(),
        connected: BTreeSet::from([1]),
        ..Nodes::default()
    };
    let mut counting = Counting::default();
    for partition in 0..10_000 {
        counting.store.add(partition, vec![1], now - LINGER);
    }
    dispatch.pass(now, &mut counting, &nodes);
    for request in 0..dispatch.next_request {
        dispatch.written(request, Ok(()), now);
    }
    dispatch.pass(now, &mut counting, &nodes);
    dispatch.commands();
    assert!(counting.looks.get() <= 12 * 10_000, "{}", counting.looks.get());
    counting.looks.set(0);
    counting.store.add(5, vec![2], now - LINGER);
    dispatch.pass(now, &mut counting, &nodes);
    assert!(matches!(dispatch.commands()[..], [Command::Send { .. }]));
    assert!(counting.looks.get() <= 12, "{}", counting.looks.get());
    counting.looks.set(0);
    dispatch.pass(now + SECOND, &mut counting, &nodes);
    assert_eq!(counting.looks.get(), 0);
}
