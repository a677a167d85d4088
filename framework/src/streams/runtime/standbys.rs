//! What an instance has of tasks that it does not run now: stores that are kept open, standbys, and what its group said
//! of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::assignment::Orders;
use super::standby_inputs::StandbyInputs;
use crate::store::StateStore;
use crate::streams::incoming::Incoming;
use crate::streams::node::TopicId;
use crate::streams::task::TaskId;

/// The lag of state of which nobody knows how far it is: behind all whose lag is known.
pub(super) const UNKNOWN_LAG: u64 = u64::MAX;

/// What was heard of a lag longer ago may be wrong by any number by now.
const LATELY: Duration = Duration::from_secs(2);

/// The open stores of one task.
pub(super) type Engines = Vec<(Arc<str>, Arc<dyn StateStore>)>;

/// What the keeper of standbys is told.
pub(super) enum Order {
    /// Follow these tasks and no others. The stores of those that are to run are given to whoever asks for them; `done`
    /// hears when that is possible.
    Follow {
        standbys: BTreeSet<TaskId>,
        active: BTreeSet<TaskId>,
        done: oneshot::Sender<()>,
    },
    /// Changelog records for a standby; `done` hears when they are applied, and is dropped if nobody wants them.
    Apply {
        task: TaskId,
        epoch: u64,
        topic: TopicId,
        records: Vec<Incoming>,
        next_offset: i64,
        done: oneshot::Sender<()>,
    },
    /// At this time, a standby had all that was in its changelogs then.
    Whole {
        task: TaskId,
        epoch: u64,
        at_ms: i64,
    },
    /// What a standby has cannot be gone on from.
    Rebuild {
        task: TaskId,
        epoch: u64,
        why: String,
    },
    Stop,
}

/// A store and its partition.
type Place = (Arc<str>, i32);

type Published = BTreeMap<Place, Weak<dyn StateStore>>;

/// Shared by the parts of an application.
pub(super) struct Standbys {
    shelf: Mutex<BTreeMap<TaskId, Kept>>,
    /// How far behind their changelogs standbys are.
    lags: Mutex<BTreeMap<TaskId, u64>>,
    /// When their leaders said so last, of those of which that is known.
    heard_at: Mutex<BTreeMap<TaskId, Instant>>,
    /// What the leader was told of lags.
    told: Mutex<BTreeMap<TaskId, u64>>,
    /// The tasks of this instance, with the group's generation in which it got them.
    ran: Mutex<(i32, BTreeSet<TaskId>)>,
    /// What the leader said last, in which generation.
    orders: watch::Sender<(i32, Orders)>,
    keeper: mpsc::Sender<Order>,
    /// For the keeper, until it is started.
    commands: Mutex<Option<mpsc::Receiver<Order>>>,
    /// Of the standbys, by store and partition. Weak: a query must not keep a database open.
    published: Mutex<Published>,
    epochs: AtomicU64,
    is_over: AtomicBool,
    /// How far standbys are in what their tasks read.
    pub(super) inputs: StandbyInputs,
}

struct Kept {
    engines: Engines,
    lag: u64,
}

impl Default for Standbys {
    fn default() -> Self {
        let (keeper, commands) = mpsc::channel();
        Self {
            shelf: Mutex::default(),
            lags: Mutex::default(),
            heard_at: Mutex::default(),
            told: Mutex::default(),
            ran: Mutex::new((-1, BTreeSet::new())),
            orders: watch::Sender::new((-1, Orders::default())),
            keeper,
            commands: Mutex::new(Some(commands)),
            published: Mutex::default(),
            epochs: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            inputs: StandbyInputs::default(),
        }
    }
}

impl Standbys {
    /// Keeps the open stores of a task for whoever runs or follows it next.
    pub(super) fn put(&self, task: TaskId, engines: Engines, lag: u64) {
        let mut shelf = lock(&self.shelf);
        // Under the lock: what comes after the end is closed.
        if !self.is_over.load(Ordering::Acquire) && !engines.is_empty() {
            shelf.insert(task, Kept { engines, lag });
        }
    }

    /// The open stores of a task, if they are kept.
    pub(super) fn take(&self, task: TaskId) -> Option<Engines> {
        lock(&self.shelf).remove(&task).map(|kept| kept.engines)
    }

    /// Closes what nobody wants.
    pub(super) fn retain(&self, wanted: impl Fn(TaskId) -> bool) {
        let gone: Vec<Kept> =
            lock(&self.shelf).extract_if(.., |task, _| !wanted(*task)).map(|(_, kept)| kept).collect();
        for (name, engine) in gone.iter().flat_map(|kept| &kept.engines) {
            if let Err(error) = engine.flush() {
                tracing::warn!(store = %name, %error, "what was applied last is restored when it is needed");
            }
        }
    }

    /// What there is state of, and how far behind its changelogs it is.
    pub(super) fn lags(&self) -> BTreeMap<TaskId, u64> {
        let mut lags: BTreeMap<TaskId, u64> =
            lock(&self.shelf).iter().map(|(task, kept)| (*task, kept.lag)).collect();
        lags.extend(lock(&self.lags).iter());
        lags
    }

