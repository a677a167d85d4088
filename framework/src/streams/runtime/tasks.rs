//! How a thread's tasks come and go: made, restored, published, given up.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use klamm_client::{OffsetAndMetadata, TopicPartition};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::changelogs::changelogs;
use super::engines::{TaskEngines, makes_good};
use super::error::StreamsError;
use super::failing::Reached;
use super::loading::Wanted;
use super::observe::Part;
use super::restore::RestoreRequest;
use super::running::{Restoring, Running};
use super::shared::{Flow, lock};
use super::standbys::{Engines, UNKNOWN_LAG};
use super::task_setup::{ask_partition_count, call_on_runtime, is_whole, leave, take_up};
use super::worker::Worker;
use crate::streams::error::TaskError;
use crate::streams::incoming::Incoming;
use crate::streams::node::{StoreSpec, TopicId};
use crate::streams::task::{Task, TaskId};

impl Worker {
    pub(super) fn assign(
        &mut self,
        id: TaskId,
        epoch: u64,
        flows: Vec<Arc<Flow>>,
    ) -> Result<(), StreamsError> {
        if let Some(running) = self.incarnation(id, epoch) {
            running.flows.extend(flows);
            take_up(&mut running.task, &running.flows);
            return Ok(());
        }
        self.waiting.remove(&id);
        let task = match self.open(id) {
            Err(TaskError::Store(damage)) if makes_good(&self.links.shared, id, &damage) => {
                self.quarantine(id, &damage.to_string())?;
                self.open(id)
            }
            other => other,
        };
        let (mut task, engines) = match task {
            Ok(opened) => opened,
            Err(source) => return self.not_begun(id, epoch, source),
        };
        take_up(&mut task, &flows);
        let changelogs = changelogs(&task);
        let generation = flows.first().map_or(-1, |flow| flow.generation);
        let inputs = flows.iter().map(|flow| flow.partition.clone()).collect();
        let stores = task.stores().iter().map(|store| Arc::clone(store.borrow().name()));
        lock(&self.links.shared.ledger).begins(id, self.links.index, stores);
        let (told_by, unwanted) = oneshot::channel();
        let wanted = Wanted::default();
        let restore = Restoring { wanted: wanted.clone(), _unwanted: told_by };
        // Of what a store has without a changelog, the group knows how far it goes.
        let asks = !task.stores().is_empty() || task.follows_time();
        let restore = asks.then_some(restore);
        let restoring = restore.is_some();
        let (committed, processed_at_commit, reached) = (HashMap::new(), 0, Reached::default());
        let running = Running {
            task,
            engines,
            epoch,
            generation,
            flows,
            restore,
            committed,
            processed_at_commit,
            reached,
        };
        self.tasks.insert(id, running);
        if restoring {
            let request = RestoreRequest { task: id, epoch, changelogs, inputs, unwanted, wanted };
            return self.links.restores.send(request).map_err(|_| StreamsError::Closed);
        }
        self.started(id);
        Ok(())
    }

    fn open(&self, id: TaskId) -> Result<(Task, Engines), TaskError> {
        let shared = &self.links.shared;
        let mut engines = TaskEngines::new(shared, id);
        let mut open = |spec: &StoreSpec| engines.open(spec);
        let mut task =
            Task::with_budget(&shared.topology, id, shared.names.clone(), &mut open, &shared.cache)?;
        task.context_mut().ask_partition_count = Some(ask_partition_count(shared));
        task.context_mut().clock = Some(Arc::clone(&shared.clock));
        task.context_mut().exactly_once = shared.config.is_exactly_once();
        call_on_runtime(shared, &mut task);
        Ok((task, engines.opened()))
    }

