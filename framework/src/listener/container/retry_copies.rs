//! Copies of records in retry topics: sent, and their topics made.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use klamm_client::{AdminError, Client, ConsumerRecord, ErrorCode, NewTopic, ProduceError, Producer, Record};
use klamm_runtime::Clock;

use super::dead_letter::send_to_same_partition;
use crate::dead_letters::{Failed, of_failed};
use crate::listener::retry_topics::{RetryTopics, Step, with_step};

/// How long Kafka keeps records unless told otherwise.
const RETENTION: Duration = Duration::from_secs(7 * 24 * 3_600);
/// From here on a delay asks for a retention of its own.
const LONG_DELAY: Duration = Duration::from_secs(24 * 3_600);

/// Sends records to the retry topics of one listener.
#[derive(Debug)]
pub(super) struct RetryCopies {
    topics: RetryTopics,
    producer: Producer,
    client: Client,
    /// Topics that were seen to be there.
    there: Mutex<HashSet<Arc<str>>>,
}

/// Where a record goes next, and what its headers say of that.
#[derive(Debug)]
pub(super) struct NextStep {
    source: Arc<str>,
    topic: Arc<str>,
    pub(super) step: Step,
}

impl RetryCopies {
    pub(super) fn new(topics: RetryTopics, client: &Client, producer: Producer) -> Self {
        Self { topics, producer, client: client.clone(), there: Mutex::default() }
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &**self.client.clock()
    }

    /// How far the record has come.
    pub(super) fn steps_taken(&self, record: &ConsumerRecord) -> usize {
        self.topics.stage(&record.topic, &record.headers).1
    }

    /// The step that a record takes now, after so many deliveries; `None` after the last.
    pub(super) fn next(&self, record: &ConsumerRecord, deliveries: u32) -> Option<NextStep> {
        let (source, steps) = self.topics.stage(&record.topic, &record.headers);
        let (topic, delay) = self.topics.step(source, steps)?;
        let delay_ms = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        let due_ms = self.clock().now_ms().saturating_add(delay_ms);
        let step = Step { steps: steps + 1, deliveries, due_ms };
        Some(NextStep { source: source.into(), topic, step })
    }

    /// Sends a copy there and waits for the acknowledgement.
    pub(super) async fn publish(
        &self,
        record: &ConsumerRecord,
        next: &NextStep,
        failed: Failed<'_>,
    ) -> Result<(), ProduceError> {
        let sent = send_to_same_partition(&self.producer, self.copy(record, next, failed).await).await;
        if sent.is_err() {
            self.look_again(next);
        }
        sent
    }

    /// A copy could not be sent. Its topic may have been deleted: the next attempt looks.
    pub(super) fn look_again(&self, next: &NextStep) {
        self.there.lock().unwrap_or_else(PoisonError::into_inner).remove(&next.topic);
    }

    /// A copy, to a topic that is made if it is missing.
    pub(super) async fn copy(
        &self,
        record: &ConsumerRecord,
        NextStep { source, topic, step }: &NextStep,
        failed: Failed<'_>,
    ) -> Record {
        if !self.is_there(topic) {
            self.see_to(source).await;
        }
        Record {
            topic: Arc::clone(topic),
            partition: Some(record.partition),
            key: record.key.clone(),
            value: record.value.clone(),
            headers: with_step(of_failed(record, failed), *step),
            // Not the record's own: by that, retention could take it before it is due.
            timestamp_ms: None,
        }
    }

    /// Makes the retry topics of `source` if they are missing. That they cannot be made is told by what is sent there.
    pub(super) async fn see_to(&self, source: &str) {
        match make_missing(&self.client, &self.topics, source).await {
            Ok(made) => self.there.lock().unwrap_or_else(PoisonError::into_inner).extend(made),
            Err(error) => {
                tracing::debug!(topic = source, %error, "its retry topics could not be looked for or made");
            }
        }
    }

    fn is_there(&self, topic: &Arc<str>) -> bool {
        self.there.lock().unwrap_or_else(PoisonError::into_inner).contains(topic)
    }
}

/// Makes the retry topics of `source` that are missing, with as many partitions as it has; gives the names of all that
/// are there now. None are made as long as `source` is missing itself.
///
/// # Errors
/// Topics cannot be looked at or made.
pub(crate) async fn make_missing(
    client: &Client,
    retries: &RetryTopics,
    source: &str,
) -> Result<Vec<Arc<str>>, AdminError> {
    let wanted = retries.of(source);
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let admin = client.admin();
    let names: Vec<Arc<str>> =
        [source.into()].into_iter().chain(wanted.iter().map(|(name, _)| name.clone())).collect();
    let described = admin.describe_topics(&names).await?;
    let partitions = match described.get(source) {
        Some(Ok(description)) => i32::try_from(description.partitions.len()).unwrap_or(i32::MAX),
        Some(Err(error)) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => return Ok(Vec::new()),
        Some(Err(error)) => return Err(error.clone()),
        None => return Ok(Vec::new()),
    };
    let unknown = Some(ErrorCode::UnknownTopicOrPartition);
    let is_missing =
        |name: &Arc<str>| matches!(described.get(name), Some(Err(error)) if error.code() == unknown);
    let missing = wanted.iter().filter(|(name, _)| is_missing(name));
    let new: Vec<NewTopic> = missing.map(|(name, delay)| new_topic(name, partitions, *delay)).collect();
    if !new.is_empty() {
        for created in admin.create_topics(&new).await?.into_values() {
            match created {
                // Another instance was faster.
                Err(error) if error.code() != Some(ErrorCode::TopicAlreadyExists) => return Err(error),
                _ => {}
            }
        }
    }
    Ok(wanted.into_iter().map(|(name, _)| name).collect())
}

fn new_topic(name: &Arc<str>, partitions: i32, delay: Duration) -> NewTopic {
    let topic = NewTopic::new(Arc::clone(name)).partitions(partitions);
    if delay < LONG_DELAY {
        return topic;
    }
    // What waits must not be taken before it is due.
    topic.config("retention.ms", (RETENTION + delay).as_millis().to_string())
}
