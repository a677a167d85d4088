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
/// From here on there is a field for the epoch of a record's leader.
const LEADER_EPOCHS: i16 = 4;
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
    let mut searches = Vec::new();
    let mut response = ListOffsetsResponse::default();
    for (number, topic) in request.topics.iter().enumerate() {
        let mut answers = Vec::new();
        for (index, wanted) in topic.partitions.iter().enumerate() {
            let found = match doubles.contains(&(topic.name.clone(), wanted.partition_index)) {
                true => Found::Known(Err(ErrorCode::InvalidRequest)),
                false => find(&view, &topic.name, wanted, isolation),
            };
            let known = match found {
                Found::Known(known) => known,
                Found::BySearch(search) => {
                    searches.push(((number, index), search));
                    Ok(None)
                }
            };
            answers.push(answer(call.version, wanted.partition_index, known));
        }
        response.topics.push(ListOffsetsTopicResponse {
            name: topic.name.clone(),
            partitions: answers,
            ..ListOffsetsTopicResponse::default()
        });
    }
    if searches.is_empty() {
        return call.answer(&response);
    }
    for topic in &mut response.topics {
        // A copy: the disk may take long, and the name would keep the request's frame.
        topic.name = topic.name.to_string().into();
    }
    let reply = call.reply();
    Ok(Answer::later(held_bytes(&response), async move {
        for ((topic, partition), search) in searches {
            let answers = &mut response.topics[topic].partitions;
            let index = answers[partition].partition_index;
            answers[partition] = answer(reply.version, index, search.run().await);
        }
        reply.encode(&response).map(Some)
    }))
}

/// What the answer and its searches take until it is sent.
fn held_bytes(response: &ListOffsetsResponse) -> usize {
    const PARTITION: usize = size_of::<ListOffsetsPartitionResponse>() + size_of::<Search>();
    let topic = |topic: &ListOffsetsTopicResponse| {
        size_of::<ListOffsetsTopicResponse>() + topic.name.len() + topic.partitions.len() * PARTITION
    };
    response.topics.iter().map(topic).sum()
}

fn answer(
    version: i16,
    partition_index: i32,
    found: Result<Option<TimestampOffset>, ErrorCode>,
) -> ListOffsetsPartitionResponse {
    match found {
        Ok(found) => {
            let TimestampOffset { timestamp, offset, leader_epoch } = found.unwrap_or(NOWHERE);
            ListOffsetsPartitionResponse {
                partition_index,
                timestamp,
                offset,
                leader_epoch: if version < LEADER_EPOCHS { -1 } else { leader_epoch },
                ..ListOffsetsPartitionResponse::default()
            }
        }
        Err(error) => ListOffsetsPartitionResponse {
            partition_index,
            error_code: error.code(),
            ..ListOffsetsPartitionResponse::default()
        },
    }
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

/// What a partition is asked for.
enum Found {
    /// What is known without the disk.
    Known(Result<Option<TimestampOffset>, ErrorCode>),
    BySearch(Search),
}

/// A record that is looked for in the log, by disk threads.
struct Search {
    log: Arc<Partition>,
    /// A time, or [`MAX_TIMESTAMP`].
    timestamp: i64,
    isolation: Isolation,
}

impl Search {
    async fn run(self) -> Result<Option<TimestampOffset>, ErrorCode> {
        let found = match self.timestamp {
            MAX_TIMESTAMP => self.log.max_timestamp().await,
            time => self.log.offset_for_timestamp(time, self.isolation).await,
        };
        let found = found.map_err(|_| ErrorCode::KafkaStorageError)?;
        let end = match self.isolation {
            Isolation::ReadCommitted => self.log.last_stable_offset(),
            _ => self.log.high_watermark(),
        };
        Ok(found.filter(|found| found.offset < end))
    }
}

fn find(view: &View, topic: &str, wanted: &ListOffsetsPartition, isolation: Isolation) -> Found {
    let log = view.partition(topic, wanted.partition_index);
    let log = match log.and_then(|log| check_epoch(log, wanted.current_leader_epoch).map(|()| log)) {
        Ok(log) => log,
        Err(error) => return Found::Known(Err(error)),
    };
    if log.offline().is_some() && log.log_end_offset() == 0 {
        return Found::Known(Err(ErrorCode::KafkaStorageError));
    }
    let at = |offset| {
        let leader_epoch = log.leader_epoch();
        Found::Known(Ok(Some(TimestampOffset { timestamp: -1, offset, leader_epoch })))
    };
    match wanted.timestamp {
        LATEST if isolation == Isolation::ReadCommitted => at(log.last_stable_offset()),
        LATEST => at(log.high_watermark()),
        EARLIEST | EARLIEST_LOCAL => at(log.log_start_offset()),
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => Found::Known(Ok(None)),
        timestamp if timestamp >= 0 || timestamp == MAX_TIMESTAMP => {
            Found::BySearch(Search { log: log.clone(), timestamp, isolation })
        }
        _ => Found::Known(Err(ErrorCode::UnsupportedVersion)),
    }
}
