//! Which log is compacted when: the one of which most was not yet, as long as there is one that is worth it.

use std::collections::BTreeSet;
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::{self, FuturesUnordered};
use futures::{FutureExt, StreamExt};
use klamm_protocol::Uuid;
use klamm_runtime::{Clock, Rng};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use super::compaction::{Compacted, CompactionMeans};
use super::compaction_steps::CompactionError;
use super::handle::Partition;
use super::log_dir::{Key, LogDir};
use crate::log::cleaner::{Candidate, KeyHasher, Pace};

/// How long one log is waited for when all are looked at.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many logs are looked at at the same time.
const LOOKS_AT_ONCE: usize = 4;
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
    /// `log.cleaner.backoff.ms`: how long to wait when no log is worth it.
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
    key: Key,
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
        let mut resting = BTreeSet::new();
        let mut under_way = FuturesUnordered::new();
        loop {
            let options = changes.borrow_and_update().clone();
            while options.enable && under_way.len() < options.threads.max(1) {
                let Some(due) = self.filthiest(&resting).await else { break };
                let key = due.partition.key();
                under_way.push(self.compact(due, options.clone()).map(|done| (key, done)));
            }
            tokio::select! {
                // The same history makes the same moves.
                biased;
                Some((key, done)) = under_way.next(), if !under_way.is_empty() => {
                    if !done {
                        resting.insert(key);
                    }
                }
                () = sleep(options.backoff) => resting.clear(),
                _ = changes.changed() => {}
            }
        }
    }

    /// Compacts what is worth it now, one log after the other. Says how many were.
    pub(super) async fn run_once(&self) -> usize {
        let options = self.options.borrow().clone();
        let (mut done, mut seen) = (0, BTreeSet::new());
        while let Some(due) = self.filthiest(&seen).await {
            let key = due.partition.key();
            match self.compact(due, options.clone()).await {
                true => done += 1,
                false => drop(seen.insert(key)),
            }
        }
        done
    }

    /// The log that is worth it most, of those that may be compacted and are not among these. It is nobody else's.
    async fn filthiest(&self, passed_over: &BTreeSet<Key>) -> Option<Due<'_>> {
        let now_ms = self.clock.now_ms();
        let compacted = self.dirs.iter().flat_map(|dir| {
            let all: Vec<_> = dir.partitions().values().cloned().collect();
            all.into_iter().filter(|log| log.config().compact).map(|log| (dir.clone(), log))
        });
        let looks: Vec<_> = compacted
            .filter(|(_, log)| !passed_over.contains(&log.key()) && !lock(&self.busy).contains(&log.key()))
            .filter(|(_, log)| !lock(&self.never).contains(&(log.key(), log.topic_id())))
            .map(|(dir, partition)| async move {
                let cleaned_to = dir.cleaned_to().get(&partition.key());
                let look = timeout(PATIENCE, partition.compaction_due(cleaned_to, now_ms));
                let candidate = look.await.ok().flatten()?;
                Some((dir, partition, candidate))
            })
            .collect();
        let found = stream::iter(looks).buffered(LOOKS_AT_ONCE).filter_map(ready).collect::<Vec<_>>().await;
        let best = found.into_iter().reduce(|best, next| {
            let better = next.2.dirty_ratio > best.2.dirty_ratio;
            if better { next } else { best }
        });
        let (dir, partition, candidate) = best?;
        let key = partition.key();
        // Another one may have been faster.
        let is_free = lock(&self.busy).insert(key.clone());
        is_free.then(|| Due { _busy: Busy { cleaner: self, key }, dir, partition, candidate })
    }

    /// Says whether it could be done.
    async fn compact(&self, due: Due<'_>, options: CleanerOptions) -> bool {
        let Due { _busy, dir, partition, candidate } = due;
        let key = partition.key();
        let means = Means { cleaner: self, options, dir: dir.clone(), key: key.clone() };
        let compacted = partition.compact(candidate, self.clock.now_ms(), &means).await;
        let noted = match compacted {
            Ok(compacted) => {
                tell(&partition, &compacted);
                let noting = dir.clone();
                let key = key.clone();
                let noted = dir.executor().run(move || noting.cleaned_to().set(&key, compacted.to)).await;
                match noted {
                    Ok(noted) => noted.map_err(CompactionError::from),
                    Err(ended) => Err(CompactionError::Later(ended.to_string())),
                }
            }
            Err(error) => Err(error),
        };
        match noted {
            Ok(()) => return true,
            Err(error) if partition.offline().is_some() => {
                tracing::debug!(topic = %partition.topic(), partition = partition.index(), %error, "not compacted");
            }
            Err(CompactionError::Later(error)) => tracing::warn!(
                topic = %partition.topic(), partition = partition.index(), %error,
                "the log could not be compacted; it is tried again"
            ),
            Err(CompactionError::Never(error)) => {
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
        let (dir, key) = (self.dir.clone(), self.key.clone());
        let noted = self.dir.executor().run(move || dir.gaps_to().raise(&key, to)).await;
        Ok(noted.map_err(|ended| CompactionError::Later(ended.to_string()))??)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
