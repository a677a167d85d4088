//! `TopologyTestDriver`: a topology at work without broker, files and threads.
//!
//! It runs the tasks that an application runs, one per sub-topology on partition 0, and commits after every record. A
//! mistake of the test or of the topology panics with its reason, as an assertion would.
#![allow(clippy::panic)] // A test tool fails the test.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_client::Headers;

use super::error::TaskError;
use super::global;
use super::incoming::{Incoming, IncomingBatch};
use super::node::{Dropped, Output, OutputKind, TopicId};
use super::options::Serdes;
use super::policy::ErrorPolicy;
use super::query::StoreReader;
use super::task::{Task, TaskId, TaskOptions};
use super::topology::{Topology, TopologyInner};
use super::windows::{Window, Windowed, millis};
use crate::serde::{DefaultSerde, Serde};
use crate::store::{MemoryStore, StateStore};

/// The application's name in topics that serdes are told.
const APPLICATION_ID: &str = "test-driver";

/// Drives a topology one record at a time.
///
/// Table updates are not held back, so every one of them is seen; all stores are in memory. Topics of the
/// application (repartition topics, changelogs) are looped through or readable under their names without the
/// application's, as `counts-changelog`.
pub struct TopologyTestDriver {
    core: Rc<RefCell<Core>>,
}

struct Core {
    topology: Arc<TopologyInner>,
    tasks: Vec<Task>,
    engines: HashMap<String, Arc<dyn StateStore>>,
    is_cached: bool,
    next_offsets: HashMap<TopicId, i64>,
    /// How far changelogs are written since the last commit.
    logged: HashMap<TopicId, i64>,
    written: BTreeMap<String, VecDeque<Output>>,
    /// The latest time of a record.
    now_ms: i64,
    wall_clock_ms: i64,
}

impl TopologyTestDriver {
    /// A driver of `topology`, at time 0.
    pub fn new(topology: Topology) -> Self {
        Self::with_policy(topology, ErrorPolicy::fail())
    }

    /// A driver whose operators treat what they cannot process as `policy` says, unless they have their own. It does
    /// not wait between attempts.
    pub fn with_policy(topology: Topology, policy: ErrorPolicy) -> Self {
        Self::start(topology, policy, TaskOptions { cache_bytes: 0 })
    }

    /// A driver that holds table updates back until [`commit`](Self::commit), as an application does with its cache of
    /// `cache_bytes`: of each key only the last update is told.
    pub fn cached(topology: Topology, cache_bytes: usize) -> Self {
        Self::start(topology, ErrorPolicy::fail(), TaskOptions { cache_bytes })
    }

    fn start(topology: Topology, policy: ErrorPolicy, options: TaskOptions) -> Self {
        let topology = topology.with_default_policy(&policy).unwrap_or_else(|error| panic!("{error}")).inner;
        let names = topology.topic_names(APPLICATION_ID);
        let mut engines = HashMap::new();
        let mut tasks = Vec::new();
        for sub_topology in 0..topology.sub_topologies.len() {
            let mut open = |spec: &super::node::StoreSpec| {
                let engine: Arc<dyn StateStore> = Arc::new(MemoryStore::new());
                engines.insert(spec.name.to_string(), Arc::clone(&engine));
                Ok(engine)
            };
            let id = TaskId { sub_topology, partition: 0 };
            let task = Task::new(&topology, id, names.clone(), &mut open, options);
            let mut task = task.unwrap_or_else(|error| panic!("the task cannot be made: {error}"));
            task.context_mut().pause = |_| {};
            tasks.push(task);
        }
        for table in topology.graph.globals.values() {
            engines.insert(table.spec.name.to_string(), Arc::clone(&table.engine));
        }
        let (next_offsets, written) = (HashMap::new(), BTreeMap::new());
        let (is_cached, logged) = (options.cache_bytes > 0, HashMap::new());
        let core = Core {
            topology,
            tasks,
            engines,
            is_cached,
            next_offsets,
            logged,
            written,
            now_ms: 0,
            wall_clock_ms: 0,
        };
        Self { core: Rc::new(RefCell::new(core)) }
    }

    /// A topic to write to, in the types' default serdes.
    pub fn input<K: DefaultSerde, V: DefaultSerde>(&self, topic: &str) -> TestInput<K, V> {
        self.input_with(topic, K::Serde::default(), V::Serde::default())
    }

