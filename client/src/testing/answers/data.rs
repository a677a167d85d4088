//! Records in and out: Produce, Fetch, ListOffsets. Pure.

use klamm_protocol::messages::fetch::{
    AbortedTransaction, FetchPartition, FetchableTopicResponse, PartitionData,
};
use klamm_protocol::messages::list_offsets::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use klamm_protocol::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, TopicProduceResponse,
};
use klamm_protocol::messages::{
    FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse, ProduceRequest, ProduceResponse,
};
use klamm_protocol::records::BatchHeader;
use klamm_protocol::{ErrorCode, Records, Uuid};
use tokio::time::Instant;

use super::outcome::Outcome;
use crate::testing::group::milliseconds;
use crate::testing::received::Received;
use crate::testing::script::Verdict;
use crate::testing::state::State;
use crate::testing::transactions::Asker;
use crate::types::TopicPartition;

const READ_COMMITTED: i8 = 1;

pub(super) fn produce(
    state: &mut State,
    received: &Received,
    request: &ProduceRequest,
    verdict: &Verdict,
) -> Outcome {
    let mut response = ProduceResponse::default();
    for topic in &request.topic_data {
        let name = state.resolve(&topic.name, topic.topic_id);
        let mut answered =
            TopicProduceResponse { name: topic.name.clone(), topic_id: topic.topic_id, ..Default::default() };
        for data in &topic.partition_data {
            let result = name.clone().and_then(|name| {
                let refused = verdict.partition(&name, data.index);
                refused
                    .map_or_else(|| append(state, request, &TopicPartition::new(name, data.index), data), Err)
            });
            answered.partition_responses.push(PartitionProduceResponse {
                index: data.index,
                error_code: result.err().unwrap_or(ErrorCode::None).code(),
                base_offset: result.unwrap_or(-1),
                ..Default::default()
            });
        }
        response.responses.push(answered);
    }
    if request.acks == 0 { Outcome::Nothing } else { received.answer(&response) }
}

fn append(
    state: &mut State,
    request: &ProduceRequest,
    partition: &TopicPartition,
    data: &PartitionProduceData,
) -> Result<i64, ErrorCode> {
    if state.is_full() {
        return Err(ErrorCode::KafkaStorageError);
    }
    let batch = data.records.as_ref().and_then(Records::as_bytes).ok_or(ErrorCode::InvalidRecord)?.clone();
    let header = BatchHeader::parse(&batch).map_err(|_| ErrorCode::CorruptMessage)?;
    if header.is_transactional() {
        let asker = Asker {
            transactional_id: request.transactional_id.as_deref().unwrap_or_default(),
            producer_id: header.producer_id,
            epoch: header.producer_epoch,
        };
        state.transactions.may_write(asker, partition)?;
    }
    let max_batch_bytes = state.max_batch_bytes;
    state.log(&partition.topic, partition.partition)?.append(batch, max_batch_bytes)
}

/// Held until there are `min_bytes`, or an error to tell, or the time is over. Sessions are not offered.
pub(super) fn fetch(
    state: &mut State,
    received: &Received,
    request: &FetchRequest,
    verdict: &Verdict,
    arrived: Instant,
    now: Instant,
) -> Outcome {
    let until = arrived + milliseconds(request.max_wait_ms);
    let mut response = FetchResponse::default();
    let (mut bytes, mut is_error) = (0, request.session_id != 0);
    if is_error {
        response.error_code = ErrorCode::FetchSessionIdNotFound.code();
    }
    let mut room = usize::try_from(request.max_bytes).unwrap_or(0);
    for topic in request.topics.iter().filter(|_| request.session_id == 0) {
        let name = state.resolve(&topic.topic, topic.topic_id);
        let mut answered = FetchableTopicResponse {
            topic: topic.topic.clone(),
            topic_id: topic.topic_id,
            ..Default::default()
        };
        for part in &topic.partitions {
            let wanted =
                Wanted { committed: request.isolation_level == READ_COMMITTED, room, first: bytes == 0 };
            let data = name.clone().and_then(|name| {
                let refused = verdict.partition(&name, part.partition);
                refused.map_or_else(|| read(state, &name, part, &wanted), Err)
            });
            let data = data.unwrap_or_else(|code| PartitionData {
                partition_index: part.partition,
                error_code: code.code(),
                high_watermark: -1,
                ..Default::default()
            });
            let size = data.records.as_ref().map_or(0, Records::len);
            is_error |= data.error_code != 0;
            bytes += size;
            room = room.saturating_sub(size);
            answered.partitions.push(data);
        }
        response.responses.push(answered);
    }
    let enough = usize::try_from(request.min_bytes).unwrap_or(0);
    match is_error || bytes >= enough || now >= until {
        true => received.answer(&response),
        false => Outcome::Hold(until),
    }
}

struct Wanted {
    /// Up to the first open transaction only.
    committed: bool,
    room: usize,
    /// Whether nothing has been read yet: then one batch goes out however large it is.
    first: bool,
}

fn read(
    state: &mut State,
    topic: &str,
    part: &FetchPartition,
    wanted: &Wanted,
) -> Result<PartitionData, ErrorCode> {
    let log = state.log(topic, part.partition)?;
    let (high_watermark, last_stable_offset) = (log.end_offset(), log.last_stable_offset());
    let end = if wanted.committed { last_stable_offset } else { high_watermark };
    let max_bytes = usize::try_from(part.partition_max_bytes).unwrap_or(0).min(wanted.room);
    let mut read = log.read(part.fetch_offset, end, max_bytes).ok_or(ErrorCode::OffsetOutOfRange)?;
    if !wanted.first && read.records.len() > max_bytes {
        read.records.clear();
    }
    let aborted = read.aborted.iter().map(|aborted| AbortedTransaction {
        producer_id: aborted.producer_id,
        first_offset: aborted.first_offset,
        ..Default::default()
    });
    Ok(PartitionData {
        partition_index: part.partition,
        high_watermark,
        last_stable_offset,
        log_start_offset: 0,
        aborted_transactions: wanted.committed.then(|| aborted.collect()),
        records: Some(Records::Bytes(read.records)),
        ..Default::default()
    })
}

pub(super) fn list_offsets(
    state: &mut State,
    request: &ListOffsetsRequest,
    verdict: &Verdict,
) -> ListOffsetsResponse {
    let mut response = ListOffsetsResponse::default();
    for topic in &request.topics {
        let name = state.resolve(&topic.name, Uuid::ZERO);
        let mut answered = ListOffsetsTopicResponse { name: topic.name.clone(), ..Default::default() };
        for part in &topic.partitions {
            let found = name.clone().and_then(|name| {
                if let Some(code) = verdict.partition(&name, part.partition_index) {
                    return Err(code);
                }
                let log = state.log(&name, part.partition_index)?;
                let committed = request.isolation_level == READ_COMMITTED;
                let end = if committed { log.last_stable_offset() } else { log.end_offset() };
                Ok(log.offset_of(part.timestamp, end))
            });
            let (offset, timestamp) = found.unwrap_or((-1, -1));
            answered.partitions.push(ListOffsetsPartitionResponse {
                partition_index: part.partition_index,
                error_code: found.err().unwrap_or(ErrorCode::None).code(),
                offset,
                timestamp,
                ..Default::default()
            });
        }
        response.topics.push(answered);
    }
    response
}
