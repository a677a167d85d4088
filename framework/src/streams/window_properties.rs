//! Windows and joins through commits, crashes between their steps, lost disks and broken off restores, exactly once:
//! what they tell and what they keep is what it is without any of that.
#![allow(clippy::unwrap_used)] // A failing step is a failing test.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_client::Headers;
use proptest::prelude::*;

use super::fragile_store::FragileStore;
use super::incoming::{Incoming, IncomingBatch};
use super::node::{OutputKind, StoreSpec, TopicId};
use super::task::{Task, TaskId, TaskOptions};
use super::{
    BufferLimit, HoppingWindows, JoinWindows, SessionWindows, SlidingWindows, StreamsBuilder, Suppressed,
    Topology, TumblingWindows, WindowedBy,
};
use crate::store::{KeyRange, StateStore};

#[derive(Debug, Clone)]
struct Fed {
    topic: &'static str,
    key: &'static str,
    at_ms: i64,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Process(usize),
    Commit,
    /// So many rows of it are written; the rest when there is time.
    CommitInPart(usize),
    Settle(usize),
    /// The transaction is committed, and nothing of it is in the stores.
    CrashInCommit,
    /// With the disk or without; the restore breaks off after so many records and begins again.
    Crash {
        loses_disk: bool,
        /// So many batches were not on disk yet, or fewer, depending on the store.
        lost_batches: usize,
        broken_off_after: usize,
    },
}

/// Records at the end.
const ENDS: usize = 2;

/// One task, its disk, and the log: what is committed there stays.
struct Rig<'a> {
    topology: &'a Topology,
    records: &'a [Fed],
    cache_bytes: usize,
    task: Task,
    disk: BTreeMap<String, Arc<FragileStore>>,
    changelogs: HashMap<TopicId, Vec<Incoming>>,
    told: Vec<(String, Option<Bytes>, Option<Bytes>, i64)>,
    /// The records behind this are for the end.
    limit: usize,
    processed: usize,
    committed: usize,
    commits: Vec<usize>,
}

impl<'a> Rig<'a> {
    fn new(topology: &'a Topology, records: &'a [Fed], cache_bytes: usize) -> Self {
        let mut disk = BTreeMap::new();
        let task = open(topology, &mut disk, cache_bytes);
        let (changelogs, told, commits) = (HashMap::new(), Vec::new(), Vec::new());
        let (limit, processed, committed) = (records.len() - ENDS, 0, 0);
        let rig = Self {
            topology,
            records,
            cache_bytes,
            task,
            disk,
            changelogs,
            told,
            limit,
            processed,
            committed,
            commits,
        };
        rig.begun()
    }

