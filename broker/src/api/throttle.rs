//! What clients have used of their quotas, for all connections together.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::quota::{ClientQuotas, Meters, Rate};

/// What clients have used of their quotas.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<Meters>);

impl Throttle {
    /// A client has used so many bytes: for how many milliseconds it should use none.
    pub(super) fn charge(&self, quotas: &ClientQuotas, client_id: &str, (rate, bytes): (Rate, usize)) -> u32 {
        let mut meters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = meters.take(quotas, client_id, rate, bytes, Instant::now());
        let wait_ms = wait.as_nanos().div_ceil(1_000_000);
        i32::try_from(wait_ms).unwrap_or(i32::MAX).unsigned_abs()
    }
}
