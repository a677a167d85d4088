//! A log line that strangers can cause, at most once a second: what was held back is counted and told with the next.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const INTERVAL: Duration = Duration::from_secs(1);

/// Says something now and then.
#[derive(Debug, Default)]
pub(crate) struct QuietLog {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    held_back: u64,
}

impl QuietLog {
    /// Warns about a peer, unless it was warned of one within the last second. `why` never holds what the peer sent.
    pub(crate) fn warn(&self, peer: &str, why: &dyn std::fmt::Display) {
        if let Some(held_back) = self.may_warn() {
            tracing::warn!(peer, held_back, "connection closed: {why}");
        }
    }

    /// As [`Self::admit`], now.
    pub(crate) fn may_warn(&self) -> Option<u64> {
        self.admit(Instant::now())
    }

    /// How many were held back before this one, if it may be told.
    fn admit(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now < last + INTERVAL) {
            state.held_back += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_a_second() {
        let log = QuietLog::default();
        let start = Instant::now();
        assert_eq!(log.admit(start), Some(0));
        assert_eq!(log.admit(start), None);
        assert_eq!(log.admit(start + Duration::from_millis(999)), None);
        assert_eq!(log.admit(start + INTERVAL), Some(2));
    }
}
