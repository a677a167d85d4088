//! What extractors see: one delivery of a record or batch, and what a handler needs from its app.

use std::any::{TypeId, type_name};
use std::sync::Arc;

use klamm_client::ConsumerRecord;

use super::states::States;
use crate::listener::ack::Ack;
use crate::listener::retry_topics::RetryTopics;
use crate::listener::topics::Topics;
use crate::serde::Payload;
use crate::template::{Template, Tx};

/// One delivery of one record to one listener: what [`FromRecord`](super::FromRecord) makes arguments from.
#[derive(Debug)]
pub struct Delivery<'a> {
    pub(crate) record: &'a ConsumerRecord,
    pub(crate) attempt: u32,
    pub(crate) scope: &'a Scope,
    pub(crate) ack: Option<&'a Ack>,
    pub(crate) tx: Option<&'a Tx>,
}

impl Delivery<'_> {
    /// The record, undecoded.
    pub fn record(&self) -> &ConsumerRecord {
        self.record
    }

    /// The topic that the listener listens on: the record's, or, where it comes from a
    /// [retry topic](crate::FailurePolicy::retry_topics), the one that this belongs to.
    pub fn source_topic(&self) -> &str {
        self.scope.source_topic(&self.record.topic)
    }

    /// 1 when the record is delivered for the first time since its partition was assigned, 2 at
    /// the first retry, and so on; deliveries before it went to a retry topic count.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The listener's id.
    pub fn listener(&self) -> &Arc<str> {
        &self.scope.id
    }

    /// The listener's group.
    pub fn group(&self) -> &Arc<str> {
        &self.scope.group
    }

    /// The app's state of type `T`.
    pub fn state<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        self.scope.states.get()
    }
}

/// One delivery of a batch: what [`FromBatch`](super::FromBatch) makes the further arguments of a batch handler from.
#[derive(Debug)]
pub struct BatchDelivery<'a> {
    pub(crate) scope: &'a Scope,
    pub(crate) ack: Option<&'a Ack>,
    pub(crate) tx: Option<&'a Tx>,
}

impl BatchDelivery<'_> {
    /// The listener's id.
    pub fn listener(&self) -> &Arc<str> {
        &self.scope.id
    }

    /// The listener's group.
    pub fn group(&self) -> &Arc<str> {
        &self.scope.group
    }

    /// The app's state of type `T`.
    pub fn state<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        self.scope.states.get()
    }
}

/// What does not change between the deliveries to one listener.
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) id: Arc<str>,
    pub(crate) group: Arc<str>,
    pub(crate) states: States,
    pub(crate) retries: RetryTopics,
}

impl Scope {
    /// What is listened on, with the retry topics.
    pub(crate) fn with_retries(&self, topics: &Topics) -> Topics {
        self.retries.with(topics)
    }

    /// The topic that the listener listens on, also where a record comes from one of its retry topics.
    pub(crate) fn source_topic<'a>(&self, topic: &'a str) -> &'a str {
        self.retries.source_of(topic).unwrap_or(topic)
    }
}

/// What a handler's arguments need from the app, so that a lack is found at start and not at the first record.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    pub(crate) states: Vec<(TypeId, &'static str)>,
    pub(crate) templates: Vec<(TypeId, &'static str)>,
    pub(crate) ack: bool,
    pub(crate) tx: bool,
    /// It returns replies, which somebody has to send.
    pub(crate) answers: bool,
    pub(crate) reads: Reads,
}

/// What a handler reads and answers, for documents about the app.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reads {
    pub(crate) values: Vec<Payload>,
    pub(crate) keys: Vec<Payload>,
    pub(crate) headers: Vec<HeaderField>,
    pub(crate) replies: Vec<Payload>,
}

/// A header that a handler reads.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(feature = "asyncapi"), expect(dead_code, reason = "documents about an app read it"))]
pub(crate) struct HeaderField {
    pub(crate) name: &'static str,
    /// What JSON Schema calls it.
    pub(crate) kind: &'static str,
    pub(crate) is_required: bool,
}

impl Needs {
    /// Needs application state of type `T`.
    pub fn state<T: 'static>(&mut self) {
        self.states.push((TypeId::of::<T>(), type_name::<T>()));
    }

    /// Needs a template that the app declares ([`App::template`](crate::App::template)).
    pub fn template<K: 'static, V: 'static>(&mut self) {
        self.templates.push((TypeId::of::<Template<K, V>>(), type_name::<Template<K, V>>()));
    }

    /// Reads the value as this; told in documents about the app.
    pub fn value(&mut self, payload: Payload) {
        self.reads.values.push(payload);
    }

    /// Reads the key as this; told in documents about the app.
    pub fn key(&mut self, payload: Payload) {
        self.reads.keys.push(payload);
    }

    /// Reads a header of this name, which is a `kind` (`string`, `integer`, `number` or `boolean`); told in documents
    /// about the app.
    pub fn header(&mut self, name: &'static str, kind: &'static str, is_required: bool) {
        self.reads.headers.push(HeaderField { name, kind, is_required });
    }

    /// What `add` adds may be missing.
    pub(super) fn optional(&mut self, add: impl FnOnce(&mut Self)) {
        let before = self.reads.headers.len();
        add(self);
        self.reads.headers.iter_mut().skip(before).for_each(|header| header.is_required = false);
    }

    /// Needs to acknowledge by hand.
    pub fn ack(&mut self) {
        self.ack = true;
    }
}
