//! From changelog topics to the stores of a task that begins.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::admin::ConfigResource;
use klamm_client::{BatchRoom, ConsumeError, Consumer, OffsetAndMetadata, OffsetReset, TopicPartition};
use klamm_runtime::{Clock, SystemClock};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::error::StreamsError;
use super::loading::{self, Lacking, Load, NotLoaded, Wanted};
use super::shared::{Background, Command, Shared, lock};
use crate::store::KeyRange;
use crate::streams::incoming::Incoming;
use crate::streams::node::TopicId;
use crate::streams::task::{Task, TaskId};

/// How long compaction keeps tombstones where the topic does not say it (`delete.retention.ms`).
const USUAL_TOMBSTONES_MS: i64 = 24 * 60 * 60 * 1_000;

/// What the stamp of a position may be too old by.
pub(super) const WORTH_A_STAMP_MS: i64 = 60_000;

/// Asks for the changelogs of a task.
pub(super) struct RestoreRequest {
    pub(super) task: TaskId,
    pub(super) epoch: u64,
    pub(super) changelogs: Vec<ChangelogStart>,
    /// What the task reads.
    pub(super) inputs: Vec<TopicPartition>,
    /// Ends when this incarnation of the task does.
    pub(super) unwanted: oneshot::Receiver<()>,
    /// The same, for whoever writes its stores.
    pub(super) wanted: Wanted,
}

/// A store and how much of its changelog it has.
pub(super) struct ChangelogStart {
    pub(super) topic: TopicId,
    pub(super) store: Arc<str>,
    pub(super) position: i64,
    /// When it surely had all of its changelog, by this machine's clock.
    pub(super) last_written_ms: Option<i64>,
    /// Whether there is anything in it, though it has nothing of its changelog for sure.
    pub(super) has_rows: bool,
    /// How much of it can be written at a time, if it can.
    pub(super) load: Option<Load>,
}

/// Serves the requests of one worker, several at a time.
pub(super) async fn serve(
    shared: Arc<Shared>,
    worker: usize,
    mut requests: mpsc::UnboundedReceiver<RestoreRequest>,
) {
    let restores = Background::new();
    while let Some(mut request) = requests.recv().await {
        let shared = Arc::clone(&shared);
        restores.spawn("streams-restore", async move {
            let (_keep, unwanted) = oneshot::channel();
            let unwanted = std::mem::replace(&mut request.unwanted, unwanted);
            let restored = tokio::select! {
                biased;
                _ = unwanted => return,
                restored = (Restore { shared: &shared, worker, request }).run() => restored,
            };
            if let Err(error) = restored {
                shared.fail(error);
            }
        });
    }
}

struct Restore<'a> {
    shared: &'a Shared,
    worker: usize,
    request: RestoreRequest,
}

/// What a store lacks of its changelog.
struct Missing {
    topic: TopicId,
    end: i64,
}

