//! From the consumer group to the workers: records, and the coming and going of partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use klamm_client::{BatchRoom, Consumer, ConsumerRecord, ConsumerRecords, RebalanceListener, TopicPartition};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::error::StreamsError;
use super::rewind::{self, Rewound};
use super::shared::{Command, Flow, Route, Shared, lock};
use super::silence::Silences;
use super::spread::least_busy;
use crate::streams::incoming::{Incoming, IncomingBatch};
use crate::streams::task::TaskId;

/// How often it is looked whether an empty partition has anything to fetch, for tasks that read several.
const IDLE_CHECK: Duration = Duration::from_millis(20);

/// After how many such looks without a task an instance counts as running: the group tells nobody
/// that it has nothing for him.
const SPARE_CHECKS: u32 = 50;

impl From<ConsumerRecord> for Incoming {
    fn from(record: ConsumerRecord) -> Self {
        let ConsumerRecord { offset, timestamp_ms, key, value, headers, .. } = record;
        Self { offset, timestamp_ms, key, value, headers }
    }
}

/// Hands records to the workers until the application closes or fails; then leaves the group, which revokes everything.
pub(super) async fn run(
    shared: Arc<Shared>,
    mut consumer: Consumer,
    mut rewound: mpsc::UnboundedReceiver<Rewound>,
) {
    let mut close = shared.close.subscribe();
    let handle = consumer.handle();
    let mut idle_check = tokio::time::interval(IDLE_CHECK);
    idle_check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut without_tasks = 0;
    let (began, mut silences) = (Instant::now(), Silences::default());
    loop {
        if *close.borrow_and_update() {
            break;
        }
        tokio::select! {
            // With batches that have no records, only the markers of transactions: they move the position, too.
            batch = consumer.next_batch_within(|_| BatchRoom::UNLIMITED) => match batch {
                Some(Ok(batch)) => hand_over(&shared, batch, &mut silences),
                Some(Err(error)) if error.is_retriable() => {
                    tracing::warn!(application = %shared.group(), %error, "reading goes on after an error");
                }
                Some(Err(error)) => shared.fail(error.into()),
                None => shared.fail(StreamsError::Closed),
            },
            _ = close.changed() => {}
            Some(rewound) = rewound.recv() => rewind::go_back(&shared, &handle, &rewound),
            _ = idle_check.tick() => {
                find_idle(&shared, began);
                silences.listen(&shared, began);
                without_tasks = if is_spare(&shared) { without_tasks + 1 } else { 0 };
                if without_tasks >= SPARE_CHECKS {
                    shared.settle();
                }
            }
        }
    }
    if let Err(error) = consumer.leave().await {
        tracing::warn!(application = %shared.group(), %error, "leaving the group");
    }
}

fn hand_over(shared: &Shared, batch: ConsumerRecords, silences: &mut Silences) {
    let Some(flow) = shared.routes().flows.get(&batch.topic_partition()).cloned() else { return };
    flow.begins(batch.records.first().map_or(batch.next_offset, |first| first.offset));
    let is_last = match shared.config.max_task_idle {
        None => true,
        Some(Duration::ZERO) => batch.next_offset >= batch.high_watermark,
        // Without records, as with markers of transactions, nothing has changed for those who wait.
        Some(_) => batch.records.is_empty() && flow.caught_up.load(Ordering::Acquire),
    };
    let limit = shared.config.buffered_records;
    let pause = flow.sent(batch.records.len(), limit);
    if !batch.records.is_empty() {
        lock(&flow.idling).ends();
        silences.ends(&flow);
    }
    // After it is counted: a worker that sees the one without the other would go on without these records.
    flow.caught_up.store(is_last, Ordering::Release);
    look_again(shared, &flow);
    let next_offset = batch.next_offset;
    let records = batch.records.into_iter().map(Incoming::from).collect();
    let batch = IncomingBatch { records, next_offset, is_last };
    let (task, epoch, topic) = (flow.task, flow.route.epoch, flow.topic);
    shared.workers.tell(flow.route.worker, Command::Records { task, epoch, topic, batch });
    if pause && let Some(consumer) = shared.consumer() {
        consumer.pause(std::slice::from_ref(&flow.partition));
        // The worker may have caught up, and resumed, before the pause: then nobody else would resume.
        if !flow.paused.load(Ordering::Acquire) || flow.processed(0, limit) {
            consumer.resume(std::slice::from_ref(&flow.partition));
        }
    }
}

/// Others of a task's partitions that were read to their end may have got records together with this one, and older
/// ones: its thread waits for what is here already.
fn look_again(shared: &Shared, came: &Flow) {
    if shared.config.max_task_idle.is_none() {
        return;
    }
    let Some(consumer) = shared.consumer() else { return };
    let TaskId { sub_topology, partition } = came.task;
    let beside = shared.readers.iter().filter(|(_, (topic, of))| *of == sub_topology && *topic != came.topic);
    let routes = shared.routes();
    for (topic, _) in beside {
        let Some(flow) = routes.flows.get(&TopicPartition::new(Arc::clone(topic), partition)) else {
            continue;
        };
        if flow.caught_up.load(Ordering::Acquire) && consumer.lag(&flow.partition) != Some(0) {
            flow.caught_up.store(false, Ordering::Release);
            lock(&flow.idling).ends();
        }
    }
}

/// Whether the instance is in the group and has nothing to do.
fn is_spare(shared: &Shared) -> bool {
    let member = shared.consumer().and_then(|consumer| consumer.group_metadata());
    member.is_some_and(|member| member.generation >= 0) && shared.routes().tasks.is_empty()
}

