//! Clients that use more than their quota: they are told how long they have to wait, and not listened to for as long
//! (KIP-219).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Context, Peer};
use crate::quota::{Meters, Rate};

/// What clients have used of their quotas.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<Meters>);

impl Throttle {
    /// A client has used so many bytes. For how many milliseconds it is not listened to, which it has to be told.
    pub(super) fn charge(
        &self,
        context: &Context,
        peer: &Peer,
        client_id: &str,
        (rate, bytes): (Rate, usize),
    ) -> i32 {
        let view = context.view();
        let quotas = view.image.client_quotas();
        if quotas.is_empty() {
            return 0;
        }
        let now = Instant::now();
        let mut meters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = meters.take(quotas, client_id, rate, bytes, now);
        let wait_ms = wait.as_nanos().div_ceil(1_000_000);
        let wait_ms = i32::try_from(wait_ms).unwrap_or(i32::MAX);
        if wait_ms > 0 {
            peer.mute(now + Duration::from_millis(u64::from(wait_ms.unsigned_abs())));
        }
        wait_ms
    }
}
