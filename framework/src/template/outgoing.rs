//! `Outgoing`: a record that a template is about to send.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use klamm_client::{Delivery, ProduceError, Record, RecordMetadata};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::Template;
use super::error::SendError;
use crate::serde::{HeaderList, IntoHeaders, Serde, SerdeError, serialize};
use crate::trace::propagate;

/// A record that a [`Template`] is about to send.
#[must_use = "the record is not sent before `send`"]
pub struct Outgoing<'a, K, V> {
    template: &'a Template<K, V>,
    key: Option<K>,
    value: Option<V>,
    record: Record,
    timeout: Option<Duration>,
}

impl<'a, K: 'static, V: 'static> Outgoing<'a, K, V> {
    pub(super) fn new(template: &'a Template<K, V>, value: Option<V>) -> Self {
        let record = Record::to(Arc::clone(&template.topic));
        Self { template, key: None, value, record, timeout: None }
    }

    /// Sets the key.
    pub fn key(mut self, key: impl Into<K>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sends it to this topic instead of the template's.
    pub fn topic(mut self, topic: impl Into<Arc<str>>) -> Self {
        self.record.topic = topic.into();
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<Arc<str>>, value: impl Into<Bytes>) -> Self {
        self.record = self.record.header(name, value);
        self
    }

    /// Adds headers: those of a struct with `#[derive(Headers)]`, of a consumed record, or a list.
    pub fn headers(mut self, headers: impl IntoHeaders) -> Self {
        self.record.headers.extend(headers.into_headers());
        self
    }

    /// Sets the partition; otherwise the key decides.
    pub fn partition(mut self, partition: i32) -> Self {
        self.record.partition = Some(partition);
        self
    }

    /// Sets the timestamp, in milliseconds since the Unix epoch; otherwise it is the time of sending.
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.record = self.record.timestamp_ms(timestamp_ms);
        self
    }

    /// How long [`send`](Self::send) waits for the acknowledgement; otherwise as long as the producer tries
    /// (`delivery_timeout`). A record that was taken is sent all the same.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends and waits for the acknowledgement.
    ///
    /// When the future is dropped, the record was either not taken yet or is sent all the same.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(self) -> Result<RecordMetadata, SendError> {
        let Some(limit) = self.timeout else { return self.taken().await?.await };
        let (topic, deadline) = (Arc::clone(&self.record.topic), Instant::now() + limit);
        let late = |possibly_written| SendError::Timeout { topic, after: limit, possibly_written };
        match timeout_at(deadline, self.taken()).await {
            Ok(taken) => match timeout_at(deadline, taken?).await {
                Ok(result) => result,
                Err(_) => Err(late(true)),
            },
            Err(_) => Err(late(false)),
        }
    }

    /// Gives the record to the producer, and a future of what becomes of it, which may be dropped: the record is sent
    /// all the same. Waits only for the topic's metadata and for room in the buffer.
    ///
    /// # Errors
    /// The record cannot be taken. When the future is dropped, it was not taken.
    pub async fn enqueue(self) -> Result<Sending, SendError> {
        self.taken().await
    }

    /// As [`enqueue`](Self::enqueue), with a callback instead of a future: fire and forget, but not unseen. It runs
    /// on the producer's task: it must be quick and not block. Within a transaction it is not called when that ends
    /// before.
    ///
    /// # Errors
    /// The record cannot be taken; the callback is not called then.
    pub async fn on_result(
        self,
        callback: impl FnOnce(Result<RecordMetadata, SendError>) + Send + 'static,
    ) -> Result<(), SendError> {
        let (template, record) = self.prepared().await?;
        if let Some(tx) = &template.tx {
            let callback = move |result: Result<RecordMetadata, ProduceError>| {
                let call = AssertUnwindSafe(|| callback(result.map_err(SendError::from)));
                if catch_unwind(call).is_err() {
                    tracing::error!("what was to be told of a record panicked");
                }
            };
            return tx.send_telling(record, Box::new(callback)).await;
        }
        let callback =
            move |result: Result<RecordMetadata, ProduceError>| callback(result.map_err(SendError::from));
        let callback = template.interceptors.on_result(Arc::clone(&record.topic), callback);
        Ok(template.producer.send_with(record, callback).await?)
    }

    async fn taken(self) -> Result<Sending, SendError> {
        let (template, record) = self.prepared().await?;
        if let Some(tx) = &template.tx {
            let (tell, told) = oneshot::channel();
            tx.send_telling(record, Box::new(|result| drop(tell.send(result)))).await?;
            return Ok(Sending(Way::Within(told)));
        }
        if template.interceptors.is_empty() {
            let delivery = template.producer.enqueue(record).await.map_err(ProduceError::from)?;
            return Ok(Sending(Way::Delivery(delivery)));
        }
        let (told, result) = oneshot::channel();
        // Who does not wait any more is not told.
        let tell = |result| drop(told.send(result));
        let callback = template.interceptors.on_result(Arc::clone(&record.topic), tell);
        template.producer.send_with(record, callback).await?;
        Ok(Sending(Way::Told(result)))
    }

    /// Written, and seen by the interceptors.
    pub(super) async fn prepared(self) -> Result<(&'a Template<K, V>, Record), SendError> {
        let Self { template, key, value, mut record, timeout: _ } = self;
        let topic = Arc::clone(&record.topic);
        let key = written("key", &*template.keys, &topic, key, SendError::Key).await?;
        let value = written("value", &*template.values, &topic, value, SendError::Value).await?;
        put(&mut record, key, value);
        template.interceptors.on_send(&mut record)?;
        Ok((template, record))
    }
}

