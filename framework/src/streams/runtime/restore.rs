//! From changelog topics to the stores of a task that begins.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::{BatchRoom, ConsumeError, Consumer, OffsetAndMetadata, TopicPartition};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::changelogs::{self, ChangelogStart, Reading, staleness};
use super::error::StreamsError;
use super::loading::{self, Lacking, NotLoaded, Wanted};
use super::origins;
use super::shared::{Background, Command, Shared, lock};
use crate::streams::incoming::Incoming;
use crate::streams::node::TopicId;
use crate::streams::task::TaskId;

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
        self.check_origins().await?;
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
        let loaded = futures::future::try_join_all(loads);
        let restored = tokio::try_join!(loaded, self.read_all(open, starts));
        let RestoreRequest { task, epoch, .. } = self.request;
        match restored {
            Ok(_) => self.tell(Command::RestoreEnded { task, epoch, committed }),
            Err(NotLoaded::Unwanted) => Ok(()),
            Err(NotLoaded::Lost(why)) => self.tell(Command::Rebuild { task, epoch, why }),
            Err(NotLoaded::Store(error)) => self.tell(Command::NotRestored { task, epoch, error }),
            Err(NotLoaded::Streams(error)) => Err(error),
        }
    }

    /// Reads what the stores lack that are written by their thread.
    async fn read_all(
        &self,
        open: HashMap<TopicPartition, Missing>,
        starts: Vec<(TopicPartition, i64)>,
    ) -> Result<(), NotLoaded> {
        let shared = self.shared;
        if !open.is_empty() {
            let mut consumer = changelogs::reader(shared.client.consumer(), shared, starts).await?;
            self.read(&mut consumer, open).await?;
            consumer.close().await?;
        }
        Ok(())
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

    async fn check_origins(&self) -> Result<(), StreamsError> {
        let task = self.request.task;
        let Some(store) = origins::foreign(self.shared, task, &self.request.changelogs).await? else {
            return Ok(());
        };
        let directory = self.shared.task_directory(task).display().to_string();
        Err(StreamsError::OtherChangelog { task, store: store.to_string(), directory })
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

    /// Reads until nothing is missing.
    async fn read(
        &self,
        consumer: &mut Consumer,
        mut open: HashMap<TopicPartition, Missing>,
    ) -> Result<(), NotLoaded> {
        let handle = consumer.handle();
        while !open.is_empty() {
            self.shared.has_room().await;
            let batch = match consumer.next_batch_within(|_| BatchRoom::UNLIMITED).await {
                Some(Ok(batch)) => batch,
                Some(Err(error)) => {
                    tracing::warn!(task = %self.request.task, %error, "reading a changelog");
                    Reading::from(error).goes_on()?;
                    continue;
                }
                None => return Err(StreamsError::Closed.into()),
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
                return Err(NotLoaded::Unwanted);
            }
            if next_offset >= end {
                handle.pause(std::slice::from_ref(&partition));
                open.remove(&partition);
            }
        }
        Ok(())
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
