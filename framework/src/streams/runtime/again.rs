//! Tasks that begin again: with what there is on disk, without it, or after a while.

use std::time::Duration;

use super::directory;
use super::engines::makes_good;
use super::error::StreamsError;
use super::failing::During;
use super::outbox::Outgoing;
use super::rewind::Lost;
use super::worker::Worker;
use crate::store::StoreError;
use crate::streams::error::TaskError;
use crate::streams::task::TaskId;

impl Worker {
    /// A task could not be made, or its stores not be restored.
    pub(super) fn not_begun(
        &mut self,
        id: TaskId,
        epoch: u64,
        source: TaskError,
    ) -> Result<(), StreamsError> {
        match self.goes_on_after(id, &source, During::Beginning) {
            Some(wait) => self.again(id, epoch, wait),
            None => Err(StreamsError::Task { task: id, source }),
        }
    }

    /// A store could not be written while it was restored. If it is damaged, it begins anew.
    pub(super) fn not_restored(
        &mut self,
        id: TaskId,
        epoch: u64,
        error: StoreError,
    ) -> Result<(), StreamsError> {
        if self.incarnation(id, epoch).is_none() {
            return Ok(());
        }
        drop(self.drop_task(id));
        if !makes_good(&self.links.shared, id, &error) {
            return self.not_begun(id, epoch, TaskError::Store(error));
        }
        self.quarantine(id, &error.to_string())?;
        self.again(id, epoch, Duration::ZERO)
    }

    /// What a task has on disk cannot be gone on from: what follows on it is not in its changelog any more, or it has
    /// records itself that the changelog lost.
    pub(super) fn rebuild(&mut self, id: TaskId, epoch: u64, why: &str) -> Result<(), StreamsError> {
        if self.incarnation(id, epoch).is_none() {
            return Ok(());
        }
        tracing::warn!(task = %id, why, "the stores are built anew from their changelogs");
        drop(self.drop_task(id));
        directory::remove(&self.links.shared.task_directory(id))?;
        self.again(id, epoch, Duration::ZERO)
    }

    /// A task that is dropped begins again after `wait`, with what it finds on disk.
    fn again(&mut self, id: TaskId, epoch: u64, wait: Duration) -> Result<(), StreamsError> {
        self.waiting.insert(id);
        self.tell(Outgoing::Again(Lost { tasks: vec![(id, epoch)], wait, ..Lost::default() }))
    }

    /// A store turned out to be damaged while its task worked.
    pub(super) fn put_aside(&mut self, id: TaskId, why: &str) -> Result<(), StreamsError> {
        // All of them: this one is among those that are dropped, and its files are closed then.
        self.start_over(why, None)?;
        self.quarantine(id, why)
    }

    pub(super) fn quarantine(&self, id: TaskId, why: &str) -> Result<(), StreamsError> {
        let aside = directory::put_aside(&self.links.shared.task_directory(id))?;
        tracing::error!(
            task = %id, why, aside = %aside.display(),
            "damaged state was put aside; the stores are built anew from their changelogs"
        );
        Ok(())
    }
}
