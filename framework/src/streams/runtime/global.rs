//! Fills the global tables: to the end of their topics before the first task begins, and from then on as they grow.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use klamm_client::consumer::Consumer;
use klamm_client::{ErrorCode, IsolationLevel, TopicPartition};

use super::error::StreamsError;
use super::shared::{Background, Shared, lock};
use crate::store::StateStore;
use crate::streams::global;
use crate::streams::incoming::Incoming;
use crate::streams::topology::PartitionError;

/// How often a reader that waits for the end of its topics looks whether it is there without a record: what comes last
/// may be the marker of a transaction.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Between looks whether the topics have more partitions.
const LOOK_FOR_PARTITIONS: Duration = Duration::from_secs(5);

/// The engines of the global tables by topic, and who reads them.
struct Reader {
    shared: Arc<Shared>,
    engines: HashMap<Arc<str>, Arc<dyn StateStore>>,
    consumer: Consumer,
}

/// Reads the global tables as far as they go now, and leaves a reader of what comes. Without any, does nothing.
pub(super) async fn start(shared: &Arc<Shared>, background: &Background) -> Result<(), StreamsError> {
    let mut engines: HashMap<Arc<str>, Arc<dyn StateStore>> = HashMap::new();
    let mut partitions = Vec::new();
    for (topic, table) in &shared.topology.graph.globals {
        let topic: Arc<str> = topic.as_str().into();
        let missing = || PartitionError::MissingTopic(topic.to_string());
        let described = shared.client.admin().describe_topics(&[&*topic]).await?;
        let found = described.into_values().next().ok_or_else(missing)?;
        let count = match found {
            Ok(found) => i32::try_from(found.partitions.len()).unwrap_or(i32::MAX),
            Err(error) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => {
                return Err(missing().into());
            }
            Err(error) => return Err(error.into()),
        };
        for partition in 0..count {
            partitions.push(TopicPartition::new(Arc::clone(&topic), partition));
        }
        let engine = Arc::clone(&table.engine);
        let name = table.spec.name.to_string();
        lock(&shared.stores).entry(name).or_default().insert(0, Arc::downgrade(&engine));
        engines.insert(topic, engine);
    }
    if partitions.is_empty() {
        return Ok(());
    }
    let consumer = shared.client.consumer().assign(partitions.iter().cloned()).from_beginning();
    let consumer = consumer.isolation(IsolationLevel::ReadCommitted).start().await?;
    shared.positions.globals_are_read_by(consumer.handle());
    let mut reader = Reader { shared: Arc::clone(shared), engines, consumer };
    reader.fill(&partitions).await?;
    background.spawn("streams-global", async move {
        if let Err(error) = reader.follow().await {
            reader.shared.fail(error);
        }
    });
    Ok(())
}

impl Reader {
    async fn fill(&mut self, partitions: &[TopicPartition]) -> Result<(), StreamsError> {
        let handle = self.consumer.handle();
        let ends = handle.end_offsets(partitions).await?;
        let beginnings = handle.beginning_offsets(partitions).await?;
        let mut open: HashMap<TopicPartition, i64> = ends;
        open.retain(|partition, end| beginnings.get(partition).copied().unwrap_or(0) < *end);
        while !open.is_empty() {
            match tokio::time::timeout(LOOK_AGAIN, self.read()).await {
                Ok(read) => read?,
                Err(_elapsed) => {}
            }
            open.retain(|partition, end| handle.position(partition).is_none_or(|position| position < *end));
        }
        for partition in partitions {
            self.tell(partition.clone());
        }
        Ok(())
    }

    async fn follow(&mut self) -> Result<(), StreamsError> {
        let mut close = self.shared.close.subscribe();
        let mut look = tokio::time::interval(LOOK_FOR_PARTITIONS);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = async { drop(close.wait_for(|close| *close).await) } => return Ok(()),
                read = self.read() => read?,
                _ = look.tick() => {
                    // Positions go on without records, too.
                    self.consumer.handle().assignment().into_iter().for_each(|partition| self.tell(partition));
                    self.take_up().await?;
                }
            }
        }
    }

    /// Reads the partitions that have come since, from their beginning.
    async fn take_up(&self) -> Result<(), StreamsError> {
        let topics: Vec<Arc<str>> = self.engines.keys().cloned().collect();
        // Unless the cluster cannot be asked: others tell of that.
        let Ok(described) = self.shared.client.admin().describe_topics(&topics).await else { return Ok(()) };
        let handle = self.consumer.handle();
        let known: HashSet<TopicPartition> = handle.assignment().into_iter().collect();
        for topic in topics {
            let Some(Ok(found)) = described.get(&topic) else { continue };
            let count = i32::try_from(found.partitions.len()).unwrap_or(i32::MAX);
            let partitions = (0..count).map(|partition| TopicPartition::new(Arc::clone(&topic), partition));
            for partition in partitions.filter(|partition| !known.contains(partition)) {
                tracing::info!(topic = %partition.topic, partition = partition.partition, "a global table grows");
                handle.assign_also([partition.clone()])?;
                handle.seek_to_beginning(&partition)?;
            }
        }
        Ok(())
    }

    /// Takes the next records. Nothing is lost when it is dropped before it is done.
    async fn read(&mut self) -> Result<(), StreamsError> {
        let batch = match self.consumer.next_batch().await {
            Some(Ok(batch)) => batch,
            Some(Err(error)) if error.is_retriable() => {
                tracing::warn!(%error, "the global tables go on after an error");
                return Ok(());
            }
            Some(Err(error)) => return Err(error.into()),
            None => return Err(StreamsError::Closed),
        };
        let Some(engine) = self.engines.get(&batch.topic_partition().topic) else { return Ok(()) };
        let partition = batch.topic_partition();
        let records: Vec<Incoming> = batch.records.into_iter().map(Incoming::from).collect();
        global::apply(&**engine, &records)?;
        self.tell(partition);
        Ok(())
    }

    /// All that was handed out of a partition is in its table.
    fn tell(&self, partition: TopicPartition) {
        let at = self.consumer.handle().position(&partition);
        self.shared.positions.reach_global(partition, at.unwrap_or(0));
    }
}
