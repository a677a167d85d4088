//! From a topology and its settings to a running application.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm_client::{Assignor, Client, Consumer, ConsumerHandle, OffsetReset, TopicPartition, Uuid};
use klamm_runtime::{Rng, SeededRng};
use tokio::sync::{Semaphore, mpsc as async_mpsc, watch};

use super::app::StreamsApp;
use super::assignment::{Rules, StickyTasks, Told, names_of_tasks};
use super::assignor::ExactlyOnceRange;
use super::clock::RuntimeClock;
use super::config::StreamsConfig;
use super::directory::StateDirectory;
use super::error::StreamsError;
use super::observe::{self, Meters};
use super::positions::Positions;
use super::pump::{self, Rebalances};
use super::queries::Endpoint;
use super::rewind::Rewound;
use super::shared::{Background, Command, Shared};
use super::spawn::{start_keeper, start_worker};
use super::standbys::Standbys;
use super::state::AppState;
use super::workers::Workers;
use super::{
    engines, flushing, free_space, global, instance, known_state, loading, remember, topics, upkeep,
};
use crate::streams::node::{StoreSpec, TopicId};
use crate::streams::topology::{Topology, TopologyInner, is_internal};

impl Topology {
    /// Runs the topology: creates its internal topics, starts its threads and joins the group. Returns when the group
    /// is being joined; [`StreamsApp::wait_for`] tells when it runs.
    ///
    /// The topics it reads must exist, and those that meet in a store or join must have equally many partitions.
    ///
    /// # Errors
    /// The cluster cannot be reached, its topics do not fit, the topology would orphan state of an earlier version, or
    /// a thread cannot be started.
    pub async fn start(self, mut config: StreamsConfig) -> Result<StreamsApp, StreamsError> {
        let topology = self.with_default_policy(&config.on_error)?.inner;
        let client = match &config.client {
            Some(client) => client.clone(),
            None => {
                let builder = Client::builder().bootstrap(config.bootstrap.clone());
                builder.client_id(Arc::clone(&config.application_id)).build().await?
            }
        };
        let endpoint = Endpoint::bind(&mut config).await?;
        let plan = topics::prepare(&topology, &config, &client).await?;
        let directory = match config.is_exactly_once() || is_stateful(&topology) {
            true => Some(StateDirectory::take(config.directory()).await?),
            false => None,
        };
        remember::remember(&topology, &config).await?;
        let ends = client.consumer().assign(NOTHING).start().await?;

        let (rewinds, rewound) = async_mpsc::unbounded_channel();
        let (ended_sender, ended) = watch::channel(false);
        let shared = Shared { directory, ..shared(topology, config, client, rewinds, ends.handle()) };
        let shared = Arc::new(shared);
        let background = Background::new();
        // From here on, dropping the application ends what was started.
        let app = StreamsApp { shared: Arc::clone(&shared), ended, background: background.clone() };
        (0..shared.config.threads).try_for_each(|_| start_worker(&shared, &background))?;
        let keeper = start_keeper(&shared, &background)?;
        // Where nothing is kept on disk, it may be as full as it likes.
        if is_stateful(&shared.topology)
            && let Some(space) = free_space::begin(&shared).await
        {
            background.spawn("streams-free-space", space.serve());
        }
        known_state::find(&shared).await;
        global::start(&shared, &background).await?;
        endpoint.serve(&shared, &background);
        let consumer = consumer(&shared).await?;
        shared.consumer.send_replace(Some(consumer.handle()));

        let timed = Arc::clone(&shared);
        background.spawn("streams-commit-timer", async move {
            let mut due = tokio::time::interval(timed.config.commit_every());
            due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            due.tick().await;
            loop {
                due.tick().await;
                timed.tell_all(|| Command::Commit { done: None });
            }
        });
        background.spawn("streams-flush", flushing::serve(Arc::downgrade(&shared)));
        background.spawn("streams-topics", upkeep::watch_topics(Arc::clone(&shared), plan));
        background.spawn("streams-meters", observe::serve(Arc::clone(&shared)));
        background.spawn("streams-purge", upkeep::purge(Arc::clone(&shared)));
        background.spawn("streams-pump", async move {
            pump::run(Arc::clone(&shared), consumer, rewound).await;
            let threads = shared.workers.close(|| Command::Stop);
            shared.standbys.end();
            drop(ends);
            for ended in threads.into_iter().filter_map(|ended| ended.thread).chain([keeper]) {
                ended.await.ok();
            }
            let last = if shared.has_failed() { AppState::Failed } else { AppState::Closed };
            shared.state.send_replace(last);
            observe::tell_last(&shared);
            ended_sender.send_replace(true);
        });
        Ok(app)
    }
}

/// Whether anything is kept on disk.
fn is_stateful(topology: &TopologyInner) -> bool {
    let mut stores = topology.sub_topologies.iter().flat_map(|part| topology.stores_of(part));
    stores.any(StoreSpec::is_on_disk)
}

const NOTHING: [TopicPartition; 0] = [];

