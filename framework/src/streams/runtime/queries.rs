//! Queries of a running application: what it knows of its stores and of other instances, and where it is asked.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use tokio::sync::watch;

use super::app::StreamsApp;
#[cfg(not(feature = "queries"))]
use super::config::StreamsConfig;
#[cfg(not(feature = "queries"))]
use super::error::StreamsError;
use super::fingerprint::fnv1a;
use super::placing::{self, InstanceTasks, KeyHosts};
use super::positions::{GlobalPosition, Inputs};
#[cfg(not(feature = "queries"))]
use super::shared::Background;
use super::shared::{Shared, lock};
use super::standby_looks;
use crate::store::{StateStore, StoreError};
use crate::streams::node::StoreLayout;
use crate::streams::queries::{AnsweredBy, Holders, Instance, Peers, QueryError, StoreFacts, StoreQuery};
use crate::streams::query::StoreReader;
use crate::streams::task::TaskId;

impl StreamsApp {
    /// A state store, to be asked wherever its partitions are: here or at the instances that have them, with the
    /// feature `queries`; those need an [`application_server`](super::StreamsConfig::application_server), or a
    /// [`query_server`](super::StreamsConfig), which is one.
    ///
    /// # Errors
    /// The topology has no such store, or it holds other types.
    pub fn query<K: 'static, V: 'static>(&self, store: &str) -> Result<StoreQuery<K, V>, StoreError> {
        let reader = StoreReader::new(&self.shared.topology, store)?;
        let instance = Arc::new(ThisInstance(Arc::downgrade(&self.shared)));
        Ok(StoreQuery::new(instance, peers(), reader))
    }

    /// All instances of the application that have an
    /// [`application_server`](super::StreamsConfig::application_server) (`metadataForAllStreamsClients`), as the
    /// group's leader said last; one that is gone is among them until the group knows.
    pub fn instances(&self) -> Vec<InstanceTasks> {
        placing::instances(&self.shared)
    }

    /// Which instances have which partition of a store (`streamsMetadataForStore`), in the order of the partitions.
    ///
    /// # Errors
    /// There is no such store, or the cluster cannot be asked how many partitions there are.
    pub async fn hosts_of_store(&self, store: &str) -> Result<Vec<KeyHosts>, StoreError> {
        let (shared, topology) = (&self.shared, &self.shared.topology);
        let unknown = || StoreError::Unknown { store: store.to_owned(), known: topology.known_stores() };
        topology.store(store).ok_or_else(unknown)?;
        let count = placing::partitions(shared, store).await?;
        Ok((0..count).map(|partition| placing::hosts(shared, store, partition)).collect())
    }
}

#[cfg(feature = "queries")]
fn peers() -> Option<Arc<dyn Peers>> {
    use crate::streams::queries::peers::HttpPeers;
    /// Of the process, as its file descriptors are.
    static PEERS: std::sync::OnceLock<Arc<HttpPeers>> = std::sync::OnceLock::new();
    // Not the client's network: that may be one which knows nothing but Kafka's protocol.
    let peers = PEERS.get_or_init(|| Arc::new(HttpPeers::new(Arc::new(klamm_runtime::TcpNet))));
    Some(Arc::clone(peers) as _)
}

#[cfg(not(feature = "queries"))]
fn peers() -> Option<Arc<dyn Peers>> {
    None
}

/// Weak: whoever asks, however slowly, keeps no closed application's directory.
struct ThisInstance(Weak<Shared>);

impl ThisInstance {
    fn shared(&self, facts: &StoreFacts) -> Result<Arc<Shared>, QueryError> {
        let closed = || StoreError::NotHere { store: facts.name.to_string(), state: "closed" };
        Ok(self.0.upgrade().ok_or_else(closed)?)
    }
}

#[async_trait]
impl Instance for ThisInstance {
    fn facts(&self, store: &str) -> Result<StoreFacts, QueryError> {
        let closed = || StoreError::NotHere { store: store.to_owned(), state: "closed" };
        let shared = self.0.upgrade().ok_or_else(closed)?;
        let topology = &shared.topology;
        let unknown = || StoreError::Unknown { store: store.to_owned(), known: topology.known_stores() };
        let spec = topology.store(store).ok_or_else(unknown)?;
        let kind = match spec.layout {
            StoreLayout::KeyValue => "rows",
            StoreLayout::Window(layout) if layout.is_of_sessions() => "sessions",
            StoreLayout::Window(_) => "windows",
            StoreLayout::Versioned(_) => "versions",
        };
        let is_global = !topology.graph.stores.contains_key(store);
        let form = fnv1a(format!("{kind} of {}", spec.types).bytes());
        Ok(StoreFacts { name: Arc::clone(&spec.name), layout: spec.layout, is_global, form })
    }