    /// A topic to write to.
    pub fn input_with<K: 'static, V: 'static>(
        &self,
        topic: &str,
        key: impl Serde<K>,
        value: impl Serde<V>,
    ) -> TestInput<K, V> {
        let id = self.core.borrow().input_topic(topic);
        TestInput { core: Rc::clone(&self.core), topic: topic.to_owned(), id, serdes: Serdes::of(key, value) }
    }

    /// A topic to read from, in the types' default serdes. Type a key or value that may be null as `Option`.
    pub fn output<K: DefaultSerde, V: DefaultSerde>(&self, topic: &str) -> TestOutput<K, V> {
        self.output_with(topic, K::Serde::default(), V::Serde::default())
    }

    /// A topic to read from.
    pub fn output_with<K: 'static, V: 'static>(
        &self,
        topic: &str,
        key: impl Serde<K>,
        value: impl Serde<V>,
    ) -> TestOutput<K, V> {
        if let Some(known) = self.core.borrow().topology.written_topics()
            && !known.contains(topic)
        {
            let known: Vec<_> = known.into_iter().collect();
            panic!("the topology does not write `{topic}`, but: {}", known.join(", "));
        }
        TestOutput { core: Rc::clone(&self.core), topic: topic.to_owned(), serdes: Serdes::of(key, value) }
    }

    /// A state store.
    pub fn store<K: 'static, V: 'static>(&self, name: &str) -> TestStore<K, V> {
        let core = self.core.borrow();
        let reader = StoreReader::new(&core.topology, name).unwrap_or_else(|error| panic!("{error}"));
        let engine = core.engines.get(name).unwrap_or_else(|| panic!("no node uses store `{name}`"));
        TestStore { reader, engine: Arc::clone(engine) }
    }

    /// Commits, and with it tells what a [`cached`](Self::cached) driver held back, and all that comes of that. Any
    /// other driver commits after each record.
    pub fn commit(&mut self) {
        let committed = self.core.borrow_mut().commit_all();
        committed.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Moves the driver's clock on; punctuations that are due run, and all that comes of them.
    pub fn advance_wall_clock(&mut self, by: Duration) {
        let advanced = self.core.borrow_mut().advance(by);
        advanced.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Records left out so far.
    pub fn dropped(&self) -> Dropped {
        let mut dropped = Dropped::default();
        self.core.borrow().tasks.iter().for_each(|task| dropped.add(task.dropped()));
        dropped
    }
}

impl fmt::Debug for TopologyTestDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopologyTestDriver").field("tasks", &self.core.borrow().tasks).finish_non_exhaustive()
    }
}

impl Core {
    fn input_topic(&self, topic: &str) -> TopicId {
        let mut read = Vec::new();
        for (name, id) in self.topology.topics.iter().zip(0..) {
            let id = TopicId(id);
            let is_global = self.topology.graph.globals.contains_key(&name.to_string());
            if is_global || self.tasks.iter().any(|task| task.input_topics().any(|input| input == id)) {
                if name.to_string() == topic {
                    return id;
                }
                read.push(name.to_string());
            }
        }
        panic!("the topology does not read `{topic}`, but: {}", read.join(", "))
    }

    /// Processes a record and everything that follows from it.
    fn pipe(&mut self, topic: TopicId, record: Incoming) -> Result<(), TaskError> {
        self.now_ms = self.now_ms.max(record.timestamp_ms);
        self.run(VecDeque::from([(topic, record)]))
    }

    fn advance(&mut self, by: Duration) -> Result<(), TaskError> {
        self.wall_clock_ms = self.wall_clock_ms.saturating_add(millis(by));
        let mut waiting = VecDeque::new();
        for index in 0..self.tasks.len() {
            self.tasks[index].turn(self.wall_clock_ms)?;
            self.after_a_turn(index, &mut waiting)?;
        }
        self.run(waiting)
    }

    /// Upstream before downstream, until nothing is held back.
    fn commit_all(&mut self) -> Result<(), TaskError> {
        for index in 0..self.tasks.len() {
            let mut waiting = VecDeque::new();
            self.commit(index, &mut waiting)?;
            self.run(waiting)?;
        }
        // A table that is fed through a topic that an earlier task reads changes after that one's turn.
        match self.tasks.iter().any(|task| task.uncommitted_bytes() > 0) {
            true => self.commit_all(),
            false => Ok(()),
        }
    }

    fn after_a_turn(
        &mut self,
        index: usize,
        waiting: &mut VecDeque<(TopicId, Incoming)>,
    ) -> Result<(), TaskError> {
        match self.is_cached {
            true => self.write_outputs(index, waiting),
            false => self.commit(index, waiting)?,
        }
        Ok(())
    }