/// Joins the group.
async fn consumer(shared: &Arc<Shared>) -> Result<Consumer, StreamsError> {
    let session = shared.config.session_timeout;
    let builder = shared
        .client
        .consumer()
        .group(Arc::clone(shared.group()))
        .auto_offset_reset(OffsetReset::Earliest)
        .auto_offset_reset_of({
            let (resets, of_patterns) = (shared.topology.offset_resets(), shared.topology.pattern_resets());
            move |topic| {
                let matching = || of_patterns.iter().find(|(pattern, _)| pattern.matches(topic));
                resets.get(topic).copied().or_else(|| matching().map(|(_, reset)| *reset))
            }
        })
        .isolation(shared.config.isolation())
        .session_timeout(session)
        // Often enough that a member is sure of itself for half of a session, one lost heartbeat included.
        .heartbeat_interval(LONGEST_HEARTBEAT.min(session / 6))
        .rebalance_listener(Arc::new(Rebalances { shared: Arc::downgrade(shared) }));
    let builder = match instance::id(shared) {
        Some(id) => builder.group_instance_id(id),
        None => builder,
    };
    let builder = match pattern(shared) {
        Some(pattern) => {
            let (readers, group) = (shared.readers.clone(), Arc::clone(shared.group()));
            builder
                .pattern(pattern)
                .except(move |topic| !readers.contains_key(topic) && is_internal(topic, &group))
        }
        None => builder.topics(shared.readers.keys().cloned()),
    };
    // Instances of a version that does not know the first yet have the group use the second. Both give a task the same
    // partition number of all its topics.
    let sticky = Arc::new(sticky(shared));
    let builder = match shared.config.is_exactly_once() {
        false => builder.assignor(Assignor::Range),
        true => builder.assignors([]).custom_assignor(Arc::new(ExactlyOnceRange)),
    };
    let builder = builder.custom_assignor(sticky);
    Ok(builder.start().await?)
}

fn sticky(shared: &Arc<Shared>) -> StickyTasks {
    let (config, weak) = (&shared.config, Arc::downgrade(shared));
    let topology = names_of_tasks(&shared.topology);
    let process = match &shared.directory {
        Some(directory) => Arc::clone(directory.process_id()),
        // Nothing of it outlives the process.
        None => Uuid::from_random(SeededRng::from_os().next_u128()).to_string().into(),
    };
    let told = move || {
        let Some(shared) = weak.upgrade() else { return Told::default() };
        let (generation, ran) = shared.standbys.ran();
        Told {
            process: Arc::clone(&process),
            threads: u32::try_from(shared.config.threads).unwrap_or(u32::MAX),
            topology,
            host: shared.config.application_server.clone(),
            generation,
            ran: ran.into_iter().collect(),
            lags: shared.standbys.tell_lags().into_iter().collect(),
        }
    };
    StickyTasks {
        name: if config.is_exactly_once() { "klamm-tasks-exactly-once" } else { "klamm-tasks" },
        topology: Arc::clone(&shared.topology),
        application: Arc::clone(shared.group()),
        readers: shared.readers.iter().map(|(topic, (_, part))| (Arc::clone(topic), *part)).collect(),
        rules: Rules {
            standbys: config.standby_replicas,
            max_warmups: config.max_warmup_replicas,
            acceptable_lag: config.acceptable_lag,
        },
        told: Box::new(told),
        orders: shared.standbys.orders().clone(),
    }
}

/// One pattern for all topics, if there is a source that has one.
fn pattern(shared: &Shared) -> Option<String> {
    let mut parts: Vec<String> =
        shared.topology.patterns().map(|(pattern, _)| format!("(?:{})", pattern.text)).collect();
    if parts.is_empty() {
        return None;
    }
    let mut named: Vec<&Arc<str>> = shared.readers.keys().collect();
    named.sort();
    parts.extend(named.into_iter().map(|topic| topic.replace('.', "\\.")));
    Some(parts.join("|"))
}

const LONGEST_HEARTBEAT: Duration = Duration::from_secs(3);

pub(super) fn shared(
    topology: Arc<TopologyInner>,
    config: StreamsConfig,
    client: Client,
    rewound: async_mpsc::UnboundedSender<Rewound>,
    ends: ConsumerHandle,
) -> Shared {
    let names = topology.topic_names(&config.application_id);
    let runtime = tokio::runtime::Handle::current();
    let clock = Arc::new(RuntimeClock { clock: Arc::clone(client.clock()), runtime: runtime.clone() });
    let cache = engines::cache_budget(&config);
    let meters = Meters::new(&config.application_id);
    let mut readers = HashMap::new();
    for (index, sub_topology) in topology.sub_topologies.iter().enumerate() {
        for topic in &sub_topology.sources {
            if let Some(id) = topology.topic_ids.get(topic) {
                let TopicId(place) = *id;
                readers.insert(Arc::clone(&names[place as usize]), (*id, index));
            }
        }
    }
    Shared {
        topology,
        config,
        client,
        clock,
        runtime,
        readers,
        names,
        workers: Workers::default(),
        routes: Mutex::default(),
        stores: Mutex::default(),
        state: watch::Sender::new(AppState::Rebalancing),
        failure: Mutex::default(),
        failing: Mutex::default(),
        rebuilt: Mutex::default(),
        close: watch::Sender::new(false),
        consumer: watch::Sender::new(None),
        starting: AtomicUsize::new(0),
        is_without: AtomicBool::new(false),
        processed: AtomicU64::new(0),
        restored: AtomicU64::new(0),
        commits: AtomicU64::new(0),
        epochs: AtomicU64::new(0),
        paused: AtomicBool::new(false),
        room: watch::Sender::default(),
        rewound,
        ends,
        #[cfg(feature = "queries")]
        query_address: std::sync::OnceLock::new(),
        positions: Positions::default(),
        standbys: Standbys::default(),
        loads: Semaphore::new(loading::at_a_time()),
        directory: None,
        committing: watch::Sender::new(0),
        cache,
        dropped: Mutex::default(),
        ledger: Mutex::default(),
        meters,
    }
}
