//! Which log is compacted when: the one of which most was not yet, as long as there is one that is worth it.

use std::collections::BTreeSet;
use std::future::ready;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, FuturesUnordered};
use futures::{FutureExt, StreamExt};
use klamm_protocol::Uuid;
use klamm_runtime::{Clock, Rng};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use super::compaction::{Compacted, CompactionMeans};
use super::compaction_steps::CompactionError;
use super::error::is_of_disk;
use super::handle::Partition;
use super::log_dir::{Key, LogDir};
use super::reserve::NoRoom;
use super::resting::Resting;
use super::rules::AppendOrigin;
use crate::log::cleaner::{Candidate, KeyHasher, Pace};

/// How long one log is waited for when all are looked at.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many logs are looked at at the same time.
const LOOKS_AT_ONCE: usize = 4;
/// How many logs that are worth it are remembered: with many partitions, looking at all of them for each compaction
/// takes longer than the compactions do.
const REMEMBERED: usize = 64;
/// How long to wait at least, before all logs are looked at again, or one that could not be compacted is tried again.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// What is read at a time at least, however small the buffer is.
const CHUNK_BYTES_MIN: usize = 4_096;

/// How the logs of a broker are compacted, under Kafka's names.
#[derive(Debug, Clone, PartialEq)]
pub struct CleanerOptions {
    /// `log.cleaner.enable`: whether they are at all.
    pub enable: bool,
    /// `log.cleaner.threads`: how many logs at the same time.
    pub threads: usize,
    /// `log.cleaner.dedupe.buffer.size`: memory for keys, of all threads together, in bytes.
    pub dedupe_buffer_bytes: usize,
    /// `log.cleaner.io.buffer.load.factor`: how full that may get, from 0 to 1.
    pub io_buffer_load_factor: f64,
    /// `log.cleaner.io.buffer.size`: memory for reading, of all threads together, in bytes.
    pub io_buffer_bytes: usize,
    /// `log.cleaner.io.max.bytes.per.second`: how fast they read and write, together.
    pub io_max_bytes_per_second: f64,
    /// `log.cleaner.backoff.ms`: how long to wait when no log is worth it, or one could not be compacted; a tenth of a
    /// second at least.
    pub backoff: Duration,
}

impl Default for CleanerOptions {
    fn default() -> Self {
        Self {
            enable: true,
            threads: 1,
            dedupe_buffer_bytes: 128 << 20,
            io_buffer_load_factor: 0.9,
            io_buffer_bytes: 512 << 10,
            io_max_bytes_per_second: f64::MAX,
            backoff: Duration::from_secs(15),
        }
    }
}

/// Compacts the logs of a broker.
#[derive(Debug)]
pub(super) struct Cleaner {
    dirs: Vec<Arc<LogDir>>,
    clock: Arc<dyn Clock>,
    options: watch::Sender<CleanerOptions>,
    hasher: KeyHasher,
    pace: Mutex<Pace>,
    /// Logs that are being compacted.
    busy: Mutex<BTreeSet<Key>>,
    /// Logs that cannot be compacted before the next start.
    never: Mutex<BTreeSet<(Key, Uuid)>>,
}

/// The turn of a log, until this is dropped.
struct Busy<'a> {
    cleaner: &'a Cleaner,
    key: Key,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        lock(&self.cleaner.busy).remove(&self.key);
    }
}

/// Logs that were worth it when all were looked at, the one that was worth it most last.
type Waiting = Vec<(Arc<LogDir>, Arc<Partition>)>;

/// A log that is worth it.
struct Due<'a> {
    _busy: Busy<'a>,
    dir: Arc<LogDir>,
    partition: Arc<Partition>,
    candidate: Candidate,
}

/// What one log is compacted with.
struct Means<'a> {
    cleaner: &'a Cleaner,
    options: CleanerOptions,
    dir: Arc<LogDir>,
    log: Arc<Partition>,
}

impl Cleaner {
    pub(super) fn new(
        dirs: Vec<Arc<LogDir>>,
        clock: Arc<dyn Clock>,
        rng: &dyn Rng,
        options: CleanerOptions,
    ) -> Self {
        let hasher = KeyHasher::new([rng.next_u64(), rng.next_u64()]);
        let pace = Mutex::new(Pace::new(Instant::now()));
        let options = watch::Sender::new(options);
        Self { dirs, clock, options, hasher, pace, busy: Mutex::default(), never: Mutex::default() }
    }

