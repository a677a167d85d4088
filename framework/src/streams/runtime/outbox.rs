//! From a worker thread to the network: outputs to the producer, offsets to the group. One per worker, so that
//! its messages stay in order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use klamm_client::{ProduceError, Producer, Record, TopicPartition};
use tokio::sync::{mpsc, oneshot};

use super::error::StreamsError;
use super::shared::{Shared, lock};
use crate::streams::node::{Output, OutputKind, TopicId};

/// Batches of outputs that may wait for the producer; a worker that is ahead waits.
pub(super) const OUTBOX_MESSAGES: usize = 16;

/// Of each changelog partition the first offset that is not known to be written.
pub(super) type ChangelogOffsets = HashMap<(TopicId, i32), i64>;

/// What a worker sends.
pub(super) enum Outgoing {
    /// Records of a task on this partition.
    Outputs { partition: i32, outputs: Vec<Output> },
    /// Answer when everything before is acknowledged.
    Flush { reply: oneshot::Sender<Result<ChangelogOffsets, StreamsError>> },
    /// Commit input offsets.
    Commit { offsets: HashMap<TopicPartition, i64>, reply: oneshot::Sender<Result<(), StreamsError>> },
}

/// Serves a worker until it ends.
pub(super) async fn serve(shared: Arc<Shared>, producer: Producer, mut incoming: mpsc::Receiver<Outgoing>) {
    let fate = Arc::new(Fate {
        shared: Arc::clone(&shared),
        failed: AtomicBool::new(false),
        changelogs: Mutex::default(),
    });
    let mut outbox = Outbox { shared, producer, fate, partition_counts: HashMap::new() };
    while let Some(message) = incoming.recv().await {
        match message {
            Outgoing::Outputs { partition, outputs } => {
                for output in outputs {
                    if let Err(error) = outbox.send(partition, output).await {
                        outbox.fate.fail(error);
                    }
                }
            }
            Outgoing::Flush { reply } => {
                reply.send(outbox.flush().await).ok();
            }
            Outgoing::Commit { offsets, reply } => {
                reply.send(outbox.commit(offsets).await).ok();
            }
        }
    }
}

struct Outbox {
    shared: Arc<Shared>,
    producer: Producer,
    fate: Arc<Fate>,
    partition_counts: HashMap<TopicId, i32>,
}

/// What became of the records so far.
struct Fate {
    shared: Arc<Shared>,
    failed: AtomicBool,
    changelogs: Mutex<ChangelogOffsets>,
}

impl Fate {
    /// Nothing commits any more once a record is lost.
    fn fail(&self, error: StreamsError) {
        self.failed.store(true, Ordering::Release);
        self.shared.fail(error);
    }
}

impl Outbox {
    async fn send(&mut self, task_partition: i32, output: Output) -> Result<(), StreamsError> {
        let Output { topic, kind, key, value, timestamp_ms, headers } = output;
        let partition = match (kind, &key) {
            (OutputKind::Changelog, _) => Some(task_partition),
            (OutputKind::Partition(partition), _) => Some(partition),
            (OutputKind::ByKeyPrefix(length), Some(key)) => {
                let count = self.partition_count(topic).await?;
                Some(klamm_client::producer::partition_for_key(key.get(..length).unwrap_or(key), count))
            }
            _ => None,
        };
        let record = Record {
            topic: self.shared.topic_name(topic),
            partition,
            key,
            value,
            headers: headers.to_vec(),
            timestamp_ms: Some(timestamp_ms),
        };
        let fate = Arc::clone(&self.fate);
        let callback = move |result: Result<klamm_client::RecordMetadata, ProduceError>| match result {
            Ok(metadata) if kind == OutputKind::Changelog => {
                let mut changelogs = lock(&fate.changelogs);
                let next = changelogs.entry((topic, task_partition)).or_insert(0);
                *next = (*next).max(metadata.offset + 1);
            }
            Ok(_) => {}
            Err(error) => fate.fail(error.into()),
        };
        Ok(self.producer.send_with(record, callback).await?)
    }

    async fn partition_count(&mut self, topic: TopicId) -> Result<i32, StreamsError> {
        if let Some(count) = self.partition_counts.get(&topic) {
            return Ok(*count);
        }
        let count = self.shared.client.partition_count(&self.shared.topic_name(topic)).await?;
        self.partition_counts.insert(topic, count);
        Ok(count)
    }

    async fn flush(&self) -> Result<ChangelogOffsets, StreamsError> {
        self.producer.flush().await?;
        if self.fate.failed.load(Ordering::Acquire) {
            return Err(StreamsError::Closed);
        }
        Ok(std::mem::take(&mut *lock(&self.fate.changelogs)))
    }

    async fn commit(&self, offsets: HashMap<TopicPartition, i64>) -> Result<(), StreamsError> {
        let mut consumer = self.shared.consumer.subscribe();
        let started = consumer.wait_for(Option::is_some).await.map_err(|_| StreamsError::Closed)?.clone();
        Ok(started.ok_or(StreamsError::Closed)?.commit(offsets).await?)
    }
}
