//! ListOffsets, key 2: versions 1 to 11.
//!
//! Timestamps below zero ask for a place instead of a time: -1 the end, -2 the beginning, -3 the record with the
//! greatest timestamp, -4 the beginning of what is local (everything is), -5 and -6 ends of tiered storage (there is
//! none, so -1). A partition that is named twice is refused with INVALID_REQUEST.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use klamm_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use klamm_protocol::{ErrorCode, Utf8Bytes};

use super::fetch::check_epoch;
use super::{Answer, Call, Context, Refusal};
use crate::controller::View;
use crate::log::TimestampOffset;
use crate::partition::{Isolation, Partition};

pub(super) const VERSIONS: RangeInclusive<i16> = 1..=11;
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: ListOffsetsRequest = call.decode()?;
    let view = context.view();
    let isolation =
        if request.isolation_level == 1 { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
    let doubles = doubles(&request);
    let topics = request.topics.iter().map(|topic| {
        let answer = |wanted: &ListOffsetsPartition| {
            let found = match doubles.contains(&(topic.name.clone(), wanted.partition_index)) {
                true => Err(ErrorCode::InvalidRequest),
                false => find(&view, &topic.name, wanted, isolation),
            };
            let partition_index = wanted.partition_index;
            match found {
                Ok(found) => ListOffsetsPartitionResponse {
                    partition_index,
                    timestamp: found.timestamp,
                    offset: found.offset,
                    leader_epoch: found.leader_epoch,
                    ..ListOffsetsPartitionResponse::default()
                },
                Err(error) => ListOffsetsPartitionResponse {
                    partition_index,
                    error_code: error.code(),
                    ..ListOffsetsPartitionResponse::default()
                },
            }
        };
        let partitions = topic.partitions.iter().map(answer).collect();
        ListOffsetsTopicResponse {
            name: topic.name.clone(),
            partitions,
            ..ListOffsetsTopicResponse::default()
        }
    });
    let topics = topics.map(|mut topic| {
        if call.version < 4 {
            // No field for it there.
            topic.partitions.iter_mut().for_each(|partition| partition.leader_epoch = -1);
        }
        topic
    });
    call.answer(&ListOffsetsResponse { topics: topics.collect(), ..ListOffsetsResponse::default() })
}

/// The partitions that are named more than once. They are refused, as in Kafka: a search by time may decompress a batch
/// each time.
fn doubles(request: &ListOffsetsRequest) -> HashSet<(Utf8Bytes, i32)> {
    let mut seen = HashSet::new();
    let named = request.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| (topic.name.clone(), partition.partition_index))
    });
    named.filter(|partition| !seen.insert(partition.clone())).collect()
}

const NOWHERE: TimestampOffset = TimestampOffset { timestamp: -1, offset: -1, leader_epoch: -1 };

fn find(
    view: &View,
    topic: &str,
    wanted: &ListOffsetsPartition,
    isolation: Isolation,
) -> Result<TimestampOffset, ErrorCode> {
    let log = view.partition(topic, wanted.partition_index)?;
    check_epoch(log, wanted.current_leader_epoch)?;
    if log.offline().is_some() && log.log_end_offset() == 0 {
        return Err(ErrorCode::KafkaStorageError);
    }
    let place =
        |log: &Partition, offset| TimestampOffset { timestamp: -1, offset, leader_epoch: log.leader_epoch() };
    let found = match wanted.timestamp {
        LATEST if isolation == Isolation::ReadCommitted => Some(place(log, log.last_stable_offset())),
        LATEST => Some(place(log, log.high_watermark())),
        EARLIEST | EARLIEST_LOCAL => Some(place(log, log.log_start_offset())),
        MAX_TIMESTAMP => log.max_timestamp().map_err(|_| ErrorCode::KafkaStorageError)?,
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => None,
        time if time >= 0 => {
            log.offset_for_timestamp(time, isolation).map_err(|_| ErrorCode::KafkaStorageError)?
        }
        _ => return Err(ErrorCode::UnsupportedVersion),
    };
    Ok(found.unwrap_or(NOWHERE))
}
