//! Threads for disk calls: a disk that hangs holds them, and not the workers of the runtime.
//!
//! Every log directory has its own, so that a slow directory holds only its own partitions. Threads come when work
//! waits that no thread is free for, up to a bound, and go when there was none for a while. On a disk that does not
//! block, everything runs in place, which keeps tokio's paused clock exact; or in tasks, if it names delays.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::Disk;
use super::delayed::Delayed;

/// How long a thread waits for work before it ends.
const IDLE: Duration = Duration::from_secs(10);
/// How long whoever closes waits for what is under way: a disk that is well needs less.
const ENDING: Duration = Duration::from_millis(100);

type Job = Box<dyn FnOnce() + Send>;

/// What a disk thread may be left with when it ends: a lock on the directory.
pub(crate) type Held = Arc<dyn Any + Send + Sync>;

/// Where the disk calls of one log directory run. Clones share the threads.
#[derive(Clone)]
pub(crate) struct Executor {
    place: Place,
}

#[derive(Clone)]
enum Place {
    Here,
    Tasks(Arc<Delayed>),
    Threads(Arc<Pool>),
}

/// The threads have ended, or the work panicked: nobody knows what it came to.
#[derive(Debug, thiserror::Error)]
#[error("the disk threads of this directory have ended")]
pub(crate) struct Ended;

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").field("in_place", &self.runs_in_place()).finish_non_exhaustive()
    }
}

impl Executor {
    /// At most `threads_max` threads with this name, or none when the disk does not block.
    pub(crate) fn new(disk: &dyn Disk, name: &'static str, threads_max: usize) -> Self {
        let pool = || Pool { name, threads_max, state: Mutex::default(), wake: Condvar::new() };
        let place = match disk.delays() {
            _ if disk.is_blocking() => Place::Threads(Arc::new(pool())),
            Some(delays) => Place::Tasks(Delayed::new(delays)),
            None => Place::Here,
        };
        Self { place }
    }

    /// Whether work is done by whoever brings it.
    pub(crate) fn runs_in_place(&self) -> bool {
        matches!(self.place, Place::Here)
    }

    /// Runs `job` as soon as a thread is free, or at once in place. After [`Self::close`] it is dropped.
    pub(crate) fn start(&self, job: impl FnOnce() + Send + 'static) {
        match &self.place {
            Place::Here => job(),
            Place::Tasks(delayed) => delayed.start(job),
            Place::Threads(pool) => pool.push(Box::new(job)),
        }
    }

    /// Runs `work` and gives what it returns. Once begun it goes on when this future is dropped; before, it does not
    /// begin.
    ///
    /// # Errors
    /// The threads have ended.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Ended> {
        if self.runs_in_place() {
            return Ok(work());
        }
        let (sender, receiver) = oneshot::channel();
        self.start(move || {
            if !sender.is_closed() {
                let _ = sender.send(work());
            }
        });
        receiver.await.map_err(|_| Ended)
    }

    /// Begins nothing more, and waits a moment for what is under way. What takes longer goes on alone, and lets `held`
    /// go when it ends.
    pub(crate) fn close(&self, held: Held) {
        match &self.place {
            Place::Here => {}
            Place::Tasks(delayed) => delayed.close(held),
            Place::Threads(pool) => pool.close(held),
        }
    }
}

struct Pool {
    name: &'static str,
    threads_max: usize,
    state: Mutex<PoolState>,
    wake: Condvar,
}

#[derive(Default)]
struct PoolState {
    /// Bounded by who brings work: a partition is in it once, a connection reads one piece at a time.
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    running: usize,
    closed: bool,
    held: Option<Held>,
}

impl Pool {
    fn push(self: &Arc<Self>, job: Job) {
        let mut state = self.state();
        if state.closed {
            drop(state);
            return drop(job);
        }
        state.jobs.push_back(job);
        if state.jobs.len() <= state.idle {
            drop(state);
            return self.wake.notify_one();
        }
        if state.threads == self.threads_max {
            return;
        }
        state.threads += 1;
        drop(state);
        let pool = self.clone();
        let spawned = std::thread::Builder::new().name(self.name.to_owned()).spawn(move || pool.work());
        if let Err(error) = spawned {
            tracing::error!(name = self.name, %error, "no thread for disk work");
            let mut state = self.state();
            state.threads -= 1;
            // With no thread at all, nobody would ever come for what waits.
            let lost = if state.threads == 0 { std::mem::take(&mut state.jobs) } else { VecDeque::new() };
            drop(state);
            drop(lost);
        }
    }

    fn work(&self) {
        let mut state = self.state();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                state.running += 1;
                drop(state);
                if catch_unwind(AssertUnwindSafe(job)).is_err() {
                    tracing::error!(
                        name = self.name,
                        "disk work panicked; this is a defect of klamm, please report it"
                    );
                }
                state = self.state();
                state.running -= 1;
                if state.closed && state.running == 0 {
                    self.wake.notify_all();
                    let held = state.held.take();
                    drop(state);
                    drop(held);
                    state = self.state();
                }
                continue;
            }
            if state.closed {
                break;
            }
            state.idle += 1;
            let waited = self.wake.wait_timeout(state, IDLE);
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if timeout.timed_out() && state.jobs.is_empty() {
                break;
            }
        }
        state.threads -= 1;
    }

    fn close(&self, held: Held) {
        let mut state = self.state();
        state.closed = true;
        let never_begun = std::mem::take(&mut state.jobs);
        self.wake.notify_all();
        drop(state);
        drop(never_begun);
        let waited = self.wake.wait_timeout_while(self.state(), ENDING, |state| state.running > 0);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.running > 0 {
            state.held = Some(held);
        }
    }

    fn state(&self) -> MutexGuard<'_, PoolState> {
        // Jobs run outside of the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Work that is done one after the other, in the order in which it came, by whichever thread comes for it.
