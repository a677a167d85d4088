//! `Request`: one request, from its making to its reply.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, OptionFuture};
use klamm_client::{ConsumerRecord, Record};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::correlations::CorrelationId;
use super::desk::{Desk, OpenDesk};
use super::error::ReplyError;
use super::reply_to::{self, CORRELATION_ID, REPLY_PARTITION, REPLY_TOPIC};
use crate::serde::{Serde, deserialize};
use crate::template::{Part, SendError, Written, put};

/// How long a reply is waited for unless told otherwise.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
/// Replies of one request that may wait to be looked at, where it is not said how many there will be.
const REPLIES_WAITING_MAX: usize = 1_024;

/// Says of a reply that it is none: the request failed.
pub(super) type ErrorCheck = Arc<dyn Fn(&ConsumerRecord) -> Option<String> + Send + Sync>;

/// A request in the making: await it for its one reply, or [`collect`](Self::collect) several. Made by
/// [`AppHandle::request`](crate::AppHandle::request) and [`Requester::request`](super::Requester::request).
///
/// Nothing is left over when it is dropped at any moment: a reply that comes then is counted as late.
#[must_use = "nothing is sent before it is awaited"]
pub struct Request<R> {
    desk: Arc<Desk>,
    record: Record,
    /// What writes the key and the value, when it is sent.
    key: Option<Writing>,
    value: Writing,
    replies: Arc<dyn Serde<R>>,
    is_error: Option<ErrorCheck>,
    timeout: Duration,
}

/// A key or value, to be written.
pub(super) type Writing = BoxFuture<'static, Result<Written, SendError>>;

/// What [`Request::collect`] and [`Request::collect_until`] gathered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replies<R> {
    /// In the order in which they came.
    pub replies: Vec<R>,
    /// Whether these are all that were asked for; otherwise the time was up.
    pub complete: bool,
}

impl<R: 'static> Request<R> {
    pub(super) fn new(
        desk: Arc<Desk>,
        (topic, value): (Arc<str>, Writing),
        replies: Arc<dyn Serde<R>>,
        is_error: Option<ErrorCheck>,
        timeout: Duration,
    ) -> Self {
        Self { desk, record: Record::to(topic), key: None, value, replies, is_error, timeout }
    }

    /// How long it may take, from here to the reply. Default 5 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the key, which decides the partition: requests of one key are answered in order.
    pub fn key(mut self, key: impl Part + 'static) -> Self {
        let serdes = self.desk.serdes.clone();
        self.key = Some(key.write("key", self.topic(), serdes, SendError::Key).boxed());
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<Arc<str>>, value: impl Into<Bytes>) -> Self {
        self.record = self.record.header(name, value);
        self
    }

    /// Sets the partition of the request.
    pub fn partition(mut self, partition: i32) -> Self {
        self.record = self.record.partition(partition);
        self
    }

    /// Sends it and gathers this many replies, as several groups may answer.
    ///
    /// # Errors
    /// See [`ReplyError`]; one reply that says that it failed, or that does not decode, fails all of them.
    pub async fn collect(self, replies: usize) -> Result<Vec<R>, ReplyError> {
        let (topic, timeout) = (self.topic(), self.timeout);
        let gathered = self.gather(replies.max(1), |found| found.len() >= replies).await?;
        match gathered.complete {
            true => Ok(gathered.replies),
            false => {
                let received = gathered.replies.len();
                Err(ReplyError::Timeout { topic, after: timeout, received, sent: true })
            }
        }
    }

    /// Sends it and gathers replies until `enough` says so, or until the time is up: what came by then is given, too.
    ///
    /// # Errors
    /// As [`collect`](Self::collect), except that it is no error when the time is up.
    pub async fn collect_until(self, enough: impl FnMut(&[R]) -> bool) -> Result<Replies<R>, ReplyError> {
        self.gather(REPLIES_WAITING_MAX, enough).await
    }

    fn topic(&self) -> Arc<str> {
        Arc::clone(&self.record.topic)
    }

    async fn gather(
        self,
        waiting_max: usize,
        mut enough: impl FnMut(&[R]) -> bool,
    ) -> Result<Replies<R>, ReplyError> {
        let (topic, after, deadline) = (self.topic(), self.timeout, Instant::now() + self.timeout);
        let late = |sent| ReplyError::Timeout { topic, after, received: 0, sent };
        let Self { desk, mut record, key, value, replies: serde, is_error, timeout: _ } = self;
        let write = async {
            Ok::<_, SendError>((OptionFuture::from(key).await.transpose()?.unwrap_or_default(), value.await?))
        };
        let Ok(written) = timeout_at(deadline, write).await else { return Err(late(false)) };
        let (key, value) = written?;
        put(&mut record, key, value);
        let Ok(open) = timeout_at(deadline, desk.open()).await else { return Err(late(false)) };
        let mut waiting = Waiting::begin(open?, waiting_max);
        let record = addressed(record, &desk.reply_topic, waiting.desk.partition, waiting.id);
        match timeout_at(deadline, desk.producer.send(record)).await {
            Ok(sent) => drop(sent.map_err(SendError::from)?),
            Err(_) => return Err(late(false)),
        }
        let mut replies = Vec::new();
        while !enough(&replies) {
            match timeout_at(deadline, waiting.replies.recv()).await {
                Ok(Some(reply)) => replies.push(read(&reply, &*serde, is_error.as_ref()).await?),
                Ok(None) => return Err(ReplyError::Closed),
                Err(_) => return Ok(Replies { replies, complete: false }),
            }
        }
        Ok(Replies { replies, complete: true })
    }
}