    fn run(&mut self, mut waiting: VecDeque<(TopicId, Incoming)>) -> Result<(), TaskError> {
        while let Some((topic, mut record)) = waiting.pop_front() {
            record.offset = self.next_offset(topic);
            let name = self.topology.topic_name(topic);
            if let Some(table) = self.topology.graph.globals.get(&name) {
                global::apply(&*table.engine, [&record])?;
            }
            let Some(reader) =
                (self.tasks.iter_mut()).find(|task| task.input_topics().any(|input| input == topic))
            else {
                continue;
            };
            let next_offset = record.offset + 1;
            reader.add(topic, IncomingBatch { records: vec![record], next_offset, is_last: true });
            reader.turn(self.wall_clock_ms)?;
            while reader.process_next()?.is_some() {}
            let index = reader.id.sub_topology;
            self.after_a_turn(index, &mut waiting)?;
        }
        Ok(())
    }

    /// Commits a task; what it wrote to topics that are read goes to `waiting`.
    fn commit(&mut self, index: usize, waiting: &mut VecDeque<(TopicId, Incoming)>) -> Result<(), TaskError> {
        self.tasks[index].flush()?;
        self.write_outputs(index, waiting);
        self.tasks[index].commit_stores(&self.logged)
    }

    fn write_outputs(&mut self, index: usize, waiting: &mut VecDeque<(TopicId, Incoming)>) {
        for output in self.tasks[index].take_outputs() {
            if output.kind == OutputKind::Changelog {
                let offset = self.next_offset(output.topic);
                self.logged.insert(output.topic, offset + 1);
            } else {
                waiting.push_back((output.topic, incoming(&output)));
            }
            let name = self.topology.topic_name(output.topic);
            self.written.entry(name).or_default().push_back(output);
        }
    }

    fn next_offset(&mut self, topic: TopicId) -> i64 {
        let next = self.next_offsets.entry(topic).or_insert(0);
        *next += 1;
        *next - 1
    }
}

fn incoming(output: &Output) -> Incoming {
    Incoming {
        offset: 0,
        timestamp_ms: output.timestamp_ms,
        key: output.key.clone(),
        value: output.value.clone(),
        headers: output.headers.clone(),
    }
}

/// A topic that a test writes to.
pub struct TestInput<K, V> {
    core: Rc<RefCell<Core>>,
    topic: String,
    id: TopicId,
    serdes: Serdes<K, V>,
}

impl<K: 'static, V: 'static> TestInput<K, V> {
    /// A record: processed by [`Piped::at`], or when this is dropped, at the latest time so far.
    pub fn pipe(&self, key: impl Into<K>, value: impl Into<V>) -> Piped {
        self.record(Some(key.into()), Some(value.into()))
    }

    /// A record without a key.
    pub fn pipe_keyless(&self, value: impl Into<V>) -> Piped {
        self.record(None, Some(value.into()))
    }

    /// A record without a value: a tombstone.
    pub fn pipe_tombstone(&self, key: impl Into<K>) -> Piped {
        self.record(Some(key.into()), None)
    }

    /// A record whose key and value may be null.
    pub fn pipe_nullable(&self, key: Option<K>, value: Option<V>) -> Piped {
        self.record(key, value)
    }

    fn record(&self, key: Option<K>, value: Option<V>) -> Piped {
        let key = key.and_then(|key| bytes_of(&*self.serdes.key, &self.topic, &key));
        let value = value.and_then(|value| bytes_of(&*self.serdes.value, &self.topic, &value));
        let timestamp_ms = self.core.borrow().now_ms;
        let record = Incoming { offset: 0, timestamp_ms, key, value, headers: Headers::new() };
        Piped { core: Rc::clone(&self.core), topic: self.id, record: Some(record) }
    }
}

fn bytes_of<T: 'static>(serde: &dyn Serde<T>, topic: &str, value: &T) -> Option<Bytes> {
    if serde.is_null(value) {
        return None;
    }
    Some(serde.serialize(topic, value).unwrap_or_else(|error| panic!("{error}")))
}

impl<K, V> fmt::Debug for TestInput<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestInput").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// A record on its way into the driver; processed when this is dropped, unless a method did it before.
pub struct Piped {
    core: Rc<RefCell<Core>>,
    topic: TopicId,
    record: Option<Incoming>,
}

