//! How much an application has still to process.

use std::collections::HashMap;
use std::sync::Arc;

use klamm_client::TopicPartition;

use super::error::StreamsError;
use super::shared::Shared;
use crate::streams::topology::{TopicName, TopologyInner};

/// Records between the group's committed offsets and the ends of all topics read.
///
/// Upstream first, and of each topic the end before the commit: an upstream commit says that its outputs are
/// written, so a topic downstream shows them when it is looked at after that. Zero everywhere then means that
/// nothing is left anywhere.
pub(super) async fn lag(shared: &Shared) -> Result<u64, StreamsError> {
    let consumer = shared.started().await.ok_or(StreamsError::Closed)?;
    let mut left = 0;
    for sub_topology in upstream_first(&shared.topology) {
        let (mut partitions, mut ends) = (Vec::new(), HashMap::new());
        for topic in &shared.topology.sub_topologies[sub_topology].sources {
            let name: Arc<str> = topic.in_application(shared.group()).into();
            let count = shared.client.partition_count(&name).await?;
            let of_topic: Vec<_> =
                (0..count).map(|partition| TopicPartition::new(Arc::clone(&name), partition)).collect();
            // Of a committed transaction of the application, the markers may still be on their way to its own topics.
            // What others have not committed may never count.
            let reader = if matches!(topic, TopicName::Internal(_)) { &shared.ends } else { &consumer };
            ends.extend(reader.end_offsets(&of_topic).await?);
            partitions.extend(of_topic);
        }
        let committed = consumer.committed(&partitions).await?;
        let unread: Vec<_> = partitions.iter().filter(|p| !committed.contains_key(p)).cloned().collect();
        let beginnings = match unread.is_empty() {
            true => Default::default(),
            false => consumer.beginning_offsets(&unread).await?,
        };
        #[expect(clippy::iter_over_hash_type, reason = "it is a sum that is made")]
        for (partition, end) in ends {
            let committed = committed.get(&partition).map(|committed| committed.offset);
            let at = committed.or_else(|| beginnings.get(&partition).copied()).unwrap_or(0);
            left += u64::try_from(end - at).unwrap_or(0);
        }
    }
    if left == 0 {
        // Offsets are committed before the stores are written: who reads a store now must find all of it.
        let mut committing = shared.committing.subscribe();
        committing.wait_for(|workers| *workers == 0).await.map_err(|_| StreamsError::Closed)?;
    }
    Ok(left)
}

/// Sub-topologies such that those that write a topic come before those that read it; where topics
/// form a circle, as declared.
fn upstream_first(topology: &TopologyInner) -> Vec<usize> {
    let all = &topology.sub_topologies;
    let feeds = |from: usize, to: usize| all[to].sources.iter().any(|topic| all[from].sinks.contains(topic));
    let mut order: Vec<usize> = Vec::new();
    let mut waiting: Vec<usize> = (0..all.len()).collect();
    while !waiting.is_empty() {
        let free = |at: &usize| !waiting.iter().any(|other| other != at && feeds(*other, *at));
        let next = waiting.iter().position(free).unwrap_or(0);
        order.push(waiting.remove(next));
    }
    order
}
