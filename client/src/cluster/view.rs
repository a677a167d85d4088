//! What is known of the cluster at one time: brokers, topics, leaders. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_protocol::messages::MetadataResponse;
use klamm_protocol::messages::metadata::MetadataResponseTopic;
use klamm_protocol::{ErrorCode, Uuid};

use crate::types::TopicPartition;

/// A partition's leader by the word of a broker that is not it (KIP-951).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeaderHint {
    pub(crate) partition: TopicPartition,
    pub(crate) leader: i32,
    pub(crate) leader_epoch: i32,
    /// Host and port of the leader, where the broker tells them.
    pub(crate) endpoint: Option<(Arc<str>, i32)>,
}

/// A consistent view. Never changed: a refresh makes a new one.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClusterView {
    /// Counts refreshes.
    pub(crate) version: u64,
    pub(crate) controller: Option<i32>,
    /// Addresses by broker id.
    pub(crate) brokers: BTreeMap<i32, Arc<str>>,
    pub(crate) topics: Topics,
}

/// Topics by name, in shards that views share: what an answer does not speak of is not copied. Learning ten thousand
/// topics one by one would copy the view ten thousand times otherwise.
#[derive(Debug, Clone)]
pub(crate) struct Topics {
    shards: Vec<Arc<BTreeMap<Arc<str>, Arc<TopicView>>>>,
}

const SHARDS: usize = 64;

impl Default for Topics {
    fn default() -> Self {
        Self { shards: vec![Arc::default(); SHARDS] }
    }
}

impl Topics {
    pub(crate) fn get(&self, topic: &str) -> Option<&Arc<TopicView>> {
        self.shards.get(shard(topic))?.get(topic)
    }

    /// The names, in no useful order, but in the same one every time.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Arc<str>> {
        self.shards.iter().flat_map(|shard| shard.keys())
    }

    /// Those of which `gone` does not hold; `None` when that is all.
    fn without(&self, gone: impl Fn(&str) -> bool) -> Option<Self> {
        let mut next = self.clone();
        let mut changed = false;
        for shard in &mut next.shards {
            if shard.keys().any(|topic| gone(topic)) {
                Arc::make_mut(shard).retain(|topic, _| !gone(topic));
                changed = true;
            }
        }
        changed.then_some(next)
    }

    fn insert(&mut self, name: Arc<str>, topic: TopicView) {
        if let Some(shard) = self.shards.get_mut(shard(&name)) {
            Arc::make_mut(shard).insert(name, Arc::new(topic));
        }
    }
}