    /// Applies what was read of a changelog; whether somebody wanted it.
    pub(super) fn restored(
        &mut self,
        id: TaskId,
        epoch: u64,
        topic: TopicId,
        records: &[Incoming],
        next_offset: i64,
    ) -> Result<bool, StreamsError> {
        let Some(running) = self.incarnation(id, epoch).filter(|running| running.is_restoring()) else {
            return Ok(false);
        };
        let mut names = Vec::new();
        let mut applied = Ok(());
        for store in running.task.stores() {
            let mut store = store.borrow_mut();
            if applied.is_ok() && store.changelog() == Some(topic) {
                applied = store.restore(records, next_offset);
                names.push(Arc::clone(store.name()));
            }
        }
        if let Err(error) = applied {
            self.not_restored(id, epoch, error)?;
            return Ok(false);
        }
        let (count, shared) = (records.len() as u64, &self.links.shared);
        shared.restored.fetch_add(count, Ordering::Relaxed);
        let bytes = records.iter().map(bytes_of).sum();
        let part = Part { records: count, bytes, to: next_offset };
        let mut ledger = lock(&shared.ledger);
        names.iter().for_each(|name| ledger.restored(id, name, part, Instant::now()));
        Ok(true)
    }

    pub(super) fn restore_ended(
        &mut self,
        id: TaskId,
        epoch: u64,
        committed: HashMap<TopicPartition, OffsetAndMetadata>,
    ) -> Result<(), StreamsError> {
        let Some(running) = self.incarnation(id, epoch) else { return Ok(()) };
        if running.restore.take().is_some() {
            let mut stores = running.task.stores().iter();
            let is_whole = stores.try_for_each(|store| is_whole(&mut *store.borrow_mut()));
            if let Err(error) = is_whole {
                return self.not_restored(id, epoch, error);
            }
            // What a clock brings forth before the first record is committed with these: without any offset, the
            // group would not be asked whether this is a member still.
            running.begin_at(committed);
            self.started(id);
        }
        Ok(())
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
        self.links.shared.positions.reach(id, &running.committed);
        lock(&self.links.shared.ledger).is_restored(id);
        self.links.shared.starting.fetch_sub(1, Ordering::AcqRel);
        self.links.shared.settle();
    }

    /// Gives tasks to the next owner, after a commit unless they are lost. If they are, nothing that this thread did
    /// since the last commit counts: it may have been written among what the next owner writes.
    pub(super) fn revoke(&mut self, ids: &[TaskId], commit: bool) -> Result<(), StreamsError> {
        let failed = self.links.shared.has_failed();
        if commit && !failed {
            self.commit_after(true)?;
        }
        for id in ids {
            let waiting = self.waiting.remove(id);
            lock(&self.links.shared.failing).forget(*id);
            // Until the group has said who has it now, queries read what was committed; but not if another one has been
            // at work.
            let taken = if commit && !failed { self.take_task(*id) } else { self.drop_task(*id) };
            let Some(running) = taken else {
                self.links.shared.starting.fetch_sub(usize::from(waiting), Ordering::AcqRel);
                continue;
            };
            if running.is_restoring() {
                self.links.shared.starting.fetch_sub(1, Ordering::AcqRel);
            }
            self.dropped_before.add(running.task.dropped());
            // It has all of its changelog at this time, which its next owner here may ask; unless it is lost, and
            // another one has been at work, nobody knows since when.
            let is_whole = commit && !failed && !running.is_restoring() && !running.has_changed();
            if let Err(error) = leave(&running.task, is_whole && running.task.is_settled()) {
                tracing::warn!(task = %id, %error, "what is on disk is behind, and will be restored");
            }
            if !failed {
                let lag = if running.is_restoring() { UNKNOWN_LAG } else { 0 };
                let Running { task, engines, .. } = running;
                drop(task);
                // For whoever has it next: itself after most rebalances, or a standby.
                self.links.shared.standbys.put(*id, engines, lag);
            }
        }
        self.links.shared.settle();
        if commit || failed {
            Ok(())
        } else {
            self.start_over("the group has gone on without this member", None)
        }
    }

    /// Takes a task off this thread, and its stores from those that can be queried.
    pub(super) fn drop_task(&mut self, id: TaskId) -> Option<Running> {
        let running = self.take_task(id)?;
        self.links.shared.unpublish(|task| task == id);
        Some(running)
    }

