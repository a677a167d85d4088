//! DescribeProducers, key 61: version 0.
//!
//! The producers that a partition remembers, each with its last sequence number, when the broker heard of it last, and
//! where its open transaction begins: what an operator looks at who searches for a transaction that hangs. A partition
//! that is named twice is refused with INVALID_REQUEST, and one whose producers do not fit into the answer
//! ([`PRODUCERS_MAX`]) is to be asked for again, with fewer beside it.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::messages::describe_producers::{PartitionResponse, ProducerState, TopicResponse};
use klamm_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse};
use klamm_protocol::{ErrorCode, Utf8Bytes};

use super::{Answer, Call, Context, Refusal};
use crate::partition::{ActiveProducer, Partition};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=0;

/// How many producers an answer has at most, unless the first partition alone has more: some 50 MB.
const PRODUCERS_MAX: usize = 500_000;

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: DescribeProducersRequest = call.decode()?;
    let view = context.view();
    let mut seen: HashSet<(Utf8Bytes, i32)> = HashSet::new();
    let mut asked = Vec::new();
    let mut response = DescribeProducersResponse::default();
    for topic in request.topics {
        let mut logs = Vec::with_capacity(topic.partition_indexes.len());
        for index in topic.partition_indexes {
            let log = match seen.insert((topic.name.clone(), index)) {
                true => view.partition(&topic.name, index).cloned(),
                false => Err(ErrorCode::InvalidRequest),
            };
            logs.push((index, log));
        }
        asked.push(logs);
        // A copy: the disk may take long, and the name would keep the request's frame.
        let name = topic.name.to_string().into();
        response.topics.push(TopicResponse { name, ..TopicResponse::default() });
    }
    let reply = call.reply();
    Ok(Answer::later(held_bytes(&response, &asked), async move {
        let mut room = Room::new(PRODUCERS_MAX);
        for (topic, logs) in response.topics.iter_mut().zip(asked) {
            for (index, log) in logs {
                topic.partitions.push(answer(index, log, &mut room).await);
            }
        }
        reply.encode(&response).map(Some)
    }))
}

type Asked = Vec<(i32, Result<Arc<Partition>, ErrorCode>)>;

/// What is held until it is answered; the producers are asked for then.
fn held_bytes(response: &DescribeProducersResponse, asked: &[Asked]) -> usize {
    const PARTITION: usize = size_of::<PartitionResponse>() + size_of::<Asked>();
    let names = response.topics.iter().map(|topic| size_of::<TopicResponse>() + topic.name.len());
    names.sum::<usize>() + asked.iter().map(|logs| logs.len() * PARTITION).sum::<usize>()
}

async fn answer(
    partition_index: i32,
    log: Result<Arc<Partition>, ErrorCode>,
    room: &mut Room,
) -> PartitionResponse {
    let answered = PartitionResponse { partition_index, ..PartitionResponse::default() };
    let failed = |error: ErrorCode, message: String| PartitionResponse {
        error_code: error.code(),
        error_message: Some(message.into()),
        ..answered.clone()
    };
    let log = match log {
        Ok(log) => log,
        Err(ErrorCode::InvalidRequest) => {
            return failed(ErrorCode::InvalidRequest, "the partition is named twice".to_owned());
        }
        Err(error) => return failed(error, "there is no such partition here".to_owned()),
    };
    let producers = match log.active_producers().await {
        Ok(producers) => producers,
        Err(error) => return failed(ErrorCode::KafkaStorageError, error.to_string()),
    };
    if !room.take(producers.len()) {
        let message = format!("more than {PRODUCERS_MAX} producers in all: ask for fewer partitions at once");
        return failed(ErrorCode::ThrottlingQuotaExceeded, message);
    }
    PartitionResponse { active_producers: producers.iter().map(state).collect(), ..answered }
}

fn state(producer: &ActiveProducer) -> ProducerState {
    ProducerState {
        producer_id: producer.producer_id,
        producer_epoch: producer.producer_epoch.into(),
        last_sequence: producer.last_sequence,
        last_timestamp: producer.last_timestamp,
        coordinator_epoch: producer.coordinator_epoch,
        current_txn_start_offset: producer.current_txn_start_offset,
        ..ProducerState::default()
    }
}

/// How many producers the answer may still have.
struct Room {
    left: usize,
    taken: bool,
}

impl Room {
    fn new(most: usize) -> Self {
        Self { left: most, taken: false }
    }

    /// Whether so many more fit; the first always do.
    fn take(&mut self, count: usize) -> bool {
        let fits = count <= self.left || !self.taken;
        if fits {
            self.left = self.left.saturating_sub(count);
            self.taken |= count > 0;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_producers_always_fit_and_then_there_is_a_limit() {
        let mut room = Room::new(10);
        assert_eq!([0, 12, 0, 1].map(|count| room.take(count)), [true, true, true, false]);
        let mut room = Room::new(10);
        assert_eq!([4, 7, 6, 1, 0].map(|count| room.take(count)), [true, false, true, false, true]);
    }
}
