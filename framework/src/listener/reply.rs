//! `Reply<T>`: a handler answers by what it returns.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use klamm_client::{ConsumerRecord, Record};
use thiserror::Error;

use super::extract::States;
use super::failure::Failure;
use super::outcome::{AnAnswer, HandlerError, IntoOutcome};
use crate::serde::{AppSerdes, DefaultSerde};
use crate::template::request::{REPLY_TOPIC, ReplyTo};
use crate::template::{SendError, Written, written};
use crate::trace::propagate;

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
    type Answers = AnAnswer<T>;

    fn into_outcome(self) -> Result<(), Failure> {
        Err(Failure::handler("a `Reply` can answer a record, not a part of a batch: nobody would send it"))
    }

    fn into_answer(self) -> Result<Option<Box<Answer>>, Failure> {
        let Self { value, headers } = self;
        let write = move |serdes: AppSerdes, topic: Arc<str>| {
            let serde = serdes.of::<T>(false);
            async move { written("reply", &serde, &topic, Some(value), SendError::Value).await }.boxed()
        };
        Ok(Some(Box::new(Answer { write: Box::new(write), headers })))
    }
}

impl<T: DefaultSerde + Sync, E: HandlerError> IntoOutcome for Result<Reply<T>, E> {
    type Answers = AnAnswer<T>;

    fn into_outcome(self) -> Result<(), Failure> {
        self.map_err(Failure::handler)?.into_outcome()
    }

    fn into_answer(self) -> Result<Option<Box<Answer>>, Failure> {
        self.map_err(Failure::handler)?.into_answer()
    }
}

/// Writes a value in an app, to a topic.
type Write = dyn FnOnce(AppSerdes, Arc<str>) -> BoxFuture<'static, Result<Written, SendError>> + Send;

/// A reply without its type.
#[doc(hidden)]
pub struct Answer {
    write: Box<Write>,
    headers: Vec<(Arc<str>, Bytes)>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("headers", &self.headers).finish_non_exhaustive()
    }
}

/// Nobody says where the reply goes.
#[derive(Debug, Error)]
#[error(
    "there is no topic to reply to: the record has no header `{REPLY_TOPIC}`, and the listener has no `send_to`"
)]
struct NoTopic;

impl Answer {
    /// The record that answers `request`.
    ///
    /// # Errors
    /// It goes nowhere, or cannot be written.
    pub(crate) async fn record(
        self,
        request: &ConsumerRecord,
        send_to: Option<&Arc<str>>,
        states: &States,
    ) -> Result<Record, Failure> {
        let mut reply_to = match send_to {
            Some(topic) => ReplyTo::to(Arc::clone(topic), &request.headers),
            None => ReplyTo::of(&request.headers).ok_or(NoTopic).map_err(Failure::unanswered)?,
        }
        .record();
        let Self { write, headers } = self;
        let (value, of_value) =
            write(states.serdes(), Arc::clone(&reply_to.topic)).await.map_err(Failure::unanswered)?;
        (reply_to.key, reply_to.value) = (request.key.clone(), value);
        reply_to.headers.extend(of_value);
        reply_to.headers.extend(headers.into_iter().map(|(name, value)| (name, Some(value))));
        propagate(&mut reply_to.headers);
        Ok(reply_to)
    }
}

#[cfg(test)]
mod tests {
    use klamm_client::{Headers, TimestampType};

    use super::*;
    use crate::template::request::{CORRELATION_ID, REPLY_PARTITION};

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

    fn answer(reply: Reply<String>, headers: Headers, send_to: Option<&Arc<str>>) -> Result<Record, Failure> {
        let answer = reply.into_answer().unwrap().unwrap();
        // Nothing has to be looked up.
        answer.record(&request(headers), send_to, &States::default()).now_or_never().unwrap()
    }

    #[test]
    fn a_reply_goes_where_the_request_says() {
        let mut headers: Headers =
            [(REPLY_TOPIC, "replies"), (CORRELATION_ID, "seven")].into_iter().collect();
        headers.push(REPLY_PARTITION, Some(Bytes::copy_from_slice(&3_i32.to_be_bytes())));
        let reply = Reply::new("v".to_owned()).header("own", "h");
        let record = answer(reply.clone(), headers.clone(), None).unwrap();
        assert_eq!((&*record.topic, record.partition), ("replies", Some(3)));
        assert_eq!((record.key.as_deref(), record.value.as_deref()), (Some(&b"k"[..]), Some(&b"v"[..])));
        let written = Headers::from(record.headers);
        assert_eq!(written.last(CORRELATION_ID), Some(Some(&b"seven"[..])));
        assert_eq!(written.last("own"), Some(Some(&b"h"[..])));
        let record = answer(reply.clone(), headers, Some(&"elsewhere".into())).unwrap();
        assert_eq!((&*record.topic, record.partition), ("elsewhere", None));
        let nowhere = answer(reply, Headers::new(), None).unwrap_err();
        assert!(nowhere.to_string().contains("no topic to reply to"), "{nowhere}");
    }
}
