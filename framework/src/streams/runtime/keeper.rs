//! The thread that keeps standbys: tasks whose stores follow their changelogs, and that process nothing. A thread of
//! its own, so that it never holds up one that processes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, mpsc};

use tokio::sync::{mpsc as async_mpsc, oneshot};

use super::changelogs::{ChangelogStart, WORTH_A_STAMP_MS, changelogs};
use super::directory;
use super::engines::{TaskEngines, makes_good};
use super::error::StreamsError;
use super::shared::Shared;
use super::standbys::{Engines, Order, UNKNOWN_LAG};
use crate::store::{Batch, StoreError};
use crate::streams::error::TaskError;
use crate::streams::incoming::Incoming;
use crate::streams::node::{StoreSpec, TopicId};
use crate::streams::task::{Task, TaskId};

/// What the reader of changelogs is told.
pub(super) enum Tail {
    Follow { task: TaskId, epoch: u64, changelogs: Vec<ChangelogStart> },
    Leave { task: TaskId },
}

/// A task that follows.
struct Standby {
    task: Task,
    engines: Engines,
    epoch: u64,
}

pub(super) struct Keeper {
    pub(super) shared: Arc<Shared>,
    pub(super) tails: async_mpsc::UnboundedSender<Tail>,
    standbys: BTreeMap<TaskId, Standby>,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>, tails: async_mpsc::UnboundedSender<Tail>) -> Self {
        Self { shared, tails, standbys: BTreeMap::new() }
    }

    /// Runs until it is told to stop. A standby that fails is given up: it is no reason to stop what runs.
    pub(super) fn run(mut self, orders: &mpsc::Receiver<Order>) {
        while let Ok(order) = orders.recv() {
            match order {
                Order::Follow { standbys, active, done } => self.follow(&standbys, &active, done),
                Order::Apply { task, epoch, topic, records, next_offset, done } => {
                    match self.apply(task, epoch, topic, &records, next_offset) {
                        Ok(true) => drop(done.send(())),
                        Ok(false) => {}
                        Err(error) => self.failed(task, &error),
                    }
                }
                Order::Whole { task, epoch, at_ms } => {
                    if let Err(error) = self.is_whole(task, epoch, at_ms) {
                        self.failed(task, &error);
                    }
                }
                Order::Rebuild { task, epoch, why } => self.rebuild(task, epoch, &why),
                Order::Stop => break,
            }
        }
        let all: Vec<TaskId> = self.standbys.keys().copied().collect();
        all.into_iter().for_each(|task| drop(self.leave(task)));
    }

    fn follow(&mut self, standbys: &BTreeSet<TaskId>, active: &BTreeSet<TaskId>, done: oneshot::Sender<()>) {
        let old: Vec<TaskId> =
            self.standbys.keys().filter(|task| !standbys.contains(task)).copied().collect();
        for task in old {
            let lag = self.shared.standbys.standby_lags().get(&task).copied().unwrap_or(UNKNOWN_LAG);
            if let Some(engines) = self.leave(task)
                && active.contains(&task)
            {
                self.shared.standbys.put(task, engines, lag);
            }
        }
        self.shared.standbys.retain(|task| active.contains(&task) || standbys.contains(&task));
        // What runs next waits for no standby to be opened.
        done.send(()).ok();
        for task in standbys {
            if !self.standbys.contains_key(task) {
                self.begin(*task);
            }
        }
    }

    fn begin(&mut self, id: TaskId) {
        if id.sub_topology >= self.shared.topology.sub_topologies.len() {
            return;
        }
        let opened = match self.open(id) {
            Err(TaskError::Store(damage)) if self.put_aside(id, &damage) => self.open(id),
            other => other,
        };
        match opened {
            Ok((task, engines)) => {
                let epoch = self.shared.standbys.next_epoch();
                let changelogs = changelogs(&task);
                if changelogs.is_empty() {
                    return;
                }
                self.shared.standbys.set_lag(id, Some(UNKNOWN_LAG));
                self.shared.standbys.inputs.begin(id, epoch);
                self.shared.standbys.publish(id, &self.followed(&engines));
                self.standbys.insert(id, Standby { task, engines, epoch });
                self.tails.send(Tail::Follow { task: id, epoch, changelogs }).ok();
            }
            Err(error) => tracing::warn!(task = %id, %error, "no standby is kept of this task"),
        }
    }

    /// Those that have a changelog: of others it has nothing, or what was left here by a task that ran long ago.
    fn followed(&self, engines: &Engines) -> Engines {
        let is_logged = |name: &str| self.shared.topology.store(name).is_some_and(|store| store.logged);
        engines.iter().filter(|(name, _)| is_logged(name)).cloned().collect()
    }

    fn open(&self, id: TaskId) -> Result<(Task, Engines), TaskError> {
        let shared = &self.shared;
        let mut engines = TaskEngines::new(shared, id);
        let mut open = |spec: &StoreSpec| engines.open(spec);
        let task = Task::with_budget(&shared.topology, id, shared.names.clone(), &mut open, &shared.cache)?;
        Ok((task, engines.opened()))
    }

    fn apply(
        &mut self,
        id: TaskId,
        epoch: u64,
        topic: TopicId,
        records: &[Incoming],
        next_offset: i64,
    ) -> Result<bool, StoreError> {
        let Some(standby) = self.standbys.get(&id).filter(|standby| standby.epoch == epoch) else {
            return Ok(false);
        };
        for store in standby.task.stores() {
            let mut store = store.borrow_mut();
            if store.changelog() == Some(topic) {
                store.restore(records, next_offset)?;
            }
        }
        Ok(true)
    }

    /// What is applied from now on is stamped with this time; and what there is, if its stamp is much older.
    fn is_whole(&mut self, id: TaskId, epoch: u64, at_ms: i64) -> Result<(), StoreError> {
        let Some(standby) = self.standbys.get(&id).filter(|standby| standby.epoch == epoch) else {
            return Ok(());
        };
        for (_, engine) in &standby.engines {
            // Whatever an interrupted load has left.
            engine.end_restore()?;
            engine.begin_restore(at_ms);
            if engine.last_written_ms()?.is_some_and(|stamp_ms| at_ms - stamp_ms >= WORTH_A_STAMP_MS) {
                engine.apply(&Batch { position: Some(engine.position()?), ..Batch::new() })?;
            }
        }
        Ok(())
    }

    fn failed(&mut self, id: TaskId, error: &StoreError) {
        tracing::warn!(task = %id, %error, "a standby fails");
        drop(self.leave(id));
        if self.put_aside(id, error) {
            self.begin(id);
        }
    }

    /// Puts aside what a task has on disk, if that is damaged; whether it may be begun anew.
    fn put_aside(&self, id: TaskId, damage: &StoreError) -> bool {
        if !makes_good(&self.shared, id, damage) {
            return false;
        }
        match directory::put_aside(&self.shared.task_directory(id)) {
            Ok(aside) => {
                tracing::error!(task = %id, %damage, aside = %aside.display(), "damaged state was put aside");
                true
            }
            Err(error) => {
                tracing::warn!(task = %id, %error, "damaged state cannot be put aside");
                false
            }
        }
    }

    fn rebuild(&mut self, id: TaskId, epoch: u64, why: &str) {
        if self.standbys.get(&id).is_none_or(|standby| standby.epoch != epoch) {
            return;
        }
        tracing::warn!(task = %id, why, "a standby is built anew from its changelogs");
        drop(self.leave(id));
        let removed: Result<(), StreamsError> = directory::remove(&self.shared.task_directory(id));
        match removed {
            Ok(()) => self.begin(id),
            Err(error) => tracing::warn!(task = %id, %error, "no standby is kept of this task"),
        }
    }

    /// Follows a task no longer; gives its stores, with all that was applied on the disk.
    fn leave(&mut self, id: TaskId) -> Option<Engines> {
        let Standby { engines, task, .. } = self.standbys.remove(&id)?;
        drop(task);
        self.shared.standbys.unpublish(id, &engines);
        self.shared.standbys.inputs.end(id);
        self.shared.standbys.set_lag(id, None);
        self.tails.send(Tail::Leave { task: id }).ok();
        for (store, engine) in &engines {
            if let Err(error) = engine.flush() {
                tracing::warn!(task = %id, %store, %error, "what was applied last is restored when it is needed");
            }
        }
        Some(engines)
    }
}

