//! Tasks that lost what they did since the last commit begin again from there: where that is, and going back to it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm_client::{ConsumeError, ConsumerHandle, OffsetAndMetadata, TopicPartition};
use tokio::time::Instant;

use super::error::StreamsError;
use super::shared::{Command, Flow, Route, Shared};
use super::spread::destination;
use crate::streams::task::TaskId;

/// Between tries.
const PAUSE: Duration = Duration::from_millis(50);

/// Tasks that are gone from their worker and still assigned.
#[derive(Debug, Clone, Default)]
pub(super) struct Lost {
    pub(super) tasks: Vec<(TaskId, u64)>,
    /// The generation that the group knows nothing of any more.
    pub(super) refused: Option<i32>,
    /// How long they rest first.
    pub(super) wait: Duration,
}

/// Where they go on. A partition without an entry goes on where this member began with it.
pub(super) struct Rewound {
    tasks: Vec<(TaskId, u64)>,
    offsets: HashMap<TopicPartition, OffsetAndMetadata>,
}

/// Looks up where these tasks go on and tells the pump, unless the group has taken them meanwhile. Not before the group
/// counts this member in, in a generation that it has not refused.
pub(super) async fn look_up(shared: Arc<Shared>, lost: Lost) {
    tokio::time::sleep(lost.wait).await;
    loop {
        let partitions = still_here(&shared, &lost.tasks);
        if partitions.is_empty() || *shared.close.borrow() {
            return;
        }
        if let Some(consumer) = shared.consumer().filter(|consumer| is_member(consumer, lost.refused)) {
            match consumer.committed(&partitions).await {
                Ok(offsets) => {
                    shared.rewound.send(Rewound { tasks: lost.tasks, offsets }).ok();
                    return;
                }
                Err(error) if error.is_retriable() => {
                    tracing::warn!(application = %shared.group(), %error, "looking up committed offsets");
                }
                Err(error) => return shared.fail(error.into()),
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn is_member(consumer: &ConsumerHandle, refused: Option<i32>) -> bool {
    let generation = consumer.group_metadata().map(|member| member.generation).filter(|at| *at >= 0);
    generation.is_some() && generation != refused && consumer.alive_until() > Some(Instant::now())
}

fn still_here(shared: &Shared, tasks: &[(TaskId, u64)]) -> Vec<TopicPartition> {
    let routes = shared.routes();
    let here = |flow: &&Arc<Flow>| tasks.contains(&(flow.task, flow.route.epoch));
    routes.flows.values().filter(here).map(|flow| flow.partition.clone()).collect()
}

/// Goes back. Called by the pump, which alone reads: nothing that was read before reaches the new incarnations.
pub(super) fn go_back(shared: &Shared, consumer: &ConsumerHandle, rewound: &Rewound) {
    let mut routes = shared.routes();
    for (task, epoch) in &rewound.tasks {
        let Some(route) = routes.tasks.get(task).copied().filter(|route| route.epoch == *epoch) else {
            continue;
        };
        let wanted = routes.moving.remove(task);
        let worker = destination(&routes.tasks, &shared.workers.staying(), wanted, route.worker);
        let route = Route { worker, epoch: shared.next_epoch() };
        let old: Vec<_> = routes.flows.values().filter(|flow| flow.task == *task).cloned().collect();
        let generation = consumer.group_metadata().map_or(-1, |member| member.generation);
        let moved: Result<Vec<_>, ConsumeError> = old
            .iter()
            .map(|flow| {
                match rewound.offsets.get(&flow.partition) {
                    Some(committed) => consumer.seek(&flow.partition, committed.offset)?,
                    None => match flow.began.load(Ordering::Acquire) {
                        // Nothing was read: it is where it was, or will be.
                        ..0 => {}
                        began => consumer.seek(&flow.partition, began)?,
                    },
                }
                consumer.resume(std::slice::from_ref(&flow.partition));
                let again = Flow::new(flow.partition.clone(), flow.topic, *task, route, generation);
                again.began.store(flow.began.load(Ordering::Acquire), Ordering::Release);
                Ok(Arc::new(again))
            })
            .collect();
        match moved {
            Ok(flows) => {
                routes.tasks.insert(*task, route);
                let named = flows.iter().map(|flow| (flow.partition.clone(), Arc::clone(flow)));
                routes.flows.extend(named);
                // While the routes are held: a revoke comes after it, or has been before.
                let assign = Command::Assign { task: *task, epoch: route.epoch, flows };
                shared.workers.tell(route.worker, assign);
            }
            // The group is taking it: that is told to the rebalance listener.
            Err(ConsumeError::NotAssigned { .. }) => {}
            Err(error) => shared.fail(StreamsError::Consume(error)),
        }
    }
}

impl Flow {
    pub(super) fn new(
        partition: TopicPartition,
        topic: crate::streams::node::TopicId,
        task: TaskId,
        route: Route,
        generation: i32,
    ) -> Self {
        Self {
            partition,
            topic,
            task,
            route,
            generation,
            queued: AtomicUsize::new(0),
            paused: AtomicBool::new(false),
            caught_up: AtomicBool::new(false),
            idling: Mutex::default(),
            began: AtomicI64::new(-1),
        }
    }
}