impl Piped {
    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Bytes>) -> Self {
        if let Some(record) = &mut self.record {
            record.headers.push(name, Some(value.into()));
        }
        self
    }

    /// Processes the record at this time, in milliseconds since the Unix epoch.
    pub fn at(self, timestamp_ms: i64) {
        self.try_at(timestamp_ms).unwrap_or_else(|error| panic!("{error}"));
    }

    /// [`at`](Self::at) for tests of failures.
    ///
    /// # Errors
    /// What stops a task of an application too.
    pub fn try_at(mut self, timestamp_ms: i64) -> Result<(), TaskError> {
        let Some(record) = self.record.take() else { return Ok(()) };
        self.core.borrow_mut().pipe(self.topic, Incoming { timestamp_ms, ..record })
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        let Some(record) = self.record.take() else { return };
        if std::thread::panicking() {
            return;
        }
        let piped = self.core.borrow_mut().pipe(self.topic, record);
        piped.unwrap_or_else(|error| panic!("{error}"));
    }
}

impl fmt::Debug for Piped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Piped").field("record", &self.record).finish_non_exhaustive()
    }
}

/// A record that the topology wrote. Equal to `(key, value)` and to `(key, value, timestamp)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestRecord<K, V> {
    /// The key.
    pub key: K,
    /// The value.
    pub value: V,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The headers.
    pub headers: Headers,
}

impl<K: PartialEq<A>, V: PartialEq<B>, A, B> PartialEq<(A, B)> for TestRecord<K, V> {
    fn eq(&self, (key, value): &(A, B)) -> bool {
        self.key == *key && self.value == *value
    }
}

impl<K: PartialEq<A>, V: PartialEq<B>, A, B> PartialEq<(A, B, i64)> for TestRecord<K, V> {
    fn eq(&self, (key, value, timestamp_ms): &(A, B, i64)) -> bool {
        self.key == *key && self.value == *value && self.timestamp_ms == *timestamp_ms
    }
}

/// A topic that a test reads.
pub struct TestOutput<K, V> {
    core: Rc<RefCell<Core>>,
    topic: String,
    serdes: Serdes<K, V>,
}

impl<K: 'static, V: 'static> TestOutput<K, V> {
    /// The next record, if there is one.
    pub fn read(&self) -> Option<TestRecord<K, V>> {
        let output = self.core.borrow_mut().written.get_mut(&self.topic)?.pop_front()?;
        Some(TestRecord {
            key: self.part("key", &*self.serdes.key, output.key.as_ref()),
            value: self.part("value", &*self.serdes.value, output.value.as_ref()),
            timestamp_ms: output.timestamp_ms,
            headers: output.headers,
        })
    }

    /// All records since the last read.
    pub fn read_all(&self) -> Vec<TestRecord<K, V>> {
        std::iter::from_fn(|| self.read()).collect()
    }

    fn part<T: 'static>(&self, part: &str, serde: &dyn Serde<T>, bytes: Option<&Bytes>) -> T {
        let read = match bytes {
            Some(bytes) => serde.deserialize(&self.topic, bytes).map_err(|error| error.to_string()),
            None => serde.null().ok_or_else(|| "it is null; type it as `Option`".to_owned()),
        };
        read.unwrap_or_else(|error| {
            panic!("the {part} of a record of `{}` cannot be read: {error}", self.topic)
        })
    }
}

impl<K, V> fmt::Debug for TestOutput<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestOutput").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// A state store of the driver.
pub struct TestStore<K, V> {
    reader: StoreReader<K, V>,
    engine: Arc<dyn StateStore>,
}

impl<K: 'static, V: 'static> TestStore<K, V> {
    /// The value of a key.
    pub fn get(&self, key: impl Into<K>) -> Option<V> {
        self.reader.get(&self.engine, &key.into()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// All entries, in the order of their keys' bytes.
    pub fn all(&self) -> Vec<(K, V)> {
        self.reader.all(&self.engine).unwrap_or_else(|error| panic!("{error}"))
    }
}

impl<K: 'static, V: 'static> TestStore<Windowed<K>, V> {
    /// The windows of a key that start between `from_ms` and `to_ms`, both included.
    pub fn fetch(&self, key: impl Into<K>, from_ms: i64, to_ms: i64) -> Vec<(Window, V)> {
        let fetched = self.reader.fetch(&self.engine, key.into(), from_ms, to_ms);
        fetched.unwrap_or_else(|error| panic!("{error}"))
    }
}

impl<K, V> fmt::Debug for TestStore<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestStore").field("engine", &self.engine).finish_non_exhaustive()
    }
}