    /// Goes by these from the next log on.
    pub(super) fn set_options(&self, options: CleanerOptions) {
        self.options.send_replace(options);
    }

    /// Compacts what is worth it, for ever.
    pub(super) async fn run(self: Arc<Self>) {
        let mut changes = self.options.subscribe();
        let (mut resting, mut waiting) = (Resting::default(), Waiting::new());
        let mut under_way: FuturesUnordered<BoxFuture<'_, (Key, bool)>> = FuturesUnordered::new();
        loop {
            let options = changes.borrow_and_update().clone();
            let pause = options.backoff.max(PAUSE_MIN);
            while options.enable && under_way.len() < options.threads.max(1) {
                resting.wake(Instant::now());
                let mut failed = Vec::new();
                let due = {
                    let mut next = pin!(self.next(&mut waiting, resting.keys()));
                    // What is under way goes on while others are looked at.
                    loop {
                        tokio::select! {
                            biased;
                            Some((key, done)) = under_way.next(), if !under_way.is_empty() => {
                                if !done {
                                    failed.push(key);
                                }
                            }
                            due = &mut next => break due,
                        }
                    }
                };
                failed.into_iter().for_each(|key| resting.add(key, Instant::now() + pause));
                let Some(due) = due else { break };
                let key = due.partition.key();
                under_way.push(self.compact(due, options.clone()).map(|done| (key, done)).boxed());
            }
            tokio::select! {
                // The same history makes the same moves.
                biased;
                Some((key, done)) = under_way.next(), if !under_way.is_empty() => {
                    if !done {
                        resting.add(key, Instant::now() + pause);
                    }
                }
                () = sleep(pause) => {}
                _ = changes.changed() => resting = Resting::default(),
            }
        }
    }

    /// Compacts what is worth it now, one log after the other. Says how many were.
    pub(super) async fn run_once(&self) -> usize {
        let options = self.options.borrow().clone();
        let (mut done, mut seen, mut waiting) = (0, BTreeSet::new(), Waiting::new());
        while let Some(due) = self.next(&mut waiting, &seen).await {
            let key = due.partition.key();
            match self.compact(due, options.clone()).await {
                true => done += 1,
                false => drop(seen.insert(key)),
            }
        }
        done
    }

    /// The log that is worth it most, of those that may be compacted and are not among these. It is nobody else's.
    async fn next(&self, waiting: &mut Waiting, passed_over: &BTreeSet<Key>) -> Option<Due<'_>> {
        let mut looked = false;
        loop {
            while let Some((dir, partition)) = waiting.pop() {
                // Since it was looked at, it may have been compacted, or deleted.
                let Some((dir, partition, candidate)) = self.look_at(dir, partition, passed_over).await
                else {
                    continue;
                };
                let key = partition.key();
                // Another one may have been faster.
                if lock(&self.busy).insert(key.clone()) {
                    return Some(Due { _busy: Busy { cleaner: self, key }, dir, partition, candidate });
                }
            }
            if looked {
                return None;
            }
            *waiting = self.filthiest(passed_over).await;
            looked = true;
        }
    }

    /// Those that are worth it, and most of them most.
    async fn filthiest(&self, passed_over: &BTreeSet<Key>) -> Waiting {
        let compacted = self.dirs.iter().flat_map(|dir| {
            let all: Vec<_> = dir.partitions().values().cloned().collect();
            all.into_iter().filter(|log| log.config().compact).map(|log| (dir.clone(), log))
        });
        let looks: Vec<_> =
            compacted.map(|(dir, partition)| self.look_at(dir, partition, passed_over)).collect();
        let found = stream::iter(looks).buffered(LOOKS_AT_ONCE).filter_map(ready);
        let mut found = found.collect::<Vec<_>>().await;
        found.sort_by(|(_, _, one), (_, _, other)| other.dirty_ratio.total_cmp(&one.dirty_ratio));
        found.truncate(REMEMBERED);
        found.into_iter().rev().map(|(dir, partition, _)| (dir, partition)).collect()
    }

    async fn look_at(
        &self,
        dir: Arc<LogDir>,
        partition: Arc<Partition>,
        passed_over: &BTreeSet<Key>,
    ) -> Option<(Arc<LogDir>, Arc<Partition>, Candidate)> {
        let key = partition.key();
        if passed_over.contains(&key)
            || lock(&self.busy).contains(&key)
            || lock(&self.never).contains(&(key.clone(), partition.topic_id()))
        {
            return None;
        }
        let cleaned_to = dir.cleaned_to().get(&key);
        let look = timeout(PATIENCE, partition.compaction_due(cleaned_to, self.clock.now_ms()));
        let candidate = look.await.ok().flatten()?;
        Some((dir, partition, candidate))
    }

    /// Says whether it could be done.
    async fn compact(&self, due: Due<'_>, options: CleanerOptions) -> bool {
        let Due { _busy, dir, partition, candidate } = due;
        let key = partition.key();
        let means = Means { cleaner: self, options, dir: dir.clone(), log: partition.clone() };
        let compacted = partition.compact(candidate, self.clock.now_ms(), &means).await;
        let noted = match compacted {
            Ok(compacted) => {
                tell(&partition, &compacted);
                let log = partition.clone();
                note(&dir, move |dir| dir.note_cleaned(&log, compacted.to)).await
            }
            Err(error) => Err(error),
        };
        match noted {
            Ok(()) => return true,
            Err(error) if partition.offline().is_some() => {
                tracing::debug!(topic = %partition.topic(), partition = partition.index(), %error, "not compacted");
            }
            Err(error @ (CompactionError::Later(_) | CompactionError::NotWritten(_))) => tracing::warn!(
                topic = %partition.topic(), partition = partition.index(), %error,
                "the log could not be compacted; it is tried again"
            ),
            Err(error @ CompactionError::Never(_)) => {
                tracing::error!(
                    topic = %partition.topic(), partition = partition.index(), %error,
                    "the log cannot be compacted, and grows until the broker is started again"
                );
                lock(&self.never).insert((key, partition.topic_id()));
            }
        }
        false
    }
}

