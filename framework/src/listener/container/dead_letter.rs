//! Dead letters: the record as it came, to another topic, with headers that say where it came from and why.

use std::sync::Arc;

use klamm_client::{ConsumerRecord, ProduceError, Producer, Record, RecordMetadata};

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

    /// Publishes a dead letter and waits for the acknowledgement. It goes to the record's partition number, or where
    /// its key belongs if the topic has fewer partitions.
    pub(super) async fn publish(
        &self,
        record: &ConsumerRecord,
        topic: Option<&Arc<str>>,
        group: &str,
        failure: &Failure,
    ) -> Result<RecordMetadata, ProduceError> {
        let topic = topic.cloned().unwrap_or_else(|| format!("{}{DEAD_LETTER_SUFFIX}", record.topic).into());
        let message = failure.to_string();
        let of_key = matches!(failure.find::<Rejection>(), Some(Rejection::Key(_)));
        let failed = Failed { group, type_name: failure.type_name(), message: &message, of_key };
        let letter = Record {
            topic,
            partition: Some(record.partition),
            key: record.key.clone(),
            value: record.value.clone(),
            headers: of_failed(record, failed),
            timestamp_ms: None,
        };
        match self.producer.send(letter.clone()).await {
            Err(ProduceError::UnknownPartition { .. }) => {
                self.producer.send(Record { partition: None, ..letter }).await
            }
            sent => sent,
        }
    }
}
