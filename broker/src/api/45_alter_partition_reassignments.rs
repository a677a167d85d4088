//! AlterPartitionReassignments, key 45: versions 0 and 1. There is one broker to have replicas: they stay where they
//! are, and nothing else is possible.

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::messages::alter_partition_reassignments::{
    ReassignablePartition, ReassignablePartitionResponse, ReassignableTopicResponse,
};
use klamm_protocol::messages::{AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse};
use klamm_protocol::{ErrorCode, Utf8Bytes};

use super::{Answer, Call, Context, Refusal};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=1;

/// Why not, and in words; the same ones for all, because a request may name many.
type Refused = (ErrorCode, Option<Utf8Bytes>);

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: AlterPartitionReassignmentsRequest = call.decode()?;
    if request.topics.is_empty() {
        return call.answer(&AlterPartitionReassignmentsResponse::default());
    }
    let (view, here) = (context.view(), context.config().node_id);
    let topics = request.topics.into_iter().map(|topic| {
        let count = view.image.topic(&topic.name).map_or(0, |topic| topic.partitions);
        let answers = topic.partitions.iter().map(|wanted| answer(wanted, count, here));
        ReassignableTopicResponse {
            partitions: answers.collect(),
            name: topic.name,
            ..ReassignableTopicResponse::default()
        }
    });
    call.answer(&AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: request.allow_replication_factor_change,
        error_message: None,
        responses: topics.collect(),
        ..AlterPartitionReassignmentsResponse::default()
    })
}

fn answer(wanted: &ReassignablePartition, count: i32, here: i32) -> ReassignablePartitionResponse {
    let moved = match (0..count).contains(&wanted.partition_index) {
        true => check(wanted.replicas.as_deref(), here),
        false => refused(ErrorCode::UnknownTopicOrPartition, "there is no such partition"),
    };
    let (error, error_message) = moved.err().unwrap_or((ErrorCode::None, None));
    ReassignablePartitionResponse {
        partition_index: wanted.partition_index,
        error_code: error.code(),
        error_message,
        ..ReassignablePartitionResponse::default()
    }
}

/// Without replicas a move shall be called off.
fn check(replicas: Option<&[i32]>, here: i32) -> Result<(), Refused> {
    let assignment = |why| refused(ErrorCode::InvalidReplicaAssignment, why);
    match replicas {
        None => Err((ErrorCode::NoReassignmentInProgress, None)),
        Some([]) => assignment("a partition needs a replica"),
        Some(replicas) if replicas.iter().any(|replica| *replica != here) => {
            assignment("there is one broker, and this is another one")
        }
        Some([_]) => Ok(()),
        Some(_) => assignment("a broker has one replica of a partition"),
    }
}

fn refused(error: ErrorCode, why: &'static str) -> Result<(), Refused> {
    Err((error, Some(Utf8Bytes::from_static(why))))
}
