//! Who waits for a flush, and the threads that do it.
//!
//! Every partition goes its own way: it is synced as soon as a thread for it is free, and nobody waits for the slowest
//! of a round. On a disk that does not block, a task does it, one partition after the other.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::disk::{Disk, Executor, Held};

/// How many partitions of a directory are synced at the same time: a journal commits those that wait together in one
/// go, and the device merges their barriers. Threads come as they are needed.
const SYNCS_MAX: usize = 64;
/// How long after a flush for which there was no descriptor or no thread it is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// No flush is asked for later than that: the clock has an end.
const LONGEST_DELAY: Duration = Duration::from_secs(86_400 * 365);

/// What waits in the queue: a partition.
pub(super) trait Flushed: fmt::Debug + Send + Sync {
    /// The flush that was asked for.
    fn flush_queued(self: Arc<Self>);

    /// There is no thread for the flush that was asked for.
    fn not_begun(self: Arc<Self>);

    /// Time to ask again for a flush that could not be.
    fn ask_again(self: Arc<Self>);
}

/// The partitions of a log directory that wait for a flush.
#[derive(Debug)]
pub(super) struct FlushQueue {
    syncs: Executor,
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Where syncs run in place; elsewhere they wait for a thread.
    partitions: Vec<Weak<dyn Flushed>>,
    /// The checkpoints are to be written.
    checkpoints: bool,
    /// What could not be flushed now, for want of a descriptor or a thread.
    later: Vec<Weak<dyn Flushed>>,
    /// What is to be flushed some time from now.
    in_time: Vec<(Duration, Weak<dyn Flushed>)>,
    closed: bool,
}

/// A flush that a thread was asked for.
struct FlushTurn(Option<Arc<dyn Flushed>>);

impl FlushTurn {
    fn run(mut self) {
        if let Some(partition) = self.0.take() {
            partition.flush_queued();
        }
    }
}

impl Drop for FlushTurn {
    fn drop(&mut self) {
        if let Some(partition) = self.0.take() {
            partition.not_begun();
        }
    }
}

impl FlushQueue {
    pub(super) fn new(disk: &dyn Disk) -> Self {
        let syncs = Executor::new(disk, "klamm-sync", SYNCS_MAX);
        Self { syncs, waiting: Mutex::default(), wake: Notify::new() }
    }

    /// Has a partition flushed.
    pub(super) fn push(&self, partition: Arc<dyn Flushed>) {
        if self.syncs.runs_in_place() {
            self.waiting().partitions.push(Arc::downgrade(&partition));
            return self.wake.notify_one();
        }
        let turn = FlushTurn(Some(partition));
        self.syncs.start(move || turn.run());
    }

    /// Has a flush tried again in a moment.
    pub(super) fn later(&self, partition: Arc<dyn Flushed>) {
        self.waiting().later.push(Arc::downgrade(&partition));
        self.wake.notify_one();
    }

    /// Has a partition asked for a flush some time from now.
    pub(super) fn in_time(&self, partition: Arc<dyn Flushed>, delay: Duration) {
        self.waiting().in_time.push((delay, Arc::downgrade(&partition)));
        self.wake.notify_one();
    }

    /// Has the checkpoints written: segments were closed and are durable, or somebody waits for it.
    pub(super) fn ask_for_checkpoints(&self) {
        self.waiting().checkpoints = true;
        self.wake.notify_one();
    }

    /// Lets [`run_flusher`] end after what is queued.
    pub(super) fn close(&self) {
        self.waiting().closed = true;
        self.wake.notify_one();
    }

    /// The threads that sync.
    pub(super) fn syncs(&self) -> &Executor {
        &self.syncs
    }

    /// Begins no more syncs; see [`Executor::close`].
    pub(super) fn close_threads(&self, held: Held) {
        self.syncs.close(held);
    }

    /// Waits for partitions to flush in place, checkpoints, or what is to be tried again. Nothing when the queue is
    /// closed
    /// and empty; then nothing is tried again.
    async fn next(&self, timers: &mut Timers) -> Option<Due> {
        loop {
            {
                let mut waiting = self.waiting();
                waiting.in_time.drain(..).for_each(|(delay, partition)| timers.set(delay, partition));
                if waiting.closed {
                    waiting.later.clear();
                    timers.0.clear();
                }
                let asked = timers.take_due(Instant::now());
                let is_due = waiting.checkpoints || !waiting.later.is_empty() || !asked.is_empty();
                if is_due || !waiting.partitions.is_empty() {
                    return Some(Due {
                        partitions: std::mem::take(&mut waiting.partitions),
                        checkpoints: std::mem::take(&mut waiting.checkpoints),
                        later: std::mem::take(&mut waiting.later),
                        asked,
                    });
                }
                if waiting.closed {
                    return None;
                }
            }
            match timers.0.keys().next().copied() {
                Some(first) => drop(timeout_at(first, self.wake.notified()).await),
                None => self.wake.notified().await,
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `write_checkpoints` when that was asked for, beside the flushes; where the disk does not block, flushes, too.
/// Until the queue is closed.
pub(super) async fn run_flusher(
    queue: Arc<FlushQueue>,
    executor: Executor,
    write_checkpoints: impl Fn() + Send + Sync + 'static,
) {
    let (write, mut timers) = (Arc::new(write_checkpoints), Timers::default());
    while let Some(Due { partitions, checkpoints, later, asked }) = queue.next(&mut timers).await {
        asked.iter().filter_map(Weak::upgrade).for_each(Flushed::ask_again);
        partitions.iter().filter_map(Weak::upgrade).for_each(Flushed::flush_queued);
        if checkpoints {
            let write = write.clone();
            let _ = executor.run(move || write()).await;
        }
        if !later.is_empty() {
            tokio::time::sleep(TRY_AGAIN).await;
            later.iter().filter_map(Weak::upgrade).for_each(Flushed::ask_again);
        }
    }
}

struct Due {
    partitions: Vec<Weak<dyn Flushed>>,
    checkpoints: bool,
    later: Vec<Weak<dyn Flushed>>,
    /// Whose time has come.
    asked: Vec<Weak<dyn Flushed>>,
}

/// What is to be asked for when.
#[derive(Default)]
struct Timers(BTreeMap<Instant, Vec<Weak<dyn Flushed>>>);

impl Timers {
    fn set(&mut self, delay: Duration, partition: Weak<dyn Flushed>) {
        let at = Instant::now() + delay.min(LONGEST_DELAY);
        self.0.entry(at).or_default().push(partition);
    }

    fn take_due(&mut self, now: Instant) -> Vec<Weak<dyn Flushed>> {
        let mut due = Vec::new();
        while let Some(first) = self.0.first_entry().filter(|first| *first.key() <= now) {
            due.extend(first.remove());
        }
        due
    }
}
