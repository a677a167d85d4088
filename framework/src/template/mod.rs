//! `Template`: a typed sender, what spring's `KafkaTemplate` is.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use klamm_client::{Client, ProduceError, Producer, Record, RecordMetadata};
use thiserror::Error;

use crate::serde::{DefaultSerde, HeaderList, IntoHeaders, Serde, SerdeError, serialize};

/// Sends keys of type `K` and values of type `V` to one topic. Cheap to clone.
///
/// ```no_run
/// # use klamm::prelude::*;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)] struct Order { id: u64 }
/// # async fn f(app: klamm::AppHandle) -> klamm::Result<()> {
/// let orders = app.template::<String, Json<Order>>("orders");
/// let at = orders.send("k1", Json(Order { id: 1 })).await?; // partition and offset, after the acknowledgement
/// println!("{}-{} at {}", at.topic, at.partition, at.offset);
/// # Ok(()) }
/// ```
pub struct Template<K, V> {
    producer: Producer,
    topic: Arc<str>,
    keys: Arc<dyn Serde<K>>,
    values: Arc<dyn Serde<V>>,
}

/// Why a template did not send.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SendError {
    /// The key cannot be written; nothing was sent.
    #[error("the key: {0}")]
    Key(#[source] SerdeError),
    /// The value cannot be written; nothing was sent.
    #[error("the value: {0}")]
    Value(#[source] SerdeError),
    /// The record was not delivered.
    #[error(transparent)]
    Produce(#[from] ProduceError),
}

impl SendError {
    /// Whether the record may be in the log all the same: sending it again may duplicate it.
    pub fn may_have_been_written(&self) -> bool {
        matches!(self, Self::Produce(error) if error.may_have_been_written())
    }
}

impl<K: DefaultSerde, V: DefaultSerde> Template<K, V> {
    /// A template on a producer, whose settings (acks, linger, compression) it shares. Keys and values are
    /// written as their types say.
    pub fn new(producer: &Producer, topic: impl Into<Arc<str>>) -> Self {
        Self::with_serdes(producer, topic, K::Serde::default(), V::Serde::default())
    }

    /// A template with a connection of its own, for programs without an app, and for state that handlers send with.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub async fn connect(
        bootstrap: impl Into<String>,
        topic: impl Into<Arc<str>>,
    ) -> Result<Self, klamm_client::ClientError> {
        let producer = Client::connect(bootstrap).await?.producer().build()?;
        Ok(Self::new(&producer, topic))
    }
}

impl<K: 'static, V: 'static> Template<K, V> {
    /// A template that writes with these serdes.
    pub fn with_serdes(
        producer: &Producer,
        topic: impl Into<Arc<str>>,
        keys: impl Serde<K>,
        values: impl Serde<V>,
    ) -> Self {
        Self {
            producer: producer.clone(),
            topic: topic.into(),
            keys: Arc::new(keys),
            values: Arc::new(values),
        }
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Sends and waits for the acknowledgement. To send many, call it for all and await the futures together
    /// (`futures::future::join_all`): they travel in batches.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(&self, key: impl Into<K>, value: V) -> Result<RecordMetadata, SendError> {
        self.record(value).key(key).send().await
    }

    /// Sends a value without a key.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send_value(&self, value: V) -> Result<RecordMetadata, SendError> {
        self.record(value).send().await
    }

    /// Sends a tombstone: a key without a value, which deletes the key from a compacted topic.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send_tombstone(&self, key: impl Into<K>) -> Result<RecordMetadata, SendError> {
        self.start(None).key(key).send().await
    }

    /// A record in the making: for headers, a partition or a timestamp.
    pub fn record(&self, value: V) -> Outgoing<'_, K, V> {
        self.start(Some(value))
    }

    fn start(&self, value: Option<V>) -> Outgoing<'_, K, V> {
        Outgoing { template: self, key: None, value, record: Record::to(Arc::clone(&self.topic)) }
    }
}

impl<K, V> Clone for Template<K, V> {
    fn clone(&self) -> Self {
        Self {
            producer: self.producer.clone(),
            topic: Arc::clone(&self.topic),
            keys: Arc::clone(&self.keys),
            values: Arc::clone(&self.values),
        }
    }
}

impl<K, V> fmt::Debug for Template<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template")
            .field("topic", &self.topic)
            .field("keys", &self.keys)
            .field("values", &self.values)
            .finish()
    }
}

/// A record that a [`Template`] is about to send.
#[must_use = "the record is not sent before `send`"]
pub struct Outgoing<'a, K, V> {
    template: &'a Template<K, V>,
    key: Option<K>,
    value: Option<V>,
    record: Record,
}

impl<K: 'static, V: 'static> Outgoing<'_, K, V> {
    /// Sets the key.
    pub fn key(mut self, key: impl Into<K>) -> Self {
        self.key = Some(key.into());
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
        self.record = self.record.partition(partition);
        self
    }

    /// Sets the timestamp, in milliseconds since the Unix epoch; otherwise it is the time of sending.
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.record = self.record.timestamp_ms(timestamp_ms);
        self
    }

    /// Sends and waits for the acknowledgement.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(self) -> Result<RecordMetadata, SendError> {
        let Self { template, key, value, mut record } = self;
        let topic = &template.topic;
        let headers = &mut record.headers;
        record.key = written(&*template.keys, topic, headers, key).await.map_err(SendError::Key)?;
        record.value = written(&*template.values, topic, headers, value).await.map_err(SendError::Value)?;
        Ok(template.producer.send(record).await?)
    }
}

/// The bytes of a key or value; none for what the serde writes as null.
async fn written<T: 'static>(
    serde: &dyn Serde<T>,
    topic: &str,
    headers: &mut HeaderList,
    value: Option<T>,
) -> Result<Option<Bytes>, SerdeError> {
    match value.filter(|value| !serde.is_null(value)) {
        Some(value) => serialize(serde, topic, headers, value).await.map(Some),
        None => Ok(None),
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
