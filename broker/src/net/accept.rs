//! Accepting connections, as many as there may be.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_runtime::{Listener, Tasks};
use tokio::sync::watch;

use super::connection::serve;
use super::frame::FrameLimits;
use super::way::Ways;
use crate::api::{Context, Peer};
use crate::budget::Budget;
use crate::config::{BrokerConfig, Endpoint};

/// How long to wait after the system refused to accept, for instance for want of file descriptors.
const RETRY_ACCEPT: Duration = Duration::from_millis(50);

/// What all connections share: their limits, and what was found out about this machine.
#[derive(Debug)]
pub(crate) struct Limits {
    /// How many connections there may be; changes while the broker runs.
    config: watch::Receiver<Arc<BrokerConfig>>,
    taken: Mutex<Taken>,
    frames: FrameLimits,
    ways: Arc<Ways>,
}

/// The connections that there are.
#[derive(Debug, Default)]
struct Taken {
    total: usize,
    per_address: HashMap<String, usize>,
}

impl Limits {
    /// From `max.connections` and its like.
    pub(crate) fn new(config: watch::Receiver<Arc<BrokerConfig>>) -> Arc<Self> {
        let frames = {
            let config = config.borrow();
            FrameLimits {
                max_bytes: config.request_max_bytes,
                idle: config.connections_max_idle,
                read_timeout: config.request_read_timeout,
                budget: Budget::new(config.queued_max_request_bytes),
            }
        };
        Arc::new(Self { config, taken: Mutex::default(), frames, ways: Arc::default() })
    }

    /// How much of the memory for requests is taken.
    pub(crate) fn request_bytes_taken(&self) -> usize {
        self.frames.budget.taken_bytes()
    }

    /// A place for one more connection from `host`, or the limit that there is none.
    fn admit(self: &Arc<Self>, host: &str) -> Result<Place, &'static str> {
        let (max, max_per_address) = {
            let config = self.config.borrow();
            (config.max_connections, config.max_connections_per_ip)
        };
        let mut taken = self.taken();
        if taken.total >= max {
            return Err("there are max.connections already");
        }
        if taken.per_address.get(host).copied().unwrap_or(0) >= max_per_address {
            return Err("there are max.connections.per.ip from its address already");
        }
        taken.total += 1;
        *taken.per_address.entry(host.to_owned()).or_insert(0) += 1;
        Ok(Place { limits: self.clone(), host: host.to_owned() })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place within the limits, given back when dropped.
#[derive(Debug)]
struct Place {
    limits: Arc<Limits>,
    host: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.limits.taken();
        taken.total -= 1;
        if let Some(count) = taken.per_address.get_mut(&self.host) {
            *count -= 1;
            if *count == 0 {
                taken.per_address.remove(&self.host);
            }
        }
    }
}

/// Accepts on one address.
#[derive(Debug)]
pub(crate) struct Acceptor {
    /// Where it listens.
    pub(crate) listener: Box<dyn Listener>,
    /// What clients that came this way are told to connect to.
    pub(crate) advertised: Endpoint,
    /// Shared by all acceptors.
    pub(crate) limits: Arc<Limits>,
    /// Runs the connections.
    pub(crate) connections: Tasks,
}

impl Acceptor {
    /// Accepts until the broker stops.
    pub(crate) async fn run(mut self, context: Arc<Context>, mut stopping: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                // First, so that nobody who connects without a pause holds up the stop.
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => return,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    context.quiet_log().warn("unknown", &format_args!("cannot accept: {error}"));
                    tokio::time::sleep(RETRY_ACCEPT).await;
                    continue;
                }
            };
            let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host).to_owned();
            let place = match self.limits.admit(&host) {
                Ok(place) => place,
                Err(limit) => {
                    context.quiet_log().warn(&address, &limit);
                    continue;
                }
            };
            let peer = Arc::new(Peer::new(address, host, self.advertised.clone()));
            let (context, limits) = (context.clone(), self.limits.frames.clone());
            let ways = self.limits.ways.clone();
            let stopping = stopping.clone();
            self.connections.spawn("connection", async move {
                let _place = place;
                serve(context, peer, stream, limits, ways, stopping).await;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Values;

    #[test]
    fn places_are_counted_in_all_and_by_address_and_given_back() {
        let mut values = Values::new();
        values.set("max.connections", "3").unwrap();
        values.set("max.connections.per.ip", "2").unwrap();
        let config = |values: &Values| Arc::new(BrokerConfig::from_values(values).unwrap());
        let live = watch::Sender::new(config(&values));
        let limits = Limits::new(live.subscribe());
        let first = limits.admit("a").unwrap();
        let _second = limits.admit("a").unwrap();
        assert!(limits.admit("a").unwrap_err().contains("per.ip"));
        let _third = limits.admit("b").unwrap();
        assert!(limits.admit("c").unwrap_err().contains("max.connections already"));
        drop(first);
        let _again = limits.admit("a").unwrap();
        assert_eq!(limits.taken().per_address.len(), 2);
        // Fewer now, while there are more: nobody is sent away, and nobody let in.
        values.set("max.connections", "2").unwrap();
        live.send_replace(config(&values));
        assert!(limits.admit("c").unwrap_err().contains("max.connections already"));
        values.set("max.connections", "4").unwrap();
        values.set("max.connections.per.ip", "3").unwrap();
        live.send_replace(config(&values));
        let _more = limits.admit("a").unwrap();
        assert!(limits.admit("a").is_err());
    }
}
