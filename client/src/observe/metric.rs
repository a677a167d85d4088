//! The table of metrics. A handle can be made of a row alone, so there is no metric outside of the table.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{
    Counter, Gauge, Histogram, Label, SharedString, Unit, counter, describe_counter, describe_gauge,
    describe_histogram, gauge, histogram,
};

/// A metric that the client tells the [`metrics`] facade of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name; the end says the unit. It stays.
    pub name: &'static str,
    /// What it is.
    pub kind: MetricKind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub doc: &'static str,
}

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Many values, of which a recorder makes quantiles or buckets.
    Histogram,
}

impl fmt::Display for MetricKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

impl Metric {
    /// Its handle with these values of its labels.
    pub(crate) fn counter(&self, values: &[SharedString]) -> Counter {
        debug_assert_eq!(self.kind, MetricKind::Counter, "{}", self.name);
        counter!(self.name, self.labelled(values))
    }

    /// As [`Metric::counter`].
    pub(crate) fn gauge(&self, values: &[SharedString]) -> Gauge {
        debug_assert_eq!(self.kind, MetricKind::Gauge, "{}", self.name);
        gauge!(self.name, self.labelled(values))
    }

    /// As [`Metric::counter`].
    pub(crate) fn histogram(&self, values: &[SharedString]) -> Histogram {
        debug_assert_eq!(self.kind, MetricKind::Histogram, "{}", self.name);
        histogram!(self.name, self.labelled(values))
    }

    fn labelled(&self, values: &[SharedString]) -> Vec<Label> {
        debug_assert_eq!(self.labels.len(), values.len(), "{}", self.name);
        self.labels.iter().zip(values).map(|(&name, value)| Label::new(name, value.clone())).collect()
    }
}

/// Tells the recorder what each metric is.
pub(crate) fn describe_all() {
    for Metric { name, kind, doc, .. } in METRICS {
        let unit = match name {
            name if name.ends_with("_seconds") => Unit::Seconds,
            name if name.ends_with("_bytes") || name.ends_with("_bytes_total") => Unit::Bytes,
            _ => Unit::Count,
        };
        match kind {
            MetricKind::Counter => describe_counter!(*name, unit, *doc),
            MetricKind::Gauge => describe_gauge!(*name, unit, *doc),
            MetricKind::Histogram => describe_histogram!(*name, unit, *doc),
        }
    }
}

/// Handles of one metric by the value of one label, made when they are first needed.
pub(crate) struct ByLabel<T> {
    handles: Mutex<BTreeMap<SharedString, T>>,
}

/// More values than this are not kept: they are made each time.
const MOST_KEPT: usize = 10_000;

impl<T> Default for ByLabel<T> {
    fn default() -> Self {
        Self { handles: Mutex::default() }
    }
}

impl<T> fmt::Debug for ByLabel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByLabel").finish_non_exhaustive()
    }
}

impl<T> ByLabel<T> {
    /// Uses the handle for a topic, or for another label's value.
    pub(crate) fn with(
        &self,
        value: &Arc<str>,
        make: impl FnOnce(SharedString) -> T,
        using: impl FnOnce(&T),
    ) {
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        // Without a copy of the name where it is known.
        let value = SharedString::from(Arc::clone(value));
        if let Some(handle) = handles.get(&value) {
            return using(handle);
        }
        let handle = make(value.clone());
        using(&handle);
        if handles.len() < MOST_KEPT {
            handles.insert(value, handle);
        }
    }

    /// As [`ByLabel::with`], of a word of our own.
    pub(crate) fn with_word(
        &self,
        value: &'static str,
        make: impl FnOnce(SharedString) -> T,
        using: impl FnOnce(&T),
    ) {
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        let value = SharedString::const_str(value);
        using(handles.entry(value.clone()).or_insert_with(|| make(value)));
    }
}

macro_rules! metrics_table {
    ($($id:ident = $name:literal, $kind:ident, [$($label:literal),*], $doc:literal;)*) => {
        /// Each metric by a name of its own.
        pub(crate) mod names {
            use super::{Metric, MetricKind};
            $(
                pub(crate) const $id: Metric =
                    Metric { name: $name, kind: MetricKind::$kind, labels: &[$($label),*], doc: $doc };
            )*
        }

        /// Every metric of the client. A recorder that is to see them must be there before the client is built.
        pub const METRICS: &[Metric] = &[$(names::$id),*];
    };
}

