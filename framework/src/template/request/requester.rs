//! `Requester`: requests of one type to one topic, with settings of their own.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use klamm_client::{Client, ConsumerRecord, Producer};

use super::ask::{ErrorCheck, Request, TIMEOUT, Writing};
use super::correlations::ReplyStats;
use super::desk::{Desk, Place};
use super::error::ReplyError;
use crate::serde::{AppSerdes, DefaultSerde, Serde};
use crate::template::{SendError, written};

/// What is appended to a topic's name for the replies to requests that go there.
const REPLIES_SUFFIX: &str = "-replies";

/// Sends requests of type `V` to one topic, and gets replies of type `R`. Cheap to clone; for single requests there
/// is [`AppHandle::request`](crate::AppHandle::request).
///
/// ```no_run
/// # use klamm::prelude::*;
/// # use klamm::template::Requester;
/// # async fn f(app: klamm::AppHandle) -> klamm::Result<()> {
/// let lengths: Requester<String, i64> = app.requester("texts").reply_topic("lengths").start().await?;
/// let length = lengths.request("klamm".to_owned()).key(7_i64).await?;
/// let of_three_groups = lengths.request("klamm".to_owned()).collect(3).await?;
/// # Ok(()) }
/// ```
pub struct Requester<V, R> {
    desk: Arc<Desk>,
    topic: Arc<str>,
    values: Arc<dyn Serde<V>>,
    replies: Arc<dyn Serde<R>>,
    is_error: Option<ErrorCheck>,
    timeout: Duration,
}

/// Settings of a [`Requester`].
#[must_use = "nothing is asked before `start`"]
pub struct RequesterBuilder<V, R> {
    client: Client,
    producer: Producer,
    serdes: AppSerdes,
    reply_topic: Option<Arc<str>>,
    place: Place,
    requester: Parts<V, R>,
}

struct Parts<V, R> {
    topic: Arc<str>,
    values: Arc<dyn Serde<V>>,
    replies: Arc<dyn Serde<R>>,
    is_error: Option<ErrorCheck>,
    timeout: Duration,
}

impl<V: DefaultSerde, R: DefaultSerde> RequesterBuilder<V, R> {
    /// A requester to `topic`, whose requests and replies are written as their types say.
    pub fn new(client: &Client, producer: &Producer, topic: impl Into<Arc<str>>) -> Self {
        Self::with_serdes(client, producer, topic, V::Serde::default(), R::Serde::default())
    }
}

impl<V: 'static, R: 'static> RequesterBuilder<V, R> {
    /// A requester whose requests and replies are written with these serdes.
    pub fn with_serdes(
        client: &Client,
        producer: &Producer,
        topic: impl Into<Arc<str>>,
        values: impl Serde<V>,
        replies: impl Serde<R>,
    ) -> Self {
        let requester = Parts {
            topic: topic.into(),
            values: Arc::new(values),
            replies: Arc::new(replies),
            is_error: None,
            timeout: TIMEOUT,
        };
        let (client, producer) = (client.clone(), producer.clone());
        let (serdes, place) = (AppSerdes::default(), Place::default());
        Self { client, producer, serdes, reply_topic: None, place, requester }
    }

    /// Keys are written as in this app.
    pub(crate) fn in_app(self, serdes: &AppSerdes) -> Self {
        Self { serdes: serdes.clone(), ..self }
    }

    /// The topic that replies come to. Default `<topic>-replies`.
    pub fn reply_topic(mut self, topic: impl Into<Arc<str>>) -> Self {
        self.reply_topic = Some(topic.into());
        self
    }

    /// The partition that replies come to. Default one that is chosen by chance.
    pub fn reply_partition(mut self, partition: i32) -> Self {
        self.place = Place::Partition(partition);
        self
    }

    /// Reads all partitions of the reply topic, for who answers wherever they like: the header `kafka_replyPartition`
    /// is left out.
    pub fn every_reply_partition(mut self) -> Self {
        self.place = Place::EveryPartition;
        self
    }

    /// How long a request may take unless it says otherwise. Default 5 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.requester.timeout = timeout;
        self
    }

    /// Replies of which this says something are failures: those of a service that tells errors in a way of its own.
    /// Those with the header `kafka_exception-message` are anyway.
    pub fn error_reply(
        mut self,
        is_error: impl Fn(&ConsumerRecord) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.requester.is_error = Some(Arc::new(is_error));
        self
    }

    /// Begins to read replies, so that the first request need not wait for that, and settings that do not fit are
    /// found.
    ///
    /// # Errors
    /// The reply topic cannot be read, or has no such partition.
    pub async fn start(self) -> Result<Requester<V, R>, ReplyError> {
        let Parts { topic, values, replies, is_error, timeout } = self.requester;
        let reply_topic = self.reply_topic.unwrap_or_else(|| reply_topic(&topic));
        let desk = Arc::new(Desk::new(&self.client, &self.producer, &self.serdes, reply_topic, self.place));
        desk.open().await?;
        Ok(Requester { desk, topic, values, replies, is_error, timeout })
    }
}

fn reply_topic(topic: &str) -> Arc<str> {
    format!("{topic}{REPLIES_SUFFIX}").into()
}

impl<V: Send + 'static, R: 'static> Requester<V, R> {
    /// A request with this value.
    pub fn request(&self, value: V) -> Request<R> {
        let value = writing(&self.topic, Arc::clone(&self.values), value);
        let (value, replies) = ((Arc::clone(&self.topic), value), Arc::clone(&self.replies));
        Request::new(Arc::clone(&self.desk), value, replies, self.is_error.clone(), self.timeout)
    }

    /// How replies fared so far.
    pub fn stats(&self) -> ReplyStats {
        self.desk.stats()
    }
}

fn writing<V: Send + 'static>(topic: &Arc<str>, values: Arc<dyn Serde<V>>, value: V) -> Writing {
    let topic = Arc::clone(topic);
    async move { written("value", &*values, &topic, Some(value), SendError::Value).await }.boxed()
}

impl<V, R> Clone for Requester<V, R> {
    fn clone(&self) -> Self {
        Self {
            desk: Arc::clone(&self.desk),
            topic: Arc::clone(&self.topic),
            values: Arc::clone(&self.values),
            replies: Arc::clone(&self.replies),
            is_error: self.is_error.clone(),
            timeout: self.timeout,
        }
    }
}

/// An app's own requests, with one desk for each topic that is asked.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    desks: Mutex<HashMap<Arc<str>, Arc<Desk>>>,
}

impl Requests {
    pub(crate) fn request<V: DefaultSerde, R: DefaultSerde>(
        &self,
        client: &Client,
        producer: &Producer,
        serdes: &AppSerdes,
        topic: Arc<str>,
        value: V,
    ) -> Request<R> {
        let value = writing(&topic, Arc::new(serdes.of::<V>(false)), value);
        let mut desks = self.desks.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Desk::new(client, producer, serdes, reply_topic(&topic), Place::default()));
        let desk = Arc::clone(desks.entry(Arc::clone(&topic)).or_insert_with(new));
        Request::new(desk, (topic, value), Arc::new(serdes.of::<R>(false)), None, TIMEOUT)
    }
}

impl<V, R> fmt::Debug for Requester<V, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requester")
            .field("topic", &self.topic)
            .field("desk", &self.desk)
            .finish_non_exhaustive()
    }
}

impl<V, R> fmt::Debug for RequesterBuilder<V, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequesterBuilder")
            .field("topic", &self.requester.topic)
            .field("reply_topic", &self.reply_topic)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}
