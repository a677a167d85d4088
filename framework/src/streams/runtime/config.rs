//! The settings of an application.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::{Client, IsolationLevel};

use super::failing::{AfterFailure, OnFailure, TaskFailure};
#[cfg(feature = "streams")]
use crate::store::StoreMemory;
use crate::streams::policy::ErrorPolicy;
use crate::streams::topology::Migration;

/// How a topology runs. Defaults are Kafka's unless a method says otherwise.
#[derive(Debug, Clone)]
pub struct StreamsConfig {
    pub(super) application_id: Arc<str>,
    pub(super) bootstrap: String,
    pub(super) client: Option<Client>,
    pub(super) state_dir: PathBuf,
    pub(super) threads: usize,
    pub(super) commit_interval: Option<Duration>,
    pub(super) min_free_bytes: Option<u64>,
    pub(super) cache_bytes: usize,
    #[cfg(feature = "streams")]
    pub(super) store_memory: Option<StoreMemory>,
    pub(super) on_error: ErrorPolicy,
    pub(super) on_task_failure: OnFailure,
    pub(super) migration: Migration,
    pub(super) replication: i16,
    pub(super) buffered_records: usize,
    pub(super) linger: Duration,
    pub(super) session_timeout: Duration,
    pub(super) max_task_idle: Option<Duration>,
    pub(super) idle_after: Option<Duration>,
    pub(super) guarantee: Guarantee,
    pub(super) standby_replicas: usize,
    pub(super) max_warmup_replicas: usize,
    pub(super) acceptable_lag: u64,
    pub(super) probing_rebalance_interval: Duration,
    pub(super) application_server: Option<Arc<str>>,
    #[cfg(feature = "queries")]
    pub(super) query_server: Option<String>,
    #[cfg(feature = "queries")]
    pub(super) danger_open_queries: bool,
}

/// What is promised of each input record's effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guarantee {
    AtLeastOnce,
    ExactlyOnce,
}

impl StreamsConfig {
    /// Application `application_id` on the cluster at `bootstrap` (`host:port`, or several separated by
    /// commas). The id names the consumer group, the internal topics and the state directory; instances with
    /// the same id share the work.
    pub fn new(application_id: impl Into<Arc<str>>, bootstrap: impl Into<String>) -> Self {
        Self {
            application_id: application_id.into(),
            bootstrap: bootstrap.into(),
            client: None,
            state_dir: PathBuf::from("streams-state"),
            threads: 1,
            commit_interval: None,
            min_free_bytes: None,
            cache_bytes: 64 * 1024 * 1024,
            #[cfg(feature = "streams")]
            store_memory: None,
            on_error: ErrorPolicy::default(),
            on_task_failure: OnFailure::default(),
            migration: Migration::default(),
            replication: -1,
            buffered_records: 20_000,
            linger: Duration::from_millis(20),
            session_timeout: Duration::from_secs(45),
            max_task_idle: Some(Duration::ZERO),
            idle_after: None,
            guarantee: Guarantee::AtLeastOnce,
            standby_replicas: 0,
            max_warmup_replicas: 2,
            acceptable_lag: 10_000,
            probing_rebalance_interval: Duration::from_secs(600),
            application_server: None,
            #[cfg(feature = "queries")]
            query_server: None,
            #[cfg(feature = "queries")]
            danger_open_queries: false,
        }
    }

    /// Each input record has its effects on outputs and stores exactly once (`processing.guarantee=exactly_once_v2`),
    /// whatever crashes, is cut off or paused in between. What a thread writes and the offsets that it read up to
    /// become visible together, in transactions: readers of the outputs have to read committed records only
    /// ([`IsolationLevel::ReadCommitted`](klamm_client::IsolationLevel)). Effects outside of the cluster are not
    /// covered. Commits are made every 100 ms unless [`commit_interval`](Self::commit_interval) says otherwise.
    ///
    /// All instances of an application have the same guarantee: one with another is refused by the group.
    #[must_use]
    pub fn exactly_once(mut self) -> Self {
        self.guarantee = Guarantee::ExactlyOnce;
        self
    }

