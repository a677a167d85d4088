//! `TopologyTestDriver`: a topology at work without broker, files and threads.
//!
//! It runs the tasks that an application runs, one per sub-topology on partition 0, and commits after every record. A
//! mistake of the test or of the topology panics with its reason, as an assertion would.
#![allow(clippy::panic)] // A test tool fails the test.

use std::cell::RefCell;
#[cfg(feature = "streams")]
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::cache::CacheBudget;
#[cfg(feature = "streams")]
use super::cache::Tell;
use super::driver_directory::DriverDirectory;
use super::driver_io::{TestInput, TestOutput, TestStore};
use super::error::TaskError;
use super::global;
use super::idling::Idling;
use super::incoming::{Incoming, IncomingBatch};
use super::node::{Dropped, LocalCalls, Medium, Output, OutputKind, StoreSpec, TopicId};
use super::options::Serdes;
use super::policy::ErrorPolicy;
use super::query::StoreReader;
use super::task::{Task, TaskId, TaskOptions};
use super::topology::{Topology, TopologyInner};
use super::windows::millis;
use crate::serde::{DefaultSerde, Serde};
#[cfg(feature = "streams")]
use crate::store::TaskDatabase;
use crate::store::{MemoryStore, StateStore, StoreError};

/// The application's name in topics that serdes are told.
const APPLICATION_ID: &str = "test-driver";

/// Opens the engine of a store of a sub-topology.
type OpenEngine<'a> = dyn FnMut(usize, &StoreSpec) -> Result<Arc<dyn StateStore>, StoreError> + 'a;

/// Drives a topology one record at a time.
///
/// Table updates are not held back, so every one of them is seen; all stores are in memory, but those of
/// [engines of one's own](crate::streams::Materialized::stored_in). Topics of the
/// application (repartition topics, changelogs) are looped through or readable under their names without the
/// application's, as `counts-changelog`.
pub struct TopologyTestDriver {
    pub(super) core: Rc<RefCell<Core>>,
}

pub(super) struct Core {
    topology: Arc<TopologyInner>,
    pub(super) tasks: Vec<Task>,
    calls: Rc<LocalCalls>,
    engines: HashMap<String, Arc<dyn StateStore>>,
    is_cached: bool,
    next_offsets: HashMap<TopicId, i64>,
    /// How far changelogs are written since the last commit.
    logged: HashMap<TopicId, i64>,
    pub(super) written: BTreeMap<String, VecDeque<Output>>,
    /// The latest time of a record.
    pub(super) now_ms: i64,
    pub(super) wall_clock_ms: i64,
    /// How long records wait for inputs that have none.
    pub(super) max_task_idle: Option<Duration>,
    pub(super) idling: HashMap<TopicId, Idling>,
    /// After how long without a record stream time goes on.
    pub(super) idle_after: Option<Duration>,
    /// When each task had its last record.
    pub(super) last_record_ms: HashMap<usize, i64>,
    /// After all that has stores: they are closed before it goes.
    _own: DriverDirectory,
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

    /// A [`cached`](Self::cached) driver whose stores lie in a directory, where they are on disk in an application: for
    /// measuring, and for looking at what is there.
    #[cfg(feature = "streams")]
    pub fn on_disk(
        topology: Topology,
        cache_bytes: usize,
        directory: impl AsRef<std::path::Path>,
        memory: &crate::store::StoreMemory,
    ) -> Self {
        let lent = memory.lend();
        let tell: Tell = Arc::new(move |held_bytes| lent.set(held_bytes));
        let budget = CacheBudget::new(cache_bytes, Some(tell));
        let inner = Arc::clone(&topology.inner);
        let mut databases = HashMap::new();
        let own = DriverDirectory::given(directory.as_ref());
        Self::open(topology, ErrorPolicy::fail(), &budget, own, &mut |sub_topology, spec| {
            if !spec.is_in_database() {
                return Ok(Arc::new(MemoryStore::new()));
            }
            let database = match databases.entry(sub_topology) {
                Entry::Occupied(opened) => opened.into_mut(),
                Entry::Vacant(vacant) => {
                    let id = TaskId { sub_topology, partition: 0 };
                    let stores = inner.stores_of(&inner.sub_topologies[sub_topology]);
                    let names: Vec<&str> =
                        stores.filter(|store| store.is_in_database()).map(|store| &*store.name).collect();
                    let path = directory.as_ref().join(id.to_string());
                    vacant.insert(TaskDatabase::open_when_free(&path, &names, memory)?)
                }
            };
            Ok(Arc::new(database.store(&spec.name)?))
        })
    }

    fn start(topology: Topology, policy: ErrorPolicy, options: TaskOptions) -> Self {
        let budget = CacheBudget::new(options.cache_bytes, None);
        let own = DriverDirectory::temporary();
        Self::open(topology, policy, &budget, own, &mut |_, _| Ok(Arc::new(MemoryStore::new())))
    }

