//! The metrics of one connection. Their handles are made once: those of an API when it is first asked.

use std::sync::OnceLock;
use std::time::Duration;

use klamm_protocol::ApiKey;
use metrics::{Counter, Histogram};

use crate::observe::names::{
    CONNECTIONS, RECEIVED_BYTES, REQUEST_SECONDS, REQUESTS, REQUESTS_FAILED, SENT_BYTES,
};

/// What is told of a connection.
#[derive(Debug)]
pub(super) struct ConnectionMetrics {
    /// By the API's key.
    apis: Box<[OnceLock<ApiMetrics>]>,
    sent_bytes: Counter,
    received_bytes: Counter,
}

#[derive(Debug)]
struct ApiMetrics {
    requests: Counter,
    seconds: Histogram,
    failed: Counter,
}

/// An attempt to connect is over.
pub(super) fn connected(opened: bool) {
    CONNECTIONS.counter(&[if opened { "opened" } else { "failed" }.into()]).increment(1);
}

impl ConnectionMetrics {
    pub(super) fn new() -> Self {
        let keys = ApiKey::ALL.iter().filter_map(|api| usize::try_from(api.code()).ok());
        let count = keys.max().map_or(0, |last| last + 1);
        Self {
            apis: (0..count).map(|_| OnceLock::new()).collect(),
            sent_bytes: SENT_BYTES.counter(&[]),
            received_bytes: RECEIVED_BYTES.counter(&[]),
        }
    }

    fn api(&self, api: ApiKey) -> Option<&ApiMetrics> {
        let place = self.apis.get(usize::try_from(api.code()).ok()?)?;
        Some(place.get_or_init(|| {
            let labels = [api.name().into()];
            ApiMetrics {
                requests: REQUESTS.counter(&labels),
                seconds: REQUEST_SECONDS.histogram(&labels),
                failed: REQUESTS_FAILED.counter(&labels),
            }
        }))
    }

    pub(super) fn sent(&self, api: ApiKey, frame_bytes: usize) {
        if let Some(of_api) = self.api(api) {
            of_api.requests.increment(1);
        }
        self.sent_bytes.increment(frame_bytes as u64);
    }

    pub(super) fn answered(&self, api: ApiKey, after: Duration, frame_bytes: usize) {
        if let Some(of_api) = self.api(api) {
            of_api.seconds.record(after.as_secs_f64());
        }
        self.received_bytes.increment(frame_bytes as u64);
    }

    pub(super) fn unanswered(&self, api: ApiKey) {
        if let Some(of_api) = self.api(api) {
            of_api.failed.increment(1);
        }
    }
}
