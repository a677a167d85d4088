//! A dead-letter topic as it stands: where its partitions begin and end, and what of it is done.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_client::{Client, OffsetAndMetadata, TopicPartition, Uuid};

use super::described::describe;
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
    /// What that was read from.
    pub(super) committed: BTreeMap<TopicPartition, OffsetAndMetadata>,
    pub(super) topic_id: Uuid,
}

impl Source {
    /// A scan, and what there is to read.
    pub(super) async fn open(&self, commits: bool) -> Result<(Scan, Standing), DeadLetterError> {
        let (topic_id, partitions) = describe(&self.client, &self.topic).await?;
        let of = (Arc::clone(&self.topic), topic_id);
        let scan = Scan::new(&self.client, of, commits.then_some(&self.group)).await?;
        let bounds = scan.bounds(&partitions).await?;
        let committed = self.committed().await?;
        let progress = bounds.iter().map(|(at, (begin, end))| {
            (at.clone(), Progress::read(committed.get(at), topic_id, *begin, *end))
        });
        let progress = progress.collect();
        Ok((scan, Standing { bounds, progress, committed, topic_id }))
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

    /// Offsets in transactions that have not ended are waited for.
    pub(super) async fn committed(
        &self,
    ) -> Result<BTreeMap<TopicPartition, OffsetAndMetadata>, DeadLetterError> {
        let groups = [&*self.group];
        let committed = self.client.admin().list_group_offsets(&groups).await?.remove(&self.group);
        Ok(committed.transpose()?.unwrap_or_default().into_iter().collect())
    }
}