    fn open(
        topology: Topology,
        policy: ErrorPolicy,
        budget: &Arc<CacheBudget>,
        mut own: DriverDirectory,
        open_engine: &mut OpenEngine<'_>,
    ) -> Self {
        let topology = topology.with_default_policy(&policy).unwrap_or_else(|error| panic!("{error}")).inner;
        let names = topology.topic_names(APPLICATION_ID);
        let mut engines = HashMap::new();
        let mut tasks = Vec::new();
        let calls = Rc::new(LocalCalls::default());
        for sub_topology in 0..topology.sub_topologies.len() {
            let id = TaskId { sub_topology, partition: 0 };
            let mut open = |spec: &StoreSpec| {
                let engine = match &spec.medium {
                    Medium::Own(engine) => own.open(&**engine, id, spec)?,
                    Medium::Memory | Medium::Disk => open_engine(sub_topology, spec)?,
                };
                engines.insert(spec.name.to_string(), Arc::clone(&engine));
                Ok(engine)
            };
            let task = Task::with_budget(&topology, id, names.clone(), &mut open, budget);
            let mut task = task.unwrap_or_else(|error| panic!("the task cannot be made: {error}"));
            task.context_mut().pause = |_| {};
            task.context_mut().waits = false;
            task.context_mut().spawn = Some(calls.spawn());
            tasks.push(task);
        }
        for table in topology.graph.globals.values() {
            engines.insert(table.spec.name.to_string(), Arc::clone(&table.engine));
        }
        let (next_offsets, written) = (HashMap::new(), BTreeMap::new());
        let (is_cached, logged) = (budget.limit_bytes() > 0, HashMap::new());
        let core = Core {
            topology,
            tasks,
            calls,
            engines,
            is_cached,
            next_offsets,
            logged,
            written,
            now_ms: 0,
            wall_clock_ms: 0,
            max_task_idle: None,
            idling: HashMap::new(),
            idle_after: None,
            last_record_ms: HashMap::new(),
            _own: own,
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
        let id = self.core.borrow_mut().input_topic(topic);
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
    fn input_topic(&mut self, topic: &str) -> TopicId {
        if let [reader, ..] = self.topology.pattern_readers(topic, APPLICATION_ID)[..] {
            let name: Arc<str> = topic.into();
            let id = self.topology.matched(&name);
            self.tasks[reader].take_up(id, &name);
            return id;
        }
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
    pub(super) fn pipe(&mut self, topic: TopicId, record: Incoming) -> Result<(), TaskError> {
        self.now_ms = self.now_ms.max(record.timestamp_ms);
        self.run(VecDeque::from([(topic, record)]))
    }

    fn advance(&mut self, by: Duration) -> Result<(), TaskError> {
        self.wall_clock_ms = self.wall_clock_ms.saturating_add(millis(by));
        let mut waiting = VecDeque::new();
        for index in 0..self.tasks.len() {
            self.tasks[index].turn(self.wall_clock_ms)?;
            self.process(index)?;
            self.after_a_turn(index, &mut waiting)?;
        }
        self.run(waiting)?;
        self.be_idle()
    }

    /// Upstream before downstream, until nothing is held back.
    fn commit_all(&mut self) -> Result<(), TaskError> {
        for index in 0..self.tasks.len() {
            let mut waiting = VecDeque::new();
            self.commit(index, &mut waiting)?;
            self.run(waiting)?;
        }
        // A table that is fed through a topic that an earlier task reads changes after that one's turn.
        match self.tasks.iter().any(|task| task.uncommitted_bytes() > 0 || task.is_calling()) {
            true => self.commit_all(),
            false => Ok(()),
        }
    }

    pub(super) fn after_a_turn(
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

    pub(super) fn run(&mut self, mut waiting: VecDeque<(TopicId, Incoming)>) -> Result<(), TaskError> {
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
            let index = reader.id.sub_topology;
            self.last_record_ms.insert(index, self.wall_clock_ms);
            self.process(index)?;
            self.after_a_turn(index, &mut waiting)?;
        }
        Ok(())
    }

    /// Commits a task; what it wrote to topics that are read goes to `waiting`.
    fn commit(&mut self, index: usize, waiting: &mut VecDeque<(TopicId, Incoming)>) -> Result<(), TaskError> {
        self.tasks[index].flush()?;
        self.settle(index, waiting)?;
        self.write_outputs(index, waiting);
        self.tasks[index].commit_stores(&self.logged)?;
        self.tasks[index].settle(usize::MAX).map(drop)
    }

    /// Processes all records that wait. With too many calls under way, one has to end first.
    fn process(&mut self, index: usize) -> Result<(), TaskError> {
        loop {
            while self.may_go_on(index) && self.tasks[index].process_next()?.is_some() {}
            if !self.tasks[index].is_ready_after_calls() {
                return Ok(());
            }
            self.end_a_call(index)?;
        }
    }

    /// Waits for all calls and what follows from them.
    fn settle(&mut self, index: usize, waiting: &mut VecDeque<(TopicId, Incoming)>) -> Result<(), TaskError> {
        while self.tasks[index].is_calling() {
            self.end_a_call(index)?;
            self.tasks[index].flush()?;
            self.write_outputs(index, waiting);
        }
        Ok(())
    }

    fn end_a_call(&mut self, index: usize) -> Result<(), TaskError> {
        self.calls.run(self.tasks[index].arrivals()).map_err(|stuck| TaskError::User(stuck.into()))?;
        self.tasks[index].go_on().map(drop)
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