#[cfg(test)]
mod tests {
    use klamm_client::TopicPartition;
    use klamm_client::testing::FakeBroker;

    use super::super::start::shared;
    use super::*;
    use crate::streams::{Materialized, StreamsBuilder, StreamsConfig};

    const TASK: TaskId = TaskId { sub_topology: 0, partition: 0 };

    /// What is on its way of one changelog while another one has the standby built anew lies behind what it lacks then.
    #[tokio::test]
    async fn what_was_read_for_an_earlier_life_of_a_standby_does_not_reach_the_next() {
        let broker = FakeBroker::start().await.unwrap();
        let client = broker.client().await.unwrap();
        let mut streams = StreamsBuilder::new();
        let input = streams.stream::<String, String>("in").group_by_key();
        input.count(Materialized::named("counts").in_memory());
        let topology = streams.build().unwrap().inner;
        let (rewound, _) = async_mpsc::unbounded_channel();
        let nothing: [TopicPartition; 0] = [];
        let ends = client.consumer().assign(nothing).start().await.unwrap().handle();
        let directory = tempfile::tempdir().unwrap();
        let config = StreamsConfig::new("app", "").state_dir(directory.path());
        let shared = Arc::new(shared(topology, config, client, rewound, ends));
        let (tails, mut told) = async_mpsc::unbounded_channel();
        let mut keeper = Keeper::new(shared, tails);
        let (done, _followed) = oneshot::channel();
        keeper.follow(&BTreeSet::from([TASK]), &BTreeSet::new(), done);
        let Ok(Tail::Follow { epoch: first, changelogs, .. }) = told.try_recv() else { panic!("it follows") };
        let topic = changelogs[0].topic;
        keeper.rebuild(TASK, first, "its changelog lost records");
        assert!(matches!(told.try_recv(), Ok(Tail::Leave { .. })));
        let Ok(Tail::Follow { epoch: second, .. }) = told.try_recv() else { panic!("it follows again") };
        assert!(!keeper.apply(TASK, first, topic, &[], 70).unwrap());
        keeper.rebuild(TASK, first, "and once more");
        assert!(told.try_recv().is_err(), "that is done");
        assert!(keeper.apply(TASK, second, topic, &[], 7).unwrap());
        let position = keeper.standbys[&TASK].task.stores()[0].borrow().position();
        assert_eq!(position.changelog_offset, 7);
    }
}