/// What a key or value is in a record: its bytes, none for what the serde writes as null, and the headers that go with
/// them.
pub(crate) type Written = (Option<Bytes>, HeaderList);

/// Puts key and value into a record, and which trace it belongs to.
pub(super) fn put(record: &mut Record, (key, of_key): Written, (value, of_value): Written) {
    (record.key, record.value) = (key, value);
    record.headers.extend(of_key);
    record.headers.extend(of_value);
    // All that is sent goes through here, from where it is sent.
    propagate(&mut record.headers);
}

/// Writes a key or value, after everything was looked up that its serde asks for. All that is sent goes through here.
/// The serde is the user's code.
pub(crate) async fn written<T: 'static, S: Serde<T> + ?Sized>(
    part: &'static str,
    serde: &S,
    topic: &str,
    value: Option<T>,
    wrong: fn(SerdeError) -> SendError,
) -> Result<Written, SendError> {
    let mut headers = HeaderList::new();
    let write = async {
        match value.filter(|value| !serde.is_null(value)) {
            Some(value) => serialize(serde, topic, &mut headers, value).await.map(Some),
            None => Ok(None),
        }
    };
    match AssertUnwindSafe(write).catch_unwind().await {
        Ok(written) => written.map(|bytes| (bytes, headers)).map_err(wrong),
        Err(_) => Err(SendError::Panicked { part, type_name: std::any::type_name::<T>() }),
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Outgoing<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("key", &self.key)
            .field("value", &self.value)
            .field("record", &self.record)
            .finish()
    }
}

/// Resolves when a record is acknowledged, or when it is known that it will not be. Dropping it does not take the
/// record back.
#[derive(Debug)]
#[must_use = "the record is sent anyway, but nobody learns whether it arrived"]
pub struct Sending(Way);

#[derive(Debug)]
enum Way {
    Delivery(Delivery),
    Told(oneshot::Receiver<Result<RecordMetadata, ProduceError>>),
    /// In a transaction, whose end nobody survives who would tell.
    Within(oneshot::Receiver<Result<RecordMetadata, ProduceError>>),
}

impl Future for Sending {
    type Output = Result<RecordMetadata, SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Way::Delivery(delivery) => delivery.poll_unpin(cx).map_err(SendError::from),
            Way::Told(told) => told.poll_unpin(cx).map(|told| {
                // The producer calls back for every record that it took, whatever becomes of it.
                Ok(told.unwrap_or(Err(ProduceError::Closed { possibly_written: true }))?)
            }),
            Way::Within(told) => told.poll_unpin(cx).map(|told| match told {
                Ok(result) => Ok(result?),
                Err(_) => Err(SendError::TransactionEnded),
            }),
        }
    }
}
