//! What is asked about replicas: who leads, and where they shall be.

use klamm_protocol::messages::alter_partition_reassignments::{ReassignablePartition, ReassignableTopic};
use klamm_protocol::messages::elect_leaders::TopicPartitions;
use klamm_protocol::messages::list_partition_reassignments::ListPartitionReassignmentsTopics;
use klamm_protocol::messages::*;

use super::{Dialogue, TOPIC};

impl Dialogue {
    pub(super) async fn replicas(&mut self) {
        let of = |topic: &str, partitions: &[i32]| TopicPartitions {
            topic: topic.into(),
            partitions: partitions.to_vec(),
            ..Default::default()
        };
        let asked: [(&str, Option<Vec<TopicPartitions>>); 5] = [
            ("all", None),
            ("none", Some(vec![])),
            ("both", Some(vec![of(TOPIC, &[0, 1])])),
            ("unknown", Some(vec![of(TOPIC, &[7]), of("nothing", &[0])])),
            ("twice", Some(vec![of(TOPIC, &[0, 0])])),
        ];
        for (what, topic_partitions) in asked {
            for (election_type, version) in [(0, 0), (0, 2), (1, 2), (7, 2)] {
                let topic_partitions = topic_partitions.clone();
                let request = ElectLeadersRequest { election_type, topic_partitions, ..Default::default() };
                let request =
                    if version == 0 { ElectLeadersRequest { election_type: 0, ..request } } else { request };
                let sorted = |response: &mut ElectLeadersResponse| {
                    response.replica_election_results.retain(|one| !one.topic.starts_with("__"));
                    response.replica_election_results.sort_by_key(|one| one.topic.clone());
                };
                self.ask_with(&format!("elect {what} {election_type}"), request, version, sorted).await;
            }
        }
        self.reassignments().await;
    }

    pub(super) async fn reassignments(&mut self) {
        let moves: [(&str, i32, Option<&[i32]>); 9] = [
            (TOPIC, 0, Some(&[1])),
            (TOPIC, 0, Some(&[9])),
            (TOPIC, 0, Some(&[1, 9])),
            (TOPIC, 0, Some(&[1, 1])),
            (TOPIC, 0, Some(&[-1])),
            (TOPIC, 0, Some(&[])),
            (TOPIC, 0, None),
            (TOPIC, 7, Some(&[1])),
            ("nothing", 0, None),
        ];
        for (name, partition_index, replicas) in moves {
            let replicas = replicas.map(<[i32]>::to_vec);
            let what = format!("move {name}-{partition_index} to {replicas:?}");
            let partition = ReassignablePartition { partition_index, replicas, ..Default::default() };
            let topic =
                ReassignableTopic { name: name.into(), partitions: vec![partition], ..Default::default() };
            let request = AlterPartitionReassignmentsRequest { topics: vec![topic], ..Default::default() };
            self.ask(&what, request, 1).await;
        }
        let request = AlterPartitionReassignmentsRequest {
            allow_replication_factor_change: false,
            ..Default::default()
        };
        self.ask("no moves", request, 1).await;
        self.ask("no moves", AlterPartitionReassignmentsRequest::default(), 0).await;
        let topic = |name: &str| ListPartitionReassignmentsTopics {
            name: name.into(),
            partition_indexes: vec![0],
            ..Default::default()
        };
        for topics in [None, Some(vec![]), Some(vec![topic(TOPIC), topic("nothing")])] {
            let request = ListPartitionReassignmentsRequest { topics, ..Default::default() };
            self.ask("under way", request, 0).await;
        }
    }
}
