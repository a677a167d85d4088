//! `Reply<T>`: a handler answers by what it returns.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use klamm_client::{ConsumerRecord, Record};
use thiserror::Error;

use super::failure::Failure;
use super::outcome::{HandlerError, IntoOutcome};
use crate::serde::{DefaultSerde, Serde, SerdeError};

/// Where the reply to a request goes: its topic, and its partition in four bytes, most significant first. The names are
/// spring-kafka's.
const REPLY_TOPIC: &str = "kafka_replyTopic";
const REPLY_PARTITION: &str = "kafka_replyPartition";
/// What a request is recognised by; its reply has the same.
const CORRELATION_ID: &str = "kafka_correlationId";

/// What a handler returns to answer its record: a value, written as its type says, and headers if there are any.
///
/// It goes to the topic and partition that the request names in its headers (`kafka_replyTopic`,
/// `kafka_replyPartition`), or to the listener's [`send_to`](crate::listener::ListenerBuilder::send_to), with the
/// request's key and correlation id. The record is finished when the reply is acknowledged, and not before; a reply
/// that cannot be sent for good is a failure of its record. The next record does not wait for it.
///
/// ```
/// use klamm::prelude::*;
///
/// #[derive(Deserialize)]
/// struct QuoteRequest { cents: i64 }
/// #[derive(Serialize, Deserialize)]
/// struct Quote { cents: i64 }
///
/// #[kafka_listener(topics = "quote-requests", group = "quotes")]
/// async fn quote(Json(request): Json<QuoteRequest>) -> Reply<Json<Quote>> {
///     Json(Quote { cents: request.cents * 2 }).into()
/// }
/// # let _ = quote;
/// ```
///
/// It may be an error instead (`Result<Reply<T>, E>`), which goes to the failure policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply<T> {
    value: T,
    headers: Vec<(Arc<str>, Bytes)>,
}

impl<T> Reply<T> {
    /// Answers with this value.
    pub fn new(value: T) -> Self {
        Self { value, headers: Vec::new() }
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<Arc<str>>, value: impl Into<Bytes>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The value, for calling a handler directly.
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T> From<T> for Reply<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T: DefaultSerde + Sync> IntoOutcome for Reply<T> {
    fn into_outcome(self) -> Result<(), Failure> {
        Err(Failure::handler("a `Reply` can answer a record, not a part of a batch: nobody would send it"))
    }

    fn into_answer(self) -> Result<Option<Box<Answer>>, Failure> {
        let Self { value, headers } = self;
        let write = move |topic: &str| {
            let serde = T::Serde::default();
            if serde.is_null(&value) { Ok(None) } else { serde.serialize(topic, &value).map(Some) }
        };
        Ok(Some(Box::new(Answer { write: Box::new(write), headers })))
    }
}

impl<T: DefaultSerde + Sync, E: HandlerError> IntoOutcome for Result<Reply<T>, E> {
    fn into_outcome(self) -> Result<(), Failure> {
        self.map_err(Failure::handler)?.into_outcome()
    }

    fn into_answer(self) -> Result<Option<Box<Answer>>, Failure> {
        self.map_err(Failure::handler)?.into_answer()
    }
}

/// The bytes of a value; none for what its serde writes as null.
type Written = Result<Option<Bytes>, SerdeError>;

/// A reply without its type.
#[doc(hidden)]
pub struct Answer {
    write: Box<dyn FnOnce(&str) -> Written + Send>,
    headers: Vec<(Arc<str>, Bytes)>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("headers", &self.headers).finish_non_exhaustive()
    }
}

/// Why a reply cannot be made.
#[derive(Debug, Error)]
enum ReplyError {
    #[error(
        "there is no topic to reply to: the record has no header `{REPLY_TOPIC}`, and the listener has no `send_to`"
    )]
    NoTopic,
    #[error("the reply cannot be written: {0}")]
    Serde(#[source] SerdeError),
}

impl Answer {
    /// The record that answers `request`.
    pub(crate) fn record(
        self,
        request: &ConsumerRecord,
        send_to: Option<&Arc<str>>,
    ) -> Result<Record, Failure> {
        let header = |name: &str| request.headers.last(name).flatten();
        let (topic, partition) = match send_to {
            Some(topic) => (Arc::clone(topic), None),
            None => {
                let topic = header(REPLY_TOPIC).and_then(|topic| std::str::from_utf8(topic).ok());
                let topic = topic.filter(|topic| !topic.is_empty()).ok_or(ReplyError::NoTopic);
                let partition = header(REPLY_PARTITION).and_then(|bytes| bytes.try_into().ok());
                let partition = partition.map(i32::from_be_bytes).filter(|partition| *partition >= 0);
                (topic.map_err(Failure::unanswered)?.into(), partition)
            }
        };
        let Self { write, headers } = self;
        let value = match catch_unwind(AssertUnwindSafe(|| write(&topic))) {
            Ok(value) => value.map_err(|error| Failure::unanswered(ReplyError::Serde(error)))?,
            Err(panic) => return Err(Failure::panicked(panic)),
        };
        let mut record = Record { partition, key: request.key.clone(), value, ..Record::to(topic) };
        for (name, value) in headers {
            record = record.header(name, value);
        }
        if let Some(id) = header(CORRELATION_ID) {
            record = record.header(CORRELATION_ID, Bytes::copy_from_slice(id));
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use klamm_client::{Headers, TimestampType};

    use super::*;

    fn request(headers: Headers) -> ConsumerRecord {
        ConsumerRecord {
            topic: "requests".into(),
            partition: 0,
            offset: 0,
            timestamp_ms: 0,
            timestamp_type: TimestampType::CreateTime,
            leader_epoch: None,
            key: Some("k".into()),
            value: None,
            headers,
        }
    }

    fn answer(reply: Reply<String>) -> Answer {
        *reply.into_answer().unwrap().unwrap()
    }

    #[test]
    fn a_reply_goes_where_the_request_says() {
        let mut headers: Headers =
            [(REPLY_TOPIC, "replies"), (CORRELATION_ID, "seven")].into_iter().collect();
        headers.push(REPLY_PARTITION, Some(Bytes::copy_from_slice(&3_i32.to_be_bytes())));
        let reply = Reply::new("v".to_owned()).header("own", "h");
        let record = answer(reply.clone()).record(&request(headers.clone()), None).unwrap();
        assert_eq!((&*record.topic, record.partition), ("replies", Some(3)));
        assert_eq!((record.key.as_deref(), record.value.as_deref()), (Some(&b"k"[..]), Some(&b"v"[..])));
        let written = Headers::from(record.headers);
        assert_eq!(written.last(CORRELATION_ID), Some(Some(&b"seven"[..])));
        assert_eq!(written.last("own"), Some(Some(&b"h"[..])));
        let record = answer(reply.clone()).record(&request(headers), Some(&"elsewhere".into())).unwrap();
        assert_eq!((&*record.topic, record.partition), ("elsewhere", None));
        let nowhere = answer(reply).record(&request(Headers::new()), None).unwrap_err();
        assert!(nowhere.to_string().contains("no topic to reply to"), "{nowhere}");
    }

    #[test]
    fn a_partition_that_is_none_is_left_to_the_producer() {
        for odd in [&[][..], &[1], &[0xff; 4], &[0; 5]] {
            let mut headers: Headers = [(REPLY_TOPIC, "replies")].into_iter().collect();
            headers.push(REPLY_PARTITION, Some(Bytes::copy_from_slice(odd)));
            let record = answer(Reply::new("v".to_owned())).record(&request(headers), None).unwrap();
            assert_eq!(record.partition, None, "{odd:?}");
        }
    }
}
