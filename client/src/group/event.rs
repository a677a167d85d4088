//! What a group member is told and what it asks for: the inputs and outputs of the pure core in `member.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_protocol::ErrorCode;
use tokio::time::Instant;

use super::protocol::MemberShare;
use super::strategy::{Shares, Strategy};
use crate::error::RequestError;
use crate::runtime::Rng;
use crate::types::TopicPartition;

/// What a membership is set up with.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) protocol: GroupProtocol,
    /// The assignors that this member offers, best first. Never empty.
    pub(crate) strategies: Vec<Strategy>,
    pub(crate) session_timeout: Duration,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) rebalance_timeout: Duration,
    /// The first and the longest pause after failures.
    pub(crate) retry_backoff: (Duration, Duration),
    /// A static member stays in its group when it closes, unless it is told to leave.
    pub(crate) is_static: bool,
    pub(crate) rack: Option<Arc<str>>,
    /// Whether naming a topic may create it.
    pub(crate) create_topics: bool,
    pub(crate) rng: Arc<dyn Rng>,
}

/// How members and coordinator agree (`group.protocol`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum GroupProtocol {
    /// A leader among the members shares out partitions, in generations. Every broker speaks it.
    #[default]
    Classic,
    /// The coordinator shares them out, member by member, without a stop of the group (KIP-848). Apache Kafka from
    /// 4.0.
    Consumer,
}

/// A request that failed: on the way, or by the coordinator's word.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    Request(RequestError),
    Coordinator { code: ErrorCode, member_id: Option<Arc<str>> },
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

/// A new generation, as its members hear of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) generation: i32,
    pub(crate) member_id: Arc<str>,
    /// This member leads: it shares out the partitions, unless the coordinator knows them already (KIP-814).
    pub(crate) leads: bool,
    pub(crate) skip_assignment: bool,
    /// The assignor that the coordinator has chosen.
    pub(crate) assignor: Arc<str>,
    /// All members, for the leader.
    pub(crate) members: Vec<JoinedMember>,
}

/// A member as the coordinator shows it to the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinedMember {
    pub(crate) id: Arc<str>,
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) metadata: Bytes,
}

/// What a coordinator that assigns by itself answers to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Beat {
    pub(crate) member_id: Arc<str>,
    pub(crate) epoch: i32,
    pub(crate) interval: Duration,
    /// What this member is to own; `None` when nothing changed.
    pub(crate) assignment: Option<Vec<TopicPartition>>,
}

/// What is known of topics that matter to the group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Topics {
    /// Partition counts of those that can be used.
    pub(crate) counts: BTreeMap<Arc<str>, i32>,
    /// Those that the cluster refuses for good.
    pub(crate) refused: BTreeMap<Arc<str>, ErrorCode>,
}

/// What happened.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Started,
    CoordinatorFound,
    CoordinatorFailed(Failure),
    /// Answers carry the attempt of their request: those of an attempt that was given up count for nothing.
    JoinAnswered(u64, Result<Joined, Failure>),
    /// With what this member gets.
    SyncAnswered(u64, Result<MemberShare, Failure>),
    HeartbeatAnswered(u64, Result<(), Failure>),
    /// Of the protocol in which the coordinator assigns.
    BeatAnswered(u64, Result<Beat, Failure>),
    LeaveAnswered,
    /// The call that was asked for last is over.
    ListenerReturned,
    /// The answer to [`Effect::AskTopics`].
    TopicsAnswered(u64, Result<Topics, RequestError>),
    /// Something changed in what [`Member::watched`](super::member::Member::watched) names.
    TopicsChanged(Topics),
    SubscriptionChanged(Vec<Arc<str>>),
    /// There is something new to tell the leader: the group is to share out anew.
    Rejoin,
    /// Give up everything and leave by then. Whether to leave although the member is static.
    Close {
        deadline: Instant,
        leave: bool,
    },
    /// It is [`Member::wake_at`](super::member::Member::wake_at).
    Time,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    FindCoordinator,
    /// With what the member tells the leader, by assignor.
    SendJoin {
        attempt: u64,
        member_id: Arc<str>,
        protocols: Vec<(Arc<str>, Bytes)>,
    },
    SendSync {
        attempt: u64,
        member_id: Arc<str>,
        generation: i32,
        assignor: Arc<str>,
        assignment: Shares,
    },
    SendHeartbeat {
        attempt: u64,
        member_id: Arc<str>,
        generation: i32,
    },
    /// A heartbeat of the protocol in which the coordinator assigns.
    SendBeat {
        attempt: u64,
        member_id: Arc<str>,
        epoch: i32,
        /// The subscription, and what is owned, when they are to be told (again).
        topics: Option<Vec<Arc<str>>>,
        owned: Option<Vec<TopicPartition>>,
    },
    SendLeave {
        member_id: Arc<str>,
        /// -1 for good, -2 for a static member that may come back (KIP-848 alone asks).
        epoch: i32,
    },
    /// From now on nothing of these is handed out; they are still owned.
    StopHandingOut(Vec<TopicPartition>),
    /// What is processed is committed, then the listener is told. Over at the deadline at the latest.
    CallRevoked(Vec<TopicPartition>, Instant),
    CallLost(Vec<TopicPartition>, Instant),
    /// These are owned from now on, and fetched when the listener has returned.
    CallAssigned(Vec<TopicPartition>, Instant),
    /// The listener has returned: fetch them.
    StartFetching(Vec<TopicPartition>),
    /// Not owned any more.
    Release(Vec<TopicPartition>),
    /// Who commits from now on.
    Identify {
        member_id: Arc<str>,
        generation: i32,
    },
    AskTopics {
        ask: u64,
        topics: Vec<Arc<str>>,
        create: bool,
    },
    Report(Report),
    /// The membership is over.
    Done,
}

/// What the program is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    /// The group refuses this member for good.
    Refused(ErrorCode),
    /// A topic of the subscription cannot be read.
    Topic(Arc<str>, ErrorCode),
}

/// Whether a broker says that it does not coordinate the group (now).
pub(crate) fn moved(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable)
}

/// Whether what was asked may be asked again: also of a broker that does not know what went wrong, which says nothing
/// about the next try.
pub(crate) fn passes(code: ErrorCode) -> bool {
    code.is_retriable() || code == ErrorCode::UnknownServerError
}

/// In order, as they go into effects.
pub(super) fn listed(partitions: &BTreeSet<TopicPartition>) -> Vec<TopicPartition> {
    partitions.iter().cloned().collect()
}
