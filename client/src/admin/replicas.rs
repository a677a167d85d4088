//! Where partitions live and who leads them: moved, elected.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use klamm_protocol::messages::alter_partition_reassignments::{ReassignablePartition, ReassignableTopic};
use klamm_protocol::messages::elect_leaders::TopicPartitions;
use klamm_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ElectLeadersRequest,
    ElectLeadersResponse, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};

use super::asking::Exchange;
use super::handle::Admin;
use super::progress::{PerItem, check};
use super::records::sorted;
use super::route::Destination;
use super::topics::key;
use crate::error::AdminError;
use crate::types::TopicPartition;

/// From here on there are other elections than that of the preferred leader.
const UNCLEAN_FROM: i16 = 1;

impl Admin {
    /// Begins to move partitions to these brokers, the preferred leader first; `None` stops a move that is under way.
    ///
    /// # Errors
    /// No controller in time.
    pub async fn reassign_partitions(
        &self,
        replicas: &HashMap<TopicPartition, Option<Vec<i32>>>,
    ) -> Result<PerItem<TopicPartition, ()>, AdminError> {
        let timeout_ms = self.timeout_ms();
        let build = |partitions: &[TopicPartition], _| {
            let mut topics: BTreeMap<&str, Vec<ReassignablePartition>> = BTreeMap::new();
            for partition in partitions {
                let Some(replicas) = replicas.get(partition) else { continue };
                topics.entry(&partition.topic).or_default().push(ReassignablePartition {
                    partition_index: partition.partition,
                    replicas: replicas.clone(),
                    ..Default::default()
                });
            }
            let topics = topics.into_iter().map(|(name, partitions)| ReassignableTopic {
                name: name.into(),
                partitions,
                ..Default::default()
            });
            AlterPartitionReassignmentsRequest { timeout_ms, topics: topics.collect(), ..Default::default() }
        };
        let read = |answer: AlterPartitionReassignmentsResponse, asked: &[TopicPartition]| {
            if let Err(refusal) = check(answer.error_code, answer.error_message) {
                return asked.iter().map(|partition| (partition.clone(), Err(refusal.clone()))).collect();
            }
            let mut results = Vec::new();
            for topic in answer.responses {
                results.extend(topic.partitions.into_iter().map(|part| {
                    let at = TopicPartition::new(&*topic.name, part.partition_index);
                    (at, check(part.error_code, part.error_message))
                }));
            }
            results
        };
        let exchange = Exchange { what: "moving partitions", up_to: i16::MAX, build, read };
        self.ask(sorted(replicas), |_| Destination::Controller, exchange).await
    }

    /// The partitions that are moving to other brokers now.
    ///
    /// # Errors
    /// No controller in time.
    pub async fn list_reassignments(&self) -> Result<BTreeMap<TopicPartition, Reassignment>, AdminError> {
        let timeout_ms = self.timeout_ms();
        let build = |_: &[()], _| ListPartitionReassignmentsRequest {
            timeout_ms,
            topics: None,
            ..Default::default()
        };
        let read = |answer: ListPartitionReassignmentsResponse, _: &[()]| {
            let checked = check(answer.error_code, answer.error_message);
            let moving = checked.map(|()| {
                let mut moving = BTreeMap::new();
                for topic in answer.topics {
                    let name = key(&topic.name);
                    moving.extend(topic.partitions.into_iter().map(|part| {
                        let at = TopicPartition::new(Arc::clone(&name), part.partition_index);
                        let (replicas, adding) = (part.replicas, part.adding_replicas);
                        (at, Reassignment { replicas, adding, removing: part.removing_replicas })
                    }));
                }
                moving
            });
            vec![((), moving)]
        };
        let exchange = Exchange { what: "listing moves", up_to: i16::MAX, build, read };
        self.ask_one((), Destination::Controller, exchange).await
    }

    /// Makes the preferred replica of each partition its leader. `ELECTION_NOT_NEEDED` says that it is.
    ///
    /// # Errors
    /// No controller in time.
    pub async fn elect_preferred_leaders(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<PerItem<TopicPartition, ()>, AdminError> {
        self.elect(partitions, 0, 0).await
    }

    /// Makes any living replica the leader of partitions that have none, in sync or not: records that only others have
    /// are lost.
    ///
    /// # Errors
    /// No controller in time, or one older than Kafka 2.4.
    pub async fn danger_elect_unclean_leaders(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<PerItem<TopicPartition, ()>, AdminError> {
        self.elect(partitions, 1, UNCLEAN_FROM).await
    }

    async fn elect(
        &self,
        partitions: &[TopicPartition],
        election_type: i8,
        from: i16,
    ) -> Result<PerItem<TopicPartition, ()>, AdminError> {
        let what = "electing leaders";
        if from > 0 && self.version_somewhere::<ElectLeadersRequest>(what).await? < from {
            let api = klamm_protocol::ApiKey::ElectLeaders;
            let address = Arc::from("the cluster");
            return Err(crate::error::RequestError::Unsupported { address, api }.into());
        }
        let timeout_ms = self.timeout_ms();
        let build = |partitions: &[TopicPartition], _| {
            let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
            for partition in partitions {
                topics.entry(&partition.topic).or_default().push(partition.partition);
            }
            let topics = topics.into_iter().map(|(topic, partitions)| TopicPartitions {
                topic: topic.into(),
                partitions,
                ..Default::default()
            });
            ElectLeadersRequest {
                election_type,
                topic_partitions: Some(topics.collect()),
                timeout_ms,
                ..Default::default()
            }
        };
        let read = |answer: ElectLeadersResponse, asked: &[TopicPartition]| {
            if let Err(refusal) = check(answer.error_code, None) {
                return asked.iter().map(|partition| (partition.clone(), Err(refusal.clone()))).collect();
            }
            let mut results = Vec::new();
            for topic in answer.replica_election_results {
                results.extend(topic.partition_result.into_iter().map(|part| {
                    let at = TopicPartition::new(&*topic.topic, part.partition_id);
                    (at, check(part.error_code, part.error_message))
                }));
            }
            results
        };
        let exchange = Exchange { what, up_to: i16::MAX, build, read };
        self.ask(partitions.iter().cloned(), |_| Destination::Controller, exchange).await
    }
}

/// A partition's move to other brokers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reassignment {
    /// The brokers that hold it now.
    pub replicas: Vec<i32>,
    /// Those that come to it.
    pub adding: Vec<i32>,
    /// Those that will go.
    pub removing: Vec<i32>,
}
