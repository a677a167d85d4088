//! The shell around an engine: callers come in under a lock, one task appends, waits for the disk, keeps the time and
//! loads.

use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_protocol::ErrorCode;
use klamm_runtime::Clock;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use super::core::{Core, Now, Step, StoredBatch, Ticket, replay_batch};
use super::durable_log::DurableLog;
use super::engine::{AppendFailure, Engine, Told};
use crate::log::StorageError;

/// How many commands may have written something that is not durable. Further ones wait their turn.
const PENDING_COMMANDS_MAX: usize = 1_024;
/// How long after one that failed a log is read again, the first time; twice as long each further time, up to
/// [`LAST_RELOAD`].
const FIRST_RELOAD: Duration = Duration::from_millis(100);
const LAST_RELOAD: Duration = Duration::from_secs(30);
/// No deadline.
const NEVER: i64 = i64::MAX;

/// Where a core's time comes from.
#[derive(Debug, Clone)]
pub(crate) struct Time {
    clock: Arc<dyn Clock>,
    started: Instant,
}

impl Time {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, started: Instant::now() }
    }

    fn now(&self) -> Now {
        let ms = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        Now { ms, wall_ms: self.clock.now_ms() }
    }

    fn instant(&self, ms: i64) -> Instant {
        self.started + Duration::from_millis(u64::try_from(ms).unwrap_or(0))
    }
}

/// Why a log could not be loaded.
#[derive(Debug)]
enum Unloaded {
    /// It could not be read this time.
    Unread(StorageError),
    /// It is lost until the broker starts again.
    Lost(StorageError),
}

/// One partition of a coordinator's topic.
#[derive(Debug)]
pub(crate) struct Shard<C: Core, L> {
    log: L,
    time: Time,
    state: Mutex<State<C>>,
    /// There is something to append, or to do earlier than the task would wake by itself.
    wake: Notify,
    room: Arc<Semaphore>,
}

#[derive(Debug)]
struct State<C: Core> {
    engine: Engine<C>,
    /// Who waits for which answer.
    callers: BTreeMap<Ticket, oneshot::Sender<Told<C::Reply>>>,
    next_ticket: Ticket,
    /// The room that steps take which are not durable, in their order.
    permits: VecDeque<(Step, OwnedSemaphorePermit)>,
    /// When the task will wake by itself.
    armed_ms: i64,
}

impl<C: Core> State<C> {
    /// Gives the answers that may be given. Whether the task has to look.
    fn settle(&mut self) -> bool {
        for (ticket, told) in self.engine.take_told() {
            // Whoever went away is not told.
            if let Some(caller) = self.callers.remove(&ticket) {
                let _ = caller.send(told);
            }
        }
        let engine = &self.engine;
        while self.permits.front().is_some_and(|(step, _)| !engine.is_pending(*step)) {
            self.permits.pop_front();
        }
        while self.permits.back().is_some_and(|(step, _)| !engine.is_pending(*step)) {
            self.permits.pop_back();
        }
        engine.has_append() || engine.next_deadline().is_some_and(|deadline_ms| deadline_ms < self.armed_ms)
    }
}

impl<C: Core, L: DurableLog> Shard<C, L> {
    /// A shard whose log is yet to be read, or is empty: then it is ready at once.
    pub(super) fn new(log: L, time: Time, core: C, fresh: C) -> Self {
        let mut engine = Engine::loading(core, log.max_batch_bytes());
        if log.offsets().is_ok_and(|offsets| offsets.is_empty()) {
            engine.loaded(time.now(), fresh, None);
        }
        let callers = BTreeMap::new();
        let permits = VecDeque::new();
        let state = State { engine, callers, next_ticket: 1, permits, armed_ms: NEVER };
        let room = Arc::new(Semaphore::new(PENDING_COMMANDS_MAX));
        Self { log, time, state: Mutex::new(state), wake: Notify::new(), room }
    }

