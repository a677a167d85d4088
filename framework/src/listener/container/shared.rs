//! What the poll loop, the workers, the rebalance hook and the acknowledgements of one listener share.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use klamm_client::{ConsumeError, ConsumerHandle, RebalanceListener, TopicPartition};
use klamm_runtime::Rng;
use tokio::sync::{Semaphore, SetOnce, mpsc, watch};
use tokio::time::timeout;

use super::ListenerFailure;
use super::commits::Commits;
use super::dead_letter::DeadLetters;
use super::partition::{Item, Partition};
use super::start_offsets::commit_starts;
use crate::listener::builder::Settings;
use crate::listener::extract::Scope;
use crate::listener::handler::Call;
use crate::listener::ledger::Ticket;

pub(super) struct Shared {
    pub(super) scope: Scope,
    pub(super) call: Call,
    pub(super) settings: Settings,
    /// One for each handler call that may run.
    pub(super) permits: Semaphore,
    pub(super) commits: Commits,
    /// Present when the policy dead-letters.
    pub(super) dead_letters: Option<DeadLetters>,
    pub(super) rng: Arc<dyn Rng>,
    /// Records whose `Ack` was dropped after their handler had returned.
    pub(super) returned: mpsc::UnboundedSender<(Arc<Partition>, Vec<Item>)>,
    /// Records finished since the start.
    pub(super) handled: watch::Sender<u64>,
    /// Set when the policy says to stop.
    pub(super) stopped_by: watch::Sender<Option<ListenerFailure>>,
    consumer: SetOnce<ConsumerHandle>,
    partitions: Mutex<Assigned>,
    /// Commits go out one after the other, so that an older one cannot overtake a newer one.
    commit_turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Assigned {
    by_place: HashMap<TopicPartition, Arc<Partition>>,
    draining: bool,
}

/// What the container is made of, before it runs.
pub(super) struct Parts {
    pub(super) scope: Scope,
    pub(super) call: Call,
    pub(super) settings: Settings,
    pub(super) dead_letters: Option<DeadLetters>,
    pub(super) rng: Arc<dyn Rng>,
    pub(super) returned: mpsc::UnboundedSender<(Arc<Partition>, Vec<Item>)>,
}

impl Shared {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { scope, call, settings, dead_letters, rng, returned } = parts;
        Self {
            scope,
            call,
            permits: Semaphore::new(settings.concurrency.min(Semaphore::MAX_PERMITS)),
            settings,
            commits: Commits::new(),
            dead_letters,
            rng,
            returned,
            handled: watch::Sender::new(0),
            stopped_by: watch::Sender::new(None),
            consumer: SetOnce::new(),
            partitions: Mutex::default(),
            commit_turn: tokio::sync::Mutex::new(()),
        }
    }

    pub(super) fn attach(&self, consumer: ConsumerHandle) {
        // Attached once, right after the consumer was started.
        let _ = self.consumer.set(consumer);
    }

    /// Where records of this partition go; `None` when it is not assigned (any more).
    pub(super) fn partition(&self, place: &TopicPartition) -> Option<Arc<Partition>> {
        self.assigned().by_place.get(place).cloned()
    }

    pub(super) fn partitions(&self) -> Vec<Arc<Partition>> {
        self.assigned().by_place.values().cloned().collect()
    }

    pub(super) fn pause(&self, place: &TopicPartition) {
        if let Some(consumer) = self.consumer.get() {
            consumer.pause(std::slice::from_ref(place));
        }
    }

    /// The deliveries need no more work.
    pub(super) fn finish(&self, partition: &Partition, tickets: &[Ticket]) {
        let resume = || {
            if let Some(consumer) = self.consumer.get() {
                consumer.resume(std::slice::from_ref(&partition.place));
            }
        };
        let finished = partition.finish(tickets, self.settings.max_in_flight, resume);
        if finished.records > 0 {
            self.handled.send_modify(|handled| *handled += finished.records as u64);
            if finished.all_done {
                self.commits.request();
            }
        }
    }

    /// Commits what is safe to commit of every partition.
    pub(super) async fn commit_all(&self) -> Result<(), ConsumeError> {
        let _turn = self.commit_turn.lock().await;
        self.commit(&self.partitions()).await
    }

    /// Commits what is safe to commit of one partition, which may be about to leave.
    pub(super) async fn commit_one(&self, partition: &Arc<Partition>) -> Result<(), ConsumeError> {
        let _turn = self.commit_turn.lock().await;
        self.commit(std::slice::from_ref(partition)).await
    }

