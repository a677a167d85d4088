//! The metrics of one consumer: handles are made once, and used once a fetch, a commit or a rebalance.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, SharedString};

use super::fetching::Brought;
use super::partitions::Sample;
use crate::error::ConsumeError;
use crate::observe::names::{
    CONSUMER_ASSIGNED, CONSUMER_BUFFERED_BYTES, CONSUMER_BYTES, CONSUMER_COMMIT_SECONDS, CONSUMER_ERRORS,
    CONSUMER_JOINED, CONSUMER_LAG, CONSUMER_LOST, CONSUMER_POLL_GAP_SECONDS, CONSUMER_REBALANCES,
    CONSUMER_RECORDS, THROTTLE_SECONDS,
};
use crate::observe::{ByLabel, Part};
use crate::types::TopicPartition;

/// What is told of a consumer.
#[derive(Debug)]
pub(super) struct ConsumerMetrics {
    client_id: SharedString,
    group: SharedString,
    topics: ByLabel<OfTopic>,
    errors: ByLabel<Counter>,
    commits: ByLabel<Histogram>,
    lags: Mutex<BTreeMap<TopicPartition, Gauge>>,
    buffered_bytes: Part,
    assigned: Part,
    joined: Part,
    poll_gap_seconds: Histogram,
    rebalances: Counter,
    lost: Counter,
    throttle_seconds: Histogram,
}

#[derive(Debug)]
struct OfTopic {
    records: Counter,
    bytes: Counter,
}

/// How a commit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CommitEnd {
    Made,
    /// The coordinator refused a partition.
    Refused,
    /// It said nothing of use.
    Failed,
}

impl ConsumerMetrics {
    /// `group` is empty for a consumer without one.
    pub(super) fn new(client_id: &Arc<str>, group: &Arc<str>) -> Self {
        let (client_id, group) =
            (SharedString::from(Arc::clone(client_id)), SharedString::from(Arc::clone(group)));
        let labels = [client_id.clone(), group.clone()];
        Self {
            topics: ByLabel::default(),
            errors: ByLabel::default(),
            commits: ByLabel::default(),
            lags: Mutex::default(),
            buffered_bytes: Part::of(CONSUMER_BUFFERED_BYTES.gauge(&labels)),
            assigned: Part::of(CONSUMER_ASSIGNED.gauge(&labels)),
            joined: Part::of(CONSUMER_JOINED.gauge(&labels)),
            poll_gap_seconds: CONSUMER_POLL_GAP_SECONDS.histogram(&labels),
            rebalances: CONSUMER_REBALANCES.counter(&labels),
            lost: CONSUMER_LOST.counter(&labels),
            throttle_seconds: THROTTLE_SECONDS.histogram(&["Fetch".into()]),
            client_id,
            group,
        }
    }

    /// A fetch brought this of a partition.
    pub(super) fn fetched(&self, brought: &Brought) {
        let make = |topic: SharedString| {
            let labels = [self.client_id.clone(), self.group.clone(), topic];
            OfTopic { records: CONSUMER_RECORDS.counter(&labels), bytes: CONSUMER_BYTES.counter(&labels) }
        };
        self.topics.with(&brought.topic, make, |of_topic| {
            of_topic.records.increment(brought.records as u64);
            of_topic.bytes.increment(brought.bytes as u64);
        });
    }

    /// Where the consumer stands. A lag goes with its partition: whoever adds them up counts nothing twice.
    pub(super) fn sample(&self, sample: &Sample) {
        self.buffered_bytes.set(sample.buffered_bytes as f64);
        self.assigned.set(sample.assigned as f64);
        let mut lags = self.lags.lock().unwrap_or_else(PoisonError::into_inner);
        for (partition, lag) in &sample.lags {
            let gauge = lags.entry(partition.clone()).or_insert_with(|| self.lag_of(partition));
            gauge.set(*lag as f64);
        }
        lags.retain(|partition, gauge| {
            let stays = sample.lags.contains_key(partition);
            if !stays {
                gauge.set(0.0);
            }
            stays
        });
    }

    fn lag_of(&self, partition: &TopicPartition) -> Gauge {
        let (topic, number) = (Arc::clone(&partition.topic).into(), partition.partition.to_string().into());
        CONSUMER_LAG.gauge(&[self.client_id.clone(), self.group.clone(), topic, number])
    }

    /// The program was given an error.
    pub(super) fn failed(&self, error: &ConsumeError) {
        let make = |kind| CONSUMER_ERRORS.counter(&[self.client_id.clone(), self.group.clone(), kind]);
        self.errors.with_word(error.kind(), make, |errors| errors.increment(1));
    }

    /// A request to commit is over.
    pub(super) fn committed(&self, end: CommitEnd, after: Duration) {
        let result = match end {
            CommitEnd::Made => "ok",
            CommitEnd::Refused => "refused",
            CommitEnd::Failed => "failed",
        };
        let make =
            |result| CONSUMER_COMMIT_SECONDS.histogram(&[self.client_id.clone(), self.group.clone(), result]);
        self.commits.with_word(result, make, |seconds| seconds.record(after.as_secs_f64()));
    }

    pub(super) fn poll_gap(&self, gap: Duration) {
        self.poll_gap_seconds.record(gap.as_secs_f64());
    }

    pub(super) fn joined(&self, member: bool) {
        self.joined.set(f64::from(u8::from(member)));
    }

    pub(super) fn rebalanced(&self) {
        self.rebalances.increment(1);
    }

    pub(super) fn lost(&self, partitions: usize) {
        self.lost.increment(partitions as u64);
    }

    pub(super) fn throttled(&self, pause: Duration) {
        self.throttle_seconds.record(pause.as_secs_f64());
    }
}

impl Drop for ConsumerMetrics {
    fn drop(&mut self) {
        self.sample(&Sample::default());
    }
}
