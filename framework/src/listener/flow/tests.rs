//! A flow against a model of what must hold, through random histories: records come with gaps, handlers finish in any
//! order, fail, hold their acknowledgements, wait for commits; partitions are paused, halted, moved, revoked and come
//! back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use klamm_client::TopicPartition;
use proptest::prelude::*;
use tokio::time::Instant;

use super::holding::Safe;
use super::part::Part;
use super::record::Payload;
use super::*;
use crate::listener::dispatch::{Dispatch, Lane};

const PARTITIONS: i32 = 3;
const BUDGET: Budget = Budget { records: 30, bytes: 1_000_000 };

#[derive(Debug, Clone)]
struct Rec {
    offset: i64,
    key: Option<Bytes>,
}

impl Payload for Rec {
    fn offset(&self) -> i64 {
        self.offset
    }

    fn size_bytes(&self) -> usize {
        10
    }

    fn lane(&self, dispatch: Dispatch) -> Lane<'_> {
        match &self.key {
            _ if dispatch == Dispatch::by_partition() => Lane::Whole,
            Some(key) if dispatch == Dispatch::by_key() => Lane::Key(key),
            _ => Lane::Loose,
        }
    }
}

/// The lane of a record in the model: its key, or nothing for a whole partition. Loose records have none.
type LaneName = Option<Bytes>;

#[derive(Debug)]
struct Model {
    id: PartId,
    /// By offset: what was pushed in this epoch and is not finished.
    unfinished: BTreeSet<i64>,
    /// What waits in lanes, in order.
    waiting: BTreeMap<LaneName, VecDeque<i64>>,
    loose: BTreeSet<i64>,
    /// What was held and given up: it belongs to no lane any more.
    apart: BTreeSet<i64>,
    committed: i64,
}

struct Worker {
    run: Run,
    items: Vec<Item<Rec>>,
    /// Of the partitions' positions when it took them: what was moved meanwhile counts for nothing.
    epochs: [u64; PARTITIONS as usize],
}

impl Worker {
    /// The first record of each partition.
    fn firsts(&self) -> impl Iterator<Item = (&Self, &Item<Rec>)> {
        let is_first = |at: usize| at == 0 || self.items[at - 1].ticket.part != self.items[at].ticket.part;
        self.items.iter().enumerate().filter(move |(at, _)| is_first(*at)).map(move |(_, item)| (self, item))
    }
}

struct World {
    flow: Flow<Rec>,
    dispatch: Dispatch,
    batching: Batching,
    now: Instant,
    next: [i64; PARTITIONS as usize],
    epochs: [u64; PARTITIONS as usize],
    models: BTreeMap<i32, Model>,
    workers: Vec<Worker>,
    most_workers: usize,
    /// Acknowledgements and outputs that are under way.
    held: Vec<(i32, u64, Item<Rec>)>,
    halted: Vec<PartId>,
    rounds: u64,
}

#[derive(Debug, Clone)]
enum Step {
    Push { partition: i32, count: usize, gap: i64, key: u8, later_ms: u64 },
    Succeed { pick: usize },
    Fail { pick: usize, delay_ms: u64 },
    PutBack { pick: usize, delay_ms: u64 },
    Hold { pick: usize },
    Release { pick: usize },
    Drop { pick: usize },
    AwaitCommit { pick: usize },
    Tick { ms: u64 },
    Commit,
    Assign { partition: i32 },
    Revoke { partition: i32 },
    Pause { partition: Option<i32> },
    Resume { partition: Option<i32> },
    Halt { partition: i32 },
    Unhalt,
    Seek { partition: i32, back: i64 },
}

