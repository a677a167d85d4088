//! What an answer about one batch means for it. Pure.

use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::produce::PartitionProduceResponse;

use super::delivery::Acknowledged;
use crate::error::{ProduceError, RequestError};
use crate::types::TopicPartition;

/// What to do with a batch that came back.
#[derive(Debug)]
pub(super) enum Verdict {
    Acknowledged(Acknowledged),
    /// Send it again. The broker may have it already; the leader may have moved.
    Retry {
        possibly_written: bool,
        refresh: bool,
        why: Arc<str>,
    },
    /// The broker does not know this producer's sequences any more.
    IdentityLost {
        code: ErrorCode,
    },
    Failed(ProduceError),
}

/// Reads one partition's part of an answer. `first` tells whether no earlier batch of the partition is under way;
/// `possibly_written` what is known from earlier attempts.
pub(super) fn judge(
    partition: &TopicPartition,
    answer: &PartitionProduceResponse,
    first: bool,
    possibly_written: bool,
) -> Verdict {
    let code = ErrorCode::from_code(answer.error_code);
    let retry = |possibly_written, refresh| Verdict::Retry {
        possibly_written,
        refresh,
        why: Arc::from(format!("the broker answered {code}")),
    };
    match code {
        // The broker has it from an earlier attempt, too long ago to know the offset.
        ErrorCode::None | ErrorCode::DuplicateSequenceNumber => Verdict::Acknowledged(Acknowledged {
            base_offset: if code == ErrorCode::None { answer.base_offset } else { -1 },
            log_append_time_ms: Some(answer.log_append_time_ms).filter(|&time| time >= 0),
        }),
        // An earlier batch failed, and this one only came too soon.
        ErrorCode::OutOfOrderSequenceNumber if !first => retry(false, false),
        ErrorCode::OutOfOrderSequenceNumber
        | ErrorCode::UnknownProducerId
        | ErrorCode::InvalidProducerEpoch
        | ErrorCode::InvalidProducerIdMapping
        | ErrorCode::ProducerFenced => Verdict::IdentityLost { code },
        ErrorCode::NotLeaderOrFollower
        | ErrorCode::UnknownTopicOrPartition
        | ErrorCode::UnknownTopicId
        | ErrorCode::LeaderNotAvailable
        | ErrorCode::FencedLeaderEpoch
        | ErrorCode::UnknownLeaderEpoch => retry(false, true),
        // Appended at the leader, but not acknowledged as asked.
        ErrorCode::RequestTimedOut
        | ErrorCode::NotEnoughReplicasAfterAppend
        | ErrorCode::KafkaStorageError => retry(true, true),
        _ if code.is_retriable() => retry(false, false),
        _ => Verdict::Failed(ProduceError::Broker {
            partition: partition.clone(),
            code,
            message: answer.error_message.as_ref().map(|message| Arc::from(&**message)),
            possibly_written,
        }),
    }
}

/// What a request without a usable answer means for each of its batches.
pub(super) fn judge_failure(
    partition: &TopicPartition,
    error: &RequestError,
    possibly_written: bool,
) -> Verdict {
    match error {
        RequestError::Encode { .. } | RequestError::Unsupported { .. } | RequestError::Closed => {
            Verdict::Failed(ProduceError::Request {
                partition: partition.clone(),
                source: error.clone(),
                possibly_written,
            })
        }
        // Whatever went wrong on the connection, another one may do.
        _ => Verdict::Retry {
            possibly_written: error.may_have_been_executed(),
            refresh: true,
            why: Arc::from(error.to_string()),
        },
    }
}
