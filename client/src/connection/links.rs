//! Connections by broker, made on demand and remade with backoff.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;

use super::backoff::Backoff;
use super::faults::Faults;
use super::login;
use super::socket::Connection;
use crate::config::ClientConfig;
use crate::error::RequestError;
use crate::observe::ClientEvent;

/// How long one of several brokers may keep silent before the next is asked beside it.
const NEXT_CANDIDATE_AFTER: Duration = Duration::from_secs(1);

/// Where brokers are: what links need to know of the cluster.
pub(crate) trait Brokers: Send + Sync {
    /// The settings of connections.
    fn config(&self) -> &ClientConfig;

    /// The address of a broker; ids below zero stand for the bootstrap addresses.
    fn address(&self, node: i32) -> Option<Arc<str>>;

    /// Brokers to ask what any of them can answer, in the order in which they are tried.
    fn candidates(&self) -> Vec<i32>;

    /// Which of them an operator was told of.
    fn faults(&self) -> &Faults;
}

impl<B: Brokers + ?Sized> Brokers for Arc<B> {
    fn config(&self) -> &ClientConfig {
        (**self).config()
    }

    fn address(&self, node: i32) -> Option<Arc<str>> {
        (**self).address(node)
    }

    fn candidates(&self) -> Vec<i32> {
        (**self).candidates()
    }

    fn faults(&self) -> &Faults {
        (**self).faults()
    }
}

/// A request as [`Links::ask_any`] makes it of one broker after the other.
pub(crate) type Ask<'a, T> = &'a (dyn Fn(Connection) -> BoxFuture<'a, Result<T, RequestError>> + Send + Sync);

/// One connection to each broker that is used. The owner decides what shares it.
#[derive(Debug, Default)]
pub(crate) struct Links {
    slots: Mutex<HashMap<i32, Arc<Slot>>>,
}

/// The place of one broker's connection.
#[derive(Debug)]
struct Slot {
    /// Held while connecting, so that many askers make one connection.
    connecting: tokio::sync::Mutex<Pace>,
    live: Mutex<Option<Connection>>,
}

/// How soon the next attempt may be made.
#[derive(Debug)]
struct Pace {
    backoff: Backoff,
    not_before: Option<Instant>,
}

/// Tells that a broker cannot be reached: an operator once, and whoever looks closer, or listens, every time.
fn tell_failed(brokers: &dyn Brokers, node: i32, address: Arc<str>, error: &RequestError) {
    match brokers.faults().begin(&address) {
        true => tracing::warn!(node, %error, "a broker cannot be reached; it is tried again"),
        false => tracing::debug!(node, %error, "a broker cannot be reached"),
    }
    let error = error.clone();
    brokers.config().observers.tell(|| match error {
        RequestError::Authentication { .. } => ClientEvent::AuthenticationFailed { address, error },
        error => ClientEvent::ConnectFailed { address, error },
    });
}

fn tell_connected(brokers: &dyn Brokers, node: i32, connection: &Connection) {
    if brokers.faults().end(connection.address()) {
        tracing::info!(node, address = %connection.address(), "the broker can be reached again");
    }
    connection.announce();
}

impl Slot {
    fn live(&self, address: &str) -> Option<Connection> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.clone().filter(|connection| !connection.is_closed() && **connection.address() == *address)
    }
}

impl Links {
    /// The connection to a broker, if there is one now.
    pub(crate) fn existing(&self, brokers: &dyn Brokers, node: i32) -> Option<Connection> {
        let address = brokers.address(node)?;
        let slot = self.slots.lock().unwrap_or_else(PoisonError::into_inner).get(&node).cloned()?;
        slot.live(&address)
    }

