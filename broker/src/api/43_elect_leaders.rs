//! ElectLeaders, key 43: versions 0 to 2. There is one replica, which leads already. When all partitions are meant,
//! those that need no election are left out.

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::messages::elect_leaders::{PartitionResult, ReplicaElectionResult, TopicPartitions};
use klamm_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};
use klamm_protocol::{ErrorCode, Utf8Bytes};

use super::{Answer, Call, Context, Refusal};
use crate::controller::View;

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=2;
/// Kinds of elections, by Kafka's numbers: the first replica, and whichever is there.
const KINDS: RangeInclusive<i8> = 0..=1;
const LEADS_ALREADY: Utf8Bytes = Utf8Bytes::from_static("the only replica leads already");
const NO_SUCH_PARTITION: Utf8Bytes = Utf8Bytes::from_static("there is no such partition");
const NO_SUCH_KIND: Utf8Bytes = Utf8Bytes::from_static("there is no such kind of election");

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: ElectLeadersRequest = call.decode()?;
    let view = context.view();
    let is_known = KINDS.contains(&request.election_type);
    let asks_for_any = request.topic_partitions.as_ref().is_none_or(|topics| !topics.is_empty());
    let results = match request.topic_partitions {
        Some(topics) => topics.into_iter().map(|topic| of_topic(&view, is_known, topic)).collect(),
        None if is_known => view.image.topics().map(|topic| without_election(&topic.name)).collect(),
        None => Vec::new(),
    };
    let error = if is_known || !asks_for_any { ErrorCode::None } else { ErrorCode::InvalidRequest };
    call.answer(&ElectLeadersResponse {
        error_code: error.code(),
        replica_election_results: results,
        ..ElectLeadersResponse::default()
    })
}

fn without_election(topic: &str) -> ReplicaElectionResult {
    ReplicaElectionResult { topic: topic.into(), ..ReplicaElectionResult::default() }
}

fn of_topic(view: &View, is_known: bool, asked: TopicPartitions) -> ReplicaElectionResult {
    let count = view.image.topic(&asked.topic).map_or(0, |topic| topic.partitions);
    let results = asked.partitions.iter().map(|index| {
        let (error, message) = if !is_known {
            (ErrorCode::InvalidRequest, NO_SUCH_KIND)
        } else if (0..count).contains(index) {
            (ErrorCode::ElectionNotNeeded, LEADS_ALREADY)
        } else {
            (ErrorCode::UnknownTopicOrPartition, NO_SUCH_PARTITION)
        };
        PartitionResult {
            partition_id: *index,
            error_code: error.code(),
            error_message: Some(message),
            ..PartitionResult::default()
        }
    });
    ReplicaElectionResult {
        partition_result: results.collect(),
        topic: asked.topic,
        ..ReplicaElectionResult::default()
    }
}
