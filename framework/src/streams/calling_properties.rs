//! Asynchronous operators through random ends of calls, commits and crashes: nothing that is not finished is ever
//! committed, nothing is lost, and each key's results are in the order of its records.
#![allow(clippy::unwrap_used)] // A failing step is a failing test.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::channel::oneshot;
use klamm_client::Headers;
use proptest::prelude::*;

use super::incoming::{Incoming, IncomingBatch};
use super::node::{LocalCalls, OutputKind, TopicId};
use super::task::{Task, TaskId, TaskOptions};
use super::{AsyncCalls, StreamsBuilder, Topology};
use crate::store::{MemoryStore, StateStore};

const KEYS: i64 = 3;
const LIMIT: usize = 4;

/// The calls that wait, by the record they are of.
type Waiting = Arc<Mutex<BTreeMap<i64, oneshot::Sender<()>>>>;

#[derive(Debug, Clone, Copy)]
enum Step {
    Feed,
    /// The call at this place among those that wait ends.
    End(usize),
    Commit,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => Just(Step::Feed),
        5 => (0..LIMIT).prop_map(Step::End),
        2 => Just(Step::Commit),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..80)
}

fn topology(by_key: bool, counts: bool, waiting: &Waiting) -> Topology {
    let mut streams = StreamsBuilder::new();
    let calls = AsyncCalls::new().max_in_flight(LIMIT);
    let calls = if by_key { calls } else { calls.unordered() };
    let waiting = Arc::clone(waiting);
    let called = streams.stream::<i64, i64>("in").map_values_async_with(calls, move |_, number: i64| {
        let (end, ended) = oneshot::channel();
        waiting.lock().unwrap().insert(number, end);
        async move { ended.await.map(|()| number) }
    });
    called.to("out");
    if counts {
        called.group_by_key().count("counts");
    }
    streams.build().unwrap()
}

struct Rig {
    topology: Topology,
    waiting: Waiting,
    calls: Rc<LocalCalls>,
    task: Task,
    engine: Arc<dyn StateStore>,
    fed: i64,
    /// What was written and not committed, and what a commit made durable.
    written: Vec<i64>,
    durable: Vec<i64>,
    committed: i64,
    /// Of this incarnation.
    finished: BTreeSet<i64>,
}

impl Rig {
    fn new(by_key: bool, counts: bool) -> Self {
        let waiting = Waiting::default();
        let topology = topology(by_key, counts, &waiting);
        let engine: Arc<dyn StateStore> = Arc::new(MemoryStore::new());
        let calls = Rc::new(LocalCalls::default());
        let task = open(&topology, &engine, &calls);
        let (written, durable) = (Vec::new(), Vec::new());
        let finished = BTreeSet::new();
        Self { topology, waiting, calls, task, engine, fed: 0, written, durable, committed: 0, finished }
    }

    fn feed(&mut self, until: i64) {
        while self.fed < until {
            let number = self.fed;
            let bytes = |of: i64| Some(Bytes::copy_from_slice(&of.to_be_bytes()));
            let (key, value) = (bytes(number % KEYS), bytes(number));
            let record = Incoming { offset: number, timestamp_ms: 1, key, value, headers: Headers::new() };
            let batch = IncomingBatch { records: vec![record], next_offset: number + 1, is_last: true };
            let input = self.task.input_topics().next().unwrap();
            self.task.add(input, batch);
            self.fed += 1;
        }
        while self.task.is_ready() {
            self.task.process_next().unwrap().unwrap();
        }
    }

    fn end(&mut self, which: usize) {
        // Calls that began have not been polled before, and wait for nothing until they are.
        self.calls.turn();
        let number = {
            let mut waiting = self.waiting.lock().unwrap();
            let Some(number) = waiting.keys().nth(which % waiting.len().max(1)).copied() else { return };
            waiting.remove(&number).unwrap().send(()).unwrap();
            number
        };
        self.calls.run(self.task.arrivals()).unwrap();
        assert!(self.task.go_on().unwrap());
        self.finished.insert(number);
        self.take();
        self.feed(self.fed);
    }

    fn take(&mut self) {
        for output in self.task.take_outputs().into_iter().filter(|of| of.kind == OutputKind::ByKey) {
            let value = output.value.unwrap();
            self.written.push(i64::from_be_bytes(value[..].try_into().unwrap()));
        }
    }

    /// As a thread commits: one with state waits for its calls.
    fn commit(&mut self) {
        self.task.flush().unwrap();
        while self.task.commits_as_one() && self.task.is_calling() {
            self.end(0);
        }
        self.task.flush().unwrap();
        self.take();
        self.durable.append(&mut self.written);
        for (_, position) in self.task.positions().collect::<Vec<_>>() {
            let unfinished = (self.committed..self.fed).find(|number| !self.finished.contains(number));
            assert!(position <= unfinished.unwrap_or(self.fed), "{position} is not finished");
            assert!(position >= self.committed, "never back");
            self.committed = position;
        }
        self.task.commit_stores(&HashMap::<TopicId, i64>::new()).unwrap();
    }

    fn crash(&mut self) {
        self.waiting.lock().unwrap().clear();
        self.calls = Rc::new(LocalCalls::default());
        self.task = open(&self.topology, &self.engine, &self.calls);
        self.written.clear();
        self.finished = (0..self.committed).collect();
        let fed = std::mem::replace(&mut self.fed, self.committed);
        self.feed(fed);
    }
}

fn open(topology: &Topology, engine: &Arc<dyn StateStore>, calls: &Rc<LocalCalls>) -> Task {
    let id = TaskId { sub_topology: 0, partition: 0 };
    let names = topology.inner.topic_names("app");
    let options = TaskOptions { cache_bytes: 1 << 20 };
    let mut task = Task::new(&topology.inner, id, names, &mut |_| Ok(Arc::clone(engine)), options).unwrap();
    task.context_mut().spawn = Some(calls.spawn());
    task.turn(0).unwrap();
    task
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_unfinished_is_committed_and_nothing_is_lost(
        steps in steps(),
        by_key in any::<bool>(),
        counts in any::<bool>(),
    ) {
        let mut rig = Rig::new(by_key, counts);
        for step in steps {
            match step {
                Step::Feed => rig.feed(rig.fed + 1),
                Step::End(which) => rig.end(which),
                Step::Commit => rig.commit(),
                Step::Crash => rig.crash(),
            }
            prop_assert!(rig.waiting.lock().unwrap().len() <= LIMIT);
            if by_key {
                for key in 0..KEYS {
                    let of_key: Vec<_> = rig.written.iter().filter(|number| **number % KEYS == key).collect();
                    prop_assert!(of_key.is_sorted(), "{:?}", of_key);
                }
            }
        }
        while rig.task.is_calling() {
            rig.end(0);
        }
        rig.commit();
        prop_assert_eq!(rig.committed, rig.fed);
        let told: BTreeSet<i64> = rig.durable.iter().copied().collect();
        prop_assert_eq!(told, (0..rig.fed).collect::<BTreeSet<_>>());
        if counts {
            // Nothing was committed but whole: a crash repeats no record that counted.
            prop_assert_eq!(rig.durable.len() as i64, rig.fed);
            for key in 0..KEYS.min(rig.fed) {
                let stored = rig.engine.get(&key.to_be_bytes()).unwrap().unwrap();
                let count = i64::from_be_bytes(stored[8..].try_into().unwrap());
                prop_assert_eq!(count, (0..rig.fed).filter(|number| number % KEYS == key).count() as i64);
            }
        }
    }
}