    fn begun(mut self) -> Self {
        self.task.turn(0).unwrap();
        self
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Process(records) => self.process(records),
            Step::Commit => self.commit(Some(usize::MAX)),
            Step::CommitInPart(rows) => self.commit(Some(rows)),
            Step::Settle(rows) => {
                self.task.settle(rows).unwrap();
            }
            Step::CrashInCommit => {
                self.commit(None);
                self.crash(0);
            }
            Step::Crash { loses_disk, lost_batches, broken_off_after } => {
                match loses_disk {
                    true => self.disk.clear(),
                    false => self.lose(lost_batches),
                }
                self.crash(broken_off_after);
            }
        }
    }

    fn process(&mut self, count: usize) {
        let until = (self.processed + count).min(self.limit);
        for number in self.processed..until {
            let Fed { topic, key, at_ms } = self.records[number];
            let id = self.topology.inner.topics.iter().position(|name| name.to_string() == topic);
            // Only joins have two.
            let Some(id) = id else { continue };
            let record = Incoming {
                offset: number as i64,
                timestamp_ms: at_ms,
                key: Some(Bytes::from_static(key.as_bytes())),
                value: Some(Bytes::copy_from_slice(&(1_i64 << number).to_be_bytes())),
                headers: Headers::new(),
            };
            let next_offset = number as i64 + 1;
            let batch = IncomingBatch { records: vec![record], next_offset, is_last: true };
            self.task.add(TopicId(id as u32), batch);
            self.task.process_next().unwrap();
        }
        self.processed = until;
    }

    /// Writes so many rows to the stores, or does not come to it.
    fn commit(&mut self, rows: Option<usize>) {
        self.task.flush().unwrap();
        let mut ends = HashMap::new();
        for output in self.task.take_outputs() {
            let (key, value, timestamp_ms) = (output.key, output.value, output.timestamp_ms);
            if output.kind == OutputKind::Changelog {
                let log = self.changelogs.entry(output.topic).or_default();
                let (offset, headers) = (log.len() as i64, output.headers);
                log.push(Incoming { offset, timestamp_ms, key, value, headers });
                ends.insert(output.topic, offset + 1);
            } else {
                let name = self.topology.inner.topics[output.topic.0 as usize].to_string();
                self.told.push((name, key, value, timestamp_ms));
            }
        }
        if let Some(rows) = rows {
            self.task.commit_stores_in_part(&ends, rows).unwrap();
        }
        self.committed = self.processed;
        self.commits.push(self.committed);
    }

    fn lose(&mut self, batches: usize) {
        for (number, engine) in self.disk.values_mut().enumerate() {
            *engine = Arc::new(engine.without((batches + 2 * number) % 5));
        }
    }

    fn crash(&mut self, broken_off_after: usize) {
        for limit in [broken_off_after, usize::MAX] {
            self.task = open(self.topology, &mut self.disk, self.cache_bytes);
            for store in self.task.stores() {
                let mut store = store.borrow_mut();
                let Some(log) = store.changelog().and_then(|topic| self.changelogs.get(&topic)) else {
                    continue;
                };
                let from = store.position().changelog_offset as usize;
                let lacking = &log[from..];
                for (number, records) in lacking[..lacking.len().min(limit)].chunks(3).enumerate() {
                    let next = from + number * 3 + records.len();
                    store.restore(records, next as i64).unwrap();
                }
            }
        }
        self.task.turn(0).unwrap();
        self.processed = self.committed;
    }

    /// Without a crash from here on.
    fn end(&mut self) {
        self.process(self.records.len());
        self.commit(Some(usize::MAX));
        self.limit = self.records.len();
        self.process(ENDS);
        self.commit(Some(usize::MAX));
    }

    fn kept(&self) -> Vec<Kept> {
        let kept = |(name, engine): (&String, &Arc<FragileStore>)| {
            let rows = engine.scan(KeyRange { from: &[], to: Some(&[u8::MAX]) }, usize::MAX).unwrap();
            (name.clone(), engine.position().unwrap().stream_time_ms, rows)
        };
        self.disk.iter().map(kept).collect()
    }
}

/// A store's name, its stream time and its rows.
type Kept = (String, i64, Vec<(Bytes, Bytes)>);