    /// The same, as the leader is about to hear it.
    pub(super) fn tell_lags(&self) -> BTreeMap<TaskId, u64> {
        let lags = self.lags();
        lock(&self.told).clone_from(&lags);
        lags
    }

    /// What the leader heard last.
    pub(super) fn told(&self) -> BTreeMap<TaskId, u64> {
        lock(&self.told).clone()
    }

    /// Of the standbys.
    pub(super) fn standby_lags(&self) -> BTreeMap<TaskId, u64> {
        lock(&self.lags).clone()
    }

    /// How many records a standby lacks, if somebody has said so lately.
    pub(super) fn surely_behind(&self, task: TaskId) -> Option<u64> {
        let heard_at = lock(&self.heard_at).get(&task).copied()?;
        let lag = lock(&self.lags).get(&task).copied()?;
        (lag != UNKNOWN_LAG && heard_at.elapsed() < LATELY).then_some(lag)
    }

    pub(super) fn set_heard_at(&self, heard_at: BTreeMap<TaskId, Instant>) {
        *lock(&self.heard_at) = heard_at;
    }

    pub(super) fn set_lag(&self, task: TaskId, lag: Option<u64>) {
        let mut lags = lock(&self.lags);
        match lag {
            Some(lag) => lags.insert(task, lag),
            None => lags.remove(&task),
        };
    }

    /// What this instance ran, and in which generation of its group.
    pub(super) fn ran(&self) -> (i32, BTreeSet<TaskId>) {
        lock(&self.ran).clone()
    }

    pub(super) fn set_ran(&self, generation: i32, tasks: BTreeSet<TaskId>) {
        *lock(&self.ran) = (generation, tasks);
    }

    /// What the leader said in this generation. Nothing, if the group's assignor tells nothing.
    pub(super) fn orders_of(&self, generation: i32) -> Orders {
        let orders = self.orders.borrow();
        if orders.0 == generation { orders.1.clone() } else { Orders::default() }
    }

    /// What the leader said last.
    pub(super) fn last_orders(&self) -> Orders {
        self.orders.borrow().1.clone()
    }

    /// Lets queries that ask for them see the stores of a standby.
    pub(super) fn publish(&self, task: TaskId, engines: &Engines) {
        let mut published = lock(&self.published);
        for (store, engine) in engines {
            published.insert((Arc::clone(store), task.partition), Arc::downgrade(engine));
        }
    }

    pub(super) fn unpublish(&self, task: TaskId, engines: &Engines) {
        let mut published = lock(&self.published);
        for (store, _) in engines {
            published.remove(&(Arc::clone(store), task.partition));
        }
    }

    /// The stores of all standbys.
    pub(super) fn all_published(&self) -> Vec<(Place, Arc<dyn StateStore>)> {
        let published = lock(&self.published);
        published.iter().filter_map(|(place, engine)| Some((place.clone(), engine.upgrade()?))).collect()
    }

    /// The standbys of a store.
    pub(super) fn published(&self, store: &str) -> Vec<Arc<dyn StateStore>> {
        let published = lock(&self.published);
        let of_store = published.iter().filter(|((name, _), _)| **name == *store);
        of_store.filter_map(|(_, engine)| engine.upgrade()).collect()
    }

    /// Whether a partition of a store is among the standbys.
    pub(super) fn has(&self, store: &str, partition: i32) -> bool {
        let found = |((name, of), engine): (&(Arc<str>, i32), &Weak<dyn StateStore>)| {
            **name == *store && *of == partition && engine.strong_count() > 0
        };
        lock(&self.published).iter().any(found)
    }

    /// A partition of a store, if it is among the standbys.
    pub(super) fn engine(&self, store: &str, partition: i32) -> Option<Arc<dyn StateStore>> {
        let published = lock(&self.published);
        let found = published.iter().find(|((name, of), _)| **name == *store && *of == partition);
        found.and_then(|(_, engine)| engine.upgrade())
    }

    pub(super) fn orders(&self) -> &watch::Sender<(i32, Orders)> {
        &self.orders
    }

    pub(super) fn next_epoch(&self) -> u64 {
        self.epochs.fetch_add(1, Ordering::Relaxed)
    }

    /// Tells the keeper; one that has ended does not matter.
    pub(super) fn tell(&self, order: Order) {
        self.keeper.send(order).ok();
    }

    /// Has these followed and no others; returns when the stores of those that are to run can be had.
    pub(super) async fn follow(&self, standbys: BTreeSet<TaskId>, active: BTreeSet<TaskId>) {
        let (done, followed) = oneshot::channel();
        self.tell(Order::Follow { standbys, active, done });
        // Without a keeper, there are no standbys.
        followed.await.ok();
    }

    pub(super) fn take_commands(&self) -> Option<mpsc::Receiver<Order>> {
        lock(&self.commands).take()
    }

    /// The application ends: what is kept is closed.
    pub(super) fn end(&self) {
        {
            let _shelf = lock(&self.shelf);
            self.is_over.store(true, Ordering::Release);
        }
        self.tell(Order::Stop);
        self.retain(|_| false);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
