//! From changelog topics to the stores of a task that begins.

use std::collections::HashMap;
use std::sync::Arc;

use klamm_client::{OffsetReset, TopicPartition};
use tokio::sync::{mpsc, oneshot};

use super::error::StreamsError;
use super::shared::{Background, Command, Shared};
use crate::streams::incoming::Incoming;
use crate::streams::node::TopicId;
use crate::streams::task::TaskId;

/// Asks for the changelogs of a task.
pub(super) struct RestoreRequest {
    pub(super) task: TaskId,
    pub(super) changelogs: Vec<ChangelogStart>,
}

/// A store and how much of its changelog it has.
pub(super) struct ChangelogStart {
    pub(super) topic: TopicId,
    pub(super) store: Arc<str>,
    pub(super) position: i64,
}

/// Serves the requests of one worker, several at a time.
pub(super) async fn serve(
    shared: Arc<Shared>,
    worker: usize,
    mut requests: mpsc::UnboundedReceiver<RestoreRequest>,
) {
    let restores = Background::new();
    while let Some(request) = requests.recv().await {
        let shared = Arc::clone(&shared);
        restores.spawn("streams-restore", async move {
            if let Err(error) = restore(&shared, worker, request).await {
                shared.fail(error);
            }
        });
    }
}

async fn restore(shared: &Shared, worker: usize, request: RestoreRequest) -> Result<(), StreamsError> {
    let RestoreRequest { task, changelogs } = request;
    let partition =
        |topic: TopicId| TopicPartition::new(Arc::clone(&shared.names[topic.0 as usize]), task.partition);
    let topics: HashMap<TopicPartition, TopicId> =
        changelogs.iter().map(|changelog| (partition(changelog.topic), changelog.topic)).collect();
    let partitions: Vec<TopicPartition> = topics.keys().cloned().collect();
    let mut consumer = shared
        .client
        .consumer()
        .assign(partitions.clone())
        .auto_offset_reset(OffsetReset::Earliest)
        .start()
        .await?;
    let handle = consumer.handle();
    let ends = handle.end_offsets(&partitions).await?;
    let beginnings = handle.beginning_offsets(&partitions).await?;
    let mut open = HashMap::new();
    for changelog in changelogs {
        let partition = partition(changelog.topic);
        let end = ends.get(&partition).copied().unwrap_or(0);
        if changelog.position > end {
            return Err(StreamsError::AheadOfChangelog {
                task,
                store: changelog.store.to_string(),
                position: changelog.position,
                end,
                directory: shared.task_directory(task).display().to_string(),
            });
        }
        let begin = changelog.position.max(beginnings.get(&partition).copied().unwrap_or(0));
        if begin < end {
            tracing::info!(%task, store = %changelog.store, records = end - begin, "restoring");
            handle.seek(&partition, begin)?;
            open.insert(partition, end);
        } else {
            handle.pause(std::slice::from_ref(&partition));
        }
    }
    while !open.is_empty() {
        let batch = match consumer.next_batch().await {
            Some(Ok(batch)) => batch,
            Some(Err(error)) if error.is_retriable() => {
                tracing::warn!(%task, %error, "the restore goes on after an error");
                continue;
            }
            Some(Err(error)) => return Err(error.into()),
            None => return Err(StreamsError::Closed),
        };
        let partition = batch.topic_partition();
        let (Some(end), Some(topic)) = (open.get(&partition).copied(), topics.get(&partition).copied())
        else {
            continue;
        };
        let next_offset = batch.next_offset;
        let records: Vec<Incoming> = batch.records.into_iter().map(Incoming::from).collect();
        let (done, applied) = oneshot::channel();
        let command = Command::Restored { task, topic, records, next_offset, done };
        shared.workers[worker].send(command).map_err(|_| StreamsError::Closed)?;
        if applied.await.is_err() {
            return Ok(()); // The worker ended, and told why.
        }
        if next_offset >= end {
            handle.pause(std::slice::from_ref(&partition));
            open.remove(&partition);
        }
    }
    shared.workers[worker].send(Command::RestoreEnded { task }).ok();
    Ok(consumer.close().await?)
}
