//! What connections tell the program's metrics recorder (the facade of the
//! crate `metrics`): nothing is kept without one.
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | `klamm_client_connections_total` | counter | `result`: opened, failed |
//! | `klamm_client_requests_total` | counter | `api` |
//! | `klamm_client_request_seconds` | histogram, from queueing to the answer | `api` |
//! | `klamm_client_requests_failed_total` | counter of requests without an answer | `api` |
//! | `klamm_client_sent_bytes_total`, `klamm_client_received_bytes_total` | counters, frames with their lengths | |

use std::time::Duration;

use klamm_protocol::ApiKey;
use metrics::{counter, histogram};

pub(super) fn connection(opened: bool) {
    counter!("klamm_client_connections_total", "result" => if opened { "opened" } else { "failed" })
        .increment(1);
}

pub(super) fn sent(api: ApiKey, frame_bytes: usize) {
    counter!("klamm_client_requests_total", "api" => api.name()).increment(1);
    counter!("klamm_client_sent_bytes_total").increment(frame_bytes as u64);
}

pub(super) fn answered(api: ApiKey, after: Duration, frame_bytes: usize) {
    histogram!("klamm_client_request_seconds", "api" => api.name()).record(after.as_secs_f64());
    counter!("klamm_client_received_bytes_total").increment(frame_bytes as u64);
}

pub(super) fn unanswered(api: ApiKey) {
    counter!("klamm_client_requests_failed_total", "api" => api.name()).increment(1);
}
