//! What threads write down when a turn ends: sums since the application started, by task, thread and operator. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::samples::Samples;
use crate::streams::node::{CacheFigures, Dropped, Happened, Tally};
use crate::streams::task::TaskId;

/// The sums of an application.
#[derive(Debug, Default)]
pub(in super::super) struct Ledger {
    pub(super) tasks: BTreeMap<TaskId, TaskLine>,
    pub(super) threads: BTreeMap<usize, ThreadLine>,
    /// By the operators' names.
    pub(super) operators: BTreeMap<(Arc<str>, Happened), u64>,
}

/// A task, whichever of its incarnations.
#[derive(Debug, Default)]
pub(super) struct TaskLine {
    /// The thread that has it, if one has.
    pub(super) thread: Option<usize>,
    pub(super) is_restoring: bool,
    /// Of earlier incarnations.
    before: Counts,
    now: Counts,
    pub(super) stores: Vec<StoreLine>,
    /// How old the last record was, in milliseconds.
    pub(super) age_ms: Option<i64>,
    pub(super) seconds: Samples,
    pub(super) ages: Samples,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) processed: u64,
    pub(super) dropped: Dropped,
}

/// A store of a task.
#[derive(Debug, Default)]
pub(super) struct StoreLine {
    pub(super) name: Arc<str>,
    before: CacheFigures,
    now: CacheFigures,
    pub(super) restored: u64,
    pub(super) restored_bytes: u64,
    /// The one under way, or the last one of this incarnation.
    pub(super) restore: Option<RestoreLine>,
}

/// How far a restore is.
#[derive(Debug, Clone, Copy)]
pub(super) struct RestoreLine {
    from: i64,
    at: i64,
    to: i64,
    pub(super) began: Instant,
    last: Instant,
}

impl RestoreLine {
    /// Offsets that are still to be restored.
    pub(super) fn left(&self) -> u64 {
        u64::try_from(self.to - self.at).unwrap_or(0)
    }

    /// Offsets restored in a second, so far.
    pub(super) fn per_second(&self) -> u64 {
        let (done, took_us) = (self.at - self.from, (self.last - self.began).as_micros());
        let per_second = u128::try_from(done).unwrap_or(0) * 1_000_000 / took_us.max(1);
        u64::try_from(per_second).unwrap_or(u64::MAX)
    }
}

#[derive(Debug, Default)]
pub(super) struct ThreadLine {
    pub(super) busy: Duration,
    /// In the order of [`COMMIT_RESULTS`].
    pub(super) commits: [u64; COMMIT_RESULTS.len()],
    pub(super) commit_seconds: Samples,
    /// Gone; what it did still counts.
    pub(super) has_ended: bool,
}

pub(super) const COMMIT_RESULTS: [&str; 4] = ["ok", "later", "void", "failed"];

/// How a commit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum CommitResult {
    Ok,
    Later,
    Void,
    Failed,
}

/// A part of a changelog that was restored.
#[derive(Debug, Clone, Copy, Default)]
pub(in super::super) struct Part {
    pub(in super::super) records: u64,
    /// Their keys and values.
    pub(in super::super) bytes: u64,
    /// The first offset that is not part of it.
    pub(in super::super) to: i64,
}

/// What a task did in one of its turns.
#[derive(Debug)]
pub(in super::super) struct Turn<'a> {
    pub(in super::super) task: TaskId,
    pub(in super::super) thread: usize,
    /// Since this incarnation began.
    pub(in super::super) processed: u64,
    /// In this turn.
    pub(in super::super) records: u64,
    pub(in super::super) dropped: Dropped,
    pub(in super::super) took: Duration,
    /// How old the last record was, in milliseconds.
    pub(in super::super) age_ms: Option<i64>,
    pub(in super::super) tally: &'a mut Tally,
}

