//! Why reading from a share group, or acknowledging to it, failed.

use std::sync::Arc;

use klamm_protocol::ErrorCode;

use super::request::RequestError;
use crate::types::TopicPartition;

/// Why reading from a share group, or acknowledging to it, failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// This consumer does not hold the record any more: its lock ran out (the group's `share.record.lock.duration.ms`),
    /// or the connection to its leader was lost. Nothing is said of it; it comes again, to any member, unless it had
    /// its last delivery.
    #[error(
        "{partition}: the record at offset {offset} is not locked for this consumer any more \
         (renew what takes longer than the group's `share.record.lock.duration.ms`)"
    )]
    LockLost {
        /// The partition.
        partition: TopicPartition,
        /// The record's offset.
        offset: i64,
    },
    /// What was said of records did not reach the group: they come again, to any member, unless they had their last
    /// delivery.
    #[error(
        "{partition}: {records} acknowledgements came to nothing: {reason}{}",
        if *.possibly_acknowledged { "; the group may have them all the same" } else { "" }
    )]
    NotAcknowledged {
        /// The partition.
        partition: TopicPartition,
        /// How many records it is about.
        records: u64,
        /// Why.
        reason: Arc<str>,
        /// Whether the group may have taken them: the answer got lost.
        possibly_acknowledged: bool,
    },
    /// Some of the records that were acquired cannot be read: a checksum, a compression or a layout is wrong. They are
    /// released, and the group gives them up after their last delivery.
    #[error("{partition}: the records from offset {offset} to {last_offset} cannot be read: {reason}")]
    Corrupt {
        /// The partition.
        partition: TopicPartition,
        /// The first offset of what came together.
        offset: i64,
        /// The last offset of it.
        last_offset: i64,
        /// What is wrong.
        reason: Arc<str>,
    },
    /// The leader of a partition answered with an error that retrying does not cure. The consumer goes on with the
    /// others.
    #[error("{partition}: the broker answered {code}")]
    Fetch {
        /// The partition.
        partition: TopicPartition,
        /// Kafka's error code.
        code: ErrorCode,
    },
    /// A leader refuses all requests of this consumer.
    #[error("broker {node} answered {code}")]
    Refused {
        /// The broker's id.
        node: i32,
        /// Kafka's error code.
        code: ErrorCode,
    },
    /// The group refuses this member for good.
    #[error("share group {group}: {code}{}", hint(*code))]
    Group {
        /// The group.
        group: Arc<str>,
        /// Kafka's error code.
        code: ErrorCode,
    },
    /// The broker cannot prolong locks: Apache Kafka can from 4.2.
    #[error("{partition}: its leader cannot renew locks, a newer broker can")]
    CannotRenew {
        /// The partition.
        partition: TopicPartition,
    },
    /// A request failed.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The consumer is closed.
    #[error("the share consumer is closed")]
    Closed,
}

impl ShareError {
    /// Whether the consumer goes on by itself, or the same call may succeed later. What was said of a record that is
    /// not locked any more can never be said again.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Request(error) => error.is_retriable(),
            Self::Fetch { code, .. } | Self::Refused { code, .. } | Self::Group { code, .. } => {
                code.is_retriable()
            }
            Self::LockLost { .. }
            | Self::NotAcknowledged { .. }
            | Self::Corrupt { .. }
            | Self::CannotRenew { .. }
            | Self::Closed => false,
        }
    }

    /// Whether the consumer has stopped: nothing more will come from it.
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Group { .. } | Self::Closed => true,
            Self::Refused { code, .. } => {
                matches!(code, ErrorCode::GroupAuthorizationFailed | ErrorCode::UnsupportedVersion)
            }
            Self::Request(error) => !error.is_retriable(),
            _ => false,
        }
    }

    /// Whether the group may have taken the acknowledgement all the same.
    pub fn may_have_been_acknowledged(&self) -> bool {
        match self {
            Self::NotAcknowledged { possibly_acknowledged, .. } => *possibly_acknowledged,
            Self::Request(error) => error.may_have_been_executed(),
            _ => false,
        }
    }
}

/// What to do about the group errors that users meet.
fn hint(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::UnsupportedVersion => {
            " (share groups are not enabled: `kafka-features.sh upgrade --feature share.version=1`)"
        }
        ErrorCode::GroupIdNotFound | ErrorCode::InconsistentGroupProtocol => {
            " (there is a group of another kind with this name)"
        }
        ErrorCode::GroupMaxSizeReached => " (the broker limits it: `group.share.max.size`)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_whether_the_consumer_goes_on() {
        let partition = || TopicPartition::new("t", 0);
        let group = |code| ShareError::Group { group: "g".into(), code };
        let refused = |code| ShareError::Refused { node: 1, code };
        let lost = |possibly_acknowledged| ShareError::NotAcknowledged {
            partition: partition(),
            records: 2,
            reason: "no answer".into(),
            possibly_acknowledged,
        };
        // Retriable, fatal, perhaps acknowledged.
        let cases = [
            (ShareError::LockLost { partition: partition(), offset: 3 }, [false, false, false]),
            (lost(true), [false, false, true]),
            (lost(false), [false, false, false]),
            (
                ShareError::Fetch { partition: partition(), code: ErrorCode::NotLeaderOrFollower },
                [true, false, false],
            ),
            (refused(ErrorCode::ShareSessionNotFound), [true, false, false]),
            (refused(ErrorCode::GroupAuthorizationFailed), [false, true, false]),
            (refused(ErrorCode::UnsupportedVersion), [false, true, false]),
            (refused(ErrorCode::InvalidRequest), [false, false, false]),
            (group(ErrorCode::UnsupportedVersion), [false, true, false]),
            (ShareError::CannotRenew { partition: partition() }, [false, false, false]),
            (ShareError::Request(RequestError::UnknownNode { node: 1 }), [true, false, false]),
            (ShareError::Request(RequestError::Closed), [false, true, false]),
            (ShareError::Closed, [false, true, false]),
        ];
        for (error, expected) in cases {
            let told = [error.is_retriable(), error.is_fatal(), error.may_have_been_acknowledged()];
            assert_eq!(told, expected, "{error}");
        }
        assert!(lost(true).to_string().ends_with("no answer; the group may have them all the same"));
        assert!(lost(false).to_string().ends_with("no answer"));
        assert!(group(ErrorCode::UnsupportedVersion).to_string().contains("share.version=1"));
        assert!(group(ErrorCode::GroupMaxSizeReached).to_string().contains("group.share.max.size"));
        assert!(group(ErrorCode::GroupIdNotFound).to_string().contains("another kind"));
    }
}
