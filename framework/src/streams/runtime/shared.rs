//! What the parts of a running application share.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::ThreadId;
use std::time::Duration;

use klamm_client::{Client, ConsumeError, ConsumerHandle, ErrorCode, OffsetAndMetadata, TopicPartition};
use klamm_runtime::Clock;
use klamm_runtime::Tasks;
use tokio::sync::{Semaphore, mpsc as async_mpsc, oneshot, watch};
use tokio::time::Instant;

use super::config::StreamsConfig;
use super::directory::StateDirectory;
use super::error::StreamsError;
use super::failing::Failures;
pub(super) use super::flow::Flow;
use super::observe::{Ledger, Meters};
use super::positions::Positions;
use super::rewind::Rewound;
use super::space_guard::Room;
pub(super) use super::spread::Route;
use super::standbys::Standbys;
use super::state::AppState;
use super::workers::Workers;
use crate::store::{StateStore, StoreError};
use crate::streams::cache::CacheBudget;
use crate::streams::incoming::{Incoming, IncomingBatch};
use crate::streams::node::{Dropped, TopicId};
use crate::streams::task::TaskId;
use crate::streams::topology::TopologyInner;

/// One application in this process.
pub(super) struct Shared {
    pub(super) topology: Arc<TopologyInner>,
    pub(super) config: StreamsConfig,
    pub(super) client: Client,
    /// Where the application was started, for threads that wait for an answer.
    pub(super) runtime: tokio::runtime::Handle,
    /// The client's clock, as every thread may ask it.
    pub(super) clock: Arc<dyn Clock>,
    /// The sub-topology that reads each topic.
    pub(super) readers: HashMap<Arc<str>, (TopicId, usize)>,
    /// Topic names by id.
    pub(super) names: Vec<Arc<str>>,
    pub(super) workers: Workers<Command>,
    /// Which worker has which task, and how its partitions flow.
    pub(super) routes: Mutex<Routes>,
    /// Stores that can be queried, by name and partition. Weak: a query must not keep a closed task's database open.
    pub(super) stores: Mutex<HashMap<String, Partitions>>,
    pub(super) state: watch::Sender<AppState>,
    pub(super) failure: Mutex<Option<Arc<StreamsError>>>,
    /// Tasks that were built anew because a store held what nobody wrote.
    pub(super) rebuilt: Mutex<BTreeSet<TaskId>>,
    /// Tasks that failed and are not past it.
    pub(super) failing: Mutex<Failures>,
    pub(super) close: watch::Sender<bool>,
    /// The group's consumer, once it is started.
    pub(super) consumer: watch::Sender<Option<ConsumerHandle>>,
    /// Tasks that are assigned and do not process yet: to be made, or restoring.
    pub(super) starting: AtomicUsize,
    /// Partitions were given up, and the group has not said yet which it has instead.
    pub(super) is_without: AtomicBool,
    pub(super) processed: AtomicU64,
    pub(super) restored: AtomicU64,
    pub(super) commits: AtomicU64,
    /// The next incarnation of a task.
    pub(super) epochs: AtomicU64,
    /// Whether somebody wants processing to rest.
    pub(super) paused: AtomicBool,
    /// What the disk has.
    pub(super) room: watch::Sender<Room>,
    /// Where tasks that lost what they did since the last commit go on, for the pump.
    pub(super) rewound: async_mpsc::UnboundedSender<Rewound>,
    /// For ends of logs that count what is not committed yet.
    pub(super) ends: ConsumerHandle,
    /// Where queries are answered.
    #[cfg(feature = "queries")]
    pub(super) query_address: std::sync::OnceLock<String>,
    /// How far the tasks are whose stores can be queried.
    pub(super) positions: Positions,
    /// What is held of tasks that do not run here. Closed before the directory is given back.
    pub(super) standbys: Standbys,
    /// Turns to load a store.
    pub(super) loads: Semaphore,
    /// Held until the last thread is gone.
    pub(super) directory: Option<StateDirectory>,
    /// How many workers are between committing offsets and writing their stores.
    pub(super) committing: watch::Sender<usize>,
    /// The memory that rows in use take, of all tasks.
    pub(super) cache: Arc<CacheBudget>,
    /// By worker.
    pub(super) dropped: Mutex<HashMap<ThreadId, Dropped>>,
    /// What threads write down.
    pub(super) ledger: Mutex<Ledger>,
    pub(super) meters: Meters,
}