/// Wakes tasks that wait for an empty partition which turns out to have nothing to fetch, for as long as is waited for
/// producers.
fn find_idle(shared: &Shared, began: Instant) {
    let Some(consumer) = shared.consumer() else { return };
    let routes = shared.routes();
    let mut inputs: BTreeMap<TaskId, usize> = BTreeMap::new();
    routes.flows.values().for_each(|flow| *inputs.entry(flow.task).or_default() += 1);
    for flow in routes.flows.values() {
        if inputs[&flow.task] == 1 {
            continue;
        }
        let mut idling = lock(&flow.idling);
        if flow.queued.load(Ordering::Acquire) > 0 {
            idling.ends();
            continue;
        }
        // As of when it was heard: nobody knows what has come since.
        let heard = consumer.heard_at(&flow.partition).map(|at| at.saturating_duration_since(began));
        let lag = heard.and_then(|_| consumer.lag(&flow.partition));
        let is_over = idling.is_over(lag, heard.unwrap_or_default(), shared.config.max_task_idle);
        if !flow.caught_up.swap(is_over, Ordering::AcqRel) && is_over {
            shared.workers.tell(flow.route.worker, Command::Wake);
        }
    }
}

/// Makes and ends tasks as the group assigns partitions.
pub(super) struct Rebalances {
    pub(super) shared: Weak<Shared>,
}

#[async_trait]
impl RebalanceListener for Rebalances {
    async fn assigned(&self, partitions: &[TopicPartition]) {
        let Some(shared) = self.shared.upgrade() else { return };
        tracing::info!(application = %shared.group(), partitions = partitions.len(), "partitions assigned");
        let Some(consumer) = shared.started().await else { return };
        // Whoever commits later than this generation lasts is refused, whatever it still has to say.
        let generation = consumer.group_metadata().map_or(-1, |member| member.generation);
        stand_by(&shared, generation, partitions).await;
        let mut tasks: BTreeMap<TaskId, Vec<Arc<Flow>>> = BTreeMap::new();
        let mut routes = shared.routes();
        let read: Vec<_> = partitions.iter().filter_map(|p| Some((p, shared.task_of(p)?))).collect();
        let new: BTreeSet<TaskId> = read.iter().map(|(_, (task, _))| *task).collect();
        // Before the tasks can be seen: whoever sees them running may rely on them.
        let new = new.into_iter().filter(|task| !routes.tasks.contains_key(task)).collect::<Vec<_>>();
        shared.starting.fetch_add(new.len(), Ordering::AcqRel);
        shared.is_without.store(false, Ordering::Release);
        shared.settle();
        for task in new {
            let worker = least_busy(&routes.tasks, &shared.workers.staying());
            routes.tasks.insert(task, Route { worker, epoch: shared.next_epoch() });
        }
        for (partition, (task, topic)) in read {
            let Some(route) = routes.tasks.get(&task).copied() else { continue };
            let flow = Arc::new(Flow::new(partition.clone(), topic, task, route, generation));
            routes.flows.insert(partition.clone(), Arc::clone(&flow));
            tasks.entry(task).or_default().push(flow);
        }
        // While the routes are held: a revoke comes after it.
        for (task, flows) in tasks {
            let Route { worker, epoch } = flows[0].route;
            shared.workers.tell(worker, Command::Assign { task, epoch, flows });
        }
    }

    async fn revoked(&self, partitions: &[TopicPartition]) {
        self.give_up(partitions, true).await;
    }

    async fn lost(&self, partitions: &[TopicPartition]) {
        self.give_up(partitions, false).await;
    }
}

/// Has the standbys of this generation followed; what is to run here is given up by the others before.
async fn stand_by(shared: &Shared, generation: i32, partitions: &[TopicPartition]) {
    let orders = shared.standbys.orders_of(generation);
    let mut active: BTreeSet<TaskId> = shared.routes().tasks.keys().copied().collect();
    active.extend(partitions.iter().filter_map(|partition| Some(shared.task_of(partition)?.0)));
    let standbys: BTreeSet<TaskId> =
        orders.standby.into_iter().chain(orders.warming).filter(|task| !active.contains(task)).collect();
    shared.unpublish(|task| !active.contains(&task));
    shared.standbys.set_ran(generation, active.clone());
    shared.standbys.follow(standbys, active).await;
}

impl Rebalances {
    /// Ends the tasks of these partitions and waits for it: when this returns, everything they did is
    /// committed, or never will be.
    async fn give_up(&self, partitions: &[TopicPartition], commit: bool) {
        let Some(shared) = self.shared.upgrade() else { return };
        tracing::info!(application = %shared.group(), partitions = partitions.len(), commit, "partitions given up");
        shared.is_without.store(true, Ordering::Release);
        shared.settle();
        let mut by_worker: BTreeMap<usize, Vec<TaskId>> = BTreeMap::new();
        {
            let mut routes = shared.routes();
            for partition in partitions {
                let Some(flow) = routes.flows.remove(partition) else { continue };
                // A task goes as a whole: nobody else may have part of its stores.
                if let Some(route) = routes.tasks.remove(&flow.task) {
                    routes.flows.retain(|_, other| other.task != flow.task);
                    routes.moving.remove(&flow.task);
                    by_worker.entry(route.worker).or_default().push(flow.task);
                }
            }
        }
        let mut pending = Vec::new();
        for (worker, tasks) in by_worker {
            let (done, ended) = oneshot::channel();
            shared.workers.tell(worker, Command::Revoke { tasks, commit, done });
            pending.push(ended);
        }
        for ended in pending {
            // A worker that ended has no tasks any more.
            ended.await.ok();
        }
    }
}
