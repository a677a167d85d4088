//! What is asked about topics, and about groups that are to go.

use klamm_protocol::Uuid;
use klamm_protocol::messages::describe_topic_partitions::{Cursor, TopicRequest};
use klamm_protocol::messages::offset_delete::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use klamm_protocol::messages::offset_for_leader_epoch::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use klamm_protocol::messages::*;

use super::super::groups::commit;
use super::super::wire::*;
use super::{Dialogue, TOPIC};

/// Names, limit and cursor.
type Page<'a> = (&'a [&'a str], i32, Option<(&'a str, i32)>);

impl Dialogue {
    pub(super) async fn topics(&mut self) {
        let page = |names: &[&str], limit, cursor: Option<(&str, i32)>| DescribeTopicPartitionsRequest {
            topics: names
                .iter()
                .map(|name| TopicRequest { name: (*name).into(), ..Default::default() })
                .collect(),
            response_partition_limit: limit,
            cursor: cursor.map(|(name, partition_index)| Cursor {
                topic_name: name.into(),
                partition_index,
                ..Default::default()
            }),
            ..Default::default()
        };
        let mask = |response: &mut DescribeTopicPartitionsResponse| {
            response.topics.retain(|topic| topic.name.as_ref().is_none_or(|name| !name.starts_with("__")));
            for topic in &mut response.topics {
                topic.topic_id = Uuid::from_u128(u128::from(!topic.topic_id.is_zero()));
            }
        };
        let pages: [Page<'_>; 18] = [
            (&[TOPIC], 2_000, None),
            (&[], 2_000, None),
            (&["beside.more", TOPIC, TOPIC], 3, None),
            (&["nothing"], 2_000, None),
            (&["nothing", TOPIC, "a"], 2_000, None),
            (&["not a name"], 2_000, None),
            (&[TOPIC], 1, None),
            (&[TOPIC], 1, Some((TOPIC, 1))),
            (&[], 1, Some((TOPIC, 1))),
            (&[TOPIC], 1, Some((TOPIC, 2))),
            (&[TOPIC], 1, Some(("a", 1))),
            (&[TOPIC, "beside.more"], 3, Some(("beside", 1))),
            (&[TOPIC], 1, Some(("z", 0))),
            (&[TOPIC], 0, None),
            (&[TOPIC], -1, None),
            (&[TOPIC], 1, Some((TOPIC, -1))),
            (&["nothing", "z"], 1, Some(("nothing", 0))),
            (&["gone", TOPIC, "z"], 3, Some(("gone", 4))),
        ];
        for (names, limit, cursor) in pages {
            self.ask_with(&format!("{names:?} {limit} {cursor:?}"), page(names, limit, cursor), 0, mask)
                .await;
        }
    }

    pub(super) async fn epochs(&mut self) {
        let asked: [(&str, i32, i32, i32); 10] = [
            (TOPIC, 0, -1, 0),
            (TOPIC, 0, 0, 0),
            (TOPIC, 1, 0, 0),
            (TOPIC, 0, 0, 5),
            (TOPIC, 0, 0, -1),
            (TOPIC, 0, 5, 0),
            (TOPIC, 0, -1, -1),
            (TOPIC, 7, -1, 0),
            (TOPIC, -1, -1, 0),
            ("nothing", 0, -1, 0),
        ];
        for (topic, partition, current_leader_epoch, leader_epoch) in asked {
            let what = format!("{topic}-{partition} {current_leader_epoch} {leader_epoch}");
            let partition_index = partition;
            let partition = OffsetForLeaderPartition {
                partition,
                current_leader_epoch,
                leader_epoch,
                ..Default::default()
            };
            let topic = OffsetForLeaderTopic {
                topic: topic.into(),
                partitions: vec![partition],
                ..Default::default()
            };
            for version in if partition_index == 1 { 2..=4 } else { 4..=4 } {
                let replica_id = if version == 2 { -2 } else { -1 };
                let request = OffsetForLeaderEpochRequest {
                    replica_id,
                    topics: vec![topic.clone()],
                    ..Default::default()
                };
                self.ask(&what, request, version).await;
            }
        }
        self.ask("no topic", OffsetForLeaderEpochRequest::default(), 4).await;
    }

    pub(super) async fn groups(&mut self) {
        let delete = |names: &[&str]| DeleteGroupsRequest {
            groups_names: names.iter().map(|name| (*name).into()).collect(),
            ..Default::default()
        };
        let offsets = |group: &str, places: &[(&str, i32)]| OffsetDeleteRequest {
            group_id: group.into(),
            topics: places
                .iter()
                .map(|(topic, partition_index)| OffsetDeleteRequestTopic {
                    name: (*topic).into(),
                    partitions: vec![OffsetDeleteRequestPartition {
                        partition_index: *partition_index,
                        ..Default::default()
                    }],
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        };
        let sorted =
            |response: &mut DeleteGroupsResponse| response.results.sort_by_key(|one| one.group_id.clone());
        self.ask_with("none", delete(&[]), 2, sorted).await;
        let find = FindCoordinatorRequest { coordinator_keys: vec!["g".into()], ..Default::default() };
        self.until(async |wire| wire.ask(&find).await.coordinators[0].error_code == 0).await;
        for version in 0..=2 {
            for group in ["g", "h"] {
                let commit = commit(group, TOPIC, 1);
                let is_done = async |wire: &mut Wire| {
                    wire.ask_in(&commit, 9).await.topics[0].partitions[0].error_code == 0
                };
                self.until(is_done).await;
            }
            let names = delete(&["g", "nobody", "h", "g"]);
            self.ask_with("g and h", names, version, sorted).await;
        }
        self.ask_with("the empty one", delete(&[""]), 2, sorted).await;
        self.wire.ask_in(&commit("g", TOPIC, 1), 9).await;
        let asked: [(&str, &[(&str, i32)]); 7] = [
            ("nobody", &[(TOPIC, 0)]),
            ("", &[(TOPIC, 0)]),
            ("g", &[]),
            ("g", &[(TOPIC, 7), ("nothing", 0)]),
            ("g", &[(TOPIC, 1)]),
            ("g", &[(TOPIC, 0)]),
            ("nobody", &[("nothing", 0)]),
        ];
        for (group, places) in asked {
            self.ask(&format!("offsets of {group:?} {places:?}"), offsets(group, places), 0).await;
        }
    }
}
