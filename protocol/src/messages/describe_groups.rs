//! DescribeGroups, key 15: state, members and assignments of classic groups.

use bytes::Bytes;
use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Which groups.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 15, versions = 0..=6, flexible = 5..)]
pub struct DescribeGroupsRequest {
    /// Group ids.
    pub groups: Vec<Utf8Bytes>,
    /// Whether to tell what the client may do with each group.
    #[field(versions = 3..)]
    pub include_authorized_operations: bool,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The groups.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=6, flexible = 5..)]
pub struct DescribeGroupsResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    #[field(versions = 1.., ignorable)]
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
    #[field(versions = 6..)]
    pub error_message: Option<Utf8Bytes>,
    /// Group id.
    pub group_id: Utf8Bytes,
    /// State in Kafka's words, such as `Stable` or `Empty`.
    pub group_state: Utf8Bytes,
    /// Kind of the group, `consumer` for consumers.
    pub protocol_type: Utf8Bytes,
    /// Assignor in use, empty if there is none.
    pub protocol_data: Utf8Bytes,
    /// Its members.
    pub members: Vec<DescribedGroupMember>,
    /// Bit set of what the client may do with the group; `i32::MIN` if it did not ask.
    #[field(versions = 3.., default = i32::MIN)]
    pub authorized_operations: i32,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribedGroupMember {
    /// Member id.
    pub member_id: Utf8Bytes,
    /// Static name of the member, null if it has none.
    #[field(versions = 4.., ignorable)]
    pub group_instance_id: Option<Utf8Bytes>,
    /// Client id of its connection.
    pub client_id: Utf8Bytes,
    /// Address it connects from.
    pub client_host: Utf8Bytes,
    /// What it offered for the assignor in use.
    pub member_metadata: Bytes,
    /// What the leader has assigned to it.
    pub member_assignment: Bytes,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
