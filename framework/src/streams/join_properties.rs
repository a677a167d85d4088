//! The store of one side of a join beside a model: whatever is held in memory, written in parts, forgotten or lost in a
//! crash, a look-up gives what was put and is not too old.
#![allow(clippy::unwrap_used)] // A failing step is a failing test.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_client::Headers;
use proptest::prelude::*;

use super::builder::store_spec;
use super::cache::CacheBudget;
use super::fragile_store::FragileStore;
use super::incoming::Incoming;
use super::node::{Context, JoinRows, StoreLayout, TaskStore, TopicId};
use super::options::Materialized;
use crate::serde::BytesSerde;
use crate::store::{StateStore, WindowLayout};

const RETENTION_MS: u64 = 50;

#[derive(Debug, Clone)]
enum Step {
    Put {
        key: &'static str,
        /// Before stream time, or, below zero, after it.
        age_ms: i64,
        number: i32,
        bytes: usize,
    },
    Meet {
        key: &'static str,
        age_ms: i64,
        reach_ms: i64,
    },
    Commit(usize),
    Settle(usize),
    /// All that is not committed is gone, and the last batches that the disk was given; the restore breaks off after
    /// so many records and begins again.
    Crash {
        lost_batches: usize,
        broken_off_after: usize,
    },
}

type Rows = BTreeMap<(&'static str, i64, i32), Bytes>;

struct Rig {
    store: JoinRows,
    disk: Arc<FragileStore>,
    budget: Arc<CacheBudget>,
    context: Context,
    rows: Rows,
    committed: Rows,
    log: Vec<Incoming>,
    puts: usize,
}

impl Rig {
    fn new(cache_bytes: usize) -> Self {
        let (disk, budget) = (Arc::new(FragileStore::default()), CacheBudget::new(cache_bytes, None));
        let store = open(&disk, &budget);
        let context = Context::new(vec![Arc::from("log")], cache_bytes > 0);
        let (rows, committed) = (Rows::new(), Rows::new());
        Self { store, disk, budget, context, rows, committed, log: Vec::new(), puts: 0 }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Put { key, age_ms, number, bytes } => self.put(key, age_ms, number, bytes),
            Step::Meet { key, age_ms, reach_ms } => self.meet(key, age_ms, reach_ms),
            Step::Commit(rows) => self.commit(rows),
            Step::Settle(rows) => drop(self.store.settle(rows).unwrap()),
            Step::Crash { lost_batches, broken_off_after } => self.crash(lost_batches, broken_off_after),
        }
        assert_eq!(self.store.cache().held_bytes == 0, self.store.is_empty());
    }

    fn put(&mut self, key: &'static str, age_ms: i64, number: i32, bytes: usize) {
        let at_ms = (self.store.position().stream_time_ms - age_ms).max(0);
        self.store.observe(at_ms);
        self.puts += 1;
        let value: Vec<u8> = self.puts.to_be_bytes().into_iter().cycle().take(bytes).collect();
        let is_visible = at_ms > self.store.position().stream_time_ms - RETENTION_MS as i64;
        let has = self.rows.contains_key(&(key, at_ms, number)) && is_visible;
        assert_eq!(self.store.has(key.as_bytes(), at_ms, number).unwrap(), has);
        self.store.put(&mut self.context, key.as_bytes(), at_ms, number, &value);
        self.rows.insert((key, at_ms, number), value.into());
    }

    fn meet(&mut self, key: &'static str, age_ms: i64, reach_ms: i64) {
        let stream_time_ms = self.store.position().stream_time_ms;
        let (from_ms, to_ms) = (stream_time_ms - age_ms, stream_time_ms - age_ms + reach_ms);
        let mut met = Vec::new();
        self.store.meet(key.as_bytes(), from_ms, to_ms, &mut met).unwrap();
        let met: Vec<_> = met.into_iter().map(|row| (row.at_ms, row.value)).collect();
        let visible_ms = stream_time_ms - RETENTION_MS as i64 + 1;
        let of_key = |((_, at_ms, _), value): (&(&str, i64, i32), &Bytes)| (*at_ms, value.clone());
        let all = (key, from_ms.max(visible_ms), i32::MIN)..=(key, to_ms.max(visible_ms), i32::MAX);
        let expected: Vec<_> =
            self.rows.range(all).map(of_key).filter(|(at_ms, _)| *at_ms <= to_ms).collect();
        assert_eq!(met, expected, "of {key:?} from {from_ms} to {to_ms} at {stream_time_ms}");
    }

    fn commit(&mut self, rows: usize) {
        for output in std::mem::take(&mut self.context.outputs) {
            let offset = self.log.len() as i64;
            let (key, value, timestamp_ms) = (output.key, output.value, output.timestamp_ms);
            self.log.push(Incoming { offset, timestamp_ms, key, value, headers: Headers::new() });
        }
        self.store.commit(Some(self.log.len() as i64)).unwrap();
        self.store.settle(rows).unwrap();
        self.committed.clone_from(&self.rows);
    }

    fn crash(&mut self, lost_batches: usize, broken_off_after: usize) {
        self.disk = Arc::new(self.disk.without(lost_batches));
        for limit in [broken_off_after, usize::MAX] {
            self.store = open(&self.disk, &self.budget);
            let from = self.store.position().changelog_offset as usize;
            let lacking = &self.log[from..];
            for (number, records) in lacking[..lacking.len().min(limit)].chunks(3).enumerate() {
                let next = from + number * 3 + records.len();
                self.store.restore(records, next as i64).unwrap();
            }
        }
        self.context.outputs.clear();
        self.rows.clone_from(&self.committed);
    }
}

