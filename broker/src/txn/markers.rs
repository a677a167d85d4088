//! How what is decided gets into the partitions: for each partition of `__transaction_state` a task that writes markers
//! until they are durable, tells the coordinator, and never gives up.
//!
//! A marker may be written twice, after a crash or when it is not known what became of it. That is harmless: the next
//! transaction of the producer begins when the coordinator knows that the one before is marked everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use klamm_protocol::ErrorCode;
use klamm_runtime::Clock;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::calls::{Command, Decision, Markers, Reply};
use super::coordinator::Coordinator;
use crate::controller::Controller;
use crate::coordinator::{PartitionLog, Shard};
use crate::group::{GroupService, OFFSETS_TOPIC};
use crate::partition::{Marker, Partition};
use crate::quiet::QuietLog;

/// How many markers are on their way into one log directory at a time. One that hangs keeps its own waiting.
const MARKERS_AT_ONCE: usize = 1_024;

/// How long until something that failed is tried again, the first time; twice as long each further time, up to
/// [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// The epoch of the coordinators: there is one broker, and nobody takes over from it.
pub(super) const COORDINATOR_EPOCH: i32 = 0;

/// Writes markers into partitions.
#[derive(Debug)]
pub(super) struct MarkerWriter {
    controller: Arc<Controller>,
    groups: Arc<GroupService>,
    clock: Arc<dyn Clock>,
    /// The turns of each log directory.
    turns: Mutex<BTreeMap<PathBuf, Arc<Semaphore>>>,
    quiet_log: QuietLog,
}

impl MarkerWriter {
    pub(super) fn new(controller: Arc<Controller>, groups: Arc<GroupService>, clock: Arc<dyn Clock>) -> Self {
        Self { controller, groups, clock, turns: Mutex::default(), quiet_log: QuietLog::default() }
    }

    /// Writes a marker; it is durable when this answers.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC_OR_PARTITION` when there is no such partition; otherwise it may or may not be there.
    pub(super) async fn write(&self, topic: &str, index: i32, marker: Marker) -> Result<(), ErrorCode> {
        let log = self.controller.view().partition(topic, index)?.clone();
        let turns = self.turns(&log);
        // Never closed, so that there is one.
        let _turn = turns.acquire().await.ok();
        if topic == OFFSETS_TOPIC {
            // Among what the groups there write, so that what the transaction has committed for them becomes visible.
            let Marker { producer_id, producer_epoch, commit, .. } = marker;
            return match self.groups.write_marker(index, producer_id, producer_epoch, commit).await {
                // There is such a partition, which the groups are about to hear of.
                Err(ErrorCode::UnknownTopicOrPartition) => Err(ErrorCode::CoordinatorNotAvailable),
                written => written,
            };
        }
        append_marker(&log, marker, self.clock.now_ms()).await
    }

    /// As [`Self::write`], until it is there, or there is no such partition any more.
    async fn insist(&self, topic: &str, index: i32, marker: Marker) {
        let mut pause = Pause::default();
        while let Err(error) = self.write(topic, index, marker).await {
            if !is_worth_another_try(error) {
                tracing::warn!(topic, partition = index, ?marker, %error, "a transaction marker is not written");
                return;
            }
            // There may be very many, for as long as a disk is full.
            if let Some(held_back) = self.quiet_log.may_warn() {
                tracing::warn!(topic, partition = index, %error, held_back, "a transaction marker is tried again");
            }
            pause.wait().await;
        }
    }

    fn turns(&self, log: &Partition) -> Arc<Semaphore> {
        let directory = log.dir().parent().unwrap_or(log.dir());
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        match turns.get(directory) {
            Some(turns) => turns.clone(),
            None => {
                let fresh = Arc::new(Semaphore::new(MARKERS_AT_ONCE));
                turns.insert(directory.to_owned(), fresh.clone());
                fresh
            }
        }
    }
}