impl Ledger {
    /// A thread has a task from now on.
    pub(in super::super) fn begins(
        &mut self,
        task: TaskId,
        thread: usize,
        stores: impl Iterator<Item = Arc<str>>,
    ) {
        self.threads.entry(thread).or_default().has_ended = false;
        let line = self.tasks.entry(task).or_default();
        line.thread = Some(thread);
        line.is_restoring = true;
        for name in stores {
            if line.stores.iter().all(|store| store.name != name) {
                line.stores.push(StoreLine { name, ..StoreLine::default() });
            }
        }
    }

    /// Its stores are complete.
    pub(in super::super) fn is_restored(&mut self, task: TaskId) {
        if let Some(line) = self.tasks.get_mut(&task) {
            line.is_restoring = false;
        }
    }

    /// No thread has it any more.
    pub(in super::super) fn ends(&mut self, task: TaskId) {
        let Some(line) = self.tasks.get_mut(&task) else { return };
        line.thread = None;
        line.age_ms = None;
        let now = std::mem::take(&mut line.now);
        line.before.add(now);
        for store in &mut line.stores {
            let now = std::mem::take(&mut store.now);
            store.before.add(now);
            store.restore = None;
        }
    }

    /// A thread has ended.
    pub(in super::super) fn thread_ends(&mut self, thread: usize) {
        if let Some(line) = self.threads.get_mut(&thread) {
            line.has_ended = true;
        }
    }

    /// A store is to be restored from one offset to another.
    pub(in super::super) fn restores(
        &mut self,
        task: TaskId,
        store: &str,
        (from, to): (i64, i64),
        now: Instant,
    ) {
        if let Some(line) = self.store(task, store) {
            line.restore = Some(RestoreLine { from, at: from, to, began: now, last: now });
        }
    }

    /// A part of it is.
    pub(in super::super) fn restored(&mut self, task: TaskId, store: &str, part: Part, now: Instant) {
        if let Some(line) = self.store(task, store) {
            line.restored += part.records;
            line.restored_bytes += part.bytes;
            if let Some(restore) = &mut line.restore {
                (restore.at, restore.last) = (part.to, now);
            }
        }
    }

    fn store(&mut self, task: TaskId, store: &str) -> Option<&mut StoreLine> {
        self.tasks.get_mut(&task)?.stores.iter_mut().find(|line| &*line.name == store)
    }

    /// A turn has ended. `caches` are those of the task's stores, in the order in which it has them.
    pub(in super::super) fn turned(
        &mut self,
        turn: Turn<'_>,
        operators: &[Arc<str>],
        caches: impl Iterator<Item = CacheFigures>,
    ) {
        let Turn { task, thread, processed, records, dropped, took, age_ms, tally } = turn;
        self.threads.entry(thread).or_default().busy += took;
        let line = self.tasks.entry(task).or_default();
        line.now = Counts { processed, dropped };
        if records > 0 {
            line.seconds.add(took.as_secs_f64() / records as f64);
        }
        if let Some(age_ms) = age_ms {
            line.age_ms = Some(age_ms);
            line.ages.add(age_ms as f64 / 1_000.0);
        }
        line.stores.iter_mut().zip(caches).for_each(|(store, cache)| store.now = cache);
        for ((index, happened), times) in std::mem::take(tally) {
            let operator = operators.get(index).cloned().unwrap_or_default();
            *self.operators.entry((operator, happened)).or_default() += times;
        }
    }

    /// A commit has ended.
    pub(in super::super) fn committed(&mut self, thread: usize, result: CommitResult, took: Duration) {
        let line = self.threads.entry(thread).or_default();
        line.commits[result as usize] += 1;
        line.commit_seconds.add(took.as_secs_f64());
    }
}

impl TaskLine {
    pub(super) fn counts(&self) -> Counts {
        let mut counts = self.before;
        counts.add(self.now);
        counts
    }
}

impl StoreLine {
    pub(super) fn cache(&self) -> CacheFigures {
        let mut cache = self.before;
        cache.add(self.now);
        // Nothing is held of what is over.
        CacheFigures { held_bytes: self.now.held_bytes, ..cache }
    }

