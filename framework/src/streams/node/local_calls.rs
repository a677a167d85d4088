//! Runs asynchronous calls on the thread of a test driver: in the order in which they began, and each until it waits
//! for something.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as Polling, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::runtime::Runtime;

use super::calls::{Arrivals, Spawn};

/// How long nothing may happen while calls are waited for.
const STUCK: Duration = Duration::from_secs(20);

/// The calls that have not ended.
#[derive(Default)]
pub(crate) struct LocalCalls {
    running: RefCell<Vec<Running>>,
    /// Its clock; made when the first call begins.
    runtime: RefCell<Option<Runtime>>,
}

struct Running {
    future: BoxFuture<'static, ()>,
    woken: Arc<Woken>,
}

struct Woken {
    is_woken: AtomicBool,
    thread: Thread,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.is_woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

impl LocalCalls {
    /// Takes calls.
    pub(crate) fn spawn(self: &Rc<Self>) -> Spawn {
        let calls = Rc::clone(self);
        Box::new(move |future| {
            let woken = Woken { is_woken: AtomicBool::new(true), thread: std::thread::current() };
            calls.running.borrow_mut().push(Running { future, woken: Arc::new(woken) });
        })
    }

    /// Goes on until a call has ended.
    ///
    /// # Errors
    /// Nothing happens any more.
    pub(crate) fn run(&self, arrivals: &Arrivals) -> Result<(), String> {
        while arrivals.is_empty() {
            let polled = self.poll()?;
            if arrivals.is_empty() && !polled {
                std::thread::park_timeout(STUCK);
                if !self.running.borrow().iter().any(Running::is_woken) {
                    return Err(format!(
                        "asynchronous calls wait for something that does not happen in {STUCK:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Lets all calls go on as far as they can.
    #[cfg(test)]
    pub(crate) fn turn(&self) {
        while self.poll().is_ok_and(|polled| polled) {}
    }

    /// Goes on with what was woken; whether anything was.
    fn poll(&self) -> Result<bool, String> {
        let mut runtime = self.runtime.borrow_mut();
        if runtime.is_none() {
            let clock = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build();
            *runtime =
                Some(clock.map_err(|error| format!("there is no clock for asynchronous calls: {error}"))?);
        }
        let _inside = runtime.as_ref().map(Runtime::enter);
        let mut polled = false;
        let mut left = Vec::new();
        for mut call in std::mem::take(&mut *self.running.borrow_mut()) {
            let ended = call.woken.is_woken.swap(false, Ordering::AcqRel) && {
                polled = true;
                let waker = Waker::from(Arc::clone(&call.woken));
                call.future.as_mut().poll(&mut Polling::from_waker(&waker)) == Poll::Ready(())
            };
            if !ended {
                left.push(call);
            }
        }
        self.running.borrow_mut().splice(0..0, left);
        Ok(polled)
    }
}

impl Running {
    fn is_woken(&self) -> bool {
        self.woken.is_woken.load(Ordering::Acquire)
    }
}

impl Drop for LocalCalls {
    fn drop(&mut self) {
        // The driver may be dropped in a test that is asynchronous itself.
        if let Some(runtime) = self.runtime.get_mut().take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for LocalCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalCalls").field("running", &self.running.borrow().len()).finish_non_exhaustive()
    }
}
