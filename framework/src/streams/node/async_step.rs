//! The step that makes asynchronous calls. A record that comes is noted in the ledger and goes on when its call has
//! ended; until then its offset is not committed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use klamm_client::Headers;

use super::calling::Calling;
use super::calls::{Arrivals, Given, Patience, Ticket, attempts};
use super::fault::post;
use super::in_flight::InFlight;
use super::{Boundary, Children, Context, Processor, Record, TopicId};
use crate::listener::BoxError;
use crate::streams::error::TaskError;
use crate::streams::incoming::Incoming;

/// Makes a call.
pub(crate) type MakeCall<K, V, R> =
    Arc<dyn Fn(K, V) -> BoxFuture<'static, Result<R, BoxError>> + Send + Sync>;

/// Forwards what a call gave.
pub(crate) type Give<K, R, K2, V2> =
    fn(&K, R, &mut dyn FnMut(&K2, &V2) -> Result<(), TaskError>) -> Result<(), TaskError>;

/// How the calls of an operator are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallSettings {
    pub(crate) max_in_flight: usize,
    pub(crate) by_key: bool,
    pub(crate) timeout: Duration,
}

/// An asynchronous operator.
pub(crate) struct AsyncStep<K, V, R, K2, V2> {
    pub(crate) operator: usize,
    pub(crate) boundary: Boundary,
    pub(crate) settings: CallSettings,
    pub(crate) lane_of: fn(&K) -> u64,
    pub(crate) make: MakeCall<K, V, R>,
    pub(crate) give: Give<K, R, K2, V2>,
    pub(crate) arrivals: Arc<Arrivals>,
    pub(crate) in_flight: InFlight,
    pub(crate) held: BTreeMap<u64, Held<K, V>>,
    pub(crate) children: Children<K2, V2>,
}

/// A record whose call has not ended.
pub(crate) struct Held<K, V> {
    key: K,
    /// Until the call begins.
    value: Option<V>,
    timestamp_ms: i64,
    headers: Headers,
    place: Option<(TopicId, i32, i64)>,
    /// The source record, should it become a dead letter.
    record: Option<Incoming>,
}

impl<K, V, R, K2, V2> Processor<K, V> for AsyncStep<K, V, R, K2, V2>
where
    K: Clone + Send + 'static,
    V: Clone + Send + 'static,
    R: Send + 'static,
    K2: 'static,
    V2: 'static,
{
    fn process(&mut self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        let lane = self.settings.by_key.then(|| (self.lane_of)(record.key));
        let number = self.in_flight.add(lane, context.place.map(|(topic, _, offset)| (topic, offset)));
        let held = Held {
            key: record.key.clone(),
            value: Some(record.value.clone()),
            timestamp_ms: record.timestamp_ms,
            headers: context.headers.clone(),
            place: context.place,
            record: context.record.clone().filter(|_| context.place.is_some()),
        };
        self.held.insert(number, held);
        self.begin(context)
    }
}

impl<K, V, R, K2, V2> AsyncStep<K, V, R, K2, V2>
where
    K: Clone + Send + 'static,
    V: Clone + Send + 'static,
    R: Send + 'static,
    K2: 'static,
    V2: 'static,
{
    /// Makes the calls that may begin.
    fn begin(&mut self, context: &Context) -> Result<(), TaskError> {
        while let Some(number) = self.in_flight.begin() {
            let held =
                self.held.get_mut(&number).and_then(|held| Some((held.key.clone(), held.value.take()?)));
            let (Some((key, value)), Some(spawn)) = (held, &context.spawn) else {
                return Err(TaskError::User("nothing here runs asynchronous calls".into()));
            };
            let pauses = self.boundary.policy.pauses();
            let pauses = pauses.map(|pause| if context.waits { pause } else { Duration::ZERO }).collect();
            let patience = Patience { timeout: self.settings.timeout, pauses };
            let ticket = Ticket::new(&self.arrivals, self.operator, number);
            let make = Arc::clone(&self.make);
            spawn(Box::pin(async move {
                let given = attempts(patience, move || make(key.clone(), value.clone())).await;
                ticket.hand_in(given.map(|given| Box::new(given) as Box<_>));
            }));
        }
        Ok(())
    }

    fn forward(&self, context: &mut Context, held: &Held<K, V>, given: R) -> Result<(), TaskError> {
        let timestamp_ms = held.timestamp_ms;
        let mut forward =
            |key: &K2, value: &V2| self.children.forward(context, Record { key, value, timestamp_ms });
        (self.give)(&held.key, given, &mut forward)
    }
}

impl<K, V, R, K2, V2> Calling for AsyncStep<K, V, R, K2, V2>
where
    K: Clone + Send + 'static,
    V: Clone + Send + 'static,
    R: Send + 'static,
    K2: 'static,
    V2: 'static,
{
    fn arrive(&mut self, context: &mut Context, number: u64, given: Given) -> Result<(), TaskError> {
        let Some(held) = self.held.remove(&number) else { return Ok(()) };
        context.headers = held.headers.clone();
        context.place = held.place;
        context.record = held.record.clone();
        // Other records have come since, and numbers of rows that this one made before are taken.
        context.input = u32::MAX;
        match given {
            Ok(given) => {
                if let Ok(given) = given.downcast::<R>() {
                    self.forward(context, &held, *given)?;
                }
            }
            Err(fault) => self.boundary.judge(context, fault)?,
        }
        if let (Some(record), Some((topic, partition, _))) = (&held.record, held.place)
            && !context.letters.is_empty()
        {
            post(context, partition, record, topic);
        }
        self.in_flight.end(number);
        self.begin(context)
    }

    fn is_full(&self) -> bool {
        self.in_flight.is_full()
    }

    fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    fn lowest(&self, topic: TopicId) -> Option<i64> {
        self.in_flight.lowest(topic)
    }
}