/// The engines of one store, by partition.
pub(super) type Partitions = BTreeMap<i32, Weak<dyn StateStore>>;

/// Where the records of each partition go.
#[derive(Default)]
pub(super) struct Routes {
    pub(super) tasks: BTreeMap<TaskId, Route>,
    pub(super) flows: BTreeMap<TopicPartition, Arc<Flow>>,
    /// Tasks that are to go to another worker, and have not yet.
    pub(super) moving: BTreeMap<TaskId, usize>,
}

/// What a worker is told. A task's epoch tells its incarnations apart: what was meant for an earlier one, that of
/// before a rebalance for instance, must not reach the next.
pub(super) enum Command {
    /// Make this task, fed by these partitions.
    Assign { task: TaskId, epoch: u64, flows: Vec<Arc<Flow>> },
    /// Give these tasks up, after a commit unless they are lost.
    Revoke { tasks: Vec<TaskId>, commit: bool, done: oneshot::Sender<()> },
    /// Hand these tasks, of these epochs, on to other threads; `done` hears when what can go is gone.
    Move { tasks: Vec<(TaskId, u64)>, done: oneshot::Sender<()> },
    /// Records for a task.
    Records { task: TaskId, epoch: u64, topic: TopicId, batch: IncomingBatch },
    /// Changelog records for a restoring task.
    Restored {
        task: TaskId,
        epoch: u64,
        topic: TopicId,
        records: Vec<Incoming>,
        next_offset: i64,
        done: oneshot::Sender<()>,
    },
    /// All changelogs of a task are read. `committed` is where it goes on, as far as that was asked.
    RestoreEnded { task: TaskId, epoch: u64, committed: HashMap<TopicPartition, OffsetAndMetadata> },
    /// A store could not be written while it was restored.
    NotRestored { task: TaskId, epoch: u64, error: StoreError },
    /// What a task has on disk is of no use: remove it, and begin with its changelogs.
    Rebuild { task: TaskId, epoch: u64, why: String },
    /// Nothing has come for a task for so long.
    Idle { task: TaskId, epoch: u64, lasts: Duration },
    /// Look again: a partition has nothing more.
    Wake,
    /// Commit all tasks; `done` hears of it.
    Commit { done: Option<oneshot::Sender<()>> },
    /// End without a commit: everything was revoked before, or the application was dropped.
    Stop,
}