fn tell(partition: &Partition, compacted: &Compacted) {
    let Compacted { to, bytes_before, bytes_after, without_key } = *compacted;
    let (topic, index) = (partition.topic(), partition.index());
    if without_key > 0 {
        tracing::warn!(
            %topic, partition = index, records = without_key,
            "records without a key were dropped: the topic is compacted, and was not when they came"
        );
    }
    tracing::info!(%topic, partition = index, to, bytes_before, bytes_after, "compacted a log");
}

impl CompactionMeans for Means<'_> {
    fn key_memory(&self) -> (usize, f64) {
        (self.options.dedupe_buffer_bytes / self.options.threads.max(1), self.options.io_buffer_load_factor)
    }

    fn chunk_bytes(&self) -> usize {
        (self.options.io_buffer_bytes / self.options.threads.max(1)).max(CHUNK_BYTES_MIN)
    }

    fn hasher(&self) -> KeyHasher {
        self.cleaner.hasher
    }

    async fn pause(&self, bytes: u64) {
        let rate = self.options.io_max_bytes_per_second;
        let pause = lock(&self.cleaner.pace).pause_after(bytes, rate, Instant::now());
        match pause.is_zero() {
            true => yield_now().await,
            false => sleep(pause).await,
        }
    }

    async fn before_gaps(&self, to: i64) -> Result<(), CompactionError> {
        let log = self.log.clone();
        note(&self.dir, move |dir| dir.note_gaps(&log, to)).await
    }

    async fn admit(&self, bytes: u64) -> Result<(), CompactionError> {
        let (health, now_ms) = (self.dir.health().clone(), self.cleaner.clock.now_ms());
        let admitted =
            self.dir.executor().run(move || health.room_for(AppendOrigin::Coordinator, bytes, now_ms));
        let admitted = admitted.await.map_err(|ended| CompactionError::Later(ended.to_string()))?;
        admitted.map_err(|NoRoom { free_bytes, reserve_bytes }| {
            CompactionError::Later(format!(
                "it may take {bytes} bytes for a while, {free_bytes} are free, and {reserve_bytes} of them are kept \
                 free (log.dir.reserve.bytes). Free some space; no restart is needed"
            ))
        })
    }
}

/// Writes a checkpoint of the cleaner's. A disk that fails then has failed for all of its log directory.
async fn note(
    dir: &Arc<LogDir>,
    write: impl FnOnce(&LogDir) -> io::Result<()> + Send + 'static,
) -> Result<(), CompactionError> {
    let noting = dir.clone();
    let noted = dir.executor().run(move || write(&noting)).await;
    let noted = noted.map_err(|ended| CompactionError::Later(ended.to_string()))?;
    noted.map_err(|error| {
        if is_of_disk(&error) {
            let path = dir.path().display();
            dir.health().fail(format!("writing the cleaner's checkpoints of {path} failed: {error}"));
        }
        CompactionError::NotWritten(error)
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
