//! The settings of an application about its other instances.

use std::sync::Arc;
use std::time::Duration;

use super::config::StreamsConfig;

impl StreamsConfig {
    /// How many other instances keep a copy of each store, always a little behind (`num.standby.replicas`): none unless
    /// set. When the instance that runs a task is gone, one that has a standby of it takes over at once, and reads only
    /// what its copy lacks. Each costs the store's disk or memory once more, and the reading of its changelog.
    #[must_use]
    pub fn standby_replicas(mut self, replicas: usize) -> Self {
        self.standby_replicas = replicas;
        self
    }

    /// How many tasks may be on the move to other instances at a time (`max.warmup.replicas`): 2 unless set, and 1 at
    /// least. A task moves when its new instance has caught up with its state, and works where it is until then.
    #[must_use]
    pub fn max_warmup_replicas(mut self, replicas: usize) -> Self {
        self.max_warmup_replicas = replicas.max(1);
        self
    }

    /// With how many changelog records to read, all stores of a task together, an instance may take it over
    /// (`acceptable.recovery.lag`): 10 000 unless set.
    #[must_use]
    pub fn acceptable_lag(mut self, records: u64) -> Self {
        self.acceptable_lag = records;
        self
    }

    /// After how long without news the group is asked again about tasks that are to move
    /// (`probing.rebalance.interval.ms`): 10 min unless set. An instance that has caught up with one of them asks at
    /// once, where Kafka waits for this interval.
    #[must_use]
    pub fn probing_rebalance_interval(mut self, interval: Duration) -> Self {
        self.probing_rebalance_interval = interval.max(Duration::from_millis(100));
        self
    }

    /// Where this instance answers queries (`application.server`), `host:port` as others reach it: told to all
    /// instances, which give it for the keys that are here ([`AppStore::hosts_of`](super::AppStore::hosts_of)).
    #[must_use]
    pub fn application_server(mut self, host: impl Into<Arc<str>>) -> Self {
        self.application_server = Some(host.into());
        self
    }

    /// Answers queries over HTTP on this address (`host:port`; port 0 takes a free one, see
    /// [`StreamsApp::query_address`](super::StreamsApp::query_address)), those of other instances among them, until the
    /// application closes. It is also the [`application_server`](Self::application_server), unless another is named:
    /// one has to be where others reach this instance by another address, and where it listens on all of them.
    ///
    /// Whoever reaches the address reads every store: there is no authentication. So it has to be one that only this
    /// machine reaches, unless [`danger_open_queries`](Self::danger_open_queries) says otherwise.
    #[cfg(feature = "queries")]
    #[must_use]
    pub fn query_server(mut self, address: impl Into<String>) -> Self {
        self.query_server = Some(address.into());
        self
    }

    /// Lets the [`query_server`](Self::query_server) listen on an address that other machines reach. All of them may
    /// read the stores then: for networks in which everybody may.
    #[cfg(feature = "queries")]
    #[must_use]
    pub fn danger_open_queries(mut self) -> Self {
        self.danger_open_queries = true;
        self
    }
}
