//! A stream thread: runs its tasks' loops and commits them. It waits on its channel only, and never on the network but
//! while a commit is under way.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak, mpsc};

use klamm_client::{ConsumeError, TopicPartition};
use tokio::sync::{mpsc as async_mpsc, oneshot};

use super::error::StreamsError;
use super::outbox::{ChangelogOffsets, Outgoing};
use super::restore::{ChangelogStart, RestoreRequest};
use super::shared::{Command, Committing, Flow, Shared, lock};
use crate::store::{MemoryStore, StateStore, StoreError};
#[cfg(feature = "streams")]
use crate::store::{StoreMemory, TaskDatabase};
use crate::streams::node::{AskPartitionCount, Dropped, StoreSpec};
use crate::streams::task::{Task, TaskId, TaskOptions};

/// Records that a task processes before the channel is looked at again.
const SLICE_RECORDS: usize = 1_000;

/// What a thread is started with.
pub(super) struct WorkerLinks {
    pub(super) shared: Arc<Shared>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) outbox: async_mpsc::Sender<Outgoing>,
    pub(super) restores: async_mpsc::UnboundedSender<RestoreRequest>,
}

/// Runs until the application is gone. A failure or panic of a task stops the application.
pub(super) fn run(links: WorkerLinks) {
    let shared = Arc::downgrade(&links.shared);
    let (tasks, changelogs) = (BTreeMap::new(), ChangelogOffsets::new());
    let mut worker = Worker { links, tasks, changelogs, dropped_before: Dropped::default() };
    // What a panic leaves half done is never committed: the worker and its tasks are dropped right after.
    let ended = catch_unwind(AssertUnwindSafe(|| worker.work()));
    let failure = match ended {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error),
        Err(panic) => Some(StreamsError::Panicked(message(&*panic))),
    };
    if let (Some(error), Some(shared)) = (failure, Weak::upgrade(&shared)) {
        shared.fail(error);
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

struct Worker {
    links: WorkerLinks,
    tasks: BTreeMap<TaskId, Running>,
    /// How far the changelogs are written, since the last commit.
    changelogs: ChangelogOffsets,
    /// Of tasks that are closed.
    dropped_before: Dropped,
}

struct Running {
    task: Task,
    flows: Vec<Arc<Flow>>,
    restoring: bool,
    /// Positions as last committed.
    committed: HashMap<TopicPartition, i64>,
    processed_at_commit: u64,
}

impl Worker {
    fn work(&mut self) -> Result<(), StreamsError> {
        loop {
            let command = match self.tasks.values_mut().any(Running::is_ready) {
                true => match self.links.commands.try_recv() {
                    Ok(command) => Some(command),
                    Err(mpsc::TryRecvError::Empty) => None,
                    Err(mpsc::TryRecvError::Disconnected) => return Ok(()),
                },
                false => match self.links.commands.recv() {
                    Ok(command) => Some(command),
                    Err(mpsc::RecvError) => return Ok(()),
                },
            };
            match command {
                Some(Command::Stop) => return Ok(()),
                Some(command) => self.obey(command)?,
                None => self.process()?,
            }
        }
    }

    fn obey(&mut self, command: Command) -> Result<(), StreamsError> {
        match command {
            Command::Assign { task, flows } => self.assign(task, flows)?,
            Command::Revoke { tasks, commit, done } => {
                self.revoke(&tasks, commit)?;
                done.send(()).ok();
            }
            Command::Records { task, topic, batch } => {
                if let Some(running) = self.tasks.get_mut(&task) {
                    running.task.add(topic, batch);
                }
            }
            Command::Restored { task, topic, records, next_offset, done } => {
                if let Some(running) = self.tasks.get_mut(&task) {
                    for store in running.task.stores() {
                        let mut store = store.borrow_mut();
                        if store.changelog() == Some(topic) {
                            store.restore(&records, next_offset)?;
                        }
                    }
                    self.links.shared.restored.fetch_add(records.len() as u64, Ordering::Relaxed);
                }
                done.send(()).ok();
            }
            Command::RestoreEnded { task } => self.restore_ended(task),
            Command::Wake | Command::Stop => {}
            Command::Commit { done } => {
                self.commit()?;
                if let Some(done) = done {
                    done.send(()).ok();
                }
            }
        }
        Ok(())
    }

    /// Gives every ready task a slice, and commits when the changes take too much memory.
    fn process(&mut self) -> Result<(), StreamsError> {
        let limit = self.links.shared.config.buffered_records;
        let mut uncommitted_bytes = 0;
        for (id, running) in &mut self.tasks {
            let mut processed = 0;
            while processed < SLICE_RECORDS && running.is_ready() {
                let step = running.process_next(limit, &self.links.shared);
                match step.map_err(|source| StreamsError::Task { task: *id, source })? {
                    true => processed += 1,
                    false => break,
                }
            }
            self.links.shared.processed.fetch_add(processed as u64, Ordering::Relaxed);
            uncommitted_bytes += running.task.uncommitted_bytes();
            send_outputs(&self.links.outbox, &mut running.task)?;
        }
        if uncommitted_bytes > self.memory_share() { self.commit() } else { Ok(()) }
    }

    /// How much memory uncommitted changes may take on this thread.
    fn memory_share(&self) -> usize {
        /// Without a cache, changes still wait for the commit; Kafka's `statestore.uncommitted.max.bytes`.
        const UNCACHED_LIMIT_BYTES: usize = 64 * 1024 * 1024;
        let config = &self.links.shared.config;
        let total = if config.cache_bytes == 0 { UNCACHED_LIMIT_BYTES } else { config.cache_bytes };
        total / config.threads
    }

    /// Outputs and changelogs first, then the input offsets, the stores last: a store that is behind its changelog is
    /// restored from it, while one that is ahead of the committed offsets would count records twice.
    fn commit(&mut self) -> Result<(), StreamsError> {
        let mut changed = false;
        for (id, running) in &mut self.tasks {
            if running.task.processed() == running.processed_at_commit {
                continue;
            }
            changed = true;
            running.task.flush().map_err(|source| StreamsError::Task { task: *id, source })?;
            send_outputs(&self.links.outbox, &mut running.task)?;
        }
        if !changed {
            return Ok(());
        }
        #[expect(clippy::iter_over_hash_type, reason = "each changelog has an entry of its own")]
        for (changelog, offset) in self.flush_outbox()? {
            let written = self.changelogs.entry(changelog).or_insert(0);
            *written = offset.max(*written);
        }
        // Whoever sees the offsets committed must not see the stores as they were before.
        let _committing = Committing::begin(&self.links.shared);
        let offsets = self.tasks.values().flat_map(Running::uncommitted_offsets).collect();
        if !self.commit_offsets(offsets)? {
            return Ok(());
        }
        for (id, running) in &mut self.tasks {
            let committed = running.commit_stores(&self.changelogs);
            committed.map_err(|source| StreamsError::Task { task: *id, source })?;
        }
        self.changelogs.clear();
        let mut dropped = self.dropped_before;
        self.tasks.values().for_each(|running| dropped.add(running.task.dropped()));
        lock(&self.links.shared.dropped).insert(std::thread::current().id(), dropped);
        self.links.shared.commits.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until all outputs are acknowledged.
    fn flush_outbox(&self) -> Result<ChangelogOffsets, StreamsError> {
        let (reply, flushed) = oneshot::channel();
        let sent = self.links.outbox.blocking_send(Outgoing::Flush { reply });
        sent.map_err(|_| StreamsError::Closed)?;
        flushed.blocking_recv().map_err(|_| StreamsError::Closed)?
    }

    /// Commits input offsets; whether the group took them. If not, everything stays as it is for the next commit.
    fn commit_offsets(&mut self, offsets: HashMap<TopicPartition, i64>) -> Result<bool, StreamsError> {
        let (reply, committed) = oneshot::channel();
        let sent = self.links.outbox.blocking_send(Outgoing::Commit { offsets: offsets.clone(), reply });
        sent.map_err(|_| StreamsError::Closed)?;
        match committed.blocking_recv().map_err(|_| StreamsError::Closed)? {
            Ok(()) => {
                for running in self.tasks.values_mut() {
                    running.committed.extend(running.own(&offsets));
                }
                Ok(true)
            }
            // Either the group moved on without this member, which is about to be told so, and the new owners repeat
            // what was not committed; or the coordinator is away, and the next commit says the same and more.
            Err(StreamsError::Consume(error)) if is_passing(&error) => {
                tracing::warn!(application = %self.links.shared.group(), %error, "offsets not committed");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn assign(&mut self, id: TaskId, flows: Vec<Arc<Flow>>) -> Result<(), StreamsError> {
        let shared = Arc::clone(&self.links.shared);
        if let Some(running) = self.tasks.get_mut(&id) {
            running.flows.extend(flows);
            return Ok(());
        }
        let at_task = |source| StreamsError::Task { task: id, source };
        let options = TaskOptions { cache_bytes: shared.config.cache_bytes / shared.config.threads };
        let mut engines = Engines::new(&shared, id);
        let mut open = |spec: &StoreSpec| engines.open(spec);
        let mut task =
            Task::new(&shared.topology, id, shared.names.clone(), &mut open, options).map_err(at_task)?;
        task.context_mut().ask_partition_count = Some(ask_partition_count(&shared));
        task.context_mut().clock = Some(Arc::clone(shared.client.clock()));
        let changelogs: Vec<ChangelogStart> = task
            .stores()
            .iter()
            .filter_map(|store| {
                let store = store.borrow();
                let (topic, position) = (store.changelog()?, store.position().changelog_offset);
                Some(ChangelogStart { topic, store: Arc::clone(store.name()), position })
            })
            .collect();
        let restoring = !changelogs.is_empty();
        let committed = HashMap::new();
        self.tasks.insert(id, Running { task, flows, restoring, committed, processed_at_commit: 0 });
        if restoring {
            let asked = self.links.restores.send(RestoreRequest { task: id, changelogs });
            asked.map_err(|_| StreamsError::Closed)?;
        } else {
            self.started(id);
        }
        Ok(())
    }

    fn restore_ended(&mut self, id: TaskId) {
        let Some(running) = self.tasks.get_mut(&id) else { return };
        if std::mem::take(&mut running.restoring) {
            self.started(id);
        }
    }

    /// Lets queries see the stores of a task that processes from now on.
    fn started(&self, id: TaskId) {
        let Some(running) = self.tasks.get(&id) else { return };
        {
            let mut published = lock(&self.links.shared.stores);
            for store in running.task.stores() {
                let store = store.borrow();
                let engine = Arc::downgrade(&store.engine());
                published.entry(store.name().to_string()).or_default().insert(id.partition, engine);
            }
        }
        self.links.shared.starting.fetch_sub(1, Ordering::AcqRel);
        self.links.shared.settle();
    }

    fn revoke(&mut self, ids: &[TaskId], commit: bool) -> Result<(), StreamsError> {
        if commit && !self.links.shared.has_failed() {
            self.commit()?;
        }
        for id in ids {
            let Some(running) = self.tasks.remove(id) else { continue };
            if running.restoring {
                self.links.shared.starting.fetch_sub(1, Ordering::AcqRel);
            }
            self.dropped_before.add(running.task.dropped());
            for store in running.task.stores() {
                let store = store.borrow();
                if let Some(engines) = lock(&self.links.shared.stores).get_mut(&**store.name()) {
                    engines.remove(&id.partition);
                }
                // What is on disk need not be restored.
                store.engine().flush()?;
            }
        }
        self.links.shared.settle();
        Ok(())
    }
}

/// For partitioners on this thread, which may wait.
fn ask_partition_count(shared: &Shared) -> AskPartitionCount {
    let (client, runtime) = (shared.client.clone(), shared.runtime.clone());
    Arc::new(move |topic| Ok(runtime.block_on(client.partition_count(topic))?))
}

impl Running {
    fn is_ready(&mut self) -> bool {
        if self.restoring {
            return false;
        }
        if self.flows.len() > 1 {
            for flow in &self.flows {
                if flow.queued.load(Ordering::Acquire) == 0 && flow.caught_up.load(Ordering::Acquire) {
                    self.task.set_caught_up(flow.topic);
                }
            }
        }
        self.task.is_ready()
    }

    fn process_next(
        &mut self,
        limit: usize,
        shared: &Shared,
    ) -> Result<bool, crate::streams::error::TaskError> {
        let Some(topic) = self.task.process_next()? else { return Ok(false) };
        if let Some(flow) = self.flows.iter().find(|flow| flow.topic == topic)
            && flow.processed(1, limit)
            && let Some(consumer) = shared.consumer()
        {
            consumer.resume(std::slice::from_ref(&flow.partition));
        }
        Ok(true)
    }

    fn commit_stores(
        &mut self,
        changelogs: &ChangelogOffsets,
    ) -> Result<(), crate::streams::error::TaskError> {
        if self.task.processed() == self.processed_at_commit {
            return Ok(());
        }
        let partition = self.task.id.partition;
        let own = changelogs.iter().filter(|((_, of), _)| *of == partition);
        self.task.commit_stores(&own.map(|((topic, _), offset)| (*topic, *offset)).collect())?;
        self.processed_at_commit = self.task.processed();
        Ok(())
    }

    fn uncommitted_offsets(&self) -> Vec<(TopicPartition, i64)> {
        let partition = self.task.id.partition;
        let position = |(topic, offset)| {
            let partition = TopicPartition::new(Arc::clone(self.task.topic_name(topic)), partition);
            (self.committed.get(&partition) != Some(&offset)).then_some((partition, offset))
        };
        self.task.positions().filter_map(position).collect()
    }

    fn own(&self, offsets: &HashMap<TopicPartition, i64>) -> Vec<(TopicPartition, i64)> {
        let own = self.flows.iter().filter_map(|flow| offsets.get_key_value(&flow.partition));
        own.map(|(partition, offset)| (partition.clone(), *offset)).collect()
    }
}

fn is_passing(error: &ConsumeError) -> bool {
    matches!(error, ConsumeError::Commit { .. }) || error.is_retriable()
}

fn send_outputs(outbox: &async_mpsc::Sender<Outgoing>, task: &mut Task) -> Result<(), StreamsError> {
    let outputs = task.take_outputs();
    if outputs.is_empty() {
        return Ok(());
    }
    let sent = outbox.blocking_send(Outgoing::Outputs { partition: task.id.partition, outputs });
    sent.map_err(|_| StreamsError::Closed)
}

/// Opens the stores of one task: those on disk in one database.
struct Engines<'a> {
    #[cfg_attr(not(feature = "streams"), allow(dead_code))]
    shared: &'a Shared,
    #[cfg_attr(not(feature = "streams"), allow(dead_code))]
    task: TaskId,
    #[cfg(feature = "streams")]
    database: Option<Arc<TaskDatabase>>,
}

impl<'a> Engines<'a> {
    fn new(shared: &'a Shared, task: TaskId) -> Self {
        Self {
            shared,
            task,
            #[cfg(feature = "streams")]
            database: None,
        }
    }

    fn open(&mut self, spec: &StoreSpec) -> Result<Arc<dyn StateStore>, StoreError> {
        match spec.persistent {
            true => self.open_on_disk(spec),
            false => Ok(Arc::new(MemoryStore::new())),
        }
    }

    #[cfg(feature = "streams")]
    fn open_on_disk(&mut self, spec: &StoreSpec) -> Result<Arc<dyn StateStore>, StoreError> {
        let database = match &self.database {
            Some(database) => database,
            None => {
                let topology = &self.shared.topology;
                let stores = topology.stores_of(&topology.sub_topologies[self.task.sub_topology]);
                let names: Vec<&str> =
                    stores.filter(|store| store.persistent).map(|store| &*store.name).collect();
                let memory = self.shared.config.store_memory.clone().unwrap_or_else(StoreMemory::shared);
                let directory = self.shared.task_directory(self.task);
                self.database.insert(TaskDatabase::open_when_free(&directory, &names, &memory)?)
            }
        };
        Ok(Arc::new(database.store(&spec.name)?))
    }

    /// Without an engine for the disk, every store is in memory and comes back from its changelog.
    #[cfg(not(feature = "streams"))]
    fn open_on_disk(&mut self, _spec: &StoreSpec) -> Result<Arc<dyn StateStore>, StoreError> {
        Ok(Arc::new(MemoryStore::new()))
    }
}