    /// The connection to a broker; made when there is none. After failures the next attempt waits. Cancel-safe.
    pub(crate) async fn connection(
        &self,
        brokers: &dyn Brokers,
        node: i32,
    ) -> Result<Connection, RequestError> {
        let slot = self.slot(brokers, node);
        if let Some(connection) = brokers.address(node).and_then(|address| slot.live(&address)) {
            return Ok(connection);
        }
        let mut pace = slot.connecting.lock().await;
        // Somebody else may have connected, and the broker may have moved, while this waited.
        if let Some(connection) = brokers.address(node).and_then(|address| slot.live(&address)) {
            return Ok(connection);
        }
        if let Some(not_before) = pace.not_before {
            tokio::time::sleep_until(not_before).await;
        }
        // Set first: a cancelled attempt counts as one, and so does one to a broker that nobody knows, for whoever asks
        // may ask again as soon as he is told.
        let pause = pace.backoff.next(&*brokers.config().rng);
        pace.not_before = Some(Instant::now() + pause);
        let address = brokers.address(node).ok_or(RequestError::UnknownNode { node })?;
        let connection = match login::open(Arc::clone(&address), brokers.config()).await {
            Ok(connection) => connection,
            Err(error) => {
                drop(pace);
                tell_failed(brokers, node, address, &error);
                return Err(error);
            }
        };
        // `not_before` stays: a broker that closes every connection must not be asked as fast as it closes them.
        pace.backoff.reset();
        *slot.live.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection.clone());
        drop(pace);
        tell_connected(brokers, node, &connection);
        Ok(connection)
    }

    /// A connection to some broker: one that is open, or else the first of those known that can be opened.
    pub(crate) async fn any(&self, brokers: &dyn Brokers) -> Result<Connection, RequestError> {
        if let Some(open) = brokers.candidates().iter().find_map(|&node| self.existing(brokers, node)) {
            return Ok(open);
        }
        self.ask_any(brokers, &|connection| Box::pin(std::future::ready(Ok(connection)))).await
    }

    /// Asks some broker what any of them can answer, those with an open connection first. One that neither answers nor
    /// fails for a second does not keep the next from being asked beside it: the first answer counts.
    pub(crate) async fn ask_any<'a, T>(
        &'a self,
        brokers: &'a dyn Brokers,
        ask: Ask<'a, T>,
    ) -> Result<T, RequestError> {
        let mut candidates = brokers.candidates();
        candidates.sort_by_key(|&node| self.existing(brokers, node).is_none());
        let mut attempts: FuturesUnordered<BoxFuture<'a, _>> = FuturesUnordered::new();
        let mut waiting = candidates.iter();
        let mut last = None;
        loop {
            match waiting.next() {
                Some(&node) => attempts.push(Box::pin(async move {
                    let connection = self.connection(brokers, node).await?;
                    ask(connection).await
                })),
                None if attempts.is_empty() => break,
                None => {}
            }
            let next_turn = async {
                match waiting.len() {
                    0 => std::future::pending().await,
                    _ => tokio::time::sleep(NEXT_CANDIDATE_AFTER).await,
                }
            };
            tokio::select! {
                Some(result) = attempts.next() => match result {
                    Ok(answer) => return Ok(answer),
                    // An answer, if not a welcome one; another broker would not give a better one.
                    Err(error @ (RequestError::Broker { .. } | RequestError::Encode { .. })) => return Err(error),
                    Err(error) => last = Some(error),
                },
                () = next_turn => {}
            }
        }
        // Trying again cannot help, so nobody is told that no broker answers.
        if let Some(error @ (RequestError::Tls { .. } | RequestError::Authentication { .. })) = last {
            return Err(error);
        }
        let tried =
            candidates.iter().filter_map(|&node| brokers.address(node)).collect::<Vec<_>>().join(", ");
        let last = last.map_or_else(|| "none".to_owned(), |error| error.to_string());
        Err(RequestError::NoBroker { tried: tried.into(), last: last.into() })
    }

    fn slot(&self, brokers: &dyn Brokers, node: i32) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.entry(node).or_insert_with(|| {
            let backoff =
                Backoff::new(brokers.config().reconnect_backoff, brokers.config().retry_backoff_max);
            let connecting = tokio::sync::Mutex::new(Pace { backoff, not_before: None });
            Arc::new(Slot { connecting, live: Mutex::new(None) })
        });
        Arc::clone(slot)
    }
}
