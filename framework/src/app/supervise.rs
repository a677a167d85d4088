//! Who looks after a running listener: starts it again when it fails, if that is wanted, or says that it failed for
//! good.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::book::Phase;
use super::registry::Registry;
use super::restarts::Restarts;
use crate::listener::{ListenerFailure, ListenerHandle};

/// Looks after a listener from this start on, until it is stopped, or somebody else starts it.
pub(super) async fn supervise(
    registry: Weak<Registry>,
    id: Arc<str>,
    mut handle: ListenerHandle,
    mut epoch: u64,
) {
    let mut restarts = Restarts::default();
    loop {
        let begun = Instant::now();
        let Some(failure) = handle.failure().await else { return };
        let is_mine = |registry: &Registry| registry.epoch(&id) == Some(epoch);
        let Some(running) = registry.upgrade().filter(|registry| is_mine(registry)) else { return };
        let Some(delay) = noted(&running, &id, &mut restarts, begun.elapsed(), failure) else { return };
        drop(running);
        handle.tell_restart(delay);
        sleep(delay).await;
        let Some(running) = registry.upgrade() else { return };
        let Ok(turn) = running.turn(&id) else { return };
        let _turn = turn.lock().await;
        if !is_mine(&running) {
            return;
        }
        match running.run(&id).await {
            Ok(started) => {
                (handle, epoch) = started;
                running.book.note(&id, |line| line.restarts += 1);
            }
            // It counts as another failure.
            Err(error) => tracing::warn!(listener = %id, %error, "the listener could not be started again"),
        }
    }
}

/// Notes what becomes of a listener that failed after it ran for so long: it is started again after the time that this
/// gives, or not.
fn noted(
    registry: &Registry,
    id: &Arc<str>,
    restarts: &mut Restarts,
    ran: Duration,
    failure: ListenerFailure,
) -> Option<Duration> {
    let (now, backoff) = (Instant::now(), registry.restart(id));
    let delay = backoff.and_then(|backoff| restarts.failed(&backoff, ran, now, registry.random()));
    if let Some(delay) = delay {
        tracing::warn!(listener = %id, %failure, restart_in = ?delay, "the listener failed, and is started again");
    }
    registry.book.note(id, |line| {
        line.phase = match delay {
            Some(delay) => Phase::Restarting(failure, now.checked_add(delay).unwrap_or(now)),
            None => Phase::Failed(failure),
        }
    });
    delay
}