    /// Offsets that are still to be restored.
    pub(super) fn left(&self) -> u64 {
        self.restore.map_or(0, |restore| restore.left())
    }
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.processed += other.processed;
        self.dropped.add(other.dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: TaskId = TaskId { sub_topology: 0, partition: 3 };

    fn turn(thread: usize, processed: u64, tally: &mut Tally) -> Turn<'_> {
        let dropped = Dropped { late: processed / 10, ..Dropped::default() };
        let took = Duration::from_millis(10);
        Turn { task: TASK, thread, processed, records: 10, dropped, took, age_ms: Some(250), tally }
    }

    fn caches(hits: u64) -> impl Iterator<Item = CacheFigures> {
        std::iter::once(CacheFigures { hits, misses: 1, evictions: 0, held_bytes: 100 })
    }

    #[test]
    fn what_a_task_did_adds_up_over_its_incarnations() {
        let mut ledger = Ledger::default();
        let mut tally = Tally::from([((1, Happened::Skipped), 2)]);
        let operators: Vec<Arc<str>> = vec!["a".into(), "b".into()];
        for (thread, hits) in [(0, 5), (1, 7)] {
            ledger.begins(TASK, thread, ["counts".into()].into_iter());
            assert!(ledger.tasks[&TASK].is_restoring);
            let (began, a_second) = (Instant::now(), Duration::from_secs(1));
            ledger.restores(TASK, "counts", (100, 300), began);
            let part = Part { records: 50, bytes: 5_000, to: 150 };
            ledger.restored(TASK, "counts", part, began + a_second);
            ledger.restored(TASK, "of nobody", part, began);
            let restore = ledger.tasks[&TASK].stores[0].restore.unwrap();
            assert_eq!((restore.left(), restore.per_second()), (150, 50));
            let part = Part { records: 150, bytes: 15_000, to: 300 };
            ledger.restored(TASK, "counts", part, began + 2 * a_second);
            let restore = ledger.tasks[&TASK].stores[0].restore.unwrap();
            assert_eq!((restore.left(), restore.per_second()), (0, 100));
            ledger.is_restored(TASK);
            ledger.turned(turn(thread, 10, &mut tally), &operators, caches(hits - 1));
            ledger.turned(turn(thread, 20, &mut tally), &operators, caches(hits));
            let line = &ledger.tasks[&TASK];
            assert_eq!((line.thread, line.is_restoring, line.age_ms), (Some(thread), false, Some(250)));
            assert_eq!(line.stores[0].cache().held_bytes, 100);
            ledger.ends(TASK);
            ledger.thread_ends(thread);
        }
        let line = ledger.tasks.get_mut(&TASK).unwrap();
        assert_eq!((line.counts().processed, line.counts().dropped.late), (40, 4));
        assert_eq!((line.thread, line.age_ms, line.ages.take().len()), (None, None, 4));
        assert_eq!(line.seconds.take(), [0.001; 4]);
        let store = &line.stores[0];
        assert_eq!((store.restored, store.restored_bytes, store.left()), (400, 40_000, 0));
        assert_eq!(store.cache(), CacheFigures { hits: 12, misses: 2, evictions: 0, held_bytes: 0 });
        assert_eq!(ledger.operators, BTreeMap::from([(("b".into(), Happened::Skipped), 2)]));
        assert!(ledger.threads.values().all(|thread| thread.busy.as_millis() == 20 && thread.has_ended));
    }

    #[test]
    fn commits_are_told_apart_by_how_they_end() {
        let mut ledger = Ledger::default();
        for result in [CommitResult::Ok, CommitResult::Void, CommitResult::Ok] {
            ledger.committed(2, result, Duration::from_millis(5));
        }
        assert_eq!(ledger.threads[&2].commits, [2, 0, 1, 0]);
        assert_eq!(ledger.threads.get_mut(&2).unwrap().commit_seconds.take(), [0.005; 3]);
    }
}