impl Shared {
    pub(super) fn routes(&self) -> MutexGuard<'_, Routes> {
        lock(&self.routes)
    }

    pub(super) fn group(&self) -> &Arc<str> {
        &self.config.application_id
    }

    /// The name of a topic that is written.
    pub(super) fn topic_name(&self, topic: TopicId) -> Arc<str> {
        let named = self.names.get(topic.0 as usize).cloned();
        named.or_else(|| self.topology.graph.routed.name(topic)).unwrap_or_default()
    }

    pub(super) fn next_epoch(&self) -> u64 {
        self.epochs.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire) || self.room.borrow().short_of_bytes.is_some()
    }

    pub(super) fn task_directory(&self, task: TaskId) -> PathBuf {
        self.config.directory().join(task.to_string())
    }

    /// Stops the application with its first error.
    pub(super) fn fail(&self, error: StreamsError) {
        let mut failure = lock(&self.failure);
        // Parts that end because the application closes find each other gone; that is no failure.
        let is_closing = matches!(error, StreamsError::Closed) && *self.close.borrow();
        if failure.is_none() && !is_closing {
            let error = told_by_group(error);
            tracing::error!(application = %self.group(), %error, "the application stops");
            *failure = Some(Arc::new(error));
            self.close.send_replace(true);
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        lock(&self.failure).is_some()
    }

    pub(super) fn consumer(&self) -> Option<ConsumerHandle> {
        self.consumer.borrow().clone()
    }

    /// Whether the group surely counts this instance in: from a session after the last heartbeat that was answered, its
    /// tasks may be others'.
    pub(super) fn is_member(&self) -> bool {
        self.consumer().and_then(|consumer| consumer.alive_until()) > Some(Instant::now())
    }

    /// The group's consumer, as soon as it is started.
    pub(super) async fn started(&self) -> Option<ConsumerHandle> {
        let mut consumers = self.consumer.subscribe();
        consumers.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// The task that reads a partition.
    pub(super) fn task_of(&self, partition: &TopicPartition) -> Option<(TaskId, TopicId)> {
        let (topic, sub_topology) = match self.readers.get(&partition.topic) {
            Some(reader) => *reader,
            None => self.pattern_reader(&partition.topic)?,
        };
        Some((TaskId { sub_topology, partition: partition.partition }, topic))
    }

    /// Who reads a topic that no source names. Nobody can say when the topology is built whether a topic will match the
    /// patterns of two.
    fn pattern_reader(&self, topic: &Arc<str>) -> Option<(TopicId, usize)> {
        let readers = self.topology.pattern_readers(topic, self.group());
        if readers.len() > 1 {
            self.fail(StreamsError::PatternsOverlap { topic: topic.to_string() });
        }
        Some((self.topology.matched(topic), *readers.first()?))
    }

    /// Takes the stores of these tasks from those that can be queried.
    pub(super) fn unpublish(&self, is_gone: impl Fn(TaskId) -> bool) {
        self.positions.forget(&is_gone);
        let mut published = lock(&self.stores);
        for (sub_topology, part) in self.topology.sub_topologies.iter().enumerate() {
            for store in self.topology.stores_of(part) {
                if let Some(engines) = published.get_mut(&*store.name) {
                    engines.retain(|partition, _| !is_gone(TaskId { sub_topology, partition: *partition }));
                }
            }
        }
    }

    /// Recomputes whether the application runs or still rebalances.
    pub(super) fn settle(&self) {
        let starting = self.starting.load(Ordering::Acquire) > 0 || self.is_without.load(Ordering::Acquire);
        self.state.send_if_modified(|state| {
            let next = match *state {
                AppState::Rebalancing | AppState::Running if starting => AppState::Rebalancing,
                AppState::Rebalancing | AppState::Running => AppState::Running,
                other => other,
            };
            std::mem::replace(state, next) != next
        });
    }

    /// Tells every worker; one that has ended does not matter.
    pub(super) fn tell_all(&self, command: impl Fn() -> Command) {
        for worker in self.workers.senders() {
            worker.send(command()).ok();
        }
    }

    /// Lets every worker commit and waits for them.
    pub(super) async fn commit_all(&self) {
        let mut pending = Vec::new();
        for worker in self.workers.senders() {
            let (done, committed) = oneshot::channel();
            worker.send(Command::Commit { done: Some(done) }).ok();
            pending.push(committed);
        }
        for committed in pending {
            // A worker that ended commits nothing more; its failure is told elsewhere.
            committed.await.ok();
        }
    }
}

/// The guarantee is part of what members of the group agree on: it has an assignor of its own.
fn told_by_group(error: StreamsError) -> StreamsError {
    match error {
        StreamsError::Consume(ConsumeError::Group { code: ErrorCode::InconsistentGroupProtocol, group }) => {
            StreamsError::MixedGuarantees { application: group.to_string() }
        }
        other => other,
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The background tasks of an application; they end with it.
pub(super) type Background = Tasks;