    /// Does what a caller asks, in the order of the calls, as soon as there is room for what it may write. The answer
    /// comes when what it rests on is durable.
    pub(crate) async fn submit(&self, command: C::Command) -> oneshot::Receiver<Told<C::Reply>> {
        let permit = self.room.clone().acquire_owned().await.ok();
        self.change(|state, now| {
            let (ticket, receiver) = state.take_in();
            let step = state.engine.on(now, ticket, command);
            state.permits.extend(step.zip(permit));
            receiver
        })
    }

    /// As [`Self::submit`], for what writes nothing: it needs no room, so that a slow disk does not keep it waiting.
    pub(crate) fn submit_now(&self, command: C::Command) -> oneshot::Receiver<Told<C::Reply>> {
        self.change(|state, now| {
            let (ticket, receiver) = state.take_in();
            state.engine.on(now, ticket, command);
            receiver
        })
    }

    #[cfg(test)]
    pub(super) fn now_ms(&self) -> i64 {
        self.time.now().ms
    }

    /// Does what nobody waits for; while loading, later.
    /// `command` is made under the lock, so that what it says of the world is no older than what commands before it
    /// were checked against.
    pub(super) fn inform(&self, command: impl FnOnce() -> C::Command) {
        self.change(|state, now| state.engine.inform(now, command()));
    }

    /// Asks something that changes nothing.
    ///
    /// # Errors
    /// When the shard is still loading, or its log failed.
    pub(crate) fn ask<T>(&self, question: impl FnOnce(&C) -> T) -> Result<T, ErrorCode> {
        self.state().engine.ask(question)
    }

    /// Ends the waits for others, now and from now on. What is written is still answered.
    pub(super) fn stop(&self) {
        self.change(|state, _| state.engine.stop());
    }

    /// Loads if need be, then appends and keeps the time for as long as it is polled. `first` is asked for the command
    /// that a loaded core begins with.
    pub(super) async fn run(
        &self,
        fresh: impl Fn() -> C,
        loading: Arc<Semaphore>,
        first: impl Fn() -> Option<C::Command>,
    ) {
        let _watch = Watch(self);
        let mut pause = FIRST_RELOAD;
        while self.ask(|_| ()) == Err(ErrorCode::CoordinatorLoadInProgress) {
            let loaded = {
                // Some at a time: they share the disk.
                let _turn = loading.acquire().await;
                self.load(fresh()).await
            };
            match loaded {
                Ok(core) => self.change(|state, now| state.engine.loaded(now, core, first())),
                Err(Unloaded::Lost(error)) => {
                    tracing::error!(log = self.log.name(), %error, "the coordinator's log is lost");
                    self.change(|state, now| state.engine.fail(now));
                }
                // For want of descriptors, for instance, which will be there again.
                Err(Unloaded::Unread(error)) => {
                    tracing::error!(log = self.log.name(), %error, "the coordinator's log cannot be read now");
                    sleep(pause).await;
                    pause = (2 * pause).min(LAST_RELOAD);
                }
            }
        }
        self.serve().await;
    }

    /// The task or a core panicked: whoever waits is told, and nobody is served from what may be half done.
    fn abandon(&self, state: &mut State<C>) {
        tracing::error!(log = self.log.name(), "a coordinator panicked and serves nobody until a restart");
        state.engine.abandon();
        state.settle();
    }

    async fn load(&self, mut core: C) -> Result<C, Unloaded> {
        let Range { start, end } = self.log.offsets().map_err(|error| self.unloaded(error))?;
        let started = Instant::now();
        let mut offset = start;
        while offset < end {
            let chunk = self.log.read(offset).await.map_err(|error| self.unloaded(error))?;
            let now = self.time.now();
            for batch in &chunk.batches {
                replay_batch(&mut core, now, batch, |error| {
                    tracing::warn!(log = self.log.name(), %error, "a coordinator's record cannot be read");
                });
            }
            offset = chunk.next_offset;
        }
        if start < end {
            // What a crash left may not have been durable before.
            self.log.wait_durable(end - 1).await.map_err(Unloaded::Lost)?;
        }
        core.replayed(self.time.now());
        tracing::debug!(log = self.log.name(), took_ms = started.elapsed().as_millis(), "coordinator loaded");
        Ok(core)
    }

