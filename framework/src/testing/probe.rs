//! What comes out of a topic.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::{Client, Consumer, ConsumerRecord, TopicPartition};
use tokio::time::sleep;

use crate::serde::{DefaultSerde, Serde};

/// How long a topic must stay without records to count as empty. On a paused clock it passes in no time, but only after
/// everything else has come to rest.
const QUIET: Duration = Duration::from_secs(1);

/// Reads a topic from its beginning, all partitions.
#[derive(Debug)]
pub struct TopicProbe {
    client: Client,
    topic: Arc<str>,
    consumer: Option<Consumer>,
}

impl TopicProbe {
    pub(super) fn new(client: Client, topic: Arc<str>) -> Self {
        Self { client, topic, consumer: None }
    }

    /// The next record that this probe has not given yet; waits for one.
    pub async fn next(&mut self) -> ConsumerRecord {
        let topic = Arc::clone(&self.topic);
        let consumer = match self.consumer.take() {
            Some(consumer) => consumer,
            None => self.consume(&self.partitions().await).await,
        };
        match self.consumer.insert(consumer).next().await {
            Some(Ok(record)) => record,
            Some(Err(error)) => panic!("reading {topic}: {error}"),
            None => panic!("reading {topic} ended"),
        }
    }

    /// The value of the next record; waits for one.
    ///
    /// # Panics
    /// When it is a tombstone or does not decode.
    pub async fn next_value<T: DefaultSerde>(&mut self) -> T {
        decoded(&self.next().await)
    }

    /// All records that are in the topic now, partition by partition, in order.
    pub async fn records(&self) -> Vec<ConsumerRecord> {
        if !self.exists().await {
            return Vec::new();
        }
        let partitions = self.partitions().await;
        let mut consumer = self.consume(&partitions).await;
        let handle = consumer.handle();
        let ends = handle.end_offsets(&partitions).await;
        let ends = ends.unwrap_or_else(|error| panic!("offsets of {}: {error}", self.topic));
        let begins = handle.beginning_offsets(&partitions).await;
        let begins = begins.unwrap_or_else(|error| panic!("offsets of {}: {error}", self.topic));
        let mut missing: HashMap<_, _> =
            ends.into_iter().filter(|(partition, end)| begins.get(partition) != Some(end)).collect();

        let mut found = Vec::new();
        while !missing.is_empty() {
            let batch = match consumer.next_batch().await {
                Some(Ok(batch)) => batch,
                Some(Err(error)) => panic!("reading {}: {error}", self.topic),
                None => panic!("reading {} ended", self.topic),
            };
            if missing.get(&batch.topic_partition()).is_some_and(|end| batch.next_offset >= *end) {
                missing.remove(&batch.topic_partition());
            }
            found.extend(batch.records);
        }
        let _ = consumer.close().await;
        found.sort_by_key(|record| (record.partition, record.offset));
        found
    }

    /// The values of all records that are in the topic now.
    ///
    /// # Panics
    /// When one is a tombstone or does not decode.
    pub async fn values<T: DefaultSerde>(&self) -> Vec<T> {
        self.records().await.iter().map(decoded).collect()
    }

    /// Waits a second (of the test's time) and asserts that the topic has no records. A topic
    /// that does not exist has none.
    ///
    /// # Panics
    /// When there is one.
    pub async fn stays_empty(&self) {
        sleep(QUIET).await;
        let records = self.records().await;
        assert!(records.is_empty(), "{} should stay empty, but has {records:#?}", self.topic);
    }

    async fn exists(&self) -> bool {
        let topics = self.client.admin().list_topics().await;
        let topics = topics.unwrap_or_else(|error| panic!("cannot list topics: {error}"));
        topics.iter().any(|topic| topic.name == self.topic)
    }

    async fn partitions(&self) -> Vec<TopicPartition> {
        let count = self.client.partition_count(&self.topic).await;
        let count = count.unwrap_or_else(|error| panic!("partitions of {}: {error}", self.topic));
        (0..count).map(|partition| TopicPartition::new(Arc::clone(&self.topic), partition)).collect()
    }

    async fn consume(&self, partitions: &[TopicPartition]) -> Consumer {
        let consumer =
            self.client.consumer().assign(partitions.iter().cloned()).from_beginning().start().await;
        consumer.unwrap_or_else(|error| panic!("cannot read {}: {error}", self.topic))
    }
}

fn decoded<T: DefaultSerde>(record: &ConsumerRecord) -> T {
    let serde = T::Serde::default();
    let place = format!("{}-{} at {}", record.topic, record.partition, record.offset);
    match &record.value {
        Some(bytes) => {
            serde.deserialize(&record.topic, bytes).unwrap_or_else(|error| panic!("{place}: {error}"))
        }
        None => serde.null().unwrap_or_else(|| panic!("{place} is a tombstone")),
    }
}
