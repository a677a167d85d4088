//! `StreamsApp`: a running application.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use super::error::StreamsError;
use super::lag;
use super::shared::{Background, Command, Shared, lock};
use super::state::AppState;
use super::stores::AppStore;
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
}

/// A running topology: one instance of its application.
///
/// [`close`](Self::close) it to commit and leave the group at once. Dropping it stops it without a commit; what was not
/// committed is processed again by the next instance.
pub struct StreamsApp {
    pub(super) shared: Arc<Shared>,
    pub(super) ended: watch::Receiver<bool>,
    // Held for their drop.
    pub(super) _background: Background,
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

    /// Undoes [`pause`](Self::pause).
    pub fn resume(&self) {
        self.shared.paused.store(false, Ordering::Release);
        self.shared.tell_all(|| Command::Wake);
    }

    /// Whether it is paused.
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
        StreamsMetrics {
            processed: shared.processed.load(Ordering::Relaxed),
            restored: shared.restored.load(Ordering::Relaxed),
            commits: shared.commits.load(Ordering::Relaxed),
            dropped,
            tasks: shared.routes().tasks.len(),
        }
    }

    /// Commits now instead of at the next interval.
    pub async fn commit(&self) {
        self.shared.commit_all().await;
    }

    /// How many records the application, all instances together, has still to process, as far as it is
    /// committed. Zero means that everything that was in the input topics when this was called has had its
    /// effect on every store and output.
    ///
    /// # Errors
    /// The cluster cannot be asked.
    pub async fn lag(&self) -> Result<u64, StreamsError> {
        lag::lag(&self.shared).await
    }

    /// Waits until the instance runs and [`lag`](Self::lag) is zero, committing meanwhile. Bring your own timeout:
    /// inputs that grow faster than they are processed keep it waiting.
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
    /// that a crash could take back.
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
        self.shared.tell_all(|| Command::Stop);
        self.shared.standbys.end();
    }
}

impl fmt::Debug for StreamsApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (state, metrics) = (self.state(), self.metrics());
        f.debug_struct("StreamsApp").field("state", &state).field("metrics", &metrics).finish_non_exhaustive()
    }
}
