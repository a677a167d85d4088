//! OffsetForLeaderEpoch, key 23: versions 2 to 4. Where the records of an epoch end: by that a consumer finds out
//! whether what it has read is still there. An epoch that is not known is answered with -1.

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderPartition, OffsetForLeaderTopicResult,
};
use klamm_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::fetch::check_epoch;
use super::{Answer, Call, Context, Refusal};
use crate::controller::View;

pub(super) const VERSIONS: RangeInclusive<i16> = 2..=4;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: OffsetForLeaderEpochRequest = call.decode()?;
    let view = context.view();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let (error, (leader_epoch, end_offset)) = match end(&view, &topic.topic, wanted) {
                Ok(end) => (ErrorCode::None, end),
                Err(error) => (error, (-1, -1)),
            };
            EpochEndOffset {
                error_code: error.code(),
                partition: wanted.partition,
                leader_epoch,
                end_offset,
                ..EpochEndOffset::default()
            }
        });
        OffsetForLeaderTopicResult {
            partitions: partitions.collect(),
            topic: topic.topic,
            ..OffsetForLeaderTopicResult::default()
        }
    });
    let topics = topics.collect();
    call.answer(&OffsetForLeaderEpochResponse { topics, ..OffsetForLeaderEpochResponse::default() })
}

/// The largest epoch that is at most the wanted one, and where it ends.
fn end(view: &View, topic: &str, wanted: &OffsetForLeaderPartition) -> Result<(i32, i64), ErrorCode> {
    let log = view.partition(topic, wanted.partition)?;
    check_epoch(log, wanted.current_leader_epoch)?;
    if log.offline().is_some() && log.log_end_offset() == 0 {
        return Err(ErrorCode::KafkaStorageError);
    }
    if wanted.leader_epoch < 0 {
        return Ok((-1, -1));
    }
    // Also when nothing has been written in it yet.
    if wanted.leader_epoch == log.leader_epoch() {
        return Ok((wanted.leader_epoch, log.log_end_offset()));
    }
    Ok(log.end_offset_for_epoch(wanted.leader_epoch))
}
