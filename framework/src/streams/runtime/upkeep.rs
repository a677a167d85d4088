//! What an instance does for its topics beside reading and writing them: it notices that one is gone, or has become too
//! large for the state, and removes from repartition topics what is processed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use klamm_client::{ErrorCode, TopicPartition, Uuid};

use super::error::StreamsError;
use super::shared::Shared;
use super::topics;
use crate::streams::topology::{PartitionPlan, TopicName};

/// Between looks at the topics.
const LOOK: Duration = Duration::from_secs(5);

/// Between removals (`repartition.purge.interval.ms`).
const PURGE: Duration = Duration::from_secs(30);

/// Ends the application when a topic that it needs is deleted: the group would only share out less, and what changes
/// in stores would go nowhere. And when one has more partitions than the changelogs, of which new tasks would wait for
/// theirs for ever.
pub(super) async fn watch_topics(shared: Arc<Shared>, plan: PartitionPlan) {
    let changelogs = topics::changelogs(&shared.topology, shared.group()).map(Arc::from);
    let names: Vec<Arc<str>> = shared.readers.keys().cloned().chain(changelogs).collect();
    let mut ids: BTreeMap<Arc<str>, Uuid> = BTreeMap::new();
    let mut missing: BTreeMap<Arc<str>, u32> = BTreeMap::new();
    loop {
        // Unless the cluster cannot be asked: others tell of that.
        if let Ok(described) = shared.client.admin().describe_topics(&names).await {
            let mut counts: BTreeMap<Arc<str>, i32> = BTreeMap::new();
            for (topic, found) in BTreeMap::from_iter(described) {
                let anew = match found {
                    Ok(found) => {
                        missing.remove(&topic);
                        let count = i32::try_from(found.partitions.len()).unwrap_or(i32::MAX);
                        counts.insert(Arc::clone(&topic), count);
                        let known = *ids.entry(Arc::clone(&topic)).or_insert(found.id);
                        (known != found.id).then_some(true)
                    }
                    // A broker that has just begun may not know of it yet.
                    Err(error) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => {
                        let looks = missing.entry(Arc::clone(&topic)).or_default();
                        *looks += 1;
                        (*looks > 1).then_some(false)
                    }
                    Err(_) => None,
                };
                if let Some(anew) = anew {
                    return shared.fail(StreamsError::TopicDeleted { topic: topic.to_string(), anew });
                }
            }
            if let Some(too_small) = topics::too_small(&shared.topology, shared.group(), &plan, &counts) {
                return shared.fail(too_small);
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Removes from the repartition topics what the tasks of this instance have committed.
pub(super) async fn purge(shared: Arc<Shared>) {
    let internal: Vec<String> = shared
        .topology
        .sub_topologies
        .iter()
        .flat_map(|sub_topology| &sub_topology.sources)
        .filter(|topic| matches!(topic, TopicName::Internal(_)))
        .map(|topic| topic.in_application(shared.group()))
        .collect();
    if internal.is_empty() {
        return;
    }
    let mut purged: HashMap<TopicPartition, i64> = HashMap::new();
    loop {
        tokio::time::sleep(PURGE).await;
        let Some(consumer) = shared.consumer() else { continue };
        let here: Vec<TopicPartition> = {
            let routes = shared.routes();
            let named = |partition: &&TopicPartition| internal.iter().any(|name| **name == *partition.topic);
            routes.flows.keys().filter(named).cloned().collect()
        };
        let Ok(committed) = consumer.committed(&here).await else { continue };
        let before: HashMap<TopicPartition, i64> = committed
            .into_iter()
            .map(|(partition, committed)| (partition, committed.offset))
            .filter(|(partition, offset)| purged.get(partition).is_none_or(|last| last < offset))
            .collect();
        if before.is_empty() {
            continue;
        }
        match shared.client.admin().delete_records(&before).await {
            Ok(_) => purged.extend(before),
            Err(error) => {
                tracing::debug!(application = %shared.group(), %error, "repartition topics keep what is processed");
            }
        }
    }
}
