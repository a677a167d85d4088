//! A stream thread: runs its tasks' loops and commits them. It waits on its channel only, and never on the network but
//! while a commit is under way.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak, mpsc};
use std::time::Duration;

use tokio::sync::{mpsc as async_mpsc, watch};

use super::committing::Committing;
use super::error::StreamsError;
use super::failing::During;
use super::outbox::{ChangelogOffsets, Outgoing};
use super::restore::RestoreRequest;
use super::running::Running;
use super::shared::{Command, Shared};
use super::write_ahead::WriteAhead;
use crate::panic_text::text_of_panic;
use crate::streams::node::Dropped;
use crate::streams::task::{Task, TaskId};

/// What a thread is started with.
pub(super) struct WorkerLinks {
    /// Which thread it is.
    pub(super) index: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) outbox: async_mpsc::Sender<Outgoing>,
    pub(super) restores: async_mpsc::UnboundedSender<RestoreRequest>,
    /// When a task wants to be told the time, should nothing else happen before.
    pub(super) wake_at_ms: watch::Sender<Option<i64>>,
}

/// Runs until the application is gone. A failure or panic of a task stops the application.
pub(super) fn run(links: WorkerLinks) {
    let shared = Arc::downgrade(&links.shared);
    let mut worker = Worker {
        links,
        tasks: BTreeMap::new(),
        waiting: BTreeSet::new(),
        changelogs: ChangelogOffsets::new(),
        dropped_before: Dropped::default(),
        next: None,
        committing: None,
        ahead: WriteAhead::default(),
    };
    // What a panic leaves half done is never committed: the worker and its tasks are dropped right after.
    let ended = catch_unwind(AssertUnwindSafe(|| worker.work()));
    let failure = match ended {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error),
        Err(panic) => Some(StreamsError::Panicked(text_of_panic(panic))),
    };
    if let (Some(error), Some(shared)) = (failure, Weak::upgrade(&shared)) {
        shared.fail(error);
    }
}

/// Rows of a task that are written between two rounds, some milliseconds.
pub(super) const ROWS_AT_A_TIME: usize = 4_096;

pub(super) struct Worker {
    pub(super) links: WorkerLinks,
    pub(super) tasks: BTreeMap<TaskId, Running>,
    /// Tasks that are to begin again, until the pump has gone back.
    pub(super) waiting: BTreeSet<TaskId>,
    /// How far the changelogs are written, since the last commit.
    pub(super) changelogs: ChangelogOffsets,
    /// Of tasks that are closed.
    pub(super) dropped_before: Dropped,
    /// Where the next round begins: after the task that had the last slice of one that was over too soon.
    pub(super) next: Option<TaskId>,
    /// While stores do not have all that is committed.
    pub(super) committing: Option<Committing>,
    pub(super) ahead: WriteAhead,
}

impl Worker {
    fn work(&mut self) -> Result<(), StreamsError> {
        loop {
            self.turn()?;
            let ready = !self.links.shared.is_paused() && self.tasks.values_mut().any(Running::is_ready);
            let command = match ready || self.committing.is_some() {
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
                None if ready => self.process()?,
                None => self.write_on()?,
            }
        }
    }

    /// Tells the tasks the time, and the clock when one of them wants to be told again.
    fn turn(&mut self) -> Result<(), StreamsError> {
        let shared = &self.links.shared;
        if shared.is_paused() {
            return Ok(());
        }
        let now_ms = shared.clock.now_ms();
        let is_due = |running: &Running| !running.is_restoring() && running.task.is_due(now_ms);
        let due = self.tasks.iter().filter(|(_, running)| is_due(running)).map(|(id, _)| *id);
        for id in due.collect::<Vec<_>>() {
            self.spare_others(id)?;
        }
        let shared = &self.links.shared;
        let mut next: Option<i64> = None;
        let (mut failed, mut begins) = (None, false);
        for (id, running) in self.tasks.iter_mut().filter(|(_, running)| !running.is_restoring()) {
            let before = running.task.is_begun();
            let turned = running.task.turn(now_ms);
            begins |= !before && running.task.is_begun();
            running.tell_of_clocks(self.links.index, shared);
            match turned {
                Ok(due) => next = [next, due].into_iter().flatten().min(),
                Err(source) => {
                    let during =
                        if running.task.is_begun() { During::Punctuation } else { During::Beginning };
                    failed = Some((*id, source, during));
                    break;
                }
            }
            send_outputs(&self.links.outbox, running.generation, &mut running.task)?;
        }
        if begins {
            self.mend();
        }
        self.links.wake_at_ms.send_if_modified(|at| std::mem::replace(at, next) != next);
        match failed {
            Some((id, source, during)) => self.failed(id, source, during),
            None => self.commit_if_due(),
        }
    }

    pub(super) fn obey(&mut self, command: Command) -> Result<(), StreamsError> {
        match command {
            Command::Assign { task, epoch, flows } => self.assign(task, epoch, flows)?,
            Command::Revoke { tasks, commit, done } => {
                self.revoke(&tasks, commit)?;
                done.send(()).ok();
            }
            Command::Move { tasks, done } => {
                self.move_away(&tasks)?;
                done.send(()).ok();
            }
            Command::Records { task, epoch, topic, batch } => {
                if let Some(running) = self.incarnation(task, epoch) {
                    running.task.add(topic, batch);
                }
            }
            Command::Restored { task, epoch, topic, records, next_offset, done } => {
                if self.restored(task, epoch, topic, &records, next_offset)? {
                    done.send(()).ok();
                }
            }
            Command::RestoreEnded { task, epoch, committed } => self.restore_ended(task, epoch, committed)?,
            Command::NotRestored { task, epoch, error } => self.not_restored(task, epoch, error)?,
            Command::Rebuild { task, epoch, why } => self.rebuild(task, epoch, &why)?,
            Command::Idle { task, epoch, lasts } => self.idle(task, epoch, lasts)?,
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

    /// Lets the time of a task go on, unless records have come for it meanwhile.
    fn idle(&mut self, id: TaskId, epoch: u64, lasts: Duration) -> Result<(), StreamsError> {
        if self.links.shared.is_paused() {
            return Ok(());
        }
        let silent = |running: &&mut Running| !running.is_restoring() && running.is_silent();
        if self.incarnation(id, epoch).filter(silent).is_none() {
            return Ok(());
        }
        self.spare_others(id)?;
        // A commit may have ended it.
        let Some(running) = self.incarnation(id, epoch) else { return Ok(()) };
        match running.task.idle(lasts) {
            Ok(()) => Ok(()),
            Err(source) => self.failed(id, source, During::Work),
        }
    }

    /// The task, unless it is another incarnation of it by now.
    pub(super) fn incarnation(&mut self, id: TaskId, epoch: u64) -> Option<&mut Running> {
        self.tasks.get_mut(&id).filter(|running| running.epoch == epoch)
    }
}

pub(super) fn send_outputs(
    outbox: &async_mpsc::Sender<Outgoing>,
    generation: i32,
    task: &mut Task,
) -> Result<(), StreamsError> {
    let outputs = task.take_outputs();
    if outputs.is_empty() {
        return Ok(());
    }
    let sent = outbox.blocking_send(Outgoing::Outputs { generation, partition: task.id.partition, outputs });
    sent.map_err(|_| StreamsError::Closed)
}
