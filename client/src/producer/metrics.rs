//! The metrics of one producer: handles are made once, and used once a batch.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Histogram, SharedString};
use tokio::time::Instant;

use super::batch::Batch;
use super::dispatch::Parcel;
use crate::error::{ProduceError, TransactionError};
use crate::observe::names::{
    PRODUCER_BATCH_BYTES, PRODUCER_BATCH_RECORDS, PRODUCER_BUFFER_BYTES, PRODUCER_BUFFER_WAIT_SECONDS,
    PRODUCER_BYTES, PRODUCER_COMPRESSION_RATIO, PRODUCER_DELIVERY_SECONDS, PRODUCER_ERRORS,
    PRODUCER_QUEUE_SECONDS, PRODUCER_RECORDS, PRODUCER_RETRIES, PRODUCER_TRANSACTIONS, THROTTLE_SECONDS,
};
use crate::observe::{ByLabel, Part};

/// What is told of a producer.
#[derive(Debug)]
pub(super) struct ProducerMetrics {
    client_id: SharedString,
    topics: ByLabel<OfTopic>,
    errors: ByLabel<Counter>,
    transactions: ByLabel<Counter>,
    retries: Counter,
    batch_bytes: Histogram,
    batch_records: Histogram,
    compression_ratio: Histogram,
    queue_seconds: Histogram,
    delivery_seconds: Histogram,
    buffer_bytes: Part,
    buffer_wait_seconds: Histogram,
    throttle_seconds: Histogram,
}

#[derive(Debug)]
struct OfTopic {
    records: Counter,
    bytes: Counter,
}

impl ProducerMetrics {
    pub(super) fn new(client_id: &Arc<str>) -> Self {
        let client_id = SharedString::from(Arc::clone(client_id));
        let labels = [client_id.clone()];
        Self {
            topics: ByLabel::default(),
            errors: ByLabel::default(),
            transactions: ByLabel::default(),
            retries: PRODUCER_RETRIES.counter(&labels),
            batch_bytes: PRODUCER_BATCH_BYTES.histogram(&labels),
            batch_records: PRODUCER_BATCH_RECORDS.histogram(&labels),
            compression_ratio: PRODUCER_COMPRESSION_RATIO.histogram(&labels),
            queue_seconds: PRODUCER_QUEUE_SECONDS.histogram(&labels),
            delivery_seconds: PRODUCER_DELIVERY_SECONDS.histogram(&labels),
            buffer_bytes: Part::of(PRODUCER_BUFFER_BYTES.gauge(&labels)),
            buffer_wait_seconds: PRODUCER_BUFFER_WAIT_SECONDS.histogram(&labels),
            throttle_seconds: THROTTLE_SECONDS.histogram(&["Produce".into()]),
            client_id,
        }
    }

    /// A batch goes out, as these bytes, for the first time or again.
    pub(super) fn sent(&self, batch: &Batch, bytes: usize, attempts: u32, now: Instant) {
        if attempts > 1 {
            return self.retries.increment(1);
        }
        self.batch_bytes.record(bytes as f64);
        self.batch_records.record(f64::from(batch.records()));
        self.queue_seconds.record(now.saturating_duration_since(batch.created).as_secs_f64());
        if let Some(ratio) = batch.ratio(bytes) {
            self.compression_ratio.record(ratio);
        }
    }

    /// A batch is done with, and its records know what became of them.
    pub(super) fn finished(&self, batch: &Batch, now: Instant) {
        let records = u64::from(batch.records().unsigned_abs());
        let failed = batch.decider.outcome(|outcome| outcome.as_ref().err().map(ProduceError::kind));
        if let Some(kind) = failed.flatten() {
            return self.failed(kind, records);
        }
        self.delivery_seconds.record(now.saturating_duration_since(batch.created).as_secs_f64());
        let make = |topic: SharedString| {
            let labels = [self.client_id.clone(), topic];
            OfTopic { records: PRODUCER_RECORDS.counter(&labels), bytes: PRODUCER_BYTES.counter(&labels) }
        };
        self.topics.with(&batch.decider.partition().topic, make, |of_topic| {
            of_topic.records.increment(records);
            of_topic.bytes.increment(batch.bytes() as u64);
        });
    }

    /// Records that were not taken, or not delivered.
    pub(super) fn failed(&self, kind: &'static str, records: u64) {
        let make = |kind| PRODUCER_ERRORS.counter(&[self.client_id.clone(), kind]);
        self.errors.with_word(kind, make, |errors| errors.increment(records));
    }

    pub(super) fn buffered(&self, bytes: usize) {
        self.buffer_bytes.set(bytes as f64);
    }

    pub(super) fn waited_for_room(&self, time: Duration) {
        self.buffer_wait_seconds.record(time.as_secs_f64());
    }

    pub(super) fn throttled(&self, pause: Duration) {
        self.throttle_seconds.record(pause.as_secs_f64());
    }

    /// A transaction is over. Gives the word for how it ended.
    pub(super) fn transaction_ended(
        &self,
        commit: bool,
        outcome: &Result<(), TransactionError>,
    ) -> &'static str {
        let result = match outcome {
            Ok(()) if commit => "committed",
            Ok(()) | Err(TransactionError::Aborted { .. }) => "aborted",
            Err(TransactionError::Fenced { .. }) => "fenced",
            Err(TransactionError::UnknownOutcome { .. }) => "unknown",
            Err(_) => "failed",
        };
        let make = |result| PRODUCER_TRANSACTIONS.counter(&[self.client_id.clone(), result]);
        self.transactions.with_word(result, make, |ended| ended.increment(1));
        result
    }
}