#[derive(Debug)]
pub(crate) struct Serial<J> {
    state: Mutex<SerialState<J>>,
}

#[derive(Debug)]
struct SerialState<J> {
    waiting: Vec<J>,
    /// Somebody does it, or was sent for.
    taken_care_of: bool,
}

impl<J> Default for Serial<J> {
    fn default() -> Self {
        Self { state: Mutex::new(SerialState { waiting: Vec::new(), taken_care_of: false }) }
    }
}

impl<J> Serial<J> {
    /// Adds work; says whether somebody has to be sent for it.
    pub(crate) fn push(&self, job: J) -> bool {
        let mut state = self.state();
        state.waiting.push(job);
        !std::mem::replace(&mut state.taken_care_of, true)
    }

    /// All that waits now.
    pub(crate) fn take(&self) -> Vec<J> {
        std::mem::take(&mut self.state().waiting)
    }

    /// To be called by who was sent, when what it took is done; says whether somebody has to be sent again.
    pub(crate) fn done(&self) -> bool {
        let mut state = self.state();
        state.taken_care_of = !state.waiting.is_empty();
        state.taken_care_of
    }

    fn state(&self) -> MutexGuard<'_, SerialState<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::disk::{FileDisk, MemoryDisk};

    const DEADLINE: Duration = Duration::from_secs(60);

    fn threads(threads_max: usize) -> Executor {
        Executor::new(&FileDisk::new(), "test", threads_max)
    }

    fn pool_of(executor: &Executor) -> &Pool {
        match &executor.place {
            Place::Threads(pool) => pool,
            _ => panic!("no threads"),
        }
    }

    fn hang(until_dropped: &mpsc::Receiver<()>) {
        let _ = until_dropped.recv();
    }

    #[test]
    fn on_a_disk_that_does_not_block_work_is_done_in_place() {
        let executor = Executor::new(&MemoryDisk::new(), "test", 4);
        assert!(executor.runs_in_place() && !threads(1).runs_in_place());
        let here = std::thread::current().id();
        let (sender, receiver) = mpsc::channel();
        executor.start(move || sender.send(std::thread::current().id()).unwrap());
        assert_eq!(receiver.try_recv().unwrap(), here);
    }

    /// Work that hangs holds one thread each; there are never more than so many, and what waits is done in order.
    #[test]
    fn threads_are_bounded_and_hanging_work_holds_only_its_own() {
        let executor = threads(2);
        let (release, held) = mpsc::channel::<()>();
        let (sender, receiver) = mpsc::channel();
        executor.start(move || hang(&held));
        for number in 0..100 {
            let sender = sender.clone();
            executor.start(move || sender.send((number, std::thread::current().id())).unwrap());
        }
        let done: Vec<_> = (0..100).map(|_| receiver.recv_timeout(DEADLINE).unwrap()).collect();
        assert!(done.iter().enumerate().all(|(at, (number, _))| at == *number));
        assert!(done.iter().all(|(_, thread)| *thread == done[0].1), "the other thread hangs");
        assert_eq!(pool_of(&executor).state().threads, 2);
        drop(release);
    }

    #[tokio::test]
    async fn a_panic_is_told_and_the_thread_goes_on() {
        let executor = threads(1);
        assert!(executor.run(|| std::panic::panic_any("a defect")).await.is_err());
        assert_eq!(executor.run(|| 7).await.unwrap(), 7);
        assert_eq!(pool_of(&executor).state().threads, 1);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_does_not_begin() {
        let executor = threads(1);
        let (release, held) = mpsc::channel::<()>();
        executor.start(move || hang(&held));
        let (sender, receiver) = mpsc::channel();
        let mut dropped = Box::pin(executor.run(move || sender.send(())));
        assert!(futures::poll!(&mut dropped).is_pending());
        drop(dropped);
        drop(release);
        assert_eq!(executor.run(|| 1).await.unwrap(), 1);
        assert!(receiver.recv().is_err());
    }

    #[tokio::test]
    async fn what_is_held_is_let_go_when_nothing_runs_any_more() {
        let executor = threads(1);
        executor.run(|| ()).await.unwrap();
        let lock: Held = Arc::new(());
        executor.close(lock.clone());
        assert_eq!(Arc::strong_count(&lock), 1, "nothing runs");
        assert!(executor.run(|| ()).await.is_err(), "closed");

        let executor = threads(1);
        let (release, held) = mpsc::channel::<()>();
        let (began, begun) = mpsc::channel();
        executor.start(move || {
            began.send(()).unwrap();
            hang(&held);
        });
        begun.recv_timeout(DEADLINE).unwrap();
        let waiting = executor.run(|| ());
        executor.close(lock.clone());
        assert_eq!(Arc::strong_count(&lock), 2);
        assert!(waiting.await.is_err(), "what had not begun never does");
        drop(release);
        while Arc::strong_count(&lock) > 1 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn serial_work_sends_for_one_at_a_time() {
        let serial = Serial::default();
        assert!(serial.push(1));
        assert!(!serial.push(2));
        assert_eq!(serial.take(), [1, 2]);
        assert!(!serial.push(3), "who was sent is still at it");
        assert!(serial.done(), "and has to come again");
        assert_eq!(serial.take(), [3]);
        assert!(!serial.done());
        assert!(serial.push(4));
    }
}
