//! `Container`: a running listener, from its start to its end.

use std::sync::Arc;
use std::time::Duration;

use klamm_client::{Client, ClientError, ConsumeError, Consumer, OffsetReset, Producer, TopicPartition};
use klamm_runtime::{Rng, Tasks};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::events::{EventHub, ListenerEvent};
use super::handle::ListenerHandle;
use super::poll::PollLoop;
use super::rebalance::Rebalance;
use super::shared::{Parts, Shared};
use super::sought::Sought;
use super::status::{DrainReport, Ended};
use super::transactions::Transactions;
use super::{assigning, committing, monitor, output_stage, taking_over, watching};
use crate::listener::builder::{Listener, Settings};
use crate::listener::extract::{Scope, States};
use crate::listener::flow::PartId;
use crate::listener::retry_topics::RetryTopics;
use crate::listener::topics::{DeadLetterTopics, Topics};

/// How long a transaction may be open unless told otherwise; Kafka's own default. Only readers wait for it, and only
/// when nobody takes the partition over.
const DEFAULT_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);

/// What the listeners of an app share.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    /// Sends what listeners send: dead letters.
    pub(crate) producer: Producer,
    pub(crate) dead_letter_topics: Arc<DeadLetterTopics>,
    pub(crate) states: States,
    pub(crate) rng: Arc<dyn Rng>,
    pub(crate) events: EventHub,
}

/// Why a listener did not begin.
#[derive(Debug, Error)]
pub(crate) enum NotStarted {
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Where it is to begin is not known.
    #[error(transparent)]
    Position(#[from] ConsumeError),
}

/// A running listener. Dropping it ends it without ceremony; [`Container::stop`] drains.
#[derive(Debug)]
pub(crate) struct Container {
    handle: ListenerHandle,
    stop: watch::Sender<Option<Instant>>,
    /// Holds the poll loop.
    _tasks: Tasks,
}

impl Container {
    /// Subscribes and begins to poll.
    pub(crate) async fn start(
        listener: Listener,
        client: &Client,
        Surroundings { producer, dead_letter_topics, states, rng, events: hub }: Surroundings,
    ) -> Result<Self, NotStarted> {
        let Listener { id, call, settings, .. } = listener;
        let (returned, take_back) = mpsc::unbounded_channel();
        let (outputs, to_send) = mpsc::unbounded_channel();
        let retries = RetryTopics::new(&settings.group, settings.policy.steps());
        let scope = Scope { id, group: Arc::clone(&settings.group), states, retries };
        let (transactions, coming) = transactions(client, &settings)?.unzip();
        let (for_parts, events) = (client.clone(), hub.source());
        let parts = Parts {
            scope,
            call,
            settings,
            client: for_parts,
            producer,
            transactions,
            outputs,
            rng,
            returned,
            events,
        };
        let shared = Arc::new(Shared::new(parts));
        let (consumer, places) = match shared.settings.partitions.clone() {
            None => (subscribe(&shared, client, dead_letter_topics).await?, None),
            Some(partitions) => {
                let places = assigning::places(client, &partitions).await?;
                (assign(&shared, client, &places).await?, Some(places))
            }
        };
        shared.attach(consumer.handle());
        shared.observed.tell(|| ListenerEvent::Started);
        let mut sought = Sought::default();
        if let Some(places) = places {
            assigning::begin(&shared, &consumer.handle(), &mut sought, &places).await?;
        }

        let (stop, stopping) = watch::channel(None);
        let (end, ended) = watch::channel(None);
        let (command, commands) = mpsc::unbounded_channel();
        let poll_loop =
            PollLoop { shared: Arc::clone(&shared), consumer, stopping, take_back, commands, sought };
        let handle = ListenerHandle { shared: Arc::clone(&shared), ended, command };
        let tasks = Tasks::new();
        tasks.spawn("listener", async move {
            // Dropped with this future: no worker outlives the loop.
            let workers = Tasks::new();
            workers.spawn("listener commits", committing::run(Arc::clone(&shared)));
            workers.spawn("listener outputs", output_stage::run(Arc::clone(&shared), to_send));
            if let Some(coming) = coming {
                workers.spawn("listener transactions", taking_over::run(Arc::clone(&shared), coming));
            }
            workers.spawn("listener monitor", monitor::run(Arc::clone(&shared)));
            let client = poll_loop.consumer.client().clone();
            workers.spawn("listener topics", watching::run(Arc::clone(&shared), client));
            let ended = poll_loop.run(workers).await;
            // Who follows events and sees it running is told of its end after that.
            end.send_replace(Some(ended.clone()));
            shared.observed.ended(&ended);
            // Streams of events end with the listeners.
            drop(hub);
        });
        Ok(Self { handle, stop, _tasks: tasks })
    }

