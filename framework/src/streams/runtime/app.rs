//! `StreamsApp`: a running application.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use super::engines;
use super::error::StreamsError;
use super::failing::FailingTask;
use super::free_space::PauseReason;
use super::lag;
use super::observe::{self, TaskMetrics};
use super::placing::{self, StandbyTask};
use super::shared::{Background, Command, Shared, lock};
use super::state::AppState;
use super::stores::AppStore;
use super::threads;
use crate::store::StoreError;
use crate::streams::node::Dropped;

/// What an instance has done since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamsMetrics {
    /// Records processed, those of repartition topics included.
    pub processed: u64,
    /// Changelog records restored.
    pub restored: u64,
    /// Commits made, counted per thread.
    pub commits: u64,
    /// Records left out, as of the last commit.
    pub dropped: Dropped,
    /// Tasks that it has now.
    pub tasks: usize,
    /// What rows in use take in memory, of [`StreamsConfig::cache_bytes`](super::StreamsConfig::cache_bytes).
    pub cache_bytes: usize,
    /// What RocksDB holds of its files and of what is not in files yet, in the memory that the application shares with
    /// others: [`StreamsConfig::store_memory`](super::StreamsConfig::store_memory).
    pub block_cache_bytes: usize,
    /// What of it is not in files yet.
    pub write_buffer_bytes: usize,
}

/// A running topology: one instance of its application.
///
/// [`close`](Self::close) it to commit and leave the group at once. Dropping it stops it without a commit; what was not
/// committed is processed again by the next instance.
pub struct StreamsApp {
    pub(super) shared: Arc<Shared>,
    pub(super) ended: watch::Receiver<bool>,
    /// They end with it.
    pub(super) background: Background,
}

impl StreamsApp {
    /// What it is doing.
    pub fn state(&self) -> AppState {
        *self.shared.state.borrow()
    }

    /// What it is doing, to be watched.
    pub fn states(&self) -> watch::Receiver<AppState> {
        self.shared.state.subscribe()
    }

    /// Stops processing after the records in work; commits go on. The instance keeps its partitions and its place in
    /// the group.
    pub fn pause(&self) {
        self.shared.paused.store(true, Ordering::Release);
    }

    /// Undoes [`pause`](Self::pause). A disk that is full keeps it paused.
    pub fn resume(&self) {
        self.shared.paused.store(false, Ordering::Release);
        self.shared.tell_all(|| Command::Wake);
    }

    /// Why it processes nothing, though it could: somebody said so, or the disk is almost full.
    pub fn pause_reason(&self) -> Option<PauseReason> {
        let asked = self.shared.paused.load(Ordering::Acquire).then_some(PauseReason::Asked);
        asked.or_else(|| self.shared.disk_full())
    }

    /// Whether it is paused, for whatever reason.
    pub fn is_paused(&self) -> bool {
        self.shared.is_paused()
    }

    /// Waits until it does this. Bring your own timeout: a state may never come.
    ///
    /// # Errors
    /// It ended, and that is not what was waited for.
    pub async fn wait_for(&self, state: AppState) -> Result<(), Arc<StreamsError>> {
        let mut states = self.shared.state.subscribe();
        let last = |state: &AppState| matches!(state, AppState::Closed | AppState::Failed);
        let reached = states.wait_for(|now| *now == state || last(now)).await.map(|now| *now);
        match reached {
            Ok(now) if now == state => Ok(()),
            _ => Err(self.failure().unwrap_or_else(|| Arc::new(StreamsError::Closed))),
        }
    }

    /// Why it failed, if it did.
    pub fn failure(&self) -> Option<Arc<StreamsError>> {
        lock(&self.shared.failure).clone()
    }

    /// Tasks that failed and are not past it, where
    /// [`StreamsConfig::on_task_failure`](super::StreamsConfig::on_task_failure) lets them begin again.
    pub fn failing_tasks(&self) -> Vec<FailingTask> {
        lock(&self.shared.failing).all()
    }

