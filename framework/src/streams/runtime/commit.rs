//! The commit of a thread, and what follows from one that was not made.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use klamm_client::{OffsetAndMetadata, TopicPartition};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::committing::Committing;
use super::engines::makes_good;
use super::error::StreamsError;
use super::failing::During;
use super::observe::CommitResult;
use super::outbox::{Committed, Outgoing};
use super::rewind::Lost;
use super::running::Running;
use super::shared::lock;
use super::trouble::Trouble;
use super::worker::{ROWS_AT_A_TIME, Worker, send_outputs};
use crate::streams::error::TaskError;
use crate::streams::task::TaskId;

impl Worker {
    /// Outputs and changelogs first, then the input offsets, the stores last: a store that is behind its changelog is
    /// restored from it, while one that is ahead of the committed offsets would count records twice.
    pub(super) fn commit(&mut self) -> Result<(), StreamsError> {
        self.commit_after(false)
    }

    /// The same when tasks are given up: `all_calls` waits for those of all tasks that are under way.
    pub(super) fn commit_after(&mut self, all_calls: bool) -> Result<(), StreamsError> {
        match self.try_commit(all_calls) {
            // Found when rows were looked up or written: the changelogs have all that is committed, and what is not is
            // processed again.
            Err(StreamsError::Task { task, source: TaskError::Store(damage) })
                if makes_good(&self.links.shared, task, &damage) =>
            {
                self.put_aside(task, &damage.to_string())
            }
            Err(StreamsError::Task { task, source }) => self.failed(task, source, During::Work),
            other => other,
        }
    }

    fn try_commit(&mut self, all_calls: bool) -> Result<(), StreamsError> {
        let mut changed = false;
        let mut rows = 0;
        for (id, running) in &mut self.tasks {
            let waits_for_calls = all_calls || running.task.commits_as_one();
            let waits = waits_for_calls && running.task.is_calling();
            if !running.has_changed() && !waits {
                continue;
            }
            changed = true;
            rows += running.task.unsent();
            let failed = |source| StreamsError::Task { task: *id, source };
            running.task.go_on().map_err(failed)?;
            let mut is_last = false;
            while !is_last {
                is_last = running.task.flush_part(ROWS_AT_A_TIME).map_err(failed)?;
                send_outputs(&self.links.outbox, running.generation, &mut running.task)?;
            }
            // What was held back may have called, too.
            if waits_for_calls {
                let outbox = &self.links.outbox;
                let send =
                    |running: &mut Running| send_outputs(outbox, running.generation, &mut running.task);
                running.await_calls(|| outbox.is_closed(), send)?;
            }
        }
        let mut offsets: HashMap<_, _> = self.tasks.values().flat_map(Running::uncommitted_offsets).collect();
        if !changed && offsets.is_empty() {
            return Ok(());
        }
        if offsets.is_empty() {
            // What a clock brought forth has none, and the group is asked by them whether this is a member still.
            offsets = self.tasks.values().flat_map(|running| running.committed.clone()).collect();
        }
        // Whoever sees the offsets committed must not see the stores as they were before.
        let committing = Committing::begin(&self.links.shared);
        let began = Instant::now();
        let asked = self.ask_commit(offsets.clone())?;
        let result = match &asked {
            Ok(Committed { offsets: true, .. }) => CommitResult::Ok,
            Ok(_) => CommitResult::Later,
            Err(Trouble::Void { .. } | Trouble::Refused { .. }) => CommitResult::Void,
            Err(Trouble::Fatal(_)) => CommitResult::Failed,
        };
        lock(&self.links.shared.ledger).committed(self.links.index, result, began.elapsed());
        match asked {
            Ok(committed) => {
                self.ahead.committed(rows, began.elapsed());
                self.committed(committed, &offsets)?;
                let settled = self.tasks.values().all(|running| running.task.is_settled());
                self.committing = (!settled).then_some(committing);
                self.tell_positions();
                Ok(())
            }
            Err(Trouble::Void { why }) => self.start_over(&why, None),
            Err(Trouble::Refused { why, generation }) => self.start_over(&why, Some(generation)),
            Err(Trouble::Fatal(error)) => Err(error),
        }
    }

    /// Waits until all outputs are acknowledged and the offsets committed.
    fn ask_commit(
        &self,
        offsets: HashMap<TopicPartition, OffsetAndMetadata>,
    ) -> Result<Result<Committed, Trouble>, StreamsError> {
        let generation = self.tasks.values().map(|running| running.generation).max().unwrap_or(-1);
        let (reply, told) = oneshot::channel();
        self.tell(Outgoing::Commit { generation, offsets, reply })?;
        told.blocking_recv().map_err(|_| StreamsError::Closed)
    }

    fn committed(
        &mut self,
        committed: Committed,
        offsets: &HashMap<TopicPartition, OffsetAndMetadata>,
    ) -> Result<(), StreamsError> {
        #[expect(clippy::iter_over_hash_type, reason = "each changelog has an entry of its own")]
        for (changelog, offset) in committed.changelogs {
            let written = self.changelogs.entry(changelog).or_insert(0);
            *written = offset.max(*written);
        }
        if !committed.offsets {
            return Ok(());
        }
        for (id, running) in &mut self.tasks {
            running.committed.extend(running.own(offsets));
            let stores = running.commit_stores(&self.changelogs);
            stores.map_err(|source| StreamsError::Task { task: *id, source })?;
        }
        self.changelogs.clear();
        self.mend();
        let mut dropped = self.dropped_before;
        self.tasks.values().for_each(|running| dropped.add(running.task.dropped()));
        lock(&self.links.shared.dropped).insert(std::thread::current().id(), dropped);
        self.links.shared.commits.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Nothing since the last commit counts. All tasks that did something are dropped with what they hold, and begin
    /// again from there, with their stores as the last commit left them; `refused` is the generation of the group that
    /// it knows nothing of any more.
    pub(super) fn start_over(&mut self, why: &str, refused: Option<i32>) -> Result<(), StreamsError> {
        let begun = self.tasks.iter().filter(|(_, running)| !running.is_restoring());
        let tasks: Vec<(TaskId, u64)> = begun.map(|(id, running)| (*id, running.epoch)).collect();
        let application = self.links.shared.group();
        tracing::warn!(%application, tasks = tasks.len(), why, "begin again from the last commit");
        for (id, _) in &tasks {
            self.drop_task(*id);
            self.waiting.insert(*id);
        }
        self.links.shared.starting.fetch_add(tasks.len(), Ordering::AcqRel);
        self.links.shared.settle();
        self.changelogs.clear();
        self.committing = None;
        self.tell(Outgoing::Void(Lost { tasks, refused, ..Lost::default() }))
    }

    /// Lets readers of stores know how far those are that have all of the last commit.
    pub(super) fn tell_positions(&self) {
        for (id, running) in &self.tasks {
            if running.task.is_settled() && !running.is_restoring() {
                self.links.shared.positions.reach(*id, &running.committed);
            }
        }
    }

    pub(super) fn tell(&self, message: Outgoing) -> Result<(), StreamsError> {
        self.links.outbox.blocking_send(message).map_err(|_| StreamsError::Closed)
    }
}
