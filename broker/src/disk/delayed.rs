//! Disk work in tasks, each held up as long as the disk says: threads whose calls hang, on a clock that stands still.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use klamm_runtime::Tasks;
use tokio::time::sleep;

use super::Delays;
use super::executor::Held;

/// What stands in for the threads of a log directory. There is no bound on how much hangs at the same time.
pub(super) struct Delayed {
    delays: Delays,
    tasks: Tasks,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: usize,
    closed: bool,
    held: Option<Held>,
}

/// Counts a job for as long as it lives.
struct Running(Arc<Delayed>);

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.running -= 1;
        let held = if state.running == 0 { state.held.take() } else { None };
        drop(state);
        drop(held);
    }
}

impl Delayed {
    pub(super) fn new(delays: Delays) -> Arc<Self> {
        Arc::new(Self { delays, tasks: Tasks::new(), state: Mutex::default() })
    }

    /// Does `job` in a task of its own, when its delay is over.
    pub(super) fn start(self: &Arc<Self>, job: impl FnOnce() + Send + 'static) {
        let mut state = self.state();
        if state.closed {
            drop(state);
            return drop(job);
        }
        state.running += 1;
        drop(state);
        let running = Running(self.clone());
        let delay = (self.delays)();
        self.tasks.spawn("delayed disk work", async move {
            sleep(delay).await;
            job();
            drop(running);
        });
    }

    /// Begins nothing more. What is held up goes on alone, and lets `held` go when it ends.
    pub(super) fn close(&self, held: Held) {
        let mut state = self.state();
        state.closed = true;
        if state.running > 0 {
            state.held = Some(held);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc;
    use tokio::time::{Instant, timeout};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(60);

    /// One that holds up every second piece of work by ten seconds, beginning with the first.
    fn hanging() -> Arc<Delayed> {
        let slow = Mutex::new(false);
        Delayed::new(Arc::new(move || {
            let mut slow = slow.lock().unwrap();
            *slow = !*slow;
            Duration::from_secs(if *slow { 10 } else { 0 })
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_is_held_up_holds_up_nothing_else() {
        let (delayed, began) = (hanging(), Instant::now());
        let (sender, mut receiver) = mpsc::unbounded_channel();
        for number in [1, 2, 3, 4] {
            let sender = sender.clone();
            delayed.start(move || sender.send((number, began.elapsed().as_secs())).unwrap());
        }
        let mut done = Vec::new();
        while done.len() < 4 {
            done.push(timeout(DEADLINE, receiver.recv()).await.unwrap().unwrap());
        }
        assert_eq!(done, [(2, 0), (4, 0), (1, 10), (3, 10)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_at_the_end_goes_on_alone_and_nothing_else_begins() {
        let delayed = hanging();
        let lock: Held = Arc::new(());
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let later = sender.clone();
        delayed.start(move || sender.send(1).unwrap());
        delayed.close(lock.clone());
        delayed.start(move || later.send(2).unwrap());
        assert_eq!(Arc::strong_count(&lock), 2);
        assert_eq!(timeout(DEADLINE, receiver.recv()).await.unwrap(), Some(1));
        assert_eq!(timeout(DEADLINE, receiver.recv()).await.unwrap(), None, "the other one was dropped");
        assert_eq!(Arc::strong_count(&lock), 1);

        let idle = hanging();
        idle.close(lock.clone());
        assert_eq!(Arc::strong_count(&lock), 1);
    }
}
