//! OffsetCommit, key 8: versions 2 to 10.
//!
//! Offsets are handed to their group before the next request of the connection is looked at, and answered when they are
//! durable. `retention_time_ms` (up to version 4) is ignored, as Kafka's default does: offsets live by
//! `offsets.retention.minutes`. A member of a group that is not there is told ILLEGAL_GENERATION in every version, by
//! which it joins again; Kafka says GROUP_ID_NOT_FOUND from version 9 on, which its own consumers take for the end.

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::messages::offset_commit::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use klamm_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};
use klamm_protocol::{ErrorCode, Uuid};

use super::context::named;
use super::{Answer, Call, Context, Refusal};
use crate::group::{Caller, Commit};

pub(super) const VERSIONS: RangeInclusive<i16> = 2..=10;
/// From here on topics are named by their id.
const TOPIC_IDS: i16 = 10;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: OffsetCommitRequest = call.decode()?;
    let view = context.view();
    let mut commits = Vec::new();
    // Where in the response the code of each commit belongs.
    let mut places = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for (topic_place, topic) in request.topics.into_iter().enumerate() {
        let known = named(&view, call.version >= TOPIC_IDS, topic.topic_id, &topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for (place, partition) in topic.partitions.into_iter().enumerate() {
            let index = partition.partition_index;
            let exists = |topic: &Arc<_>| view.log(topic, index).map(|_| ()).or_else(keep_if_broken);
            let error = match known.and_then(exists) {
                Ok(()) => {
                    places.push((topic_place, place));
                    commits.push(Commit {
                        topic: known.map_or_else(|_| String::new(), |topic| topic.name.to_string()),
                        topic_id: known.map_or(Uuid::ZERO, |topic| topic.id),
                        partition: index,
                        offset: partition.committed_offset,
                        leader_epoch: partition.committed_leader_epoch,
                        metadata: partition.committed_metadata.map(String::from).unwrap_or_default(),
                    });
                    ErrorCode::None
                }
                Err(error) => error,
            };
            let error_code = error.code();
            partitions.push(OffsetCommitResponsePartition {
                partition_index: index,
                error_code,
                ..OffsetCommitResponsePartition::default()
            });
        }
        topics.push(OffsetCommitResponseTopic {
            // A copy: the answer may wait for long, and would keep the request's frame.
            name: topic.name.to_string().into(),
            topic_id: topic.topic_id,
            partitions,
            ..OffsetCommitResponseTopic::default()
        });
    }
    let caller = Caller {
        member_id: request.member_id.into(),
        instance_id: request.group_instance_id.map(Into::into),
        generation: request.generation_id_or_member_epoch,
    };
    let committing = context.groups().commit(&request.group_id, caller, commits).await;
    let reply = call.reply();
    let held_bytes = held_bytes(&topics);
    Ok(Answer::later(held_bytes, async move {
        for ((topic, partition), code) in places.into_iter().zip(committing.await) {
            topics[topic].partitions[partition].error_code = code.code();
        }
        reply.encode(&OffsetCommitResponse { topics, ..OffsetCommitResponse::default() }).map(Some)
    }))
}

/// What the answer takes until it is sent; for each partition there may be a code to come and its place, too.
fn held_bytes(topics: &[OffsetCommitResponseTopic]) -> usize {
    const PARTITION: usize =
        size_of::<OffsetCommitResponsePartition>() + size_of::<(usize, usize)>() + size_of::<ErrorCode>();
    let of = |topic: &OffsetCommitResponseTopic| {
        size_of::<OffsetCommitResponseTopic>() + topic.name.len() + topic.partitions.len() * PARTITION
    };
    topics.iter().map(of).sum()
}

/// An offset can be committed for a partition whose log is broken.
fn keep_if_broken(error: ErrorCode) -> Result<(), ErrorCode> {
    if error == ErrorCode::KafkaStorageError { Ok(()) } else { Err(error) }
}
