//! DescribeQuorum, key 55: versions 0 to 2. The controllers are one: this broker, which is never behind itself.

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::messages::describe_quorum::{Listener, Node, PartitionData, ReplicaState, TopicData};
use klamm_protocol::messages::{DescribeQuorumRequest, DescribeQuorumResponse};
use klamm_protocol::{ErrorCode, Utf8Bytes};

use super::{Answer, Call, Context, Refusal};
use crate::controller::METADATA_TOPIC;

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=2;
/// From here on errors are said in words, and the answer says where the controllers are.
const NODES: i16 = 2;
const NOT_THE_METADATA: Utf8Bytes = Utf8Bytes::from_static("only the metadata log has a quorum");

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: DescribeQuorumRequest = call.decode()?;
    let mut response = DescribeQuorumResponse::default();
    let mut has_quorum = false;
    for topic in request.topics {
        let is_metadata = topic.topic_name == METADATA_TOPIC;
        let mut told = TopicData { topic_name: topic.topic_name, ..TopicData::default() };
        for partition in topic.partitions {
            let index = partition.partition_index;
            // Once is enough: a number takes less in the request than in the answer.
            let is_quorum = is_metadata && index == 0 && !std::mem::replace(&mut has_quorum, true);
            told.partitions.push(if is_quorum { quorum(context) } else { unknown(index, call.version) });
        }
        response.topics.push(told);
    }
    if has_quorum && call.version >= NODES {
        let advertised = &call.peer.advertised;
        let listener = Listener {
            name: "PLAINTEXT".into(),
            host: advertised.host.as_str().into(),
            port: advertised.port,
            ..Listener::default()
        };
        let node_id = context.config().node_id;
        response.nodes = vec![Node { node_id, listeners: vec![listener], ..Node::default() }];
    }
    call.answer(&response)
}

fn quorum(context: &Context) -> PartitionData {
    let log = context.controller().metadata_log();
    let (node_id, now_ms) = (context.config().node_id, context.now_ms());
    let voter = ReplicaState {
        replica_id: node_id,
        log_end_offset: log.log_end_offset(),
        last_fetch_timestamp: now_ms,
        last_caught_up_timestamp: now_ms,
        ..ReplicaState::default()
    };
    PartitionData {
        partition_index: 0,
        leader_id: node_id,
        leader_epoch: log.leader_epoch(),
        high_watermark: log.high_watermark(),
        current_voters: vec![voter],
        ..PartitionData::default()
    }
}

fn unknown(partition_index: i32, version: i16) -> PartitionData {
    let mut unknown = PartitionData {
        partition_index,
        error_code: ErrorCode::UnknownTopicOrPartition.code(),
        ..PartitionData::default()
    };
    if version >= NODES {
        unknown.error_message = Some(NOT_THE_METADATA);
    }
    unknown
}
