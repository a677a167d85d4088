//! DeleteRecords, key 21: versions 0 to 2. A partition begins at a later offset; what lies before is not served any
//! more, and its segments go with the next housekeeping.

use std::ops::RangeInclusive;
use std::sync::Arc;

use futures::future::join_all;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use klamm_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use tokio::time::{Instant, timeout_at};

use super::context::{deadline, each_once};
use super::{Answer, Call, Context, Refusal};
use crate::controller::View;
use crate::partition::ReadError;

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=2;
/// What is told instead of an offset.
const NO_OFFSET: i64 = -1;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: DeleteRecordsRequest = call.decode()?;
    let (view, until) = (context.view(), deadline(request.timeout_ms));
    let mut topics = Vec::new();
    for topic in each_once(request.topics, |topic| topic.name.clone()) {
        let wanted: Vec<_> = each_once(topic.partitions, |one| one.partition_index).collect();
        let deletions = wanted.iter().map(|one| delete(&view, &topic.name, one, until));
        let results = wanted.iter().zip(join_all(deletions).await).map(|(one, result)| {
            let (low_watermark, error) = match result {
                Ok(offset) => (offset, ErrorCode::None),
                Err(error) => (NO_OFFSET, error),
            };
            DeleteRecordsPartitionResult {
                partition_index: one.partition_index,
                low_watermark,
                error_code: error.code(),
                ..DeleteRecordsPartitionResult::default()
            }
        });
        topics.push(DeleteRecordsTopicResult {
            partitions: results.collect(),
            name: topic.name,
            ..DeleteRecordsTopicResult::default()
        });
    }
    call.answer(&DeleteRecordsResponse { topics, ..DeleteRecordsResponse::default() })
}

async fn delete(
    view: &View,
    name: &str,
    wanted: &DeleteRecordsPartition,
    until: Option<Instant>,
) -> Result<i64, ErrorCode> {
    let topic = view.image.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if topic.is_internal() {
        return Err(ErrorCode::InvalidTopicException);
    }
    let log = view.log(topic, wanted.partition_index)?;
    let config = log.config();
    if config.compact && !config.delete {
        // What a key had last is all that there is of it.
        return Err(ErrorCode::PolicyViolation);
    }
    let deletion = log.delete_records(wanted.offset);
    let deleted = match until {
        Some(until) => timeout_at(until, deletion).await.map_err(|_| ErrorCode::RequestTimedOut)?,
        None => deletion.await,
    };
    deleted.map_err(|error| match error {
        ReadError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ReadError::Storage(_) => ErrorCode::KafkaStorageError,
    })
}
