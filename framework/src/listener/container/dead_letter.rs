//! Dead letters: the record as it came, to another topic, with headers that say where it came from and why.

use std::sync::Arc;

use klamm_client::{ConsumerRecord, ProduceError, Producer, Record};

use crate::dead_letters::{Failed, of_failed};
use crate::listener::extract::Rejection;
use crate::listener::failure::Failure;
use crate::listener::topics::DEAD_LETTER_SUFFIX;

#[derive(Debug)]
pub(super) struct DeadLetters {
    producer: Producer,
}

impl DeadLetters {
    pub(super) fn new(producer: Producer) -> Self {
        Self { producer }
    }

    /// Publishes a dead letter, to `topic` or to that of `source`, and waits for the acknowledgement. It goes to the
    /// record's partition number, or where its key belongs if the topic has fewer partitions.
    pub(super) async fn publish(
        &self,
        record: &ConsumerRecord,
        topic: Option<&Arc<str>>,
        source: &str,
        group: &str,
        failure: &Failure,
    ) -> Result<(), ProduceError> {
        send_to_same_partition(&self.producer, letter(record, topic, source, group, failure)).await
    }
}

/// A dead letter, to `topic` or to that of `source`.
pub(super) fn letter(
    record: &ConsumerRecord,
    topic: Option<&Arc<str>>,
    source: &str,
    group: &str,
    failure: &Failure,
) -> Record {
    let topic = topic.cloned().unwrap_or_else(|| format!("{source}{DEAD_LETTER_SUFFIX}").into());
    let message = failure.to_string();
    Record {
        topic,
        partition: Some(record.partition),
        key: record.key.clone(),
        value: record.value.clone(),
        headers: of_failed(record, failed(group, failure, &message)),
        timestamp_ms: None,
    }
}

/// A failure in the words of headers.
pub(super) fn failed<'a>(group: &'a str, failure: &'a Failure, message: &'a str) -> Failed<'a> {
    let of_key = matches!(failure.find::<Rejection>(), Some(Rejection::Key(_)));
    Failed { group, type_name: failure.type_name(), message, of_key }
}

/// Sends a record that names its partition; if the topic has fewer, to where its key belongs.
pub(super) async fn send_to_same_partition(producer: &Producer, record: Record) -> Result<(), ProduceError> {
    let sent = match producer.send(record.clone()).await {
        Err(ProduceError::UnknownPartition { .. }) => {
            producer.send(Record { partition: None, ..record }).await
        }
        sent => sent,
    };
    sent.map(drop)
}
