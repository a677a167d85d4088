//! A dead-letter topic as it stands: where its partitions begin and end, and what of it is done.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_client::{Client, OffsetAndMetadata, TopicPartition, Uuid};

use super::error::DeadLetterError;
use super::progress::Progress;
use super::scan::{Ranges, Scan};

/// A dead-letter topic, and the group whose offsets say what of it is done.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) client: Client,
    pub(super) topic: Arc<str>,
    pub(super) group: Arc<str>,
}

/// What there is of a topic now, and what of it is done.
#[derive(Debug)]
pub(super) struct Standing {
    /// The whole of it.
    pub(super) bounds: Ranges,
    pub(super) progress: BTreeMap<TopicPartition, Progress>,
}

impl Source {
    /// A scan, and what there is to read.
    pub(super) async fn open(&self, commits: bool) -> Result<(Scan, Standing), DeadLetterError> {
        let (topic_id, partitions) = self.describe().await?;
        let scan = Scan::new(&self.client, commits.then_some(&self.group)).await?;
        let bounds = scan.bounds(&partitions).await?;
        let committed = self.committed().await?;
        let progress = bounds.iter().map(|(at, (begin, end))| {
            (at.clone(), Progress::read(committed.get(at), topic_id, *begin, *end))
        });
        Ok((scan, Standing { progress: progress.collect(), bounds }))
    }

    /// A partition that was named.
    pub(super) fn partition(
        &self,
        standing: &Standing,
        partition: i32,
    ) -> Result<TopicPartition, DeadLetterError> {
        let at = TopicPartition::new(Arc::clone(&self.topic), partition);
        match standing.bounds.contains_key(&at) {
            true => Ok(at),
            false => Err(DeadLetterError::NoPartition {
                topic: Arc::clone(&self.topic),
                partition,
                count: standing.bounds.len(),
            }),
        }
    }

    async fn describe(&self) -> Result<(Uuid, Vec<TopicPartition>), DeadLetterError> {
        let topic = || Arc::clone(&self.topic);
        let described = self.client.admin().describe_topics(&[&*self.topic]).await?.remove(&self.topic);
        let described = match described {
            Some(described) => {
                described.map_err(|source| DeadLetterError::Topic { topic: topic(), source })?
            }
            None => return Err(DeadLetterError::NoPartition { topic: topic(), partition: 0, count: 0 }),
        };
        let numbers = described.partitions.iter().map(|partition| partition.partition);
        Ok((described.id, numbers.map(|number| TopicPartition::new(topic(), number)).collect()))
    }

    /// Offsets in transactions that have not ended are waited for.
    async fn committed(&self) -> Result<BTreeMap<TopicPartition, OffsetAndMetadata>, DeadLetterError> {
        let groups = [&*self.group];
        let committed = self.client.admin().list_group_offsets(&groups).await?.remove(&self.group);
        Ok(committed.transpose()?.unwrap_or_default().into_iter().collect())
    }
}