    pub(crate) fn handle(&self) -> ListenerHandle {
        self.handle.clone()
    }

    /// Begins nothing more, waits until `deadline` for what is in work, commits, leaves the group.
    pub(crate) async fn stop(&self, deadline: Instant) -> DrainReport {
        self.stop.send_replace(Some(deadline));
        let mut ended = self.handle.ended.clone();
        let ended = ended.wait_for(Option::is_some).await;
        let report = |ended: &Option<Ended>| ended.as_ref().map(|ended| ended.report.clone());
        match ended {
            Ok(ended) => report(&ended).unwrap_or_default(),
            Err(_) => {
                DrainReport { uncommitted: vec![self.handle.shared.scope.id.clone()], ..Default::default() }
            }
        }
    }
}

/// Of a transactional listener, with where the partitions are told that come.
fn transactions(
    client: &Client,
    settings: &Settings,
) -> Result<Option<(Transactions, mpsc::UnboundedReceiver<PartId>)>, ClientError> {
    if !settings.transactional {
        return Ok(None);
    }
    let timeout = settings.transaction_timeout.unwrap_or(DEFAULT_TRANSACTION_TIMEOUT);
    let (transactions, coming) = Transactions::new(client, settings, timeout);
    // What cannot work is told now, and not when the first partition comes.
    drop(transactions.producer(&TopicPartition::new("none", 0))?);
    Ok(Some((transactions, coming)))
}

/// Reads what the listener names. A group only keeps the offsets.
async fn assign(
    shared: &Shared,
    client: &Client,
    places: &[assigning::Place],
) -> Result<Consumer, ClientError> {
    let settings = &shared.settings;
    let mut builder = client.consumer();
    if !settings.group.is_empty() {
        builder = builder.group(Arc::clone(&settings.group));
    }
    let places = places.iter().map(|(place, _)| place.clone());
    let builder = builder.assign(places).auto_offset_reset(settings.offset_reset);
    builder.auto_commit(None).isolation(settings.isolation).start().await
}

async fn subscribe(
    shared: &Arc<Shared>,
    client: &Client,
    dead_letter_topics: Arc<DeadLetterTopics>,
) -> Result<Consumer, ClientError> {
    let settings = &shared.settings;
    let retries = shared.scope.retries.clone();
    let builder = client
        .consumer()
        .group(Arc::clone(&settings.group))
        .auto_offset_reset(settings.offset_reset)
        // What waits there was sent by this group, wherever it begins elsewhere.
        .auto_offset_reset_of(move |topic| retries.source_of(topic).map(|_| OffsetReset::Earliest))
        .auto_commit(None)
        .isolation(settings.isolation)
        .rebalance_listener(Arc::new(Rebalance(Arc::downgrade(shared))));
    let (pattern, group) = (settings.topics.clone(), Arc::clone(&settings.group));
    let builder = match shared.scope.with_retries(&settings.topics) {
        Topics::Names(names) => builder.topics(names),
        Topics::Pattern(regex) => builder
            .pattern(&*regex)
            .except(move |topic| dead_letter_topics.are_left_out(&pattern, &group, topic)),
    };
    builder.start().await
}