    async fn commit(&self, partitions: &[Arc<Partition>]) -> Result<(), ConsumeError> {
        let safe: Vec<_> =
            partitions.iter().filter_map(|partition| Some((partition, partition.committable()?))).collect();
        let (false, Some(consumer)) = (safe.is_empty(), self.consumer.get()) else { return Ok(()) };
        let offsets: Vec<_> =
            safe.iter().map(|(partition, offset)| (partition.place.clone(), *offset)).collect();
        let committed = consumer.commit(offsets).await;
        match &committed {
            Ok(()) => safe.iter().for_each(|(partition, offset)| partition.committed(*offset)),
            Err(error) => tracing::warn!(listener = %self.scope.id, %error, "offsets were not committed"),
        }
        committed
    }

    /// Commits where partitions begin that have no committed offset, if that is wanted.
    async fn commit_starts(&self, places: &[TopicPartition]) {
        // The group may be faster than whoever started the consumer.
        let consumer = self.consumer.wait().await;
        let _turn = self.commit_turn.lock().await;
        let Settings { commit_on_assign, offset_reset, .. } = self.settings;
        match commit_starts(consumer, places, commit_on_assign, offset_reset).await {
            Ok(0) => {}
            Ok(partitions) => {
                tracing::debug!(listener = %self.scope.id, partitions, "committed where the group begins");
            }
            Err(error) => tracing::warn!(
                listener = %self.scope.id, %error,
                "it could not be committed where the group begins: what is unfinished when the listener stops before \
                 its first commit may be passed over by the next start"
            ),
        }
    }

    /// From here on nothing new is begun, in any partition.
    pub(super) fn close_all(&self) -> Vec<Arc<Partition>> {
        self.assigned().draining = true;
        let partitions = self.partitions();
        partitions.iter().for_each(|partition| partition.close());
        partitions
    }

    /// Takes partitions out, so that nothing more is queued in them.
    fn remove(&self, places: &[TopicPartition]) -> Vec<Arc<Partition>> {
        let mut assigned = self.assigned();
        let removed: Vec<_> = places.iter().filter_map(|place| assigned.by_place.remove(place)).collect();
        drop(assigned);
        removed.iter().for_each(|partition| partition.close());
        removed
    }

    fn assigned(&self) -> MutexGuard<'_, Assigned> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until nothing is in work in any of them; `false` when the deadline came first.
pub(super) async fn idle_within(partitions: &[Arc<Partition>], deadline: Duration) -> bool {
    let all = futures::future::join_all(partitions.iter().map(|partition| partition.idle()));
    timeout(deadline, all).await.is_ok()
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("scope", &self.scope).field("partitions", &self.partitions).finish()
    }
}

/// Follows the group's assignment. Weak, because the consumer, which keeps this hook, is kept by the poll loop.
#[derive(Debug)]
pub(super) struct Rebalance(pub(super) Weak<Shared>);

#[async_trait]
impl RebalanceListener for Rebalance {
    async fn assigned(&self, places: &[TopicPartition]) {
        let Some(shared) = self.0.upgrade() else { return };
        tracing::debug!(listener = %shared.scope.id, partitions = ?places, "assigned");
        shared.commit_starts(places).await;
        // A partition that is assigned anew without having been revoked was lost unnoticed.
        shared.remove(places).iter().for_each(|partition| partition.give_up());
        let mut assigned = shared.assigned();
        if !assigned.draining {
            let new = places.iter().map(|place| (place.clone(), Arc::new(Partition::new(place.clone()))));
            assigned.by_place.extend(new);
        }
    }

    async fn revoked(&self, places: &[TopicPartition]) {
        let Some(shared) = self.0.upgrade() else { return };
        tracing::debug!(listener = %shared.scope.id, partitions = ?places, "revoked");
        let partitions = shared.remove(places);
        if !idle_within(&partitions, shared.settings.revoke_deadline).await {
            tracing::warn!(
                listener = %shared.scope.id, partitions = ?places,
                "handlers did not finish before their partitions went to another member; those records are delivered \
                 again there"
            );
        }
        let _turn = shared.commit_turn.lock().await;
        // A failure is logged there, and the records are delivered again.
        let _ = shared.commit(&partitions).await;
        partitions.iter().for_each(|partition| partition.give_up());
    }

    async fn lost(&self, places: &[TopicPartition]) {
        let Some(shared) = self.0.upgrade() else { return };
        tracing::warn!(listener = %shared.scope.id, partitions = ?places, "partitions were lost without warning");
        shared.remove(places).iter().for_each(|partition| partition.give_up());
    }
}
