//! From a topology and its settings to a running application.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, mpsc};

use klamm_client::{Assignor, Client, OffsetReset, Producer};
use tokio::sync::{mpsc as async_mpsc, watch};

use super::app::StreamsApp;
use super::config::StreamsConfig;
use super::error::StreamsError;
use super::outbox::{self, OUTBOX_MESSAGES};
use super::pump::{self, Rebalances};
use super::shared::{Background, Command, Shared};
use super::state::AppState;
use super::worker::{self, WorkerLinks};
use super::{global, remember, restore, topics};
use crate::streams::node::TopicId;
use crate::streams::topology::{Topology, TopologyInner};

impl Topology {
    /// Runs the topology: creates its internal topics, starts its threads and joins the group. Returns when the group
    /// is being joined; [`StreamsApp::wait_for`] tells when it runs.
    ///
    /// The topics it reads must exist, and those that meet in a store or join must have equally many partitions.
    ///
    /// # Errors
    /// The cluster cannot be reached, its topics do not fit, the topology would orphan state of an earlier version, or
    /// a thread cannot be started.
    pub async fn start(self, config: StreamsConfig) -> Result<StreamsApp, StreamsError> {
        let topology = self.with_default_policy(&config.on_error)?.inner;
        let client = match &config.client {
            Some(client) => client.clone(),
            None => {
                let builder = Client::builder().bootstrap(config.bootstrap.clone());
                builder.client_id(Arc::clone(&config.application_id)).build().await?
            }
        };
        remember::remember(&topology, &config).await?;
        topics::prepare(&topology, &config, &client).await?;
        let producer = client.producer().linger(config.linger).build()?;

        let (workers, commands): (Vec<_>, Vec<_>) =
            (0..config.threads).map(|_| mpsc::channel::<Command>()).unzip();
        let (ended_sender, ended) = watch::channel(false);
        let shared = Arc::new(shared(topology, config, client, workers));
        let background = Background::new();
        // From here on, dropping the application ends what was started.
        let app = StreamsApp { shared: Arc::clone(&shared), ended, _background: background.clone() };
        for (index, commands) in commands.into_iter().enumerate() {
            start_worker(&shared, &background, &producer, index, commands)?;
        }
        global::start(&shared, &background).await?;
        let consumer = shared
            .client
            .consumer()
            .group(Arc::clone(shared.group()))
            .topics(shared.readers.keys().cloned())
            // Tasks need the same partition number of all their topics; the range assignor gives that.
            .assignor(Assignor::Range)
            .auto_offset_reset(OffsetReset::Earliest)
            .session_timeout(shared.config.session_timeout)
            .rebalance_listener(Arc::new(Rebalances { shared: Arc::downgrade(&shared) }))
            .start()
            .await?;
        shared.consumer.send_replace(Some(consumer.handle()));

        let timed = Arc::clone(&shared);
        background.spawn("streams-commit-timer", async move {
            let mut due = tokio::time::interval(timed.config.commit_interval);
            due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            due.tick().await;
            loop {
                due.tick().await;
                timed.tell_all(|| Command::Commit { done: None });
            }
        });
        let close = shared.close.subscribe();
        background.spawn("streams-pump", async move {
            pump::run(Arc::clone(&shared), consumer, close).await;
            shared.tell_all(|| Command::Stop);
            if let Err(error) = producer.close().await {
                shared.fail(error.into());
            }
            let last = if shared.has_failed() { AppState::Failed } else { AppState::Closed };
            shared.state.send_replace(last);
            ended_sender.send_replace(true);
        });
        Ok(app)
    }
}

fn shared(
    topology: Arc<TopologyInner>,
    config: StreamsConfig,
    client: Client,
    workers: Vec<mpsc::Sender<Command>>,
) -> Shared {
    let names = topology.topic_names(&config.application_id);
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
        runtime: tokio::runtime::Handle::current(),
        readers,
        names,
        workers,
        routes: Mutex::default(),
        stores: Mutex::default(),
        state: watch::Sender::new(AppState::Rebalancing),
        failure: Mutex::default(),
        close: watch::Sender::new(false),
        consumer: watch::Sender::new(None),
        starting: AtomicUsize::new(0),
        processed: AtomicU64::new(0),
        restored: AtomicU64::new(0),
        commits: AtomicU64::new(0),
        committing: watch::Sender::new(0),
        dropped: Mutex::default(),
    }
}

fn start_worker(
    shared: &Arc<Shared>,
    background: &Background,
    producer: &Producer,
    index: usize,
    commands: mpsc::Receiver<Command>,
) -> Result<(), StreamsError> {
    let (outbox, outgoing) = async_mpsc::channel(OUTBOX_MESSAGES);
    let (restores, requests) = async_mpsc::unbounded_channel();
    background.spawn("streams-outbox", outbox::serve(Arc::clone(shared), producer.clone(), outgoing));
    background.spawn("streams-restore", restore::serve(Arc::clone(shared), index, requests));
    let links = WorkerLinks { shared: Arc::clone(shared), commands, outbox, restores };
    // A dedicated thread: stores block, and tasks keep a core busy.
    std::thread::Builder::new()
        .name(format!("streams-{index}"))
        .spawn(move || worker::run(links))
        .map(drop)
        .map_err(StreamsError::Thread)
}