/// Whether a marker that was refused so may be taken later. A partition that is gone needs none; one that has seen a
/// newer epoch of the producer was ended by somebody else.
fn is_worth_another_try(error: ErrorCode) -> bool {
    !matches!(
        error,
        ErrorCode::UnknownTopicOrPartition
            | ErrorCode::InvalidProducerEpoch
            | ErrorCode::TransactionCoordinatorFenced
    )
}

async fn append_marker(log: &Arc<Partition>, marker: Marker, now_ms: i64) -> Result<(), ErrorCode> {
    let appended = log.append_marker(marker, now_ms).await.map_err(|error| error.error_code())?;
    log.wait_durable(appended.last_offset).await.map_err(|_| ErrorCode::KafkaStorageError)
}

/// Marks what a partition of `__transaction_state` decides, for as long as it is polled.
pub(super) async fn write_all_markers(
    shard: Arc<Shard<Coordinator, PartitionLog>>,
    writer: Arc<MarkerWriter>,
) {
    let mut under_way: BTreeSet<Decision> = BTreeSet::new();
    let mut endings = FuturesUnordered::new();
    loop {
        let mut ended = Vec::new();
        let found = {
            let next = next_markers(&shard, &under_way);
            tokio::pin!(next);
            loop {
                tokio::select! {
                    // The same history makes the same moves.
                    biased;
                    Some(decision) = endings.next(), if !endings.is_empty() => ended.push(decision),
                    found = &mut next => break found,
                }
            }
        };
        for decision in ended {
            under_way.remove(&decision);
        }
        for markers in found {
            under_way.insert(markers.decision);
            endings.push(end(&shard, &writer, markers));
        }
    }
}

/// What is decided beside what is marked already.
async fn next_markers(
    shard: &Shard<Coordinator, PartitionLog>,
    under_way: &BTreeSet<Decision>,
) -> Vec<Markers> {
    let mut pause = Pause::default();
    loop {
        let next = Command::NextMarkers { under_way: under_way.clone() };
        match shard.submit_now(next).await {
            Ok(Ok(Reply::Markers(found))) => return found,
            // It is loading, or stopping, or the decision was not written.
            _ => pause.wait().await,
        }
    }
}

/// Ends a transaction in all of its partitions, and says so.
async fn end(shard: &Shard<Coordinator, PartitionLog>, writer: &MarkerWriter, markers: Markers) -> Decision {
    let Markers { id, decision, producer, commit, partitions, version } = markers;
    let marker = Marker {
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        commit,
        coordinator_epoch: COORDINATOR_EPOCH,
        transaction_version: version.number(),
    };
    let all = partitions.iter().flat_map(|(topic, indexes)| indexes.iter().map(move |index| (topic, *index)));
    let mut writes: FuturesUnordered<_> =
        all.map(|(topic, index)| writer.insist(topic, index, marker)).collect();
    while writes.next().await.is_some() {}
    let mut pause = Pause::default();
    loop {
        let marked = Command::Marked { id: id.clone(), decision };
        if let Ok(Ok(Reply::Done)) = shard.submit(marked).await.await {
            return decision;
        }
        pause.wait().await;
    }
}

/// How long to wait before another try.
#[derive(Debug, Default)]
struct Pause(Option<Duration>);

impl Pause {
    /// The next pause.
    fn next(&mut self) -> Duration {
        let next = self.0.map_or(FIRST_PAUSE, |last| (2 * last).min(LAST_PAUSE));
        self.0 = Some(next);
        next
    }

    async fn wait(&mut self) {
        sleep(self.next()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit() {
        let mut pause = Pause::default();
        let pauses: Vec<u128> = (0..10).map(|_| pause.next().as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1_000, 1_000, 1_000, 1_000, 1_000]);
    }

    #[test]
    fn only_what_will_never_be_taken_is_given_up() {
        for error in [ErrorCode::UnknownTopicOrPartition, ErrorCode::InvalidProducerEpoch] {
            assert!(!is_worth_another_try(error), "{error}");
        }
        for error in [
            ErrorCode::KafkaStorageError,
            ErrorCode::CoordinatorLoadInProgress,
            ErrorCode::UnknownServerError,
        ] {
            assert!(is_worth_another_try(error), "{error}");
        }
    }
}
