//! StreamsGroupDescribe, key 89: state, topology, members and tasks of the groups of Kafka Streams (KIP-1071).

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Which groups.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 89, versions = 0..=0, flexible = 0..)]
pub struct StreamsGroupDescribeRequest {
    /// Group ids.
    pub group_ids: Vec<Utf8Bytes>,
    /// Whether to tell what the client may do with each group.
    pub include_authorized_operations: bool,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The groups.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=0, flexible = 0..)]
pub struct StreamsGroupDescribeResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Results by group.
    pub groups: Vec<DescribedGroup>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribedGroup {
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The reason in words.
    pub error_message: Option<Utf8Bytes>,
    /// Group id.
    pub group_id: Utf8Bytes,
    /// State in Kafka's words, such as `Stable`.
    pub group_state: Utf8Bytes,
    /// Epoch of the group: what it looks like.
    pub group_epoch: i32,
    /// Epoch of the assignment.
    pub assignment_epoch: i32,
    /// What its members run, null if nobody told.
    pub topology: Option<Topology>,
    /// Its members.
    pub members: Vec<Member>,
    /// Bit set of what the client may do with the group; `i32::MIN` if it did not ask.
    #[field(default = i32::MIN)]
    pub authorized_operations: i32,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// What the members of a group run.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct Topology {
    /// Its epoch: how often it was changed.
    pub epoch: i32,
    /// Its parts.
    pub subtopologies: Option<Vec<Subtopology>>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A part of a topology that reads and writes topics.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct Subtopology {
    /// Its id.
    pub subtopology_id: Utf8Bytes,
    /// Topics that it reads.
    pub source_topics: Vec<Utf8Bytes>,
    /// Repartition topics that it writes.
    pub repartition_sink_topics: Vec<Utf8Bytes>,
    /// Changelogs of its stores.
    pub state_changelog_topics: Vec<TopicInfo>,
    /// Repartition topics that it reads.
    pub repartition_source_topics: Vec<TopicInfo>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A topic that the group keeps for itself.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct TopicInfo {
    /// Its name.
    pub name: Utf8Bytes,
    /// How many partitions it has; 0 for as many as come of it.
    pub partitions: i32,
    /// How many replicas; 0 for the broker's default.
    pub replication_factor: i16,
    /// Its settings.
    pub topic_configs: Vec<KeyValue>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A name and a value.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct KeyValue {
    /// The name.
    pub key: Utf8Bytes,
    /// The value.
    pub value: Utf8Bytes,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct Member {
    /// Member id.
    pub member_id: Utf8Bytes,
    /// Epoch of the assignment that it has.
    pub member_epoch: i32,
    /// Static name of the member, null if it has none.
    pub instance_id: Option<Utf8Bytes>,
    /// Rack of the member, null if it has none.
    pub rack_id: Option<Utf8Bytes>,
    /// Client id of its connection.
    pub client_id: Utf8Bytes,
    /// Address it connects from.
    pub client_host: Utf8Bytes,
    /// Epoch of the topology that it runs.
    pub topology_epoch: i32,
    /// The process that it is part of.
    pub process_id: Utf8Bytes,
    /// Where it can be asked for its stores, null if nowhere.
    pub user_endpoint: Option<Endpoint>,
    /// What assignors may heed.
    pub client_tags: Vec<KeyValue>,
    /// How far its tasks are.
    pub task_offsets: Vec<TaskOffset>,
    /// Where its tasks end.
    pub task_end_offsets: Vec<TaskOffset>,
    /// What it has.
    pub assignment: Assignment,
    /// What it is to have.
    pub target_assignment: Assignment,
    /// Whether it speaks the classic protocol.
    pub is_classic: bool,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// An address.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct Endpoint {
    /// Host name or address.
    pub host: Utf8Bytes,
    /// TCP port.
    pub port: u16,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// How far a task is.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct TaskOffset {
    /// Its part of the topology.
    pub subtopology_id: Utf8Bytes,
    /// Its number.
    pub partition: i32,
    /// The sum of its offsets.
    pub offset: i64,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Tasks of a member.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct Assignment {
    /// Those that it runs.
    pub active_tasks: Vec<TaskIds>,
    /// Those whose state it keeps.
    pub standby_tasks: Vec<TaskIds>,
    /// Those that it is to run when it has caught up.
    pub warmup_tasks: Vec<TaskIds>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Tasks of one part of a topology.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct TaskIds {
    /// The part.
    pub subtopology_id: Utf8Bytes,
    /// Their numbers.
    pub partitions: Vec<i32>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