impl Restore<'_> {
    async fn run(self) -> Result<(), StreamsError> {
        let shared = self.shared;
        let committed = self.committed().await?;
        let partitions: Vec<TopicPartition> =
            self.request.changelogs.iter().map(|changelog| self.partition(changelog.topic)).collect();
        // With what is not committed yet: of the last transactions, the markers may still be on their way.
        let ends = again(|| shared.ends.end_offsets(&partitions)).await?;
        let beginnings = again(|| shared.ends.beginning_offsets(&partitions)).await?;
        let mut open = HashMap::new();
        let mut starts = Vec::new();
        let mut lacking = Vec::new();
        for changelog in &self.request.changelogs {
            let partition = self.partition(changelog.topic);
            let end = ends.get(&partition).copied().unwrap_or(0);
            let beginning = beginnings.get(&partition).copied().unwrap_or(0);
            self.check_end(changelog, end)?;
            if let Some(why) = staleness(shared, changelog, beginning, end).await {
                return self.tell(Command::Rebuild {
                    task: self.request.task,
                    epoch: self.request.epoch,
                    why,
                });
            }
            let begin = changelog.position.max(beginning);
            if begin < end {
                let task = self.request.task;
                tracing::info!(%task, store = %changelog.store, records = end - begin, "restoring");
                lock(&shared.ledger).restores(task, &changelog.store, (begin, end), Instant::now());
                let store = Arc::clone(&changelog.store);
                match changelog.load.clone().filter(|_| end - begin >= loading::WORTH_IT) {
                    Some(load) => lacking.push(Lacking { task, store, partition, begin, end, load }),
                    None => {
                        starts.push((partition.clone(), begin));
                        open.insert(partition, Missing { topic: changelog.topic, end });
                    }
                }
            }
        }
        let loads =
            lacking.into_iter().map(|lacking| loading::load(shared, lacking, self.request.wanted.clone()));
        let (loaded, read) = tokio::join!(futures::future::try_join_all(loads), self.read_all(open, starts));
        let is_whole = read?;
        match loaded {
            Ok(_) if is_whole => {}
            Ok(_) | Err(NotLoaded::Unwanted) => return Ok(()),
            Err(NotLoaded::Streams(error)) => return Err(error),
            Err(NotLoaded::Store(error)) => {
                let RestoreRequest { task, epoch, .. } = self.request;
                return self.tell(Command::NotRestored { task, epoch, error });
            }
        }
        let RestoreRequest { task, epoch, .. } = self.request;
        self.tell(Command::RestoreEnded { task, epoch, committed })
    }

    /// Reads what the stores lack that are written by their thread; whether the task is still there.
    async fn read_all(
        &self,
        open: HashMap<TopicPartition, Missing>,
        starts: Vec<(TopicPartition, i64)>,
    ) -> Result<bool, StreamsError> {
        let shared = self.shared;
        if !open.is_empty() {
            let consumer = shared.client.consumer().assign(open.keys().cloned());
            let consumer =
                consumer.auto_offset_reset(OffsetReset::Earliest).isolation(shared.config.isolation());
            let mut consumer = consumer.start().await?;
            for (partition, begin) in starts {
                consumer.handle().seek(&partition, begin)?;
            }
            if !self.read(&mut consumer, open).await? {
                return Ok(false);
            }
            consumer.close().await?;
        }
        Ok(true)
    }

    /// Where the task goes on. What the last owner was about to commit is decided when this answers, and from then on
    /// the group refuses its offsets: the changelogs end where the offsets say.
    async fn committed(&self) -> Result<HashMap<TopicPartition, OffsetAndMetadata>, StreamsError> {
        let consumer = self.shared.consumer().ok_or(StreamsError::Closed)?;
        let inputs = &self.request.inputs;
        let mut committed = again(|| consumer.committed(inputs)).await?;
        if !self.shared.config.is_exactly_once() {
            return Ok(committed);
        }
        let resets = self.shared.topology.offset_resets();
        let begins =
            |input: &&TopicPartition| !committed.contains_key(*input) && !resets.contains_key(&*input.topic);
        let begin: Vec<_> = inputs.iter().filter(begins).cloned().collect();
        let begins = again(|| consumer.beginning_offsets(&begin)).await?;
        committed.extend(begins.into_iter().map(|(partition, at)| (partition, OffsetAndMetadata::new(at))));
        Ok(committed)
    }

    fn check_end(&self, changelog: &ChangelogStart, end: i64) -> Result<(), StreamsError> {
        if changelog.position <= end {
            return Ok(());
        }
        let task = self.request.task;
        let directory = self.shared.task_directory(task).display().to_string();
        let (store, position) = (changelog.store.to_string(), changelog.position);
        Err(StreamsError::AheadOfChangelog { task, store, position, end, directory })
    }

    /// Reads until nothing is missing; whether the task is still there.
    async fn read(
        &self,
        consumer: &mut Consumer,
        mut open: HashMap<TopicPartition, Missing>,
    ) -> Result<bool, StreamsError> {
        let handle = consumer.handle();
        while !open.is_empty() {
            self.shared.has_room().await;
            let batch = match consumer.next_batch_within(|_| BatchRoom::UNLIMITED).await {
                Some(Ok(batch)) => batch,
                Some(Err(error)) if error.is_retriable() => {
                    tracing::warn!(task = %self.request.task, %error, "the restore goes on after an error");
                    continue;
                }
                Some(Err(error)) => return Err(error.into()),
                None => return Err(StreamsError::Closed),
            };
            let partition = batch.topic_partition();
            let Some(Missing { topic, end }) = open.get(&partition) else { continue };
            let (next_offset, end) = (batch.next_offset, *end);
            let (done, applied) = oneshot::channel();
            self.tell(Command::Restored {
                task: self.request.task,
                epoch: self.request.epoch,
                topic: *topic,
                records: batch.records.into_iter().map(Incoming::from).collect(),
                next_offset,
                done,
            })?;
            if applied.await.is_err() {
                return Ok(false);
            }
            if next_offset >= end {
                handle.pause(std::slice::from_ref(&partition));
                open.remove(&partition);
            }
        }
        Ok(true)
    }

    fn partition(&self, topic: TopicId) -> TopicPartition {
        TopicPartition::new(Arc::clone(&self.shared.names[topic.0 as usize]), self.request.task.partition)
    }

    fn tell(&self, command: Command) -> Result<(), StreamsError> {
        // One that is gone wants it no more.
        self.shared.workers.tell(self.worker, command);
        Ok(())
    }
}