fn open(topology: &Topology, disk: &mut BTreeMap<String, Arc<FragileStore>>, cache_bytes: usize) -> Task {
    let inner = &topology.inner;
    let mut engine = |spec: &StoreSpec| {
        let engine = disk.entry(spec.name.to_string()).or_default();
        Ok(Arc::clone(engine) as Arc<dyn StateStore>)
    };
    let id = TaskId { sub_topology: 0, partition: 0 };
    let options = TaskOptions { cache_bytes };
    let mut task = Task::new(inner, id, inner.topic_names("app"), &mut engine, options).unwrap();
    task.context_mut().exactly_once = true;
    task
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn windowed<W>(windows: W, on_close: bool) -> Topology
where
    W: WindowedBy<String, i64, Stream = super::TimeWindowedStream<String, i64>>,
{
    let mut streams = StreamsBuilder::new();
    let group = streams.stream::<String, i64>("L").group_by_key().windowed_by(windows);
    let group = if on_close { group.emit_on_window_close() } else { group };
    let table = group.aggregate("bits", || 0, |_, bit, all| all | bit);
    group.late().to("late");
    table.to_stream().to("out");
    streams.build().unwrap()
}

fn sessions(on_close: bool, retention_ms: u64) -> Topology {
    let mut streams = StreamsBuilder::new();
    let windows = SessionWindows::of(ms(7)).grace(ms(5));
    let group = streams.stream::<String, i64>("L").group_by_key().windowed_by(windows);
    let group = if on_close { group.emit_on_window_close() } else { group };
    let kept = super::Materialized::named("bits").retention(ms(retention_ms));
    let table = group.reduce(kept, |one, other| one | other);
    group.late().to("late");
    table.to_stream().map(|key, value| (key.key.clone(), value.unwrap_or(-1))).to("out");
    streams.build().unwrap()
}

fn joined(kind: usize) -> Topology {
    let mut streams = StreamsBuilder::new();
    let (left, right) = (streams.stream::<String, i64>("L"), streams.stream::<String, i64>("R"));
    let windows = JoinWindows::of(ms(6)).grace(ms(9));
    let joined = match kind {
        0 => left.join_within(&right, "j", windows, |l, r| l | r),
        1 => left.left_join_within(&right, "j", windows, |l, r| l | r.copied().unwrap_or(0)),
        _ => left.outer_join_within(&right, "j", windows, |l, r| {
            l.copied().unwrap_or(0) | r.copied().unwrap_or(0)
        }),
    };
    joined.to("out");
    streams.build().unwrap()
}

fn topologies() -> Vec<Topology> {
    let mut all = Vec::new();
    for on_close in [false, true] {
        all.push(windowed(TumblingWindows::of(ms(10)).grace(ms(5)), on_close));
        all.push(windowed(HoppingWindows::of(ms(10), ms(4)), on_close));
        all.push(windowed(SlidingWindows::of(ms(10)).grace(ms(5)), on_close));
        all.push(sessions(on_close, 13));
        all.push(sessions(on_close, 1_000));
    }
    all.extend((0..3).map(joined));
    all.extend([closed(), graceful()]);
    all
}

fn suppressed(records: Option<usize>) -> Topology {
    let mut streams = StreamsBuilder::new();
    let table = streams.stream::<String, i64>("L").group_by_key().reduce("sum", |one, other| one | other);
    let buffer = Suppressed::until_time_limit("held", ms(20));
    let buffer = match records {
        Some(records) => buffer.emit_early_when_full(BufferLimit::records(records)),
        None => buffer,
    };
    let table = table.filter(|_, sum| sum % 3 != 0).suppress(buffer);
    // What a row was before is known behind the buffer, too.
    table.group_by(|_, sum| (sum % 2, *sum)).aggregate("all", || 0, |_, n, all| all + n, |_, n, all| all - n);
    let right = streams.stream::<String, i64>("R");
    right.left_join(&table, |r, sum| r | sum.copied().unwrap_or(0)).to("met");
    table.to_stream().map_values(|sum| sum.unwrap_or(-1)).to("out");
    streams.build().unwrap()
}

fn closed() -> Topology {
    let mut streams = StreamsBuilder::new();
    let windows = SessionWindows::of(ms(7)).grace(ms(5));
    let group = streams.stream::<String, i64>("L").group_by_key().windowed_by(windows);
    let kept = super::Materialized::named("bits").retention(ms(1_000));
    let table =
        group.reduce(kept, |one, other| one | other).suppress(Suppressed::until_window_closes("held"));
    table.to_stream().map(|key, value| (key.key.clone(), value.unwrap_or(-1))).to("out");
    streams.build().unwrap()
}

fn graceful() -> Topology {
    let mut streams = StreamsBuilder::new();
    let kept = super::Materialized::named("versions").versioned(ms(40));
    let table = streams.table_with::<String, i64>("R", super::Consumed::default(), kept);
    let joined = super::Joined::default().grace("waiting", ms(15));
    let left = streams.stream::<String, i64>("L");
    left.left_join_with(&table, |l, r| l | r.copied().unwrap_or(0), joined).to("out");
    left.join(&table, |l, r| l | r).to("at-once");
    table.to_stream().map_values(|row| row.unwrap_or(-1)).to("rows");
    streams.build().unwrap()
}

/// Rows that expire: the table's own stream time is what its changelog tells, so only rows and outputs are compared.
fn expiring() -> Topology {
    let mut streams = StreamsBuilder::new();
    let kept = super::Materialized::named("rows").time_to_live(ms(25));
    let table = streams.table_with::<String, i64>("R", super::Consumed::default(), kept);
    let counts = super::Materialized::named("counts").time_to_live(ms(40));
    let left = streams.stream::<String, i64>("L");
    table
        .to_stream()
        .non_null()
        .group_by_key()
        .count(counts)
        .to_stream()
        .map_values(|n| n.unwrap_or(-1))
        .to("counted");
    left.left_join(&table, |l, r| l | r.copied().unwrap_or(0)).to("out");
    table.to_stream().map_values(|row| row.unwrap_or(-1)).to("told");
    streams.build().unwrap()
}

fn records() -> impl Strategy<Value = Vec<Fed>> {
    let at_ms = prop_oneof![0..60_i64, 0..300_i64, 0..400_000_i64];
    let key = prop_oneof![Just("a"), Just("ab"), Just(""), Just("a\u{0}")];
    let record = (any::<bool>(), key, at_ms);
    let fed = |(left, key, at_ms)| Fed { topic: if left { "L" } else { "R" }, key, at_ms };
    proptest::collection::vec(record.prop_map(fed), 1..40).prop_map(|mut records| {
        // Of each topic and after all others: stores forget what is too old then.
        records.extend(["L", "R"].map(|topic| Fed { topic, key: "end", at_ms: 500_000 }));
        records
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..8_usize).prop_map(Step::Process),
        2 => Just(Step::Commit),
        1 => Just(Step::CrashInCommit),
        2 => (0..4_usize).prop_map(Step::CommitInPart),
        1 => (0..3_usize).prop_map(Step::Settle),
        2 => (prop::bool::weighted(0.3), 0..5_usize, 0..9_usize).prop_map(
            |(loses_disk, lost_batches, broken_off_after)| {
                Step::Crash { loses_disk, lost_batches, broken_off_after }
            },
        ),
    ];
    proptest::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn crashes_and_restores_change_nothing(
        records in records(),
        steps in steps(),
        cache_bytes in prop_oneof![Just(0), Just(1 << 20)],
    ) {
        for (number, topology) in topologies().iter().enumerate() {
            let mut rig = Rig::new(topology, &records, cache_bytes);
            steps.iter().for_each(|step| rig.step(*step));
            rig.end();
            let mut calm = Rig::new(topology, &records, cache_bytes);
            for until in rig.commits.clone() {
                calm.limit = until;
                calm.process(until - calm.processed);
                calm.commit(Some(usize::MAX));
            }
            prop_assert_eq!(&rig.told, &calm.told, "topology {}", number);
            prop_assert_eq!(rig.kept(), calm.kept(), "topology {}", number);
        }
    }

    /// A table's stream time is that of its changelog after a restore, and of nothing before: rows and outputs count.
    #[test]
    fn rows_expire_and_wait_as_if_nothing_had_crashed(
        records in records(),
        steps in steps(),
        cache_bytes in prop_oneof![Just(0), Just(1 << 20)],
    ) {
        for (number, topology) in [expiring(), suppressed(None), suppressed(Some(3))].iter().enumerate() {
            let mut rig = Rig::new(topology, &records, cache_bytes);
            steps.iter().for_each(|step| rig.step(*step));
            rig.end();
            let mut calm = Rig::new(topology, &records, cache_bytes);
            for until in rig.commits.clone() {
                calm.limit = until;
                calm.process(until - calm.processed);
                calm.commit(Some(usize::MAX));
            }
            prop_assert_eq!(&rig.told, &calm.told, "topology {}", number);
            let rows = |rig: &Rig<'_>| -> Vec<_> {
                rig.kept().into_iter().map(|(name, _, rows)| (name, rows)).collect()
            };
            prop_assert_eq!(rows(&rig), rows(&calm), "topology {}", number);
            // Whatever came before the end is far too old then.
            for (name, rows) in rows(&rig) {
                prop_assert!(number > 0 || rows.len() <= 1, "{name}: {rows:?}");
            }
        }
    }
}