    /// Takes a task off this thread. Its stores can be queried as long as somebody keeps them.
    pub(super) fn take_task(&mut self, id: TaskId) -> Option<Running> {
        let mut running = self.tasks.remove(&id)?;
        if let Some(restoring) = &running.restore {
            restoring.wanted.end();
        }
        // What is committed need not be restored.
        if let Err(error) = running.task.settle(usize::MAX) {
            tracing::warn!(task = %id, %error, "the last commit is not written, and will be restored");
        }
        lock(&self.links.shared.ledger).ends(id);
        Some(running)
    }
}

fn bytes_of(record: &Incoming) -> u64 {
    [&record.key, &record.value].into_iter().flatten().map(|bytes| bytes.len() as u64).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::mpsc;
    use std::time::Duration;

    use bytes::Bytes;
    use klamm_client::testing::FakeBroker;
    use klamm_client::{Headers, RebalanceListener, TopicPartition};
    use tokio::sync::{mpsc as async_mpsc, watch};

    use super::super::failing::AfterFailure;
    use super::super::outbox::{ChangelogOffsets, Outgoing};
    use super::super::pump::Rebalances;
    use super::super::shared::{Route, Shared};
    use super::super::start::shared;
    use super::super::worker::WorkerLinks;
    use super::super::write_ahead::WriteAhead;
    use super::*;
    use crate::store::StoreError;
    use crate::streams::incoming::IncomingBatch;
    use crate::streams::node::Dropped;
    use crate::streams::{AppState, Materialized, StreamsBuilder, StreamsConfig};

    const TASK: TaskId = TaskId { sub_topology: 0, partition: 0 };

    /// A thread's inside, without the thread, and the restores it asks for.
    async fn worker(
        configure: fn(StreamsConfig) -> StreamsConfig,
    ) -> (Worker, async_mpsc::UnboundedReceiver<RestoreRequest>, async_mpsc::Receiver<Outgoing>) {
        let broker = FakeBroker::start().await.unwrap();
        let client = broker.client().await.unwrap();
        let mut streams = StreamsBuilder::new();
        let input = streams.stream::<String, String>("in").group_by_key();
        input.count(Materialized::named("counts").in_memory());
        let topology = streams.build().unwrap().inner;
        let (sender, commands) = mpsc::channel();
        let (rewound, _) = async_mpsc::unbounded_channel();
        let nothing: [TopicPartition; 0] = [];
        let ends = client.consumer().assign(nothing).start().await.unwrap().handle();
        let config = configure(StreamsConfig::new("app", ""));
        let shared = Arc::new(shared(topology, config, client, rewound, ends));
        shared.workers.insert(sender).unwrap();
        let (outbox, told) = async_mpsc::channel(16);
        let (restores, requests) = async_mpsc::unbounded_channel();
        let worker = Worker {
            links: WorkerLinks {
                index: 0,
                shared,
                commands,
                outbox,
                restores,
                wake_at_ms: watch::Sender::new(None),
            },
            tasks: BTreeMap::new(),
            waiting: BTreeSet::new(),
            changelogs: ChangelogOffsets::new(),
            dropped_before: Dropped::default(),
            next: None,
            committing: None,
            ahead: WriteAhead::default(),
        };
        (worker, requests, told)
    }

    fn flow(shared: &Shared, epoch: u64) -> Arc<Flow> {
        let partition = TopicPartition::new("in", 0);
        let (_, topic) = shared.task_of(&partition).unwrap();
        Arc::new(Flow::new(partition, topic, TASK, Route { worker: 0, epoch }, 1))
    }

    fn count(count: i64) -> Incoming {
        Incoming {
            offset: 0,
            timestamp_ms: 1,
            key: Some(Bytes::from_static(b"a")),
            value: Some(Bytes::copy_from_slice(&count.to_be_bytes())),
            headers: Headers::new(),
        }
    }

    /// Messages between restore and thread had only the task's id: what an earlier restore had still under way was
    /// written over what the next incarnation had counted, and its end ended the next one's.
    #[tokio::test]
    async fn what_was_meant_for_an_earlier_incarnation_does_not_reach_the_next() {
        let (mut worker, mut requests, _told) = worker(|config| config).await;
        let shared = Arc::clone(&worker.links.shared);
        shared.starting.store(1, Ordering::Release);
        worker.assign(TASK, 1, vec![flow(&shared, 1)]).unwrap();
        let first = requests.try_recv().unwrap();
        assert_eq!(first.epoch, 1);
        worker.revoke(&[TASK], true).unwrap();
        assert!(first.unwanted.await.is_err(), "a revoke ends the restore");
        assert_eq!(shared.starting.load(Ordering::Acquire), 0);

        shared.starting.store(1, Ordering::Release);
        shared.settle();
        worker.assign(TASK, 2, vec![flow(&shared, 2)]).unwrap();
        let second = requests.try_recv().unwrap();
        let changelog = second.changelogs[0].topic;
        assert!(!worker.restored(TASK, 1, changelog, &[count(7)], 70).unwrap());
        worker.restore_ended(TASK, 1, HashMap::new()).unwrap();
        worker.rebuild(TASK, 1, "for nothing").unwrap();
        let (_, topic) = shared.task_of(&TopicPartition::new("in", 0)).unwrap();
        let batch = IncomingBatch { records: vec![count(1)], next_offset: 1, is_last: true };
        let records = super::super::shared::Command::Records { task: TASK, epoch: 1, topic, batch };
        worker.obey(records).unwrap();
        assert_eq!(*shared.state.borrow(), AppState::Rebalancing, "it is not restored");
        let position = |worker: &Worker| worker.tasks[&TASK].task.stores()[0].borrow().position();
        assert_eq!(position(&worker).changelog_offset, 0);
        assert!(worker.restored(TASK, 2, changelog, &[count(5)], 50).unwrap());
        worker.restore_ended(TASK, 2, HashMap::new()).unwrap();
        assert_eq!((position(&worker).changelog_offset, *shared.state.borrow()), (50, AppState::Running));
        assert!(!worker.restored(TASK, 2, changelog, &[count(7)], 70).unwrap(), "it is over");
        assert!(!worker.tasks.get_mut(&TASK).unwrap().is_ready(), "nothing of the earlier one is queued");
    }

    /// It ended the application, though that was to go on without the task.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_store_that_cannot_be_written_while_it_is_restored_is_a_failure_of_its_task() {
        let restart = |config: StreamsConfig| {
            config.on_task_failure(|_| AfterFailure::RestartTask(Duration::from_secs(1)))
        };
        let (mut worker, mut requests, mut told) = worker(restart).await;
        let shared = Arc::clone(&worker.links.shared);
        shared.starting.store(1, Ordering::Release);
        worker.assign(TASK, 1, vec![flow(&shared, 1)]).unwrap();
        let request = requests.try_recv().unwrap();
        let full = || StoreError::Engine { store: "counts".to_owned(), source: "no space is left".into() };
        // As on its thread, where it may wait.
        tokio::task::block_in_place(|| worker.not_restored(TASK, 1, full())).unwrap();
        assert!(request.unwanted.await.is_err(), "the restore is over");
        assert!(worker.tasks.is_empty() && worker.waiting.contains(&TASK));
        assert_eq!(shared.starting.load(Ordering::Acquire), 1, "it is to be restored yet");
        let failing = lock(&shared.failing).all();
        assert_eq!((failing.len(), failing[0].attempts), (1, 1));
        assert!(failing[0].error.contains("no space is left"), "{}", failing[0].error);
        let lost = loop {
            if let Outgoing::Again(lost) = told.recv().await.unwrap() {
                break lost;
            }
        };
        assert_eq!((lost.tasks, lost.wait.as_secs()), (vec![(TASK, 1)], 1));
    }

    /// A task that waited to begin again was given up: the instance said that it ran, without any.
    #[tokio::test]
    async fn between_what_was_given_up_and_what_is_assigned_it_does_not_run() {
        let (mut worker, _requests, _told) = worker(|config| config).await;
        let shared = Arc::clone(&worker.links.shared);
        shared.starting.store(1, Ordering::Release);
        worker.assign(TASK, 1, vec![flow(&shared, 1)]).unwrap();
        let rebalances = Rebalances { shared: Arc::downgrade(&shared) };
        rebalances.revoked(&[]).await;
        worker.revoke(&[TASK], true).unwrap();
        shared.settle();
        assert_eq!(*shared.state.borrow(), AppState::Rebalancing);
    }
}
