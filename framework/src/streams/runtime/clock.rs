//! The clock of threads that have none: what time it is, and when to look again.

use std::sync::Arc;
use std::time::Duration;

use klamm_runtime::Clock;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::shared::{Command, Shared};

/// A clock of the runtime in which the application was started, for threads that are not of it. A test's clock stands
/// still there, and nowhere else.
#[derive(Debug)]
pub(super) struct RuntimeClock {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) runtime: Handle,
}

impl Clock for RuntimeClock {
    fn now_ms(&self) -> i64 {
        let _inside = self.runtime.enter();
        self.clock.now_ms()
    }
}

/// Wakes a worker when it wants to be told the time.
pub(super) async fn serve(shared: Arc<Shared>, worker: usize, mut wake_at_ms: watch::Receiver<Option<i64>>) {
    loop {
        let at_ms = *wake_at_ms.borrow_and_update();
        let changed = match at_ms {
            None => wake_at_ms.changed().await,
            Some(at_ms) => {
                let left_ms = at_ms.saturating_sub(shared.clock.now_ms());
                let left = Duration::from_millis(u64::try_from(left_ms).unwrap_or(0));
                match tokio::time::timeout(left, wake_at_ms.changed()).await {
                    Ok(changed) => changed,
                    Err(_) => {
                        shared.workers[worker].send(Command::Wake).ok();
                        // It says again when it wants to be told next.
                        wake_at_ms.changed().await
                    }
                }
            }
        };
        if changed.is_err() {
            return;
        }
    }
}
