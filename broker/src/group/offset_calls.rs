//! Offsets on their way in and out: what is committed, what is asked for, what is told; and groups as they are shown.

use std::collections::BTreeSet;

use bytes::Bytes;
use klamm_protocol::Uuid;

/// One offset of an OffsetCommit request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Commit {
    /// Topic name.
    pub topic: String,
    /// The topic's id.
    pub topic_id: Uuid,
    /// Partition.
    pub partition: i32,
    /// The next offset to be read.
    pub offset: i64,
    /// Epoch of the record before it; -1 for none.
    pub leader_epoch: i32,
    /// Whatever the consumer wants to keep with it.
    pub metadata: String,
}

/// An offset as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommittedOffset {
    /// The id of the topic; zero when the record does not say, as those of Kafka before 4.1 do not.
    pub topic_id: Uuid,
    /// The next offset to be read.
    pub offset: i64,
    /// Epoch of the record before it; -1 for none.
    pub leader_epoch: i32,
    /// Whatever the consumer wants to keep with it.
    pub metadata: String,
    /// When, in milliseconds since the Unix epoch.
    pub committed_at_ms: i64,
}

/// An OffsetFetch request, for one group.
#[derive(Debug, Clone)]
pub(crate) struct FetchOffsets {
    /// The group.
    pub group: String,
    /// What is asked for; without it everything that is committed.
    pub topics: Option<Vec<FetchTopic>>,
    /// What open transactions may change is not told (KIP-447).
    pub require_stable: bool,
}

/// A topic of an OffsetFetch request.
#[derive(Debug, Clone)]
pub(crate) struct FetchTopic {
    /// Topic name.
    pub name: String,
    /// Its id now: offsets committed for another topic of this name are not its own.
    pub id: Uuid,
    /// Partitions.
    pub partitions: Vec<i32>,
}

/// What is committed for a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FetchedTopic {
    /// Topic name.
    pub name: String,
    /// The id that it had.
    pub id: Uuid,
    /// Partitions with their offsets; all that were asked for, or all that have one.
    pub partitions: Vec<(i32, Option<CommittedOffset>)>,
    /// Those of them that an open transaction may change, when only what is stable was asked for.
    pub unstable: BTreeSet<i32>,
}

/// A group as DescribeGroups shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupDescription {
    /// For instance `Stable`.
    pub state: &'static str,
    /// For instance `consumer`.
    pub protocol_type: String,
    /// The chosen protocol while the group is stable, else empty.
    pub protocol: String,
    /// The members.
    pub members: Vec<MemberDescription>,
}

/// A member as DescribeGroups shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberDescription {
    /// Member id.
    pub id: String,
    /// `group.instance.id`.
    pub instance_id: Option<String>,
    /// Name the client gives itself.
    pub client_id: String,
    /// Where the client is.
    pub client_host: String,
    /// What it offers under the chosen protocol; empty unless the group is stable.
    pub metadata: Bytes,
    /// Its assignment; empty unless the group is stable.
    pub assignment: Bytes,
}

/// A group as ListGroups shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupListing {
    /// The group.
    pub group: String,
    /// For instance `consumer`.
    pub protocol_type: String,
    /// For instance `Stable`.
    pub state: &'static str,
}