/// The changelogs of a task's stores, and how much of them these have.
pub(super) fn changelogs(task: &Task) -> Vec<ChangelogStart> {
    let start = |store: &std::rc::Rc<std::cell::RefCell<dyn crate::streams::node::TaskStore>>| {
        let store = store.borrow();
        let (topic, position) = (store.changelog()?, store.position().changelog_offset);
        let engine = store.engine();
        let last_written_ms = engine.last_written_ms().ok().flatten();
        let all = KeyRange { from: &[], to: None };
        let has_rows = position == 0 && engine.scan(all, 1).is_ok_and(|rows| !rows.is_empty());
        // Until all of the rest is read, it has no more for sure than it had before; or, from nothing, than now.
        engine.begin_restore(last_written_ms.unwrap_or_else(|| SystemClock.now_ms()));
        let stream_time_ms = store.position().stream_time_ms;
        let load = |rows| Load { engine: Arc::downgrade(&engine), rows, stream_time_ms };
        let load = store.changelog_rows().map(load);
        let name = Arc::clone(store.name());
        Some(ChangelogStart { topic, store: name, position, last_written_ms, has_rows, load })
    };
    task.stores().iter().filter_map(start).collect()
}

/// Why the rest of a changelog does not bring a store up to date: what was deleted there since may have left no trace.
pub(super) async fn staleness(
    shared: &Shared,
    changelog: &ChangelogStart,
    beginning: i64,
    end: i64,
) -> Option<String> {
    let (store, position) = (&changelog.store, changelog.position);
    if position == end {
        return None;
    }
    if position == 0 {
        // What was deleted since, and when that was, is not known; and all has to be read in any case.
        let cut_off = || format!("store {store} has rows of a first commit that was cut off");
        return changelog.has_rows.then(cut_off);
    }
    if position < beginning {
        return Some(format!("store {store} is at offset {position}, its changelog begins at {beginning}"));
    }
    let then = changelog.last_written_ms?;
    let age_ms = SystemClock.now_ms().saturating_sub(then);
    let kept_ms = tombstones_ms(shared, changelog.topic).await;
    (age_ms >= kept_ms).then(|| {
        format!("store {store} is {age_ms} ms old, its changelog tells of deletions for {kept_ms} ms")
    })
}

async fn tombstones_ms(shared: &Shared, topic: TopicId) -> i64 {
    let name = &shared.names[topic.0 as usize];
    let resource = ConfigResource::topic(Arc::clone(name));
    let described = shared.client.admin().describe_configs(std::slice::from_ref(&resource)).await;
    let entries = described.ok().and_then(|mut described| described.remove(&resource)?.ok());
    let entry = entries.into_iter().flatten().find(|entry| &*entry.name == "delete.retention.ms");
    entry.and_then(|entry| entry.value?.parse().ok()).unwrap_or(USUAL_TOMBSTONES_MS)
}

/// Asks again while the cluster is away: a task that begins has nothing better to do.
pub(super) async fn again<T, F: Future<Output = Result<T, ConsumeError>>>(
    ask: impl Fn() -> F,
) -> Result<T, ConsumeError> {
    const PAUSE: Duration = Duration::from_millis(100);
    loop {
        match ask().await {
            Err(error) if error.is_retriable() => {
                tracing::warn!(%error, "a restore waits");
                tokio::time::sleep(PAUSE).await;
            }
            other => return other,
        }
    }
}
