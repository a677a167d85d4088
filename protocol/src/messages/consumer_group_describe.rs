//! ConsumerGroupDescribe, key 69: state, members and assignments of the groups of KIP-848.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes, Uuid};

/// Which groups.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 69, versions = 0..=1, flexible = 0..)]
pub struct ConsumerGroupDescribeRequest {
    /// Group ids.
    pub group_ids: Vec<Utf8Bytes>,
    /// Whether to tell what the client may do with each group.
    pub include_authorized_operations: bool,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The groups.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=1, flexible = 0..)]
pub struct ConsumerGroupDescribeResponse {
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
    /// Epoch of the assignment that is being reached.
    pub assignment_epoch: i32,
    /// Assignor in use.
    pub assignor_name: Utf8Bytes,
    /// Its members.
    pub members: Vec<Member>,
    /// Bit set of what the client may do with the group; `i32::MIN` if it did not ask.
    #[field(default = i32::MIN)]
    pub authorized_operations: i32,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct Member {
    /// Member id.
    pub member_id: Utf8Bytes,
    /// Static name of the member, null if it has none.
    pub instance_id: Option<Utf8Bytes>,
    /// Rack of the member, null if it has none.
    pub rack_id: Option<Utf8Bytes>,
    /// Epoch of the assignment that it has.
    pub member_epoch: i32,
    /// Client id of its connection.
    pub client_id: Utf8Bytes,
    /// Address it connects from.
    pub client_host: Utf8Bytes,
    /// Topics it subscribed to by name.
    pub subscribed_topic_names: Vec<Utf8Bytes>,
    /// Regular expression it subscribed to, null if none.
    pub subscribed_topic_regex: Option<Utf8Bytes>,
    /// What it has.
    pub assignment: Assignment,
    /// What it is to have.
    pub target_assignment: Assignment,
    /// 0 a member of the classic protocol, 1 of the new one, -1 unknown.
    #[field(versions = 1.., default = -1, ignorable)]
    pub member_type: i8,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// An assignment.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct Assignment {
    /// By topic.
    pub topic_partitions: Vec<TopicPartitions>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Partitions of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct TopicPartitions {
    /// Topic id.
    pub topic_id: Uuid,
    /// Topic name.
    pub topic_name: Utf8Bytes,
    /// Partition numbers.
    pub partitions: Vec<i32>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