impl<R: Send + 'static> IntoFuture for Request<R> {
    type Output = Result<R, ReplyError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let mut replies = self.collect(1).await?;
            replies.pop().ok_or(ReplyError::NoValue)
        })
    }
}

/// Somebody who waits; nobody waits any more when it is dropped.
struct Waiting<'a> {
    desk: &'a OpenDesk,
    id: CorrelationId,
    replies: mpsc::Receiver<ConsumerRecord>,
}

impl<'a> Waiting<'a> {
    fn begin(desk: &'a OpenDesk, replies: usize) -> Self {
        let (give, replies) = mpsc::channel(replies.max(1));
        Self { desk, id: desk.correlations().open(give), replies }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.desk.correlations().close(self.id);
    }
}

fn addressed(record: Record, reply_topic: &str, partition: Option<i32>, id: CorrelationId) -> Record {
    let bytes = Bytes::copy_from_slice;
    let record = record.header(REPLY_TOPIC, bytes(reply_topic.as_bytes()));
    let record = match partition {
        Some(partition) => record.header(REPLY_PARTITION, bytes(&partition.to_be_bytes())),
        None => record,
    };
    record.header(CORRELATION_ID, bytes(id.as_bytes()))
}

/// What a reply says. The serde and the check are the user's code.
async fn read<R: 'static>(
    reply: &ConsumerRecord,
    serde: &dyn Serde<R>,
    is_error: Option<&ErrorCheck>,
) -> Result<R, ReplyError> {
    if let Some((type_name, message)) = reply_to::failure(&reply.headers) {
        return Err(ReplyError::Failed { type_name, message });
    }
    let read = async {
        if let Some(message) = is_error.and_then(|is_error| is_error(reply)) {
            return Err(ReplyError::Failed { type_name: None, message: message.into() });
        }
        match &reply.value {
            Some(bytes) => {
                let read = deserialize(serde, &reply.topic, &reply.headers, bytes).await;
                read.map_err(ReplyError::Decode)
            }
            None => serde.null().ok_or(ReplyError::NoValue),
        }
    };
    let panicked = |_| Err(ReplyError::Panicked { type_name: std::any::type_name::<R>() });
    AssertUnwindSafe(read).catch_unwind().await.unwrap_or_else(panicked)
}

impl<R> fmt::Debug for Request<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("record", &self.record)
            .field("desk", &self.desk)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