    async fn partitions(&self, facts: &StoreFacts) -> Result<i32, QueryError> {
        let shared = self.shared(facts)?;
        Ok(placing::partitions(&shared, &facts.name).await?)
    }

    fn part(&self, facts: &StoreFacts, partition: i32, standby: bool) -> Option<AnsweredBy> {
        let shared = self.0.upgrade()?;
        let is_here = match standby {
            true => shared.standbys.has(&facts.name, partition),
            false => {
                let stores = lock(&shared.stores);
                let engine = stores.get(&*facts.name).and_then(|of| of.get(&partition));
                engine.is_some_and(|engine| engine.strong_count() > 0)
                    && placing::may_be_read(&shared, &facts.name)
            }
        };
        let task = task_of(&shared, &facts.name, partition);
        let behind = || shared.standbys.surely_behind(task?);
        is_here.then(|| AnsweredBy {
            partition,
            host: shared.config.application_server.clone(),
            standby,
            behind: if standby { behind() } else { Some(0) },
            changelog_offset: 0,
            stream_time_ms: -1,
            inputs: match (task, standby) {
                (Some(task), false) => shared.positions.of(task),
                (Some(task), true) => shared.standbys.inputs.of(task),
                (None, _) => Inputs::new(),
            },
        })
    }

    fn global_parts(&self, facts: &StoreFacts) -> Vec<AnsweredBy> {
        let Some(shared) = self.0.upgrade() else { return Vec::new() };
        let globals = &shared.topology.graph.globals;
        let Some((topic, _)) = globals.iter().find(|(_, table)| table.spec.name == facts.name) else {
            return Vec::new();
        };
        let topic: Arc<str> = topic.as_str().into();
        let part = |of: GlobalPosition| AnsweredBy {
            partition: of.partition,
            host: shared.config.application_server.clone(),
            standby: false,
            behind: of.behind,
            changelog_offset: of.offset,
            stream_time_ms: -1,
            inputs: Inputs::from([(Arc::clone(&topic), of.offset)]),
        };
        shared.positions.of_global(&topic).into_iter().map(part).collect()
    }

    async fn look(&self, facts: &StoreFacts, partition: i32) {
        let Some(shared) = self.0.upgrade() else { return };
        let Some(task) = task_of(&shared, &facts.name, partition) else { return };
        if let Err(error) = standby_looks::look(&shared, task).await {
            tracing::debug!(%task, %error, "nobody says how far a standby is");
        }
    }

    fn engine(&self, facts: &StoreFacts, partition: i32, standby: bool) -> Option<Arc<dyn StateStore>> {
        let shared = self.0.upgrade()?;
        if standby {
            return shared.standbys.engine(&facts.name, partition);
        }
        if !placing::may_be_read(&shared, &facts.name) {
            return None;
        }
        let stores = lock(&shared.stores);
        stores.get(&*facts.name)?.get(&partition)?.upgrade()
    }

    fn holders(&self, facts: &StoreFacts, partition: i32) -> Holders {
        let Some(shared) = self.0.upgrade() else { return Holders::default() };
        let found = placing::hosts(&shared, &facts.name, partition);
        Holders { active: found.active, standbys: found.standbys }
    }

    fn application(&self) -> Option<Arc<str>> {
        Some(Arc::clone(self.0.upgrade()?.group()))
    }

    fn is_over(&self) -> bool {
        self.0.upgrade().is_none_or(|shared| *shared.close.borrow())
    }

    fn host(&self) -> Option<Arc<str>> {
        self.0.upgrade()?.config.application_server.clone()
    }

    fn state(&self) -> &'static str {
        self.0.upgrade().map_or("closed", |shared| shared.state.borrow().name())
    }

    fn progress(&self) -> watch::Receiver<u64> {
        match self.0.upgrade() {
            Some(shared) => shared.positions.progress(),
            None => watch::channel(0).1,
        }
    }
}

/// The task of a partition of a store; global tables have none.
fn task_of(shared: &Shared, store: &str, partition: i32) -> Option<TaskId> {
    let parts = &shared.topology.sub_topologies;
    let sub_topology = parts.iter().position(|part| part.stores.iter().any(|name| name == store))?;
    Some(TaskId { sub_topology, partition })
}

#[cfg(feature = "queries")]
pub(super) use serving::Endpoint;

/// Where queries are answered: nowhere.
#[cfg(not(feature = "queries"))]
pub(super) struct Endpoint;

#[cfg(not(feature = "queries"))]
impl Endpoint {
    pub(super) async fn bind(_config: &mut StreamsConfig) -> Result<Self, StreamsError> {
        Ok(Self)
    }

    pub(super) fn serve(self, _shared: &Arc<Shared>, _background: &Background) {}
}

#[cfg(feature = "queries")]
mod serving {
    use std::net::{IpAddr, SocketAddr};
    use std::sync::Arc;

    use klamm_runtime::{Listener, Net, TcpNet};