    fn unloaded(&self, error: StorageError) -> Unloaded {
        match self.log.offsets().is_ok() || self.log.comes_back() {
            true => Unloaded::Unread(error),
            false => Unloaded::Lost(error),
        }
    }

    async fn serve(&self) {
        type Work<'a, T> = Option<Pin<Box<dyn Future<Output = T> + Send + 'a>>>;
        let mut append: Work<'_, Result<i64, AppendFailure>> = None;
        let mut durable: Work<'_, (i64, Result<(), StorageError>)> = None;
        loop {
            let (batch, offset, now, due) = self.next_work();
            if let Some(batch) = batch {
                append = Some(Box::pin(self.log.append(batch, now.wall_ms)));
            }
            if durable.is_none() {
                durable = offset.map(|offset| -> Pin<Box<dyn Future<Output = _> + Send + '_>> {
                    Box::pin(async move { (offset, self.log.wait_durable(offset).await) })
                });
            }
            tokio::select! {
                // The same history makes the same moves.
                biased;
                ended = ended(&mut append) => {
                    append = None;
                    if let Err(AppendFailure::Refused(why) | AppendFailure::Lost(why)) = &ended {
                        tracing::error!(log = self.log.name(), why, "a coordinator's log cannot be written");
                    }
                    self.change(|state, now| state.engine.appended(now, ended));
                }
                (offset, ended) = ended(&mut durable) => {
                    durable = None;
                    self.change(|state, now| match ended {
                        Ok(()) => state.engine.durable(offset),
                        Err(error) => {
                            tracing::error!(log = self.log.name(), %error, "a coordinator's log is lost");
                            state.engine.fail(now);
                        }
                    });
                }
                () = self.wake.notified() => {}
                () = due_at(due) => {}
            }
        }
    }

    /// Sees to what is due, and says what to append, what to wait for, and until when to sleep. From here on whoever
    /// sets an earlier deadline wakes the task: it is one lock that both hold.
    fn next_work(&self) -> (Option<StoredBatch>, Option<i64>, Now, Option<Instant>) {
        let mut state = self.state();
        let now = self.time.now();
        state.engine.on_time(now);
        let batch = state.engine.next_append();
        let offset = state.engine.next_durable();
        let deadline_ms = state.engine.next_deadline();
        state.armed_ms = deadline_ms.unwrap_or(NEVER);
        state.settle();
        (batch, offset, now, deadline_ms.map(|ms| self.time.instant(ms)))
    }

    fn change<T>(&self, act: impl FnOnce(&mut State<C>, Now) -> T) -> T {
        let mut state = self.state();
        // Under the lock, so that time does not go back from one step to the next.
        let now = self.time.now();
        let done = act(&mut state, now);
        let wake = state.settle();
        drop(state);
        if wake {
            self.wake.notify_one();
        }
        done
    }

    fn state(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(|poisoned| {
            let mut state = poisoned.into_inner();
            self.abandon(&mut state);
            self.state.clear_poison();
            state
        })
    }
}

/// Sees to it that nobody waits for a task that has panicked.
struct Watch<'a, C: Core, L: DurableLog>(&'a Shard<C, L>);

impl<C: Core, L: DurableLog> Drop for Watch<'_, C, L> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
            self.0.abandon(&mut state);
            self.0.state.clear_poison();
        }
    }
}

impl<C: Core> State<C> {
    /// Takes in a caller.
    fn take_in(&mut self) -> (Ticket, oneshot::Receiver<Told<C::Reply>>) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let (sender, receiver) = oneshot::channel();
        self.callers.insert(ticket, sender);
        (ticket, receiver)
    }
}

/// Waits for work that may not be there.
async fn ended<T>(work: &mut Option<Pin<Box<dyn Future<Output = T> + Send + '_>>>) -> T {
    match work {
        Some(work) => work.await,
        None => pending().await,
    }
}

async fn due_at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}