fn step() -> impl Strategy<Value = Step> {
    let partition = 0..PARTITIONS;
    let some = proptest::option::of(0..PARTITIONS);
    let pick = any::<usize>();
    prop_oneof![
        12 => (partition.clone(), 1..8_usize, 0..3_i64, any::<u8>(), prop_oneof![3 => Just(0), 1 => 1..60_u64])
            .prop_map(|(partition, count, gap, key, later_ms)| Step::Push { partition, count, gap, key, later_ms }),
        14 => pick.prop_map(|pick| Step::Succeed { pick }),
        4 => (pick, 0..50_u64).prop_map(|(pick, delay_ms)| Step::Fail { pick, delay_ms }),
        3 => (pick, 0..50_u64).prop_map(|(pick, delay_ms)| Step::PutBack { pick, delay_ms }),
        3 => pick.prop_map(|pick| Step::Hold { pick }),
        3 => pick.prop_map(|pick| Step::Release { pick }),
        1 => pick.prop_map(|pick| Step::Drop { pick }),
        2 => pick.prop_map(|pick| Step::AwaitCommit { pick }),
        5 => (0..40_u64).prop_map(|ms| Step::Tick { ms }),
        3 => Just(Step::Commit),
        2 => partition.clone().prop_map(|partition| Step::Assign { partition }),
        1 => partition.clone().prop_map(|partition| Step::Revoke { partition }),
        1 => some.clone().prop_map(|partition| Step::Pause { partition }),
        2 => some.prop_map(|partition| Step::Resume { partition }),
        1 => partition.clone().prop_map(|partition| Step::Halt { partition }),
        1 => Just(Step::Unhalt),
        1 => (partition, 0..9_i64).prop_map(|(partition, back)| Step::Seek { partition, back }),
    ]
}

