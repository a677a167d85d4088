//! What goes into the group coordinator and what comes out of it.

use std::sync::Arc;

use bytes::Bytes;
use klamm_protocol::{ErrorCode, Uuid};

use super::member::Protocol;
use super::offset_calls::{Commit, FetchOffsets, FetchedTopic};
use crate::controller::View;
use crate::coordinator::Producer;

/// Something that the coordinator is asked to do. The last three come from the broker itself and are not answered.
#[derive(Debug)]
pub(super) enum Command {
    /// Answered with [`Reply::Join`] when the next generation begins.
    Join(JoinGroup),
    /// Answered with [`Reply::Sync`] when the leader has assigned.
    Sync(SyncGroup),
    /// Answered with one code.
    Heartbeat {
        /// The group.
        group: String,
        /// Who.
        caller: Caller,
    },
    /// Answered with one code for each caller.
    Leave {
        /// The group.
        group: String,
        /// Who.
        callers: Vec<Caller>,
    },
    /// Answered with one code for each offset.
    Commit {
        /// The group.
        group: String,
        /// Who.
        caller: Caller,
        /// The offsets.
        commits: Vec<Commit>,
    },
    /// Answered with one code for each offset. They count when the transaction is committed.
    CommitInTransaction {
        /// The group.
        group: String,
        /// Who.
        caller: Caller,
        /// Whose transaction.
        producer: Producer,
        /// The number of the last marker when it was asked whether the transaction is open.
        marker: u64,
        /// The offsets.
        commits: Vec<Commit>,
    },
    /// A transaction has been decided. Answered with one code.
    EndTransaction {
        /// Whose.
        producer: Producer,
        /// Commit, or abort.
        commit: bool,
    },
    /// Answered with [`Reply::Offsets`].
    Fetch(FetchOffsets),
    /// Answered with one code, when the group is durably gone.
    DeleteGroup {
        /// The group.
        group: String,
    },
    /// Answered with [`Reply::Deleted`].
    DeleteOffsets {
        /// The group.
        group: String,
        /// Topics with their partitions.
        topics: Vec<(String, Vec<i32>)>,
    },
    /// A topic is gone.
    TopicDeleted {
        /// Its id.
        id: Uuid,
        /// Its name.
        name: String,
    },
    /// The partition has been loaded: how the topics are now.
    Loaded(Arc<View>),
    /// Forget what is too old, and what is left of topics that are gone.
    Expire(Arc<View>),
}

/// A JoinGroup request.
#[derive(Debug, Clone)]
pub(crate) struct JoinGroup {
    /// The group.
    pub group: String,
    /// Empty when the caller has none yet.
    pub member_id: String,
    /// `group.instance.id`: makes the member static.
    pub instance_id: Option<String>,
    /// Name the client gives itself; begins the member id.
    pub client_id: String,
    /// Where the client is.
    pub client_host: String,
    /// A name never used before, to end a new member id.
    pub fresh_id: String,
    /// The client can ask again with the id it is given (v4 and later, KIP-394).
    pub knows_member_id_required: bool,
    /// The client can be told to leave the assignment alone (v9 and later, KIP-814).
    pub knows_skip_assignment: bool,
    /// Silence after which the member is given up, in milliseconds.
    pub session_timeout_ms: i32,
    /// How long the member may take to rejoin, in milliseconds.
    pub rebalance_timeout_ms: i32,
    /// For instance `consumer`.
    pub protocol_type: String,
    /// In order of preference.
    pub protocols: Vec<Protocol>,
}

/// The answer to a JoinGroup request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinReply {
    /// `None` (no error) or why not.
    pub error: ErrorCode,
    /// The generation joined; -1 on error.
    pub generation: i32,
    /// The group's protocol type; `None` on error.
    pub protocol_type: Option<String>,
    /// The protocol chosen; `None` on error.
    pub protocol: Option<String>,
    /// The leader's member id.
    pub leader: String,
    /// The caller's member id.
    pub member_id: String,
    /// The leader shall not compute an assignment (KIP-814).
    pub skip_assignment: bool,
    /// All members, for the leader only.
    pub members: Vec<JoinedMember>,
}

impl JoinReply {
    /// A refusal.
    pub(crate) fn error(error: ErrorCode, member_id: impl Into<String>) -> Self {
        Self {
            error,
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: String::new(),
            member_id: member_id.into(),
            skip_assignment: false,
            members: Vec::new(),
        }
    }
}

/// A member as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinedMember {
    /// Member id.
    pub id: String,
    /// `group.instance.id`.
    pub instance_id: Option<String>,
    /// What the member said of itself under the chosen protocol.
    pub metadata: Bytes,
}

/// A SyncGroup request.
#[derive(Debug, Clone)]
pub(crate) struct SyncGroup {
    /// The group.
    pub group: String,
    /// The generation joined.
    pub generation: i32,
    /// Member id.
    pub member_id: String,
    /// `group.instance.id`.
    pub instance_id: Option<String>,
    /// Checked against the group's when given (v5 and later).
    pub protocol_type: Option<String>,
    /// Checked against the group's when given (v5 and later).
    pub protocol: Option<String>,
    /// Member id and assignment, from the leader only.
    pub assignments: Vec<(String, Bytes)>,
}

/// The answer to a SyncGroup request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyncReply {
    /// `None` (no error) or why not.
    pub error: ErrorCode,
    /// The group's protocol type.
    pub protocol_type: Option<String>,
    /// The group's protocol.
    pub protocol: Option<String>,
    /// The caller's assignment.
    pub assignment: Bytes,
}

impl SyncReply {
    /// A refusal.
    pub(crate) fn error(error: ErrorCode) -> Self {
        Self { error, protocol_type: None, protocol: None, assignment: Bytes::new() }
    }
}

/// Who calls: part of Heartbeat, OffsetCommit and LeaveGroup.
#[derive(Debug, Clone, Default)]
pub(crate) struct Caller {
    /// Member id.
    pub member_id: String,
    /// `group.instance.id`.
    pub instance_id: Option<String>,
    /// The generation joined; negative for a consumer outside group management.
    pub generation: i32,
}

/// The answer to a [`Command`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// To a JoinGroup.
    Join(JoinReply),
    /// To a SyncGroup.
    Sync(SyncReply),
    /// To a Heartbeat one, to a LeaveGroup and an OffsetCommit one for each member or offset.
    Codes(Vec<ErrorCode>),
    /// To an OffsetDelete: one code for each partition, or why none is deleted.
    Deleted(Result<Vec<ErrorCode>, ErrorCode>),
    /// To an OffsetFetch.
    Offsets(Vec<FetchedTopic>),
}
