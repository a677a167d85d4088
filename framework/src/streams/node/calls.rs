//! How calls of asynchronous operators come back to their task: a queue that its thread looks into, and can wait for.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::panicked::Panicked;
use crate::listener::BoxError;
use crate::panic_text::text_of_panic;

/// What a call gave; its operator knows the type.
pub(crate) type Given = Result<Box<dyn Any + Send>, BoxError>;

/// Lets a future run somewhere else; what has not ended when this is dropped is ended.
pub(crate) type Spawn = Box<dyn Fn(BoxFuture<'static, ()>)>;

/// A call that has ended.
pub(crate) struct Arrival {
    pub(crate) operator: usize,
    pub(crate) number: u64,
    pub(crate) given: Given,
}

/// The calls of one task that have ended and are not looked at yet.
#[derive(Default)]
pub(crate) struct Arrivals {
    queue: Mutex<VecDeque<Arrival>>,
    arrived: Condvar,
    /// Told when there is something after nothing.
    wake: Mutex<Option<Box<dyn Fn() + Send>>>,
}

impl fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrivals").finish_non_exhaustive()
    }
}

impl Arrivals {
    pub(crate) fn wake_by(&self, wake: impl Fn() + Send + 'static) {
        *lock(&self.wake) = Some(Box::new(wake));
    }

    pub(crate) fn pop(&self) -> Option<Arrival> {
        lock(&self.queue).pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.queue).is_empty()
    }

    /// Waits until there is something, for so long at most; whether there is.
    pub(crate) fn wait_within(&self, within: Duration) -> bool {
        let waited = self.arrived.wait_timeout_while(lock(&self.queue), within, |queue| queue.is_empty());
        let (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !queue.is_empty()
    }

    fn push(&self, arrival: Arrival) {
        let was_empty = {
            let mut queue = lock(&self.queue);
            queue.push_back(arrival);
            queue.len() == 1
        };
        self.arrived.notify_all();
        if let (true, Some(wake)) = (was_empty, &*lock(&self.wake)) {
            wake();
        }
    }
}

/// The place in the queue that a call has: whatever becomes of its future, something arrives.
pub(crate) struct Ticket {
    arrivals: Arc<Arrivals>,
    operator: usize,
    number: u64,
    given: Option<Given>,
}

impl Ticket {
    pub(crate) fn new(arrivals: &Arc<Arrivals>, operator: usize, number: u64) -> Self {
        Self { arrivals: Arc::clone(arrivals), operator, number, given: None }
    }

    /// Says what the call gave. Takes the whole ticket, so that it lives for as long as the call.
    pub(crate) fn hand_in(mut self, given: Given) {
        self.given = Some(given);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let given = self.given.take().unwrap_or_else(|| Err("the call was given up before it ended".into()));
        self.arrivals.push(Arrival { operator: self.operator, number: self.number, given });
    }
}

/// How long a call may take, and the pauses before further attempts.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    pub(crate) timeout: Duration,
    pub(crate) pauses: Vec<Duration>,
}

/// Makes a call, again after a failure while there is patience. A panic is a failure, as anywhere.
pub(crate) async fn attempts<R, F>(
    patience: Patience,
    mut make: impl FnMut() -> F + Send,
) -> Result<R, BoxError>
where
    R: Send,
    F: Future<Output = Result<R, BoxError>> + Send,
{
    let Patience { timeout, pauses } = patience;
    let mut pauses = pauses.into_iter();
    loop {
        let attempt = AssertUnwindSafe(async { make().await }).catch_unwind();
        let given = match tokio::time::timeout(timeout, attempt).await {
            Ok(Ok(given)) => given,
            Ok(Err(panic)) => Err(Panicked { text: text_of_panic(panic), culprit: None }.into()),
            Err(_) => Err(format!("it did not end within {timeout:?}").into()),
        };
        match (given, pauses.next()) {
            (Err(_), Some(pause)) if !pause.is_zero() => tokio::time::sleep(pause).await,
            (Err(_), Some(_)) => tokio::task::yield_now().await,
            (given, _) => return given,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