fn place(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

impl World {
    fn new(dispatch: Dispatch, workers: usize, batching: Batching, now: Instant) -> Self {
        let mut world = Self {
            flow: Flow::new(Rules { budget: BUDGET, workers, dispatch, batching }),
            dispatch,
            batching,
            now,
            next: [100; PARTITIONS as usize],
            epochs: [0; PARTITIONS as usize],
            models: BTreeMap::new(),
            workers: Vec::new(),
            most_workers: workers,
            held: Vec::new(),
            halted: Vec::new(),
            rounds: 0,
        };
        (0..PARTITIONS).for_each(|partition| world.assign(partition));
        world
    }

    fn lane(&self, record: &Rec) -> Option<LaneName> {
        match record.lane(self.dispatch) {
            Lane::Whole => Some(None),
            Lane::Key(key) => Some(Some(key.clone())),
            Lane::Loose => None,
        }
    }

    fn assign(&mut self, partition: i32) {
        if self.models.contains_key(&partition) {
            return;
        }
        self.flow.assign(&[place(partition)]);
        self.epochs[partition as usize] += 1;
        let committed = self.next[partition as usize];
        let model = Model {
            id: self.flow.id(&place(partition)).unwrap(),
            unfinished: BTreeSet::new(),
            waiting: BTreeMap::new(),
            loose: BTreeSet::new(),
            apart: BTreeSet::new(),
            committed,
        };
        self.models.insert(partition, model);
    }

    /// The partition's last commit, after which it goes on elsewhere from there.
    fn revoke(&mut self, partition: i32) {
        let Some(model) = self.models.remove(&partition) else { return };
        let parts = self.flow.remove(&[place(partition)]);
        assert_eq!(parts, [model.id]);
        let safe = self.flow.committable(&parts);
        let lowest = model.unfinished.first().copied();
        let committed = safe.first().map_or(model.committed, |safe| safe.offset);
        assert!(lowest.is_none_or(|lowest| committed <= lowest));
        self.next[partition as usize] = committed;
        self.epochs[partition as usize] += 1;
        self.flow.give_up(model.id);
        assert!(self.flow.is_gone(model.id) && self.flow.is_idle(model.id));
    }

    fn push(&mut self, partition: i32, count: usize, gap: i64, key: u8, later_ms: u64) {
        let Some(model) = self.models.get(&partition) else { return };
        let id = model.id;
        let room = self.flow.room(&place(partition)).records;
        let mut offset = self.next[partition as usize];
        let mut records = Vec::new();
        for n in 0..count.min(room) {
            offset += if n % 3 == 0 { gap } else { 0 };
            let key = key.wrapping_add(n as u8) % 4;
            let key = (key > 0).then(|| Bytes::from(vec![key]));
            records.push(Rec { offset, key });
            offset += 1;
        }
        if records.is_empty() {
            assert_eq!(room, 0);
            self.flow.hold_if_full(id, false);
            return;
        }
        let lanes: Vec<_> = records.iter().map(|record| (record.offset, self.lane(record))).collect();
        self.next[partition as usize] = offset;
        let due = (later_ms > 0).then(|| self.now + Duration::from_millis(later_ms));
        let records = records.into_iter().map(|record| Arrival { record, due });
        let full = self.flow.push(id, records, Some(offset).filter(|_| count.is_multiple_of(2)), self.now);
        assert_eq!(full, self.flow.room(&place(partition)).records == 0);
        let model = self.models.get_mut(&partition).unwrap();
        for (offset, lane) in lanes {
            model.unfinished.insert(offset);
            match lane {
                Some(lane) => model.waiting.entry(lane).or_default().push_back(offset),
                None => assert!(model.loose.insert(offset)),
            }
        }
        let share = (BUDGET.records / self.models.len()).max(1);
        assert!(self.flow.part(id).unwrap().ledger.kept() <= share, "more than its share");
    }

    /// Everybody who has nothing to do takes what there is; new workers come as they are asked for.
    fn work(&mut self) {
        self.flow.wake(self.now);
        for _ in 0..self.flow.workers_wanted() {
            self.take();
        }
        assert!(self.workers.len() <= self.most_workers);
    }

    fn take(&mut self) {
        let mut items = Vec::new();
        if let Some(run) = self.flow.take(&mut items, self.now) {
            self.begin(run, items);
        }
    }

    fn begin(&mut self, run: Run, items: Vec<Item<Rec>>) {
        assert!(!items.is_empty() && items.len() <= self.batching.most);
        let parts = run.parts();
        assert!(self.batching.across || parts.len() == 1);
        let mut of_items: Vec<_> = items.iter().map(|item| item.ticket.part).collect();
        of_items.dedup();
        assert_eq!(of_items, parts, "those of a partition stand together, and none is begun for nothing");
        assert_eq!(parts.iter().collect::<BTreeSet<_>>().len(), parts.len(), "one lane of each");
        assert!(items.iter().all(|item| (item.attempt > 1) == (items[0].attempt > 1)), "new and old in one");
        for item in &items {
            let offset = item.record.offset;
            assert!(item.due.is_none_or(|due| due <= self.now), "{offset} comes before its time");
            let partition = self.flow.place(item.ticket.part).unwrap().partition;
            let model = self.models.get_mut(&partition).unwrap();
            assert_eq!(model.id, item.ticket.part);
            assert!(self.flow.part(model.id).unwrap().runs());
            let name = match item.record.lane(self.dispatch) {
                _ if model.apart.contains(&offset) => continue,
                Lane::Loose => {
                    assert!(item.attempt > 1 || model.loose.remove(&offset), "{offset} was not waiting");
                    continue;
                }
                Lane::Whole => None,
                Lane::Key(key) => Some(key.clone()),
            };
            let queue = model.waiting.entry(name).or_default();
            assert_eq!(queue.pop_front(), Some(offset), "it is not its turn");
        }
        self.workers.push(Worker { run, items, epochs: self.epochs });
    }

    /// One of those who work.
    fn pick(&mut self, pick: usize) -> Option<Worker> {
        if self.workers.is_empty() {
            return None;
        }
        let index = pick % self.workers.len();
        Some(self.workers.swap_remove(index))
    }

    /// The partition of what somebody works on, and whether it still counts.
    fn counts(&self, item: &Item<Rec>, epochs: &[u64]) -> (i32, bool) {
        let partition = self.flow.place(item.ticket.part).unwrap().partition;
        (partition, self.epochs[partition as usize] == epochs[partition as usize])
    }

    fn finish(&mut self, item: &Item<Rec>, epochs: &[u64]) {
        let (partition, counts) = self.counts(item, epochs);
        assert_eq!(self.flow.finish(item.ticket).counts, counts);
        self.finished(partition, counts, item.record.offset);
    }

    fn succeed(&mut self, pick: usize) {
        let Some(Worker { run, items, epochs }) = self.pick(pick) else { return };
        items.iter().for_each(|item| self.finish(item, &epochs));
        let mut next = Vec::new();
        if pick.is_multiple_of(2) && self.flow.go_on(&run, &mut next) {
            self.begin(run, next);
        } else {
            self.flow.end(run, self.now);
            self.take();
        }
    }

    fn finished(&mut self, partition: i32, counts: bool, offset: i64) {
        if counts {
            let model = self.models.get_mut(&partition).unwrap();
            assert!(model.unfinished.remove(&offset));
        }
    }

    /// All fail, or, in a batch across partitions, some of each.
    fn fail(&mut self, pick: usize, delay_ms: u64) {
        let Some(Worker { run, mut items, epochs }) = self.pick(pick) else { return };
        let done = |item: &mut Item<Rec>| self.batching.across && item.record.offset % 3 == 0;
        let done: Vec<_> = items.extract_if(.., done).collect();
        done.iter().for_each(|item| self.finish(item, &epochs));
        for item in items.iter_mut().rev() {
            item.attempt += 1;
            self.waits_again(item, &epochs);
        }
        self.flow.retry(run, items, self.now + Duration::from_millis(delay_ms), self.now);
        self.take();
    }

    /// It comes first in its lane.
    fn waits_again(&mut self, item: &Item<Rec>, epochs: &[u64]) {
        let (lane, (partition, counts)) = (self.lane(&item.record), self.counts(item, epochs));
        if let Some(model) = self.models.get_mut(&partition).filter(|_| counts)
            && let Some(lane) = lane
            && !model.apart.contains(&item.record.offset)
        {
            model.waiting.entry(lane).or_default().push_front(item.record.offset);
        }
    }

    /// The first few are finished, as was known before, and the others come again, each at its own time.
    fn put_back(&mut self, pick: usize, delay_ms: u64) {
        if self.batching.across {
            return self.succeed(pick);
        }
        let Some(Worker { run, mut items, epochs }) = self.pick(pick) else { return };
        let (partition, counts) = self.counts(&items[0], &epochs);
        let mut rest = items.split_off(pick % (items.len() + 1));
        let tickets: Vec<_> = items.iter().map(|item| item.ticket).collect();
        let safe = self.flow.committable_with(run.part, &tickets);
        assert!(tickets.is_empty() || safe.is_some() == counts);
        items.iter().for_each(|item| self.finish(item, &epochs));
        let lowest = self.models.get(&partition).and_then(|model| model.unfinished.first());
        if let (Some(safe), Some(lowest), true) = (safe, lowest, counts) {
            assert!(self.flow.is_current(&safe) && safe.offset <= *lowest);
        }
        for (index, item) in rest.iter_mut().enumerate().rev() {
            item.attempt += u32::from(index % 2 == 1 || self.lane(&item.record).is_none());
            item.due = Some(self.now + Duration::from_millis(delay_ms)).filter(|_| index % 3 > 0);
            self.waits_again(item, &epochs);
        }
        self.flow.put_back(run, rest, None, self.now);
        self.take();
    }

    /// The handler returned, but somebody holds what finishes the records.
    fn hold(&mut self, pick: usize) {
        let Some(Worker { run, items, epochs }) = self.pick(pick) else { return };
        for item in items {
            let (partition, _) = self.counts(&item, &epochs);
            self.flow.open(item.ticket.part);
            self.held.push((partition, epochs[partition as usize], item));
        }
        self.flow.end(run, self.now);
        self.take();
    }

    fn release(&mut self, pick: usize, finish: bool) {
        if self.held.is_empty() {
            return;
        }
        let index = pick % self.held.len();
        let (partition, epoch, mut item) = self.held.swap_remove(index);
        let part = item.ticket.part;
        let counts = self.epochs[partition as usize] == epoch;
        if finish {
            assert_eq!(self.flow.finish(item.ticket).counts, counts);
            self.finished(partition, counts, item.record.offset);
        } else {
            item.attempt += 1;
            if let Some(model) = self.models.get_mut(&partition).filter(|_| counts) {
                model.apart.insert(item.record.offset);
            }
            self.flow.retry_apart(part, vec![item], self.now);
        }
        self.flow.shut(part);
    }

    fn await_commit(&mut self, pick: usize) {
        let Some(Worker { run, items, epochs }) = self.pick(pick) else { return };
        items.iter().for_each(|item| self.finish(item, &epochs));
        self.rounds += 1;
        self.flow.await_round(run, self.rounds);
        self.take();
    }

    fn commit(&mut self) {
        let safe = self.flow.committable(&self.flow.ids());
        self.flow.committed(&safe);
        for Safe { place, offset, .. } in safe {
            self.models.get_mut(&place.partition).unwrap().committed = offset;
        }
        self.flow.round_done(self.rounds);
    }

    fn seek(&mut self, partition: i32, back: i64) {
        let Some(model) = self.models.get_mut(&partition) else { return };
        self.flow.restart(model.id);
        self.epochs[partition as usize] += 1;
        self.next[partition as usize] -= back;
        model.unfinished.clear();
        model.waiting.clear();
        model.loose.clear();
        model.apart.clear();
        model.committed = self.next[partition as usize];
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Push { partition, count, gap, key, later_ms } => {
                self.push(partition, count, gap, key, later_ms);
            }
            Step::Succeed { pick } => self.succeed(pick),
            Step::Fail { pick, delay_ms } => self.fail(pick, delay_ms),
            Step::PutBack { pick, delay_ms } => self.put_back(pick, delay_ms),
            Step::Hold { pick } => self.hold(pick),
            Step::Release { pick } => self.release(pick, true),
            Step::Drop { pick } => self.release(pick, false),
            Step::AwaitCommit { pick } => self.await_commit(pick),
            Step::Tick { ms } => self.now += Duration::from_millis(ms),
            Step::Commit => self.commit(),
            Step::Assign { partition } => self.assign(partition),
            Step::Revoke { partition } => self.revoke(partition),
            Step::Pause { partition } => drop(self.flow.pause(partition.map(place).as_ref())),
            Step::Resume { partition } => drop(self.flow.resume(partition.map(place).as_ref())),
            Step::Halt { partition } => {
                if let Some(model) = self.models.get(&partition) {
                    self.flow.halt(model.id);
                    self.halted.push(model.id);
                }
            }
            Step::Unhalt => {
                if let Some(id) = self.halted.pop() {
                    self.flow.unhalt(id);
                }
            }
            Step::Seek { partition, back } => self.seek(partition, back),
        }
        self.work();
    }

    /// What must hold at any time.
    fn check(&self) {
        for model in self.models.values() {
            let safe = self.flow.committable(&[model.id]);
            let committed = safe.first().map_or(model.committed, |safe| safe.offset);
            let lowest = model.unfinished.first();
            assert!(lowest.is_none_or(|lowest| committed <= *lowest), "{committed} passes {lowest:?}");
            let part = self.flow.part(model.id).unwrap();
            let unfinished: Vec<i64> = part.ledger.unfinished_offsets().collect();
            assert_eq!(unfinished, model.unfinished.iter().copied().collect::<Vec<_>>());
        }
        let parts = self.flow.own().into_iter().filter_map(|id| self.flow.part(id));
        let gathered: usize = parts.map(Part::gathered).filter(|_| self.batching.across).sum();
        let nobody = PartId { index: usize::MAX, generation: 0 };
        assert_eq!(self.flow.gathered_beside(nobody), gathered, "what gathers is counted wrong");
        let mut lanes = BTreeSet::new();
        for (worker, item) in self.workers.iter().flat_map(Worker::firsts) {
            let (partition, counts) = self.counts(item, &worker.epochs);
            let model = self.models.get(&partition).filter(|model| model.id == item.ticket.part);
            if model.is_some_and(|model| !model.apart.contains(&item.record.offset))
                && counts
                && let Some(lane) = self.lane(&item.record)
            {
                assert!(lanes.insert((item.ticket.part, lane)), "two of one lane are in work");
            }
        }
    }

    /// Nothing is in the way any more: everything must come to its end.
    fn finish_all(&mut self) {
        self.flow.resume(None);
        (0..PARTITIONS).for_each(|partition| drop(self.flow.resume(Some(&place(partition)))));
        while let Some(id) = self.halted.pop() {
            self.flow.unhalt(id);
        }
        for _ in 0..10_000 {
            self.now += Duration::from_millis(100);
            self.work();
            self.commit();
            self.work();
            self.release(0, true);
            match self.workers.is_empty() {
                true if self.held.is_empty() && self.flow.next_due().is_none() => break,
                true => {}
                false => self.succeed(0),
            }
        }
        for (partition, model) in &self.models {
            assert!(model.unfinished.is_empty(), "{partition} is stuck: {:?}", model.unfinished);
            assert_eq!(self.flow.part(model.id).unwrap().open, 0);
        }
    }
}

