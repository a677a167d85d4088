//! The poll loop of a listener and its end. It moves records from the consumer to the lanes, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use klamm_client::{Client, ClientError, Consumer, ConsumerRecords, Producer};
use klamm_runtime::{Rng, Tasks};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::commits::Commits;
use super::dead_letter::DeadLetters;
use super::handle::ListenerHandle;
use super::partition::{Item, Partition};
use super::shared::{Parts, Rebalance, Shared};
use super::status::{DrainReport, Ended, ListenerFailure, UnfinishedRecord};
use super::worker::Worker;
use crate::listener::builder::Listener;
use crate::listener::extract::{Scope, States};
use crate::listener::topics::{DeadLetterTopics, Topics};

/// How long the last commit and leaving the group may take, each, on top of the drain's deadline.
const GOODBYE: Duration = Duration::from_secs(5);
/// How long a listener that stops by itself waits for what is in work.
const OWN_STOP_DRAIN: Duration = Duration::from_secs(10);

/// What the listeners of an app share.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    /// Used when the policy dead-letters.
    pub(crate) dead_letters: Producer,
    pub(crate) dead_letter_topics: Arc<DeadLetterTopics>,
    pub(crate) states: States,
    pub(crate) rng: Arc<dyn Rng>,
}

/// A running listener. Dropping it ends it without ceremony; [`Container::stop`] drains.
#[derive(Debug)]
pub(crate) struct Container {
    shared: Arc<Shared>,
    stop: watch::Sender<Option<Instant>>,
    ended: watch::Receiver<Option<Ended>>,
    /// Holds the poll loop.
    _tasks: Tasks,
}

impl Container {
    /// Subscribes and begins to poll.
    pub(crate) async fn start(
        listener: Listener,
        client: &Client,
        Surroundings { dead_letters, dead_letter_topics, states, rng }: Surroundings,
    ) -> Result<Self, ClientError> {
        let Listener { id, call, settings, .. } = listener;
        let (returned, take_back) = mpsc::unbounded_channel();
        let dead_letters = settings.policy.dead_letters().then(|| DeadLetters::new(dead_letters));
        let scope = Scope { id, group: Arc::clone(&settings.group), states };
        let shared = Arc::new(Shared::new(Parts { scope, call, settings, dead_letters, rng, returned }));

        let settings = &shared.settings;
        let builder = client
            .consumer()
            .group(Arc::clone(&settings.group))
            .auto_offset_reset(settings.offset_reset)
            .auto_commit(None)
            .rebalance_listener(Arc::new(Rebalance(Arc::downgrade(&shared))));
        let builder = match &settings.topics {
            Topics::Names(names) => builder.topics(names.iter().cloned()),
            pattern @ Topics::Pattern(regex) => {
                let pattern = pattern.clone();
                builder
                    .pattern(&**regex)
                    .except(move |topic| dead_letter_topics.are_left_out(&pattern, topic))
            }
        };
        let consumer = builder.start().await?;
        shared.attach(consumer.handle());

        let (stop, stopping) = watch::channel(None);
        let (end, ended) = watch::channel(None);
        let tasks = Tasks::new();
        let poll_loop = PollLoop { shared: Arc::clone(&shared), consumer, stopping, take_back };
        tasks.spawn("listener", async move {
            end.send_replace(Some(poll_loop.run().await));
        });
        Ok(Self { shared, stop, ended, _tasks: tasks })
    }

    pub(crate) fn handle(&self) -> ListenerHandle {
        ListenerHandle { shared: Arc::clone(&self.shared), ended: self.ended.clone() }
    }

    /// Begins nothing more, waits until `deadline` for what is in work, commits, leaves the group.
    pub(crate) async fn stop(&self, deadline: Instant) -> DrainReport {
        self.stop.send_replace(Some(deadline));
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.as_ref().map(|ended| ended.report.clone()).unwrap_or_default(),
            Err(_) => {
                DrainReport { uncommitted: vec![Arc::clone(&self.shared.scope.id)], ..Default::default() }
            }
        }
    }
}

struct PollLoop {
    shared: Arc<Shared>,
    consumer: Consumer,
    stopping: watch::Receiver<Option<Instant>>,
    take_back: mpsc::UnboundedReceiver<(Arc<Partition>, Vec<Item>)>,
}

/// Why the loop ended.
enum Stop {
    Asked(Instant),
    Failed(ListenerFailure),
}

