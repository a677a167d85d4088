//! Sending: `Template`, what spring's `KafkaTemplate` is, and what is built on it.
//!
//! | | |
//! |---|---|
//! | [`Template`] | typed keys and values, to one topic unless a record names another |
//! | [`RoutingTemplate`] | the topic by the value's type, the producer by the topic's name |
//! | [`Transactions`] | several records that become visible together, or not at all |
//! | [`Requester`] | a request, and the reply to it |
//! | [`SendInterceptor`] | code that sees every record: headers, measures, traces |
//!
//! [`AppHandle`](crate::AppHandle) makes them on the app's client: `app.template(..)`, `app.transactions(..)`,
//! `app.request(..)`.

mod error;
mod interceptor;
mod outgoing;
mod part;
pub mod request;
mod routing;
mod transactions;
mod tx;

use std::fmt;
use std::sync::Arc;

use klamm_client::{Client, Producer, RecordMetadata};

use crate::serde::{DefaultSerde, Serde};
pub use error::{SendError, TransactError};
use interceptor::Interceptors;
pub use interceptor::{SendInterceptor, SendOutcome};
use outgoing::put;
pub use outgoing::{Outgoing, Sending};
pub(crate) use outgoing::{Written, written};
pub use part::Part;
pub use request::{ReplyError, Request, Requester};
pub use routing::RoutingTemplate;
pub use transactions::Transactions;
pub(crate) use transactions::TransactionsInUse;
pub use tx::Tx;
pub(crate) use tx::{Ask, OnResult};

/// Sends keys of type `K` and values of type `V` to one topic. Cheap to clone.
///
/// Also an argument of listeners, for templates that the app declares ([`App::template`](crate::App::template)). What a
/// [transactional](crate::listener::ListenerBuilder::transactional) listener sends with it belongs to the transaction
/// of its delivery.
///
/// ```no_run
/// # use klamm::prelude::*;
/// # use serde::{Deserialize, Serialize};
/// # use std::time::Duration;
/// # #[derive(Serialize, Deserialize)] struct Order { id: u64 }
/// # async fn f(app: klamm::AppHandle) -> klamm::Result<()> {
/// let orders = app.template::<String, Json<Order>>("orders");
/// let at = orders.send("k1", Json(Order { id: 1 })).await?; // partition and offset, after the acknowledgement
/// println!("{}-{} at {}", at.topic, at.partition, at.offset);
///
/// let order = orders.record(Json(Order { id: 2 })).key("k2").header("source", "shop");
/// order.timeout(Duration::from_secs(2)).send().await?;
///
/// // Fire and forget, but not unseen:
/// orders.record(Json(Order { id: 3 })).on_result(|result| println!("{}", result.is_ok())).await?;
/// # Ok(()) }
/// ```
pub struct Template<K, V> {
    producer: Producer,
    topic: Arc<str>,
    keys: Arc<dyn Serde<K>>,
    values: Arc<dyn Serde<V>>,
    interceptors: Interceptors,
    /// What it sends belongs to this transaction.
    tx: Option<Tx>,
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
            interceptors: Interceptors::default(),
            tx: None,
        }
    }

    /// Adds an interceptor behind those added before. Clones that were made before do not have it.
    #[must_use]
    pub fn interceptor(mut self, interceptor: impl SendInterceptor) -> Self {
        self.interceptors = self.interceptors.with(Arc::new(interceptor));
        self
    }

    /// The same, whose sends belong to this transaction. What they return says that a record was written, which is not
    /// yet visible: the commit makes it so. When the transaction has ended, they fail
    /// ([`SendError::TransactionEnded`]).
    #[must_use]
    pub fn within(&self, tx: &Tx) -> Self {
        Self { tx: Some(tx.clone()), ..self.clone() }
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
        Outgoing::new(self, None).key(key).send().await
    }

    /// A record in the making: for another topic, headers, a partition, a timestamp or a timeout of its own, or to go
    /// on before it is acknowledged.
    pub fn record(&self, value: V) -> Outgoing<'_, K, V> {
        Outgoing::new(self, Some(value))
    }

    /// Sends what is buffered without lingering, and waits until every record that the producer took before this call
    /// has met its fate: those of other templates on the same producer, too. Within a transaction it does nothing: the
    /// commit waits for all.
    ///
    /// # Errors
    /// The first error among them.
    pub async fn flush(&self) -> Result<(), SendError> {
        match self.tx {
            Some(_) => Ok(()),
            None => Ok(self.producer.flush().await?),
        }
    }
}

impl<K, V> Clone for Template<K, V> {
    fn clone(&self) -> Self {
        Self {
            producer: self.producer.clone(),
            topic: Arc::clone(&self.topic),
            keys: Arc::clone(&self.keys),
            values: Arc::clone(&self.values),
            interceptors: self.interceptors.clone(),
            tx: self.tx.clone(),
        }
    }
}

impl<K, V> fmt::Debug for Template<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template")
            .field("topic", &self.topic)
            .field("keys", &self.keys)
            .field("values", &self.values)
            .field("interceptors", &self.interceptors)
            .field("tx", &self.tx)
            .finish_non_exhaustive()
    }
}