fn open(disk: &Arc<FragileStore>, budget: &Arc<CacheBudget>) -> JoinRows {
    let layout = WindowLayout::new(Duration::from_millis(RETENTION_MS));
    let kept = Materialized::<Bytes>::named("side");
    let spec = store_spec::<Bytes, Bytes>(StoreLayout::Window(layout), Arc::new(BytesSerde), kept);
    let engine = Arc::clone(disk) as Arc<dyn StateStore>;
    JoinRows::open(&spec, layout, engine, TopicId(0), budget).unwrap()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || prop_oneof![Just("a"), Just("ab"), Just(""), Just("a\u{0}")];
    let age_ms = || prop_oneof![4 => -3..10_i64, 2 => 0..60_i64, 1 => -90_000..0_i64];
    let bytes = prop_oneof![8 => 0..40_usize, 1 => 40..40_000_usize];
    let put = (key(), age_ms(), 0..3_i32, bytes);
    let step = prop_oneof![
        8 => put.prop_map(|(key, age_ms, number, bytes)| Step::Put { key, age_ms, number, bytes }),
        6 => (key(), 0..70_i64, 0..70_i64)
            .prop_map(|(key, age_ms, reach_ms)| Step::Meet { key, age_ms, reach_ms }),
        1 => (0..6_usize).prop_map(Step::Commit),
        2 => (0..4_usize).prop_map(Step::Settle),
        1 => (0..4_usize, 0..9_usize)
            .prop_map(|(lost_batches, broken_off_after)| Step::Crash { lost_batches, broken_off_after }),
    ];
    proptest::collection::vec(step, 1..150)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_side_of_a_join_gives_what_was_put_and_is_not_too_old(
        steps in steps(),
        cache_bytes in prop_oneof![Just(0), Just(2_000), Just(100_000), Just(1 << 24)],
    ) {
        let mut rig = Rig::new(cache_bytes);
        steps.iter().for_each(|step| rig.step(step));
        let disk = Arc::clone(&rig.disk);
        rig.commit(usize::MAX);
        let held_bytes = rig.store.cache().held_bytes;
        prop_assert!(held_bytes <= cache_bytes, "{held_bytes} of {cache_bytes}");
        drop(rig);
        // What lies on disk is never ahead of what it says.
        prop_assert!(disk.position().is_ok());
    }
}

/// What is new is found without the disk, and what was forgotten with it.
#[test]
fn only_what_was_forgotten_is_looked_up_on_disk() {
    for (cache_bytes, misses) in [(1 << 20, 0), (0, 10)] {
        let mut rig = Rig::new(cache_bytes);
        for number in 0..10 {
            rig.put("a", -1, number, 20);
        }
        rig.commit(usize::MAX);
        for age_ms in 0..10 {
            rig.meet("a", age_ms, 0);
        }
        let figures = rig.store.cache();
        // Those of `has` come on top: nothing was committed then.
        assert_eq!((figures.hits + figures.misses, figures.misses), (20, misses));
    }
}

/// Rows that no look-up can see any more are not written: they are in the changelog only.
#[test]
fn what_is_too_old_when_it_is_committed_never_comes_to_the_disk() {
    let mut rig = Rig::new(1 << 20);
    for number in 0..1_000 {
        rig.put("a", -1, number, 20);
    }
    rig.commit(usize::MAX);
    let rows = rig.disk.scan(crate::store::KeyRange::ALL, usize::MAX).unwrap();
    assert_eq!((rows.len(), rig.log.len()), (RETENTION_MS as usize, 1_000));
}

/// The last millisecond there is was never looked up on disk: the one after it is the same.
#[test]
fn the_end_of_time_is_a_time() {
    for cache_bytes in [0, 1 << 20] {
        let mut rig = Rig::new(cache_bytes);
        rig.store.observe(i64::MAX);
        rig.put("a", 0, 1, 20);
        for _ in 0..2 {
            rig.meet("a", 0, 0);
            rig.commit(usize::MAX);
        }
        rig.crash(0, 0);
        rig.meet("a", 0, 0);
        assert_eq!(rig.rows.len(), 1);
    }
}