fn modes() -> impl Strategy<Value = (Dispatch, usize, Batching)> {
    let single = Batching { most: 1, wait: Duration::ZERO, across: false };
    let batches = Batching { most: 4, wait: Duration::ZERO, across: false };
    let gathered = Batching { most: 4, wait: Duration::from_millis(30), across: false };
    let across = [batches, gathered].map(|batching| Batching { across: true, ..batching });
    prop_oneof![
        (1..4_usize).prop_map(move |workers| (Dispatch::by_partition(), workers, across[0])),
        (1..4_usize).prop_map(move |workers| (Dispatch::by_partition(), workers, across[1])),
        (1..6_usize).prop_map(move |workers| (Dispatch::by_partition(), workers, single)),
        (1..6_usize).prop_map(move |workers| (Dispatch::by_key(), workers, single)),
        (1..6_usize).prop_map(move |workers| (Dispatch::unordered(), workers, single)),
        (1..4_usize).prop_map(move |workers| (Dispatch::by_partition(), workers, batches)),
        (1..4_usize).prop_map(move |workers| (Dispatch::by_partition(), workers, gathered)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn whatever_happens_nothing_is_passed_over_and_nothing_gets_stuck(
        (dispatch, workers, batching) in modes(),
        steps in proptest::collection::vec(step(), 1..150),
    ) {
        let mut world = World::new(dispatch, workers, batching, Instant::now());
        for step in steps {
            world.run(step);
            world.check();
        }
        world.finish_all();
        world.check();
    }
}

fn flow_of(rules: Rules) -> (Flow<Rec>, PartId) {
    let (mut flow, place) = (Flow::new(rules), TopicPartition::new("t", 0));
    flow.assign(std::slice::from_ref(&place));
    let id = flow.id(&place).unwrap();
    (flow, id)
}

fn record(offset: i64) -> Arrival<Rec> {
    Arrival { record: Rec { offset, key: None }, due: None }
}

/// Each batch that was full before its time left its timer behind until then.
#[test]
fn batches_that_become_full_leave_no_timers_behind() {
    let batching = Batching { most: 2, wait: Duration::from_secs(3_600), across: false };
    let rules = Rules { budget: BUDGET, workers: 1, dispatch: Dispatch::by_partition(), batching };
    let (mut flow, id) = flow_of(rules);
    let (now, mut items) = (Instant::now(), Vec::new());
    for offset in 0..10_000 {
        flow.push(id, [record(offset)], Some(offset + 1), now);
        if flow.workers_wanted() == 0 {
            continue;
        }
        while let Some(run) = flow.take(&mut items, now) {
            items.drain(..).for_each(|item| drop(flow.finish(item.ticket)));
            flow.end(run, now);
        }
    }
    assert_eq!(flow.handled(), 10_000);
    assert!(flow.timers.len() < 200, "{}", flow.timers.len());
}

/// Workers beyond what there may be end when they have nothing in hand, and others take what they leave.
#[test]
fn a_flow_is_resized() {
    let batching = Batching { most: 1, wait: Duration::ZERO, across: false };
    let rules = Rules { budget: BUDGET, workers: 1, dispatch: Dispatch::unordered(), batching };
    let (mut flow, id) = flow_of(rules);
    let (now, mut items) = (Instant::now(), Vec::new());
    flow.push(id, (0..6).map(record), Some(6), now);
    assert_eq!(flow.workers_wanted(), 1);
    flow.resize(3);
    assert_eq!(flow.workers_wanted(), 2);
    let mut at_work = Vec::new();
    for _ in 0..3 {
        let run = flow.take(&mut items, now).unwrap();
        at_work.push((run, items.remove(0)));
    }
    assert_eq!(flow.workers_wanted(), 0);
    flow.resize(1);
    for (run, item) in at_work {
        flow.finish(item.ticket);
        flow.end(run, now);
    }
    let mut went_on = 0;
    for _ in 0..3 {
        while let Some(run) = flow.take(&mut items, now) {
            went_on += 1;
            items.drain(..).for_each(|item| drop(flow.finish(item.ticket)));
            flow.end(run, now);
        }
    }
    assert_eq!((went_on, flow.handled(), flow.workers_wanted()), (3, 6, 0));
}

/// What comes after the close is dropped; that the position is behind it says nothing.
#[test]
fn a_closed_partition_is_not_read_on() {
    let batching = Batching { most: 1, wait: Duration::ZERO, across: false };
    let rules = Rules { budget: BUDGET, workers: 1, dispatch: Dispatch::by_partition(), batching };
    let (mut flow, id) = flow_of(rules);
    let (now, mut items) = (Instant::now(), Vec::new());
    flow.push(id, [record(0)], Some(1), now);
    flow.workers_wanted();
    let run = flow.take(&mut items, now).unwrap();
    flow.close(id);
    flow.push(id, [record(1)], Some(2), now);
    flow.push(id, [], Some(3), now);
    flow.finish(items.remove(0).ticket);
    flow.end(run, now);
    let safe: Vec<_> = flow.committable(&[id]).iter().map(|safe| safe.offset).collect();
    assert_eq!(safe, [1], "the record at 1 was dropped");
}

/// Partitions with a record each fill a batch together, and the one that has waited longest ends the wait of all.
#[test]
fn a_batch_across_partitions_takes_what_gathers_in_all() {
    let batching = Batching { most: 3, wait: Duration::from_millis(30), across: true };
    let rules = Rules { budget: BUDGET, workers: 2, dispatch: Dispatch::by_partition(), batching };
    let mut flow = Flow::new(rules);
    flow.assign(&[place(0), place(1), place(2)]);
    let ids = flow.ids();
    let (now, mut items) = (Instant::now(), Vec::new());
    flow.push(ids[0], [record(0)], Some(1), now);
    flow.push(ids[1], [record(0)], Some(1), now + Duration::from_millis(20));
    assert_eq!(flow.workers_wanted(), 0, "two wait for a third, or for their time");
    let due = now + Duration::from_millis(30);
    flow.wake(due);
    assert_eq!(flow.workers_wanted(), 1);
    let run = flow.take(&mut items, due).unwrap();
    assert_eq!((items.len(), run.parts().len()), (2, 2), "the second need not wait for its own time");
    items.drain(..).for_each(|item| drop(flow.finish(item.ticket)));
    flow.end(run, due);
    for id in &ids {
        flow.push(*id, [record(1)], Some(2), due);
    }
    assert!(flow.take(&mut items, due).is_some(), "three are a batch at once");
    assert_eq!(items.len(), 3);
}

fn across(most: usize, partitions: i32) -> (Flow<Rec>, Vec<PartId>) {
    let batching = Batching { most, wait: Duration::from_millis(30), across: true };
    let budget = Budget { records: 100_000, ..BUDGET };
    let rules = Rules { budget, workers: 1, dispatch: Dispatch::by_partition(), batching };
    let mut flow = Flow::new(rules);
    flow.assign(&(0..partitions).map(place).collect::<Vec<_>>());
    let ids = flow.ids();
    (flow, ids)
}

/// What comes again goes into no batch of new records. It lost its turn to each of them, and gathered anew.
#[test]
fn a_retry_is_not_put_off_by_the_batches_of_others() {
    let (mut flow, ids) = across(3, 2);
    let (mut now, mut items) = (Instant::now(), Vec::new());
    flow.push(ids[1], [record(0)], Some(1), now);
    now += Duration::from_millis(30);
    flow.wake(now);
    assert_eq!(flow.workers_wanted(), 1);
    let run = flow.take(&mut items, now).unwrap();
    flow.push(ids[0], [record(0), record(1)], Some(2), now);
    now += Duration::from_millis(30);
    flow.wake(now);
    items.iter_mut().for_each(|item| item.attempt += 1);
    flow.retry(run, std::mem::take(&mut items), now, now);
    flow.wake(now);
    for batch in 1..10 {
        let run = flow.take(&mut items, now).unwrap();
        if run.part == ids[1] {
            assert_eq!(batch, 2, "it was behind one other");
            return;
        }
        let next = batch * 2;
        flow.push(ids[0], [record(next), record(next + 1)], Some(next + 2), now);
        items.drain(..).for_each(|item| drop(flow.finish(item.ticket)));
        now += Duration::from_millis(10);
        flow.wake(now);
        flow.end(run, now);
    }
    panic!("it had no turn");
}

/// Nothing of a partition that is held goes into a batch, so that it does not make one full either.
#[test]
fn what_is_held_does_not_end_the_wait_of_others() {
    let (mut flow, ids) = across(3, 3);
    let (now, mut items) = (Instant::now(), Vec::new());
    flow.push(ids[0], [record(0), record(1)], Some(2), now);
    flow.pause(Some(&place(0)));
    flow.push(ids[1], [record(0)], Some(1), now);
    assert_eq!(flow.workers_wanted(), 0, "one waits for two more");
    flow.push(ids[2], [record(0)], Some(1), now);
    flow.resume(Some(&place(0)));
    flow.push(ids[1], [record(1)], Some(2), now);
    assert_eq!(flow.workers_wanted(), 1);
    assert!(flow.take(&mut items, now).is_some());
    assert_eq!(items.len(), 3);
}

/// Each arrival looked at all partitions.
#[test]
fn what_many_partitions_gather_is_counted_as_it_comes() {
    let (mut flow, ids) = across(10_000, 1_000);
    let (now, mut items) = (Instant::now(), Vec::new());
    for offset in 0..3 {
        for id in &ids {
            flow.push(*id, [record(offset)], Some(offset + 1), now);
        }
    }
    assert_eq!(flow.workers_wanted(), 0, "all of them gather");
    let due = now + Duration::from_millis(30);
    flow.wake(due);
    assert_eq!(flow.workers_wanted(), 1);
    let run = flow.take(&mut items, due).unwrap();
    assert_eq!(items.len(), 3_000);
    items.drain(..).for_each(|item| drop(flow.finish(item.ticket)));
    flow.end(run, due);
    let looks = flow.looks.get() / 3_000;
    assert!(looks < 20, "{looks} looks at partitions for each record");
}