    /// Waits until it ended: by a failure, or closed.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn ended(&self) -> Result<(), Arc<StreamsError>> {
        let mut ended = self.ended.clone();
        // The sender lives as long as the application's tasks; without them it has ended.
        ended.wait_for(|ended| *ended).await.ok();
        self.failure().map_or(Ok(()), Err)
    }

    /// What it has done since it started.
    pub fn metrics(&self) -> StreamsMetrics {
        let shared = &self.shared;
        let mut dropped = Dropped::default();
        lock(&shared.dropped).values().for_each(|of_worker| dropped.add(*of_worker));
        let (block_cache_bytes, write_buffer_bytes) =
            engines::memory_held(&shared.config).unwrap_or_default();
        StreamsMetrics {
            processed: shared.processed.load(Ordering::Relaxed),
            restored: shared.restored.load(Ordering::Relaxed),
            commits: shared.commits.load(Ordering::Relaxed),
            dropped,
            tasks: shared.routes().tasks.len(),
            cache_bytes: shared.cache.held_bytes(),
            block_cache_bytes,
            write_buffer_bytes,
        }
    }

    /// What the tasks that it has now did since it started, and what their stores hold; in the order of their ids. What
    /// is told of operators and threads is told to a recorder of [metrics](super::METRICS) only.
    ///
    /// It reads no files, and may wait a moment for a lock of RocksDB.
    pub fn tasks(&self) -> Vec<TaskMetrics> {
        observe::tasks(&self.shared)
    }

    /// What this instance holds of tasks that run elsewhere, in the order of their ids.
    pub fn standby_tasks(&self) -> Vec<StandbyTask> {
        placing::standby_tasks(&self.shared)
    }

    /// Starts another thread, which takes over some of the tasks (KIP-663); gives how many threads there are then.
    ///
    /// Tasks that move are committed before and go on from there, with their stores as they are: nothing is restored,
    /// and the group hears nothing of it. When this returns they have been handed over; the state is
    /// [`Running`](AppState::Running) again when they process.
    ///
    /// # Errors
    /// The thread cannot be started, or the application ends.
    pub async fn add_thread(&self) -> Result<usize, Arc<StreamsError>> {
        threads::add(&self.shared, &self.background).await.map_err(|error| self.ended_by(error))
    }

    /// Ends the thread with the fewest tasks, when others have taken them over as with
    /// [`add_thread`](Self::add_thread); gives how many threads there are then.
    ///
    /// Once begun it goes on, also when this is dropped.
    ///
    /// # Errors
    /// It is the last one ([`StreamsError::LastThread`]), or the application ends.
    pub async fn remove_thread(&self) -> Result<usize, Arc<StreamsError>> {
        threads::remove(&self.shared, &self.background).await.map_err(|error| self.ended_by(error))
    }

    /// How many threads process.
    pub fn threads(&self) -> usize {
        self.shared.workers.staying().len()
    }

    fn ended_by(&self, error: StreamsError) -> Arc<StreamsError> {
        match error {
            StreamsError::Closed => self.failure().unwrap_or_else(|| Arc::new(StreamsError::Closed)),
            error => Arc::new(error),
        }
    }

    /// Commits now instead of at the next interval.
    pub async fn commit(&self) {
        self.shared.commit_all().await;
    }

    /// How many records the application, all instances together, has still to process, as far as it is
    /// committed. Zero means that everything that was in the input topics when this was called has had its
    /// effect on every store and output. Records of transactions that are open count: when a commit is answered, the
    /// brokers may not have told it to readers yet.
    ///
    /// # Errors
    /// The cluster cannot be asked.
    pub async fn lag(&self) -> Result<u64, StreamsError> {
        lag::lag(&self.shared).await
    }

    /// Waits until the instance runs, whatever tasks it has, and [`lag`](Self::lag) is zero, committing meanwhile.
    /// Bring your own timeout: inputs that grow faster than they are processed keep it waiting, as does a task that
    /// fails again and again.
    ///
    /// # Errors
    /// The application ends, or the cluster cannot be asked.
    pub async fn caught_up(&self) -> Result<(), Arc<StreamsError>> {
        /// Between looks at the cluster; each costs a few requests.
        const PAUSE: Duration = Duration::from_millis(25);
        loop {
            self.commit().await;
            if let Some(failure) = self.failure() {
                return Err(failure);
            }
            if matches!(self.state(), AppState::Closing | AppState::Closed) {
                return Err(Arc::new(StreamsError::Closed));
            }
            match self.lag().await {
                Ok(0) if self.state() == AppState::Running => return Ok(()),
                Ok(_) => {}
                Err(StreamsError::Consume(error)) if error.is_retriable() => {}
                Err(error) => return Err(Arc::new(error)),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A state store, to be read from anywhere. Reads see what has been committed, never an update
    /// that a crash could take back. A large commit is written in parts: for a moment, some rows are as it left them
    /// and others still as the one before did. [`caught_up`](Self::caught_up) waits until all of them are written.
    ///
    /// ```no_run
    /// # async fn example(app: klamm::streams::StreamsApp) -> Result<(), klamm::store::StoreError> {
    /// let seen: Option<i64> = app.store::<String, i64>("counts")?.get("klamm").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The topology has no such store, or it holds other types.
    pub fn store<K: 'static, V: 'static>(&self, name: &str) -> Result<AppStore<K, V>, StoreError> {
        AppStore::new(Arc::clone(&self.shared), name)
    }

    /// Commits everything processed, gives the partitions back, leaves the group and ends the threads.
    ///
    /// # Errors
    /// Why the application had failed before, or failed while it closed.
    pub async fn close(self) -> Result<(), Arc<StreamsError>> {
        self.shared.state.send_if_modified(|state| {
            let runs = matches!(state, AppState::Rebalancing | AppState::Running);
            if runs {
                *state = AppState::Closing;
            }
            runs
        });
        self.shared.close.send_replace(true);
        self.ended().await
    }

    /// As [`close`](Self::close), with a deadline: what is not committed by then is left to whoever comes next.
    ///
    /// # Errors
    /// As [`close`](Self::close), and [`StreamsError::TimedOut`].
    pub async fn close_within(self, within: Duration) -> Result<(), Arc<StreamsError>> {
        // Dropped at the deadline, it stops without a commit.
        let closed = tokio::time::timeout(within, self.close()).await;
        let what = "the application was not closed, and stops without a commit";
        closed.unwrap_or_else(|_| Err(Arc::new(StreamsError::TimedOut { what, after: within })))
    }
}

impl Drop for StreamsApp {
    fn drop(&mut self) {
        self.shared.close.send_replace(true);
        self.shared.workers.close(|| Command::Stop);
        self.shared.standbys.end();
    }
}

impl fmt::Debug for StreamsApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (state, metrics) = (self.state(), self.metrics());
        f.debug_struct("StreamsApp").field("state", &state).field("metrics", &metrics).finish_non_exhaustive()
    }
}
