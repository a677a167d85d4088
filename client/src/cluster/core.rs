//! `Core`: what everything made from one client shares, and how it begins.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::cache::Metadata;
use crate::config::ClientConfig;
use crate::connection::{Backoff, Brokers, Faults, Links, Retry};
use crate::error::RequestError;
use crate::runtime::Tasks;

/// What everything made from one client shares.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: ClientConfig,
    pub(crate) metadata: Metadata,
    /// For metadata and administration.
    pub(crate) links: Links,
    faults: Faults,
}

impl Core {
    /// Learns the cluster's brokers from one of the bootstrap addresses. The tasks keep metadata fresh.
    pub(crate) async fn connect(config: ClientConfig) -> Result<(Arc<Self>, Tasks), RequestError> {
        let (metadata, links, faults) = (Metadata::new(), Links::default(), Faults::default());
        let core = Arc::new(Self { config, metadata, links, faults });
        learn_brokers(&core).await?;
        let tasks = Tasks::new();
        tasks.spawn("metadata refresh", refresh_by_age(Arc::downgrade(&core), core.config.metadata_max_age));
        Ok((core, tasks))
    }

    /// A pause before the next of several attempts.
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::of(&self.config)
    }
}

/// A connection to a cluster. Cheap to clone: producers, consumers and admins made from it share its metadata.
#[derive(Debug, Clone)]
pub struct Client {
    core: Arc<Core>,
    /// Refreshes metadata by age.
    _tasks: Tasks,
}

impl Client {
    pub(crate) fn over(core: Arc<Core>, tasks: Tasks) -> Self {
        Self { core, _tasks: tasks }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }
}

impl Brokers for Core {
    fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// The address of a broker; ids below zero stand for the bootstrap addresses.
    fn address(&self, node: i32) -> Option<Arc<str>> {
        match usize::try_from(-1 - i64::from(node)) {
            Ok(index) => self.config.bootstrap.get(index).cloned(),
            Err(_) => self.metadata.view().brokers.get(&node).cloned(),
        }
    }

    fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Brokers to ask what any of them can answer: the cluster's in random order, then the bootstrap addresses, so that
    /// a cluster that moved away altogether is found again.
    fn candidates(&self) -> Vec<i32> {
        let mut nodes: Vec<i32> = self.metadata.view().brokers.keys().copied().collect();
        nodes.sort_unstable();
        if !nodes.is_empty() {
            let start = self.config.rng.below(nodes.len() as u64) as usize;
            nodes.rotate_left(start);
        }
        nodes.extend((1..=self.config.bootstrap.len()).filter_map(|at| i32::try_from(at).ok()).map(|at| -at));
        nodes
    }
}

/// The first metadata request, tried until `connect_timeout`: a broker may just be starting.
async fn learn_brokers(core: &Core) -> Result<(), RequestError> {
    let deadline = Instant::now() + core.config.connect_timeout;
    let mut retry = Retry::new(&core.config, "connecting to the cluster", deadline);
    let mut last = None;
    loop {
        let attempt = async {
            core.ask_metadata(Some(&[]), false).await.inspect_err(|error| last = Some(error.clone()))
        };
        match retry.attempt(attempt).await {
            Ok(Some(_)) => return Ok(()),
            Ok(None) => {}
            // Which brokers were tried says more than how long.
            Err(RequestError::Deadline { .. }) => {
                return Err(last.unwrap_or_else(|| RequestError::NoBroker {
                    tried: core.config.bootstrap.join(", ").into(),
                    last: "no answer in time".into(),
                }));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Keeps metadata fresh when no error gives a reason to; ends with the client.
async fn refresh_by_age(core: Weak<Core>, age: Duration) {
    loop {
        tokio::time::sleep(age).await;
        let Some(core) = core.upgrade() else { return };
        let seen = core.metadata.view().version;
        if let Err(error) = core.refresh_metadata(seen).await {
            tracing::debug!(%error, "metadata refresh failed");
        }
    }
}
