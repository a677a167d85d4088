//! Dead letters: the record as it came, to another topic, with headers that say where it came from and why. The header
//! names and their encodings are spring-kafka's, so that its tools read ours and the other way round.

use std::sync::Arc;

use bytes::Bytes;
use klamm_client::{ConsumerRecord, ProduceError, Producer, Record, RecordMetadata, TimestampType};

use crate::listener::extract::Rejection;
use crate::listener::failure::Failure;
use crate::listener::topics::DEAD_LETTER_SUFFIX;

/// Errors can quote whole payloads; a header must not make the record too large to send.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;

const ORIGINAL_TOPIC: &str = "kafka_dlt-original-topic";
const EXCEPTION_PREFIX: &str = "kafka_dlt-exception-";
const KEY_EXCEPTION_PREFIX: &str = "kafka_dlt-key-exception-";

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
        let letter = Record {
            topic,
            partition: Some(record.partition),
            key: record.key.clone(),
            value: record.value.clone(),
            headers: headers(record, group, failure),
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

/// The record's own headers, then ours. What an earlier dead letter said about its failure is replaced; where the
/// record came from first stays, so that the headers do not grow from hop to hop.
fn headers(record: &ConsumerRecord, group: &str, failure: &Failure) -> Vec<(Arc<str>, Option<Bytes>)> {
    let mut headers = record.headers.to_vec();
    headers
        .retain(|(name, _)| !name.starts_with(EXCEPTION_PREFIX) && !name.starts_with(KEY_EXCEPTION_PREFIX));
    let mut add = |name: &str, value: Bytes| headers.push((name.into(), Some(value)));
    if record.headers.last(ORIGINAL_TOPIC).is_none() {
        let timestamp_type = match record.timestamp_type {
            TimestampType::CreateTime => "CreateTime",
            TimestampType::LogAppendTime => "LogAppendTime",
        };
        add(ORIGINAL_TOPIC, Bytes::copy_from_slice(record.topic.as_bytes()));
        add("kafka_dlt-original-partition", Bytes::copy_from_slice(&record.partition.to_be_bytes()));
        add("kafka_dlt-original-offset", Bytes::copy_from_slice(&record.offset.to_be_bytes()));
        add("kafka_dlt-original-timestamp", Bytes::copy_from_slice(&record.timestamp_ms.to_be_bytes()));
        add("kafka_dlt-original-timestamp-type", Bytes::from_static(timestamp_type.as_bytes()));
        add("kafka_dlt-original-consumer-group", Bytes::copy_from_slice(group.as_bytes()));
    }
    let prefix = match failure.find::<Rejection>() {
        Some(Rejection::Key(_)) => KEY_EXCEPTION_PREFIX,
        _ => EXCEPTION_PREFIX,
    };
    let mut message = failure.to_string();
    message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
    add(&format!("{prefix}fqcn"), Bytes::from_static(failure.type_name().as_bytes()));
    add(&format!("{prefix}message"), message.into());
    headers
}

#[cfg(test)]
mod tests {
    use klamm_client::Headers;

    use super::*;

    fn record(headers: Headers) -> ConsumerRecord {
        ConsumerRecord {
            topic: "orders".into(),
            partition: 3,
            offset: 258,
            timestamp_ms: 7,
            timestamp_type: TimestampType::CreateTime,
            leader_epoch: None,
            key: None,
            value: None,
            headers,
        }
    }

    #[test]
    fn headers_are_encoded_as_spring_does() {
        let own: Headers = [("trace", "7f")].into_iter().collect();
        let written = Headers::from(headers(&record(own), "billing", &Failure::handler("broke")));
        let last = |name: &str| written.last(name).flatten().map(<[u8]>::to_vec);
        assert_eq!(last("trace").unwrap(), b"7f");
        assert_eq!(last("kafka_dlt-original-topic").unwrap(), b"orders");
        assert_eq!(last("kafka_dlt-original-partition").unwrap(), [0, 0, 0, 3]);
        assert_eq!(last("kafka_dlt-original-offset").unwrap(), [0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(last("kafka_dlt-original-timestamp").unwrap(), [0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(last("kafka_dlt-original-timestamp-type").unwrap(), b"CreateTime");
        assert_eq!(last("kafka_dlt-original-consumer-group").unwrap(), b"billing");
        assert_eq!(last("kafka_dlt-exception-message").unwrap(), b"broke");
        assert_eq!(last("kafka_dlt-exception-fqcn").unwrap(), b"&str");
    }

    #[test]
    fn a_second_hop_keeps_the_origin_and_replaces_the_failure() {
        let first = headers(&record(Headers::new()), "billing", &Failure::handler("first"));
        let again = ConsumerRecord { topic: "orders-dlt".into(), ..record(Headers::from(first.clone())) };
        let second = headers(&again, "repair", &Failure::handler("second"));
        assert_eq!(second.len(), first.len(), "headers do not grow");
        let second = Headers::from(second);
        assert_eq!(second.last(ORIGINAL_TOPIC), Some(Some(&b"orders"[..])));
        assert_eq!(second.all("kafka_dlt-exception-message").collect::<Vec<_>>(), [Some(&b"second"[..])]);
    }

    #[test]
    fn a_bad_key_has_its_own_headers_and_long_messages_are_cut() {
        let bad_key = Rejection::Key(crate::serde::SerdeError::deserialize::<i64>("f", 1, "ä".repeat(4_000)));
        let written = Headers::from(headers(&record(Headers::new()), "g", &Failure::rejected(bad_key)));
        let message = written.last("kafka_dlt-key-exception-message").flatten().unwrap();
        assert!(message.len() <= MESSAGE_BYTES_MAX && std::str::from_utf8(message).is_ok());
        assert!(written.last("kafka_dlt-exception-message").is_none());
    }
}
