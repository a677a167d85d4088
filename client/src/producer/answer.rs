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
    /// Too large for the broker: send it in parts, or fail when it has none.
    TooLarge(ProduceError),
    /// The broker does not accept this producer's sequences any more.
    IdentityLost {
        code: ErrorCode,
        loss: Loss,
    },
    Failed(ProduceError),
}

/// How an identity was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// The broker knows other sequences: it does not have this batch. The next epoch helps.
    OutOfOrder,
    /// The broker knows nothing of the producer, also not whether it has this batch. The next epoch helps.
    Forgotten,
    /// Only another producer id helps.
    Fenced,
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
    let refused = || ProduceError::Broker {
        partition: partition.clone(),
        code,
        message: answer.error_message.as_ref().map(|message| Arc::from(&**message)),
        possibly_written,
    };
    match code {
        // With the second, the broker has it from an earlier attempt, too long ago to know the offset.
        ErrorCode::None | ErrorCode::DuplicateSequenceNumber => Verdict::Acknowledged(Acknowledged {
            base_offset: if code == ErrorCode::None { answer.base_offset } else { -1 },
            log_append_time_ms: Some(answer.log_append_time_ms).filter(|&time| time >= 0),
        }),
        // An earlier batch failed, and this one only came too soon.
        ErrorCode::OutOfOrderSequenceNumber if !first => retry(false, false),
        ErrorCode::OutOfOrderSequenceNumber => Verdict::IdentityLost { code, loss: Loss::OutOfOrder },
        ErrorCode::UnknownProducerId => Verdict::IdentityLost { code, loss: Loss::Forgotten },
        ErrorCode::InvalidProducerEpoch | ErrorCode::InvalidProducerIdMapping | ErrorCode::ProducerFenced => {
            Verdict::IdentityLost { code, loss: Loss::Fenced }
        }
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge => Verdict::TooLarge(refused()),
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
        _ => Verdict::Failed(refused()),
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

#[cfg(test)]
mod tests {
    use klamm_protocol::ApiKey;

    use super::*;

    fn told(code: ErrorCode, first: bool) -> String {
        let answer = PartitionProduceResponse {
            error_code: code.code(),
            base_offset: 5,
            log_append_time_ms: if first { 7 } else { -1 },
            error_message: Some("why".into()),
            ..Default::default()
        };
        match judge(&TopicPartition::new("t", 0), &answer, first, true) {
            Verdict::Acknowledged(Acknowledged { base_offset, log_append_time_ms }) => {
                format!("at {base_offset}, {log_append_time_ms:?}")
            }
            Verdict::Retry { possibly_written, refresh, why } => {
                assert!(why.contains(&code.to_string()));
                format!("again, written {possibly_written}, refresh {refresh}")
            }
            Verdict::TooLarge(error) => format!("too large: {}", error.may_have_been_written()),
            Verdict::IdentityLost { code: told, loss } => {
                assert_eq!(told, code);
                format!("lost: {loss:?}")
            }
            Verdict::Failed(error) => {
                assert!(error.to_string().ends_with(": why"), "{error}");
                format!("failed: {}", error.may_have_been_written())
            }
        }
    }

    #[test]
    fn every_answer_means_something() {
        use ErrorCode as E;
        assert_eq!(told(E::None, true), "at 5, Some(7)");
        assert_eq!(told(E::None, false), "at 5, None");
        assert_eq!(told(E::DuplicateSequenceNumber, false), "at -1, None");
        assert_eq!(told(E::OutOfOrderSequenceNumber, false), "again, written false, refresh false");
        assert_eq!(told(E::OutOfOrderSequenceNumber, true), "lost: OutOfOrder");
        assert_eq!(told(E::UnknownProducerId, false), "lost: Forgotten");
        for code in [E::InvalidProducerEpoch, E::InvalidProducerIdMapping, E::ProducerFenced] {
            assert_eq!(told(code, true), "lost: Fenced");
        }
        for code in [E::MessageTooLarge, E::RecordListTooLarge] {
            assert_eq!(told(code, true), "too large: true");
        }
        for code in [
            E::NotLeaderOrFollower,
            E::UnknownTopicOrPartition,
            E::UnknownTopicId,
            E::LeaderNotAvailable,
            E::FencedLeaderEpoch,
            E::UnknownLeaderEpoch,
        ] {
            assert_eq!(told(code, true), "again, written false, refresh true");
        }
        for code in [E::RequestTimedOut, E::NotEnoughReplicasAfterAppend, E::KafkaStorageError] {
            assert_eq!(told(code, true), "again, written true, refresh true");
        }
        assert_eq!(told(E::NotEnoughReplicas, true), "again, written false, refresh false");
        assert_eq!(told(E::TopicAuthorizationFailed, true), "failed: true");
    }

    #[test]
    fn a_request_without_an_answer_is_tried_again_unless_that_is_of_no_use() {
        let partition = TopicPartition::new("t", 0);
        let address: Arc<str> = Arc::from("a:1");
        let lost = RequestError::Disconnected { address: Arc::clone(&address), reason: "gone".into() };
        match judge_failure(&partition, &lost, false) {
            Verdict::Retry { possibly_written: true, refresh: true, why } => assert!(why.contains("gone")),
            other => panic!("{other:?}"),
        }
        let refused = RequestError::Connect {
            address: Arc::clone(&address),
            source: Arc::new(std::io::ErrorKind::ConnectionRefused.into()),
        };
        assert!(matches!(
            judge_failure(&partition, &refused, true),
            Verdict::Retry { possibly_written: false, refresh: true, .. }
        ));
        let api = ApiKey::Produce;
        for error in [
            RequestError::Closed,
            RequestError::Unsupported { address: Arc::clone(&address), api },
            RequestError::Encode { address, api, reason: "no".into() },
        ] {
            match judge_failure(&partition, &error, true) {
                Verdict::Failed(error) => assert!(error.may_have_been_written()),
                other => panic!("{other:?}"),
            }
        }
    }
}