metrics_table! {
    CONNECTIONS = "klamm_client_connections_total", Counter, ["result"],
        "Attempts to connect: `opened` or `failed`.";
    REQUESTS = "klamm_client_requests_total", Counter, ["api"],
        "Requests sent, by Kafka's name of the API.";
    REQUEST_SECONDS = "klamm_client_request_seconds", Histogram, ["api"],
        "From queueing a request to its answer: for `Produce`, `Fetch`, `OffsetCommit`, `Heartbeat` and all others.";
    REQUESTS_FAILED = "klamm_client_requests_failed_total", Counter, ["api"],
        "Requests without an answer.";
    SENT_BYTES = "klamm_client_sent_bytes_total", Counter, [],
        "Bytes of requests, with their lengths.";
    RECEIVED_BYTES = "klamm_client_received_bytes_total", Counter, [],
        "Bytes of answers, with their lengths.";
    THROTTLE_SECONDS = "klamm_client_throttle_seconds", Histogram, ["api"],
        "How long a broker asked to be left alone, for `Produce` and `Fetch`.";
    METADATA_REFRESHES = "klamm_client_metadata_refreshes_total", Counter, ["result"],
        "Requests for metadata: `ok` or `failed`.";
    PRODUCER_RECORDS = "klamm_client_producer_records_total", Counter, ["client_id", "topic"],
        "Records acknowledged (with `acks` 0: written to the network).";
    PRODUCER_BYTES = "klamm_client_producer_batch_bytes_total", Counter, ["client_id", "topic"],
        "Bytes of their batches, compressed.";
    PRODUCER_ERRORS = "klamm_client_producer_errors_total", Counter, ["client_id", "error"],
        "Records that were not taken or not delivered, by `ProduceError::kind`.";
    PRODUCER_RETRIES = "klamm_client_producer_retries_total", Counter, ["client_id"],
        "Batches sent again.";
    PRODUCER_BATCH_BYTES = "klamm_client_producer_batch_bytes", Histogram, ["client_id"],
        "Size of a batch as it is first sent, compressed.";
    PRODUCER_BATCH_RECORDS = "klamm_client_producer_batch_records", Histogram, ["client_id"],
        "Records of a batch as it is first sent.";
    PRODUCER_COMPRESSION_RATIO = "klamm_client_producer_compression_ratio", Histogram, ["client_id"],
        "Size of a batch, compressed, in parts of what it takes uncompressed.";
    PRODUCER_QUEUE_SECONDS = "klamm_client_producer_queue_seconds", Histogram, ["client_id"],
        "From a batch's first record to when the batch is first sent.";
    PRODUCER_DELIVERY_SECONDS = "klamm_client_producer_delivery_seconds", Histogram, ["client_id"],
        "From a batch's first record to its acknowledgement, with retries.";
    PRODUCER_BUFFER_BYTES = "klamm_client_producer_buffer_bytes", Gauge, ["client_id"],
        "What waits or is in flight, of `buffer_bytes`.";
    PRODUCER_BUFFER_WAIT_SECONDS = "klamm_client_producer_buffer_wait_seconds", Histogram, ["client_id"],
        "How long a record waited for room in the buffer, where it had to.";
    PRODUCER_TRANSACTIONS = "klamm_client_producer_transactions_total", Counter, ["client_id", "result"],
        "Transactions ended: `committed`, `aborted`, `fenced`, `unknown` or `failed`.";
    CONSUMER_RECORDS = "klamm_client_consumer_records_total", Counter, ["client_id", "group", "topic"],
        "Records fetched, by their batches' own count.";
    CONSUMER_BYTES = "klamm_client_consumer_batch_bytes_total", Counter, ["client_id", "group", "topic"],
        "Bytes of their batches, compressed.";
    CONSUMER_ERRORS = "klamm_client_consumer_errors_total", Counter, ["client_id", "group", "error"],
        "Errors that the program was given, by `ConsumeError::kind`.";
    CONSUMER_LAG = "klamm_client_consumer_lag_records", Gauge, ["client_id", "group", "topic", "partition"],
        "Records between the position and the end, of each assigned partition, about every second; 0 when it goes.";
    CONSUMER_BUFFERED_BYTES = "klamm_client_consumer_buffered_bytes", Gauge, ["client_id", "group"],
        "Fetched bytes that wait for the program, of `prefetch_bytes`, about every second.";
    CONSUMER_POLL_GAP_SECONDS = "klamm_client_consumer_poll_gap_seconds", Histogram, ["client_id", "group"],
        "From handing out the first record of a fetch to being asked for one beyond its last: the time of processing.";
    CONSUMER_ASSIGNED = "klamm_client_consumer_assigned_partitions", Gauge, ["client_id", "group"],
        "Partitions assigned, by the group or by hand.";
    CONSUMER_JOINED = "klamm_client_consumer_joined", Gauge, ["client_id", "group"],
        "Consumers that are members of their group now; less than there are is a rebalance, or trouble.";
    CONSUMER_REBALANCES = "klamm_client_consumer_rebalances_total", Counter, ["client_id", "group"],
        "Rebalances that ended with an assignment.";
    CONSUMER_LOST = "klamm_client_consumer_lost_partitions_total", Counter, ["client_id", "group"],
        "Partitions that went away without warning.";
    CONSUMER_COMMIT_SECONDS = "klamm_client_consumer_commit_seconds", Histogram, ["client_id", "group", "result"],
        "How long a commit took that was `ok`, that the coordinator `refused` for a partition, or that `failed`.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_count() {
        for Metric { name, kind, labels, doc } in METRICS {
            assert!(name.starts_with("klamm_client_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == MetricKind::Counter, "{name}");
            assert!(doc.ends_with('.') && !doc.contains('|'), "{name}");
            assert_eq!(
                METRICS.iter().filter(|other| other.name == *name).count(),
                1,
                "{name} stands there twice"
            );
            let mut different = labels.to_vec();
            different.dedup();
            assert_eq!(different, *labels, "{name}");
        }
    }

    #[test]
    fn a_handle_is_made_once_and_too_many_are_not_kept() {
        let by_topic = ByLabel::default();
        let made = Mutex::new(0);
        let make = |_| *made.lock().unwrap() += 1;
        let mut used = 0;
        for topic in ["a", "b", "a"] {
            by_topic.with(&Arc::from(topic), make, |()| used += 1);
        }
        assert_eq!((*made.lock().unwrap(), used), (2, 3));
        for number in 0..2 * MOST_KEPT {
            by_topic.with(&Arc::from(number.to_string()), make, |()| {});
        }
        assert_eq!(by_topic.handles.lock().unwrap().len(), MOST_KEPT);
        let words = ByLabel::default();
        for word in ["x", "x"] {
            words.with_word(word, make, |()| used += 1);
        }
        assert_eq!((*made.lock().unwrap(), used), (3 + 2 * MOST_KEPT, 5));
    }
}
