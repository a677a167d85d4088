//! `RoutingTemplate`: the topic by the type of the value, the producer by the name of the topic.

use std::any::TypeId;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use klamm_client::{Producer, RecordMetadata};
use regex_lite::Regex;

use super::Template;
use super::error::SendError;
use super::interceptor::{Interceptors, SendInterceptor};
use crate::serde::{AppSerdes, DefaultSerde};

/// Sends values of many types: each to the topic that is named for its type, with the producer whose pattern the
/// topic's name matches. Cheap to clone.
///
/// ```no_run
/// use klamm::prelude::*;
/// use klamm::client::{Compression, Producer};
/// use klamm::template::RoutingTemplate;
///
/// # #[derive(Serialize, Deserialize)] struct Order;
/// # #[derive(Serialize, Deserialize)] struct Click;
/// # async fn f(client: klamm::client::Client) -> klamm::Result<()> {
/// let linger = std::time::Duration::from_millis(50);
/// let clicks = client.producer().compression(Compression::Zstd).linger(linger).build()?;
/// let events = RoutingTemplate::new(&client.producer().build()?)
///     .values::<Json<Order>>("orders")
///     .values::<Json<Click>>("clicks-web")
///     .producer("clicks-.*", &clicks)?;
/// events.send("k1".to_owned(), Json(Order)).await?;
/// events.send("k2".to_owned(), Json(Click)).await?; // by the other producer
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RoutingTemplate {
    topics: HashMap<TypeId, Arc<str>>,
    /// In order: the first that matches counts.
    producers: Vec<(Regex, Producer)>,
    otherwise: Producer,
    interceptors: Interceptors,
    serdes: AppSerdes,
}

impl RoutingTemplate {
    /// Without routes; topics that no pattern matches go by this producer. In an app, take
    /// [`AppHandle::routing`](crate::AppHandle::routing), which knows its schema registry.
    pub fn new(otherwise: &Producer) -> Self {
        Self::with_serdes(otherwise, AppSerdes::default())
    }

    pub(crate) fn with_serdes(otherwise: &Producer, serdes: AppSerdes) -> Self {
        Self {
            serdes,
            topics: HashMap::new(),
            producers: Vec::new(),
            otherwise: otherwise.clone(),
            interceptors: Interceptors::default(),
        }
    }

    /// Values of this type go to `topic`.
    #[must_use]
    pub fn values<V: DefaultSerde>(mut self, topic: impl Into<Arc<str>>) -> Self {
        self.topics.insert(TypeId::of::<V>(), topic.into());
        self
    }

    /// Topics whose whole name matches this regular expression go by this producer. Patterns are tried in the order
    /// in which they were added.
    ///
    /// # Errors
    /// It is not a regular expression.
    pub fn producer(mut self, pattern: &str, producer: &Producer) -> Result<Self, regex_lite::Error> {
        self.producers.push((Regex::new(&format!("^(?:{pattern})$"))?, producer.clone()));
        Ok(self)
    }

    /// Adds an interceptor behind those added before.
    #[must_use]
    pub fn interceptor(mut self, interceptor: impl SendInterceptor) -> Self {
        self.interceptors = self.interceptors.with(Arc::new(interceptor));
        self
    }

    /// Sends a value to the topic of its type, and waits for the acknowledgement.
    ///
    /// # Errors
    /// [`SendError::NoRoute`] when no topic is named for the type; otherwise as [`Template::send`].
    pub async fn send<K: DefaultSerde, V: DefaultSerde>(
        &self,
        key: K,
        value: V,
    ) -> Result<RecordMetadata, SendError> {
        self.of::<K, V>()?.send(key, value).await
    }

    /// The template for values of this type, which has all that a template has.
    ///
    /// # Errors
    /// [`SendError::NoRoute`] when no topic is named for the type.
    pub fn of<K: DefaultSerde, V: DefaultSerde>(&self) -> Result<Template<K, V>, SendError> {
        match self.topics.get(&TypeId::of::<V>()) {
            Some(topic) => Ok(self.template(Arc::clone(topic))),
            None => Err(SendError::NoRoute { type_name: std::any::type_name::<V>() }),
        }
    }

    /// A template to a topic, on the producer whose pattern its name matches.
    pub fn template<K: DefaultSerde, V: DefaultSerde>(&self, topic: impl Into<Arc<str>>) -> Template<K, V> {
        let topic = topic.into();
        let matching = self.producers.iter().find(|(pattern, _)| pattern.is_match(&topic));
        let producer = matching.map_or(&self.otherwise, |(_, producer)| producer);
        let (keys, values) = (self.serdes.of::<K>(true), self.serdes.of::<V>(false));
        let interceptors = self.interceptors.clone();
        Template { interceptors, ..Template::with_serdes(producer, topic, keys, values) }
    }
}

impl fmt::Debug for RoutingTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let patterns: Vec<&str> = self.producers.iter().map(|(pattern, _)| pattern.as_str()).collect();
        f.debug_struct("RoutingTemplate")
            .field("types", &self.topics.len())
            .field("producers", &patterns)
            .field("interceptors", &self.interceptors)
            .finish_non_exhaustive()
    }
}