/// Where a topic is kept (FNV-1a, which is the same everywhere).
fn shard(topic: &str) -> usize {
    let hash = topic.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash as usize % SHARDS
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TopicView {
    /// Zero when the broker does not tell.
    pub(crate) id: Uuid,
    pub(crate) internal: bool,
    /// `ErrorCode::None` for a topic that can be used.
    pub(crate) error: ErrorCode,
    /// By partition number.
    pub(crate) partitions: Arc<[PartitionView]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartitionView {
    pub(crate) leader: Option<i32>,
    pub(crate) leader_epoch: i32,
}

impl TopicView {
    pub(crate) fn partition_count(&self) -> i32 {
        i32::try_from(self.partitions.len()).unwrap_or(i32::MAX)
    }
}

impl ClusterView {
    /// The topic, if it can be used.
    pub(crate) fn usable(&self, topic: &str) -> Option<&TopicView> {
        self.topics
            .get(topic)
            .map(|topic| &**topic)
            .filter(|topic| topic.error == ErrorCode::None && !topic.partitions.is_empty())
    }

    pub(crate) fn partition(&self, topic: &str, partition: i32) -> Option<PartitionView> {
        let index = usize::try_from(partition).ok()?;
        self.topics.get(topic)?.partitions.get(index).copied()
    }

    pub(crate) fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        self.partition(topic, partition)?.leader
    }

    /// This view changed by what a broker that is not the leader told; `None` when it is nothing new, or of no use
    /// because the leader's address is not known.
    pub(super) fn with_leader(&self, hint: &LeaderHint) -> Option<Self> {
        let LeaderHint { partition, leader, leader_epoch, endpoint } = hint;
        let known = self.partition(&partition.topic, partition.partition)?;
        if *leader < 0 || *leader_epoch <= known.leader_epoch {
            return None;
        }
        let mut next = self.clone();
        match endpoint {
            Some((host, port)) => drop(next.brokers.insert(*leader, address(host, *port))),
            None if self.brokers.contains_key(leader) => {}
            None => return None,
        }
        let mut topic = TopicView::clone(self.topics.get(&partition.topic)?);
        let mut partitions = topic.partitions.to_vec();
        let at = usize::try_from(partition.partition).ok()?;
        *partitions.get_mut(at)? = PartitionView { leader: Some(*leader), leader_epoch: *leader_epoch };
        topic.partitions = partitions.into();
        next.topics.insert(Arc::clone(&partition.topic), topic);
        next.version += 1;
        Some(next)
    }

    /// This view without the topics of which `gone` holds; `None` when there are none. It is not newer by that: nobody
    /// learned anything.
    pub(super) fn without(&self, gone: impl Fn(&str) -> bool) -> Option<Self> {
        Some(Self { topics: self.topics.without(gone)?, ..self.clone() })
    }

    /// This view changed by an answer about some topics, or about all.
    pub(super) fn updated(&self, answer: MetadataResponse, all: bool) -> Self {
        let mut next = self.clone();
        next.version += 1;
        next.controller = Some(answer.controller_id).filter(|&id| id >= 0);
        if !answer.brokers.is_empty() {
            let known = answer.brokers.iter().filter(|broker| broker.node_id >= 0);
            next.brokers = known.map(|broker| (broker.node_id, address(&broker.host, broker.port))).collect();
        }
        if all {
            next.topics = Topics::default();
        }
        for topic in answer.topics {
            let Some(name) = topic.name.as_ref().map(|name| Arc::<str>::from(&**name)) else { continue };
            let before = self.topics.get(&name).map(|topic| &**topic);
            let view = topic_view(&topic, before, &next.brokers);
            next.topics.insert(name, view);
        }
        next
    }
}

fn address(host: &str, port: i32) -> Arc<str> {
    match host.contains(':') {
        true => Arc::from(format!("[{host}]:{port}")),
        false => Arc::from(format!("{host}:{port}")),
    }
}

fn topic_view(
    topic: &MetadataResponseTopic,
    before: Option<&TopicView>,
    brokers: &BTreeMap<i32, Arc<str>>,
) -> TopicView {
    let unknown = PartitionView { leader: None, leader_epoch: -1 };
    // Numbers beyond the count cannot be trusted: a topic's partitions are numbered without gaps.
    let mut partitions = vec![unknown; topic.partitions.len()];
    for partition in &topic.partitions {
        let Some(slot) =
            usize::try_from(partition.partition_index).ok().and_then(|at| partitions.get_mut(at))
        else {
            continue;
        };
        let told = PartitionView {
            leader: Some(partition.leader_id).filter(|&id| id >= 0),
            leader_epoch: partition.leader_epoch,
        };
        // A broker that lags behind must not bring back a leader that was deposed (KIP-320).
        let newer = before
            .filter(|before| before.id == topic.topic_id)
            .and_then(|before| before.partitions.get(usize::try_from(partition.partition_index).ok()?))
            .filter(|before| told.leader_epoch >= 0 && before.leader_epoch > told.leader_epoch)
            // A leader that was told beside a refusal (KIP-951) may not exist: nobody could be asked for ever.
            .filter(|before| before.leader.is_none_or(|leader| brokers.contains_key(&leader)));
        *slot = *newer.unwrap_or(&told);
    }
    TopicView {
        id: topic.topic_id,
        internal: topic.is_internal,
        error: ErrorCode::from_code(topic.error_code),
        partitions: partitions.into(),
    }
}

/// Views for the tests of what decides by them.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// One topic, with leader (below 0 for none) and leader epoch of each partition.
    pub(crate) fn view(topic: &str, partitions: &[(i32, i32)]) -> ClusterView {
        view_with_id(topic, Uuid::ZERO, partitions)
    }

    /// The same, with the topic's id.
    pub(crate) fn view_with_id(topic: &str, id: Uuid, partitions: &[(i32, i32)]) -> ClusterView {
        let partition = |&(leader, leader_epoch): &(i32, i32)| PartitionView {
            leader: Some(leader).filter(|&id| id >= 0),
            leader_epoch,
        };
        let partitions = partitions.iter().map(partition).collect();
        let mut view = ClusterView::default();
        view.topics
            .insert(Arc::from(topic), TopicView { id, internal: false, error: ErrorCode::None, partitions });
        view
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::messages::metadata::{MetadataResponseBroker, MetadataResponsePartition};

    use super::*;

    fn answer(topic: &str, partitions: &[(i32, i32, i32)]) -> MetadataResponse {
        MetadataResponse {
            brokers: vec![MetadataResponseBroker {
                node_id: 1,
                host: "::1".into(),
                port: 9092,
                ..Default::default()
            }],
            topics: vec![MetadataResponseTopic {
                name: Some(topic.into()),
                topic_id: Uuid::ZERO,
                partitions: partitions
                    .iter()
                    .map(|&(partition_index, leader_id, leader_epoch)| MetadataResponsePartition {
                        partition_index,
                        leader_id,
                        leader_epoch,
                        ..Default::default()
                    })
                    .collect(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn a_deposed_leader_does_not_come_back() {
        let view = ClusterView::default().updated(answer("t", &[(0, 1, 5), (1, 1, 5)]), false);
        let view = view.updated(answer("t", &[(0, 2, 4), (1, 2, 6)]), false);
        assert_eq!(view.leader("t", 0), Some(1));
        assert_eq!(view.leader("t", 1), Some(2));
        assert_eq!(view.version, 2);
        assert_eq!(&*view.brokers[&1], "[::1]:9092");
    }

    /// A broker refused a batch and told a leader of a later epoch that there is not; no later metadata brought the
    /// real one back.
    #[test]
    fn a_later_leader_that_no_broker_is_gives_way() {
        let view = ClusterView::default().updated(answer("t", &[(0, 1, 5), (1, -1, 7)]), false);
        let hint = LeaderHint {
            partition: TopicPartition::new("t", 0),
            leader: 7,
            leader_epoch: 6,
            endpoint: Some((Arc::from("nowhere"), 1)),
        };
        let lie = view.with_leader(&hint).unwrap();
        assert_eq!(lie.leader("t", 0), Some(7));
        let view = lie.updated(answer("t", &[(0, 1, 5), (1, 1, 6)]), false);
        assert_eq!(view.leader("t", 0), Some(1));
        assert_eq!(view.leader("t", 1), None, "that there is none is no lie about a broker");
    }

    #[test]
    fn a_newer_leader_is_taken_from_a_broker_that_is_not_it() {
        let view = ClusterView::default().updated(answer("t", &[(0, 1, 5)]), false);
        let partition = TopicPartition::new("t", 0);
        let hint = |leader, leader_epoch, endpoint: Option<(&str, i32)>| {
            let endpoint = endpoint.map(|(host, port)| (Arc::from(host), port));
            LeaderHint { partition: partition.clone(), leader, leader_epoch, endpoint }
        };
        let there = Some(("host", 9));
        assert!(view.with_leader(&hint(2, 5, there)).is_none(), "not newer");
        assert!(view.with_leader(&hint(-1, 6, there)).is_none());
        assert!(view.with_leader(&hint(2, 6, None)).is_none(), "nobody knows where that is");
        let elsewhere = LeaderHint { partition: TopicPartition::new("t", 1), ..hint(2, 6, there) };
        assert!(view.with_leader(&elsewhere).is_none());
        let moved = view.with_leader(&hint(2, 6, there)).unwrap();
        assert_eq!((moved.leader("t", 0), &*moved.brokers[&2], moved.version), (Some(2), "host:9", 2));
        let back = moved.with_leader(&hint(1, 7, None)).unwrap();
        assert_eq!(back.leader("t", 0), Some(1));
    }

    #[test]
    fn absurd_partition_numbers_are_ignored() {
        let view =
            ClusterView::default().updated(answer("t", &[(i32::MAX, 1, 0), (-5, 1, 0), (0, -1, 0)]), false);
        assert_eq!(view.usable("t").map(TopicView::partition_count), Some(3));
        assert_eq!(view.leader("t", 0), None);
        assert_eq!(view.leader("t", i32::MAX), None);
    }

    #[test]
    fn an_answer_about_all_topics_drops_the_others() {
        let view = ClusterView::default().updated(answer("old", &[(0, 1, 0)]), false);
        assert!(view.updated(answer("new", &[(0, 1, 0)]), false).usable("old").is_some());
        assert!(view.updated(answer("new", &[(0, 1, 0)]), true).usable("old").is_none());
    }

    #[test]
    fn learning_one_topic_copies_one_shard() {
        let mut view = ClusterView::default();
        for number in 0..500 {
            view = view.updated(answer(&format!("topic-{number}"), &[(0, 1, 0)]), false);
        }
        let next = view.updated(answer("one-more", &[(0, 1, 0)]), false);
        let shared = view.topics.shards.iter().zip(&next.topics.shards).filter(|(a, b)| Arc::ptr_eq(a, b));
        assert_eq!(shared.count(), SHARDS - 1);
        assert_eq!((view.topics.keys().count(), next.topics.keys().count()), (500, 501));
        assert!((0..500).all(|number| next.usable(&format!("topic-{number}")).is_some()));
        // No shard has much more than its share.
        assert!(next.topics.shards.iter().all(|shard| shard.len() < 30));
    }
}
