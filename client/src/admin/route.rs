//! Who answers for an item, and which errors say that it is somebody else, or not yet (pure).

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use klamm_protocol::ErrorCode;

use crate::types::TopicPartition;

/// What a call asks about, one by one: a topic, a partition, a group, a broker.
pub(super) trait Item: Clone + Debug + Ord + Hash + Send + Sync {
    /// Its name in errors.
    fn name(&self) -> Arc<str>;
}

impl Item for Arc<str> {
    fn name(&self) -> Arc<str> {
        Arc::clone(self)
    }
}

impl Item for TopicPartition {
    fn name(&self) -> Arc<str> {
        self.to_string().into()
    }
}

/// A broker.
impl Item for i32 {
    fn name(&self) -> Arc<str> {
        format!("broker {self}").into()
    }
}

/// The cluster as a whole.
impl Item for () {
    fn name(&self) -> Arc<str> {
        Arc::from("the cluster")
    }
}

/// What a coordinator is looked for by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum KeyType {
    Group = 0,
    Transaction = 1,
}

/// Who answers for an item.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Destination {
    /// Any broker: all of them know, or pass it on.
    Any,
    Controller,
    Broker(i32),
    Leader(TopicPartition),
    Coordinator(KeyType, Arc<str>),
}

impl Destination {
    /// Whether a broker's error means that another attempt, perhaps at another broker, can succeed.
    ///
    /// Errors that are temporary in other places are final here: a topic that does not exist will not come to be
    /// because somebody wants to delete it.
    pub(super) fn may_try_again(&self, code: ErrorCode) -> bool {
        use ErrorCode as E;
        let everywhere = [E::CoordinatorLoadInProgress, E::CoordinatorNotAvailable];
        let here: &[ErrorCode] = match self {
            Self::Any | Self::Controller => &[E::NotController, E::ThrottlingQuotaExceeded],
            Self::Broker(_) => &[],
            Self::Coordinator(..) => &[E::NotCoordinator, E::ConcurrentTransactions],
            Self::Leader(_) => &[
                E::NotLeaderOrFollower,
                E::LeaderNotAvailable,
                E::ReplicaNotAvailable,
                E::FencedLeaderEpoch,
                E::UnknownLeaderEpoch,
                E::OffsetNotAvailable,
                E::KafkaStorageError,
                E::UnknownTopicOrPartition,
            ],
        };
        everywhere.contains(&code) || here.contains(&code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_temporary_only_where_another_attempt_can_cure_them() {
        let leader = Destination::Leader(TopicPartition::new("t", 0));
        let group = Destination::Coordinator(KeyType::Group, "g".into());
        let (any, controller, broker) = (Destination::Any, Destination::Controller, Destination::Broker(1));
        let everyone = [&leader, &group, &any, &controller, &broker];
        let cases: [(ErrorCode, &[&Destination]); 14] = [
            (ErrorCode::CoordinatorLoadInProgress, &everyone),
            (ErrorCode::CoordinatorNotAvailable, &everyone),
            (ErrorCode::NotController, &[&any, &controller]),
            (ErrorCode::ThrottlingQuotaExceeded, &[&any, &controller]),
            (ErrorCode::NotCoordinator, &[&group]),
            (ErrorCode::ConcurrentTransactions, &[&group]),
            (ErrorCode::NotLeaderOrFollower, &[&leader]),
            (ErrorCode::LeaderNotAvailable, &[&leader]),
            (ErrorCode::ReplicaNotAvailable, &[&leader]),
            (ErrorCode::FencedLeaderEpoch, &[&leader]),
            (ErrorCode::UnknownLeaderEpoch, &[&leader]),
            (ErrorCode::OffsetNotAvailable, &[&leader]),
            (ErrorCode::KafkaStorageError, &[&leader]),
            (ErrorCode::UnknownTopicOrPartition, &[&leader]),
        ];
        for &code in ErrorCode::ALL {
            let temporary = cases.iter().find(|(known, _)| *known == code).map_or(&[][..], |(_, at)| at);
            for destination in everyone {
                assert_eq!(
                    destination.may_try_again(code),
                    temporary.contains(&destination),
                    "{code} {destination:?}"
                );
            }
        }
    }

    #[test]
    fn items_have_names() {
        assert_eq!(&*Arc::<str>::from("g").name(), "g");
        assert_eq!(&*TopicPartition::new("t", 3).name(), "t-3");
        assert_eq!(&*7.name(), "broker 7");
        assert_eq!(&*().name(), "the cluster");
    }
}