    pub(super) fn is_exactly_once(&self) -> bool {
        self.guarantee == Guarantee::ExactlyOnce
    }

    pub(super) fn commit_every(&self) -> Duration {
        let usual = match self.guarantee {
            Guarantee::AtLeastOnce => Duration::from_secs(30),
            Guarantee::ExactlyOnce => Duration::from_millis(100),
        };
        self.commit_interval.unwrap_or(usual)
    }

    /// What members may see of what others are about to commit.
    pub(super) fn isolation(&self) -> IsolationLevel {
        match self.guarantee {
            Guarantee::AtLeastOnce => IsolationLevel::ReadUncommitted,
            Guarantee::ExactlyOnce => IsolationLevel::ReadCommitted,
        }
    }

    /// The application's part of the state directory.
    pub(super) fn directory(&self) -> PathBuf {
        self.state_dir.join(&*self.application_id)
    }

    /// Uses this client's connections instead of opening its own; `bootstrap` is not looked at then.
    #[must_use]
    pub fn client(mut self, client: Client) -> Self {
        self.client = Some(client);
        self
    }

    /// Where stores lie on disk (`state.dir`): `<state_dir>/<application id>/<task>`. `streams-state` in the working
    /// directory unless set; unlike Kafka's `/tmp/kafka-streams`, no tool of the system empties it.
    #[must_use]
    pub fn state_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.state_dir = directory.into();
        self
    }

    /// How much has to be free on the disk of the state directory: 256 MiB unless set, or a twentieth of a small disk;
    /// 0 turns it off. With less, nothing is processed or restored until there is an eighth more, in place of failing
    /// in the middle of a write; [`StreamsApp::pause_reason`](super::StreamsApp::pause_reason) and the log say so. What
    /// was processed before is still written then, so let it be more than [`cache_bytes`](Self::cache_bytes).
    ///
    /// Looked at every second on Unix, in topologies that keep something on disk.
    #[must_use]
    pub fn min_free_bytes(mut self, bytes: u64) -> Self {
        self.min_free_bytes = Some(bytes);
        self
    }

    /// How many threads process (`num.stream.threads`), at least 1, the default. More of them can come and go later:
    /// [`StreamsApp::add_thread`](super::StreamsApp::add_thread).
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// How often progress is committed and held-back table updates are forwarded (`commit.interval.ms`): 30 s unless
    /// set, 100 ms with [`exactly_once`](Self::exactly_once); a millisecond at least. A full cache commits sooner.
    #[must_use]
    pub fn commit_interval(mut self, interval: Duration) -> Self {
        self.commit_interval = Some(interval.max(Duration::from_millis(1)));
        self
    }

    /// Memory for rows in use, of all tables and threads together (`statestore.cache.max.bytes`): 64 MiB unless set,
    /// where Kafka has 10. It is counted as it is held, rows that wait for a commit and those that are only kept at
    /// hand, and comes out of [`store_memory`](Self::store_memory) where stores are on disk. Of a key only the last
    /// update before a commit is forwarded; where commits would take too long, those of longest ago are forwarded
    /// ahead of them. 0 forwards each by itself.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// The memory of the stores: rows in use (see [`cache_bytes`](Self::cache_bytes)), and what the stores on disk
    /// need. Unless set, all applications of the process share one budget, see [`StoreMemory::shared`].
    #[cfg(feature = "streams")]
    #[must_use]
    pub fn store_memory(mut self, memory: StoreMemory) -> Self {
        self.store_memory = Some(memory);
        self
    }

    /// What becomes of records that an operator cannot process, where it has no policy of its own
    /// ([`KStream::on_error`](crate::streams::KStream::on_error)): the application fails unless set.
    #[must_use]
    pub fn on_error(mut self, policy: ErrorPolicy) -> Self {
        self.on_error = policy;
        self
    }

    /// What becomes of the application when a task fails: when an operator's policy says that a record is a failure, or
    /// a store cannot be written (`setUncaughtExceptionHandler`). It ends unless this says otherwise. With
    /// [`AfterFailure::RestartTask`] the other tasks go on, and the one that failed begins again from the last commit:
    /// [`StreamsApp::failing_tasks`](super::StreamsApp::failing_tasks) tells which those are. Tasks of the same thread
    /// may have to process again what they did since the last commit, the first time that one fails.
    ///
    /// ```
    /// use klamm::streams::{AfterFailure, StreamsConfig};
    ///
    /// let patient = StreamsConfig::new("billing", "localhost:9092").on_task_failure(|failure| match failure.attempts {
    ///     ..10 => failure.restart(),
    ///     _ => AfterFailure::StopInstance,
    /// });
    /// ```
    #[must_use]
    pub fn on_task_failure(
        mut self,
        decide: impl Fn(&TaskFailure<'_>) -> AfterFailure + Send + Sync + 'static,
    ) -> Self {
        self.on_task_failure = OnFailure(Arc::new(decide));
        self
    }

    /// What may happen to state of an earlier version that the topology does not know any more. Without it, a change
    /// that would orphan state is refused at the start.
    #[must_use]
    pub fn migration(mut self, migration: Migration) -> Self {
        self.migration = migration;
        self
    }

    /// Replicas of internal topics (`replication.factor`): the broker's default unless set.
    #[must_use]
    pub fn replication(mut self, replicas: i16) -> Self {
        self.replication = replicas;
        self
    }

    /// How many records of a partition may wait before its fetching pauses (`buffered.records.per.partition`): 20 000
    /// unless set, where Kafka has 1000.
    #[must_use]
    pub fn buffered_records(mut self, records: usize) -> Self {
        self.buffered_records = records.max(1);
        self
    }

    /// How long a task that reads several partitions waits for records of one that is read to its end, so that records
    /// are processed in the order of their times however producers take turns (`max.task.idle.ms`). Zero unless set: it
    /// waits for what it knows to be there, and for no producer (KIP-695). `None` is Kafka's -1: it does not wait even
    /// for what is there, and the order is that in which fetches are answered.
    ///
    /// Each record is waited for as long as this anew. How long partitions have been empty is looked at every 20 ms.
    #[must_use]
    pub fn max_task_idle(mut self, longest: impl Into<Option<Duration>>) -> Self {
        self.max_task_idle = longest.into();
        self
    }

    /// After how long without a record a task is idle: its stream time goes on with the clock then, from where the last
    /// record left it, so that windows close, joins give up, suppressed updates are let go and rows expire although
    /// nothing comes. Never unless set, as in Kafka Streams, whose last windows hang until something comes.
    ///
    /// A window is closed when the silence has lasted for so long and, counted from the last record, the window's end
    /// and grace are over. It is told once; what comes for it afterwards is late. So let it be longer than a producer
    /// may pause before it goes on with older times, and, in front of tasks that read what others of the application
    /// write, longer than [`commit_interval`](Self::commit_interval). Only what was listened to counts as silence: not
    /// while the application is paused, a partition cannot be read, or the process is stopped. Where stream time has
    /// gone to is committed with what it closed.
    #[must_use]
    pub fn idle_after(mut self, silence: impl Into<Option<Duration>>) -> Self {
        self.idle_after = silence.into();
        self
    }

    /// How long the producer waits for more records of a batch (`linger.ms`): 20 ms unless set,
    /// where Kafka Streams has 100.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// How long the group waits for a silent instance before it gives its work to others
    /// (`session.timeout.ms`): 45 s unless set.
    #[must_use]
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = timeout;
        self
    }
}