    use super::super::app::StreamsApp;
    use super::super::config::StreamsConfig;
    use super::super::error::StreamsError;
    use super::super::shared::{Background, Shared};
    use super::{ThisInstance, peers};
    use crate::streams::queries::endpoint;

    impl StreamsApp {
        /// Where it answers queries, with the real port, if it [does](StreamsConfig::query_server).
        pub fn query_address(&self) -> Option<&str> {
            self.shared.query_address.get().map(String::as_str)
        }
    }

    /// Where queries are answered, if they are.
    pub(in super::super) struct Endpoint(Option<Box<dyn Listener>>);

    impl Endpoint {
        /// Takes the address for queries, if there is to be one, and makes it the one that others are told.
        pub(in super::super) async fn bind(config: &mut StreamsConfig) -> Result<Self, StreamsError> {
            let Some(address) = config.query_server.clone() else { return Ok(Self(None)) };
            let failed = |source| StreamsError::QueryServer { address: address.clone(), source };
            let listener = TcpNet.bind(&address).await.map_err(failed)?;
            // As it was resolved, not as it was written: names can mean any address.
            let local = listener.local_address();
            if !is_of_this_machine(&local) && !config.danger_open_queries {
                return Err(StreamsError::OpenQueries { address: local });
            }
            if config.application_server.is_none() {
                if is_of_all(&local) {
                    return Err(StreamsError::NoApplicationServer { address: local });
                }
                config.application_server = Some(local.as_str().into());
            }
            Ok(Self(Some(listener)))
        }

        /// Answers until the application closes.
        pub(in super::super) fn serve(self, shared: &Arc<Shared>, background: &Background) {
            let (Some(listener), Some(peers)) = (self.0, peers()) else { return };
            shared.query_address.get_or_init(|| listener.local_address());
            let instance = Arc::new(ThisInstance(Arc::downgrade(shared)));
            let router = endpoint::router(instance, peers);
            let mut close = shared.close.subscribe();
            // Told by the sender's end, too.
            let over = async move { drop(close.wait_for(|close| *close).await) };
            background.spawn("streams-queries", endpoint::serve(listener, router, over));
        }
    }

    fn is_of_this_machine(address: &str) -> bool {
        match ip_of(address) {
            Some(ip) => ip.to_canonical().is_loopback(),
            None => false,
        }
    }

    fn is_of_all(address: &str) -> bool {
        ip_of(address).is_some_and(|ip| ip.to_canonical().is_unspecified())
    }

    fn ip_of(address: &str) -> Option<IpAddr> {
        address.parse::<SocketAddr>().ok().map(|address| address.ip())
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn addresses_of_this_machine_are_known() {
            for own in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
                assert!(is_of_this_machine(own), "{own}");
            }
            for open in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1", "localhost:1", "x"] {
                assert!(!is_of_this_machine(open), "{open}");
            }
            assert!(is_of_all("0.0.0.0:1") && is_of_all("[::]:1") && !is_of_all("10.0.0.1:1"));
        }
    }
}

#[cfg(test)]
mod tests {
    use klamm_client::TopicPartition;
    use klamm_client::testing::FakeBroker;
    use tokio::sync::mpsc;

    use super::super::start::shared;
    use super::*;
    use crate::store::MemoryStore;
    use crate::streams::{Materialized, StreamsBuilder, StreamsConfig};

    /// Queries over instances went on to answer from stores that others may have changed, where `AppStore` refuses.
    #[tokio::test]
    async fn who_is_not_surely_a_member_answers_for_global_tables_only() {
        let client = FakeBroker::start().await.unwrap().client().await.unwrap();
        let mut streams = StreamsBuilder::new();
        streams
            .stream::<String, String>("in")
            .group_by_key()
            .count(Materialized::named("counts").in_memory());
        streams.global_table::<String, String>("all");
        let topology = streams.build().unwrap().inner;
        let nothing: [TopicPartition; 0] = [];
        let ends = client.consumer().assign(nothing).start().await.unwrap().handle();
        let (rewound, _) = mpsc::unbounded_channel();
        let shared = Arc::new(shared(topology, StreamsConfig::new("app", ""), client, rewound, ends));
        let engine: Arc<dyn StateStore> = Arc::new(MemoryStore::new());
        for store in ["counts", "all-global"] {
            let of_store = std::collections::BTreeMap::from([(0, Arc::downgrade(&engine))]);
            lock(&shared.stores).insert(store.to_owned(), of_store);
        }
        // The application has not joined its group.
        let instance = ThisInstance(Arc::downgrade(&shared));
        for (store, answers) in [("counts", false), ("all-global", true)] {
            let facts = instance.facts(store).unwrap();
            assert_eq!(instance.part(&facts, 0, false).is_some(), answers, "{store}");
            assert_eq!(instance.engine(&facts, 0, false).is_some(), answers, "{store}");
        }
    }
}