impl PollLoop {
    async fn run(mut self) -> Ended {
        // Dropped with this future: no worker outlives the loop.
        let workers = Tasks::new();
        workers.spawn("listener commits", Commits::run(Arc::clone(&self.shared)));
        let stop = self.poll(&workers).await;
        let (deadline, failure) = match stop {
            Stop::Asked(deadline) => (deadline, None),
            Stop::Failed(failure) => {
                tracing::error!(listener = %self.shared.scope.id, reason = %failure, "the listener stops");
                (Instant::now() + OWN_STOP_DRAIN, Some(failure))
            }
        };
        let report = self.drain(&workers, deadline).await;
        Ended { report, failure }
    }

    async fn poll(&mut self, workers: &Tasks) -> Stop {
        let mut stopped_by = self.shared.stopped_by.subscribe();
        loop {
            tokio::select! {
                biased;
                asked = self.stopping.wait_for(Option::is_some) => {
                    // An error means that the container was dropped; then this task ends at its next await anyway.
                    let asked = asked.ok().and_then(|deadline| *deadline);
                    return Stop::Asked(asked.unwrap_or_else(Instant::now));
                }
                Ok(failure) = stopped_by.wait_for(Option::is_some) => {
                    return Stop::Failed(failure.clone().unwrap_or(ListenerFailure::Ended));
                }
                Some((partition, items)) = self.take_back.recv() => {
                    let worker = Worker { shared: Arc::clone(&self.shared), partition };
                    workers.spawn("listener worker", worker.take_back(items));
                }
                next = self.consumer.next_batch() => match next {
                    Some(Ok(records)) => dispatch(&self.shared, workers, records),
                    Some(Err(error)) if error.is_retriable() => {
                        tracing::warn!(listener = %self.shared.scope.id, %error, "polling failed, and goes on");
                    }
                    // Going on would skip records silently, or never get past the place.
                    Some(Err(error)) => return Stop::Failed(error.into()),
                    None => return Stop::Failed(ListenerFailure::Ended),
                },
            }
        }
    }

    /// Waits until nothing is in work, or the deadline, which may be drawn nearer meanwhile.
    async fn idle_by(&mut self, partitions: &[Arc<Partition>], mut deadline: Instant) {
        let idle = futures::future::join_all(partitions.iter().map(|partition| partition.idle()));
        tokio::pin!(idle);
        loop {
            tokio::select! {
                _ = &mut idle => return,
                () = sleep_until(deadline) => return,
                Ok(()) = self.stopping.changed() => {
                    let asked = *self.stopping.borrow_and_update();
                    deadline = asked.map_or(deadline, |asked| asked.min(deadline));
                }
            }
        }
    }

    async fn drain(mut self, workers: &Tasks, deadline: Instant) -> DrainReport {
        let id = Arc::clone(&self.shared.scope.id);
        let id = &id;
        let mut report = DrainReport::default();
        let partitions = self.shared.close_all();
        self.idle_by(&partitions, deadline).await;
        // Commits are served as long as handlers may wait for one, until here; this one is the last.
        match timeout_at(deadline.max(Instant::now()) + GOODBYE, self.shared.commit_all()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => report.uncommitted.push(Arc::clone(id)),
        }
        self.shared.commits.end();
        partitions.iter().for_each(|partition| partition.give_up());
        for partition in &partitions {
            let place = &partition.place;
            report.unfinished.extend(partition.begun_and_unfinished().into_iter().map(|offset| {
                UnfinishedRecord {
                    listener: Arc::clone(id),
                    topic: Arc::clone(&place.topic),
                    partition: place.partition,
                    offset,
                }
            }));
        }
        workers.shutdown().await;
        match timeout(GOODBYE, self.consumer.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(listener = %id, %error, "leaving the group failed"),
            Err(_) => tracing::warn!(listener = %id, "leaving the group took too long"),
        }
        report
    }
}

fn dispatch(shared: &Arc<Shared>, workers: &Tasks, records: ConsumerRecords) {
    let place = records.topic_partition();
    // Not assigned any more: another member reads these records.
    let Some(partition) = shared.partition(&place) else { return };
    let settings = &shared.settings;
    let pause = || shared.pause(&place);
    for lane in partition.push(records, settings.dispatch, settings.max_in_flight, pause) {
        let worker = Worker { shared: Arc::clone(shared), partition: Arc::clone(&partition) };
        workers.spawn("listener worker", worker.run_lane(lane));
    }
}
