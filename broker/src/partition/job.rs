//! What waits for the disk: one thing after the other, done by a thread of the log directory, whoever waits for it.
//!
//! What was begun ends, also when its caller has gone. How much may wait is bounded for each partition and for each log
//! directory, so that a disk that hangs does not fill the memory.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::batch::{Appended, CheckedBatch};
use super::error::{AppendError, interrupted};
use super::handle::Partition;
use super::writer::Writer;
use crate::budget::Share;
use crate::log::StorageError;

/// How often a thread looks for more work of the same partition before others have their turn.
const ROUNDS_MAX: usize = 16;
/// What a question counts while it waits, in bytes.
const QUESTION_BYTES: usize = 4_096;

type Work = Box<dyn FnOnce(&Arc<Partition>) + Send>;

/// Something to be done.
pub(super) enum Job {
    /// Batches that wait together are written together.
    Append(PendingAppend),
    Other(Work),
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Append(_) => "Append",
            Self::Other(_) => "Other",
        })
    }
}

/// A batch that waits for the disk.
pub(super) struct PendingAppend {
    pub(super) batch: CheckedBatch,
    pub(super) answer: oneshot::Sender<Result<Appended, AppendError>>,
    /// The share of the frame that the batch is a slice of.
    pub(super) _frame: Option<Arc<Share>>,
    pub(super) _room: Option<Room>,
}

/// A part of what may wait, given back when dropped.
pub(super) struct Room {
    _partition: OwnedSemaphorePermit,
    _directory: OwnedSemaphorePermit,
}

/// Somebody was sent to do what waits.
struct Turn {
    partition: Arc<Partition>,
    began: bool,
    nothing_left: bool,
}

impl Turn {
    fn run(mut self) {
        self.began = true;
        for _ in 0..ROUNDS_MAX {
            self.partition.do_jobs();
            if !self.partition.jobs.done() {
                self.nothing_left = true;
                return;
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.nothing_left {
            return;
        }
        if !self.began {
            // The threads have ended. Whoever waits is told by this.
            drop(self.partition.jobs.take());
        }
        // After a panic, or when others should have their turn.
        if self.partition.jobs.done() {
            self.partition.send_for_work();
        }
    }
}

impl Partition {
    /// Asks the writer something; it is not asked when nobody waits for the answer any more.
    pub(super) async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        question: impl FnOnce(&Arc<Self>, &mut Writer) -> T + Send + 'static,
    ) -> Result<T, StorageError> {
        self.with_writer(false, question).await
    }

    /// Lets the writer change something, whoever waits for it once it is in the queue.
    pub(super) async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&Arc<Self>, &mut Writer) -> T + Send + 'static,
    ) -> Result<T, StorageError> {
        self.with_writer(true, change).await
    }

    async fn with_writer<T: Send + 'static>(
        self: &Arc<Self>,
        whoever_waits: bool,
        work: impl FnOnce(&Arc<Self>, &mut Writer) -> T + Send + 'static,
    ) -> Result<T, StorageError> {
        if self.home.executor.runs_in_place() {
            return Ok(work(self, &mut *self.writer()?));
        }
        self.opened()?;
        let room = self.room_for(QUESTION_BYTES).await;
        let (sender, receiver) = oneshot::channel();
        self.queue(Job::Other(Box::new(move |partition| {
            let _room = room;
            if whoever_waits || !sender.is_closed() {
                let done = partition.writer().map(|mut writer| work(partition, &mut writer));
                let _ = sender.send(done);
            }
        })));
        receiver.await.map_err(|_| interrupted())?
    }

    /// Waits until so much more may wait for the disk.
    pub(super) async fn room_for(&self, bytes: usize) -> Room {
        let count = count(bytes);
        Room {
            _partition: acquire(&self.room, count).await,
            _directory: acquire(&self.home.room, count).await,
        }
    }

    /// The same, if it may at once.
    pub(super) fn try_room_for(&self, bytes: usize) -> Option<Room> {
        let count = count(bytes);
        Some(Room {
            _partition: self.room.clone().try_acquire_many_owned(count).ok()?,
            _directory: self.home.room.clone().try_acquire_many_owned(count).ok()?,
        })
    }

    pub(super) fn queue(self: &Arc<Self>, job: Job) {
        if self.jobs.push(job) {
            self.send_for_work();
        }
    }

    fn send_for_work(self: &Arc<Self>) {
        let turn = Turn { partition: self.clone(), began: false, nothing_left: false };
        self.home.executor.start(move || turn.run());
    }

    fn do_jobs(self: &Arc<Self>) {
        let mut appends = Vec::new();
        for job in self.jobs.take() {
            match job {
                Job::Append(append) => appends.push(append),
                Job::Other(work) => {
                    self.append_all(std::mem::take(&mut appends));
                    work(self);
                }
            }
        }
        self.append_all(appends);
    }
}

/// A batch that is larger than what may wait counts as all of that.
fn count(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX).min(Partition::ROOM_BYTES)
}

async fn acquire(room: &Arc<Semaphore>, count: u32) -> OwnedSemaphorePermit {
    match room.clone().acquire_many_owned(count).await {
        Ok(permit) => permit,
        // It is never closed.
        Err(_) => std::future::pending().await,
    }
}
