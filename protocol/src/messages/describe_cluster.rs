//! DescribeCluster, key 60: the brokers or controllers of the cluster.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// What to tell.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 60, versions = 0..=2, flexible = 0..)]
pub struct DescribeClusterRequest {
    /// Whether to tell what the client may do with the cluster.
    pub include_cluster_authorized_operations: bool,
    /// 1 brokers, 2 controllers.
    #[field(versions = 1.., default = 1)]
    pub endpoint_type: i8,
    /// Whether to tell of brokers that are fenced.
    #[field(versions = 2..)]
    pub include_fenced_brokers: bool,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The cluster.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=2, flexible = 0..)]
pub struct DescribeClusterResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The reason in words.
    pub error_message: Option<Utf8Bytes>,
    /// As it was asked.
    #[field(versions = 1.., default = 1)]
    pub endpoint_type: i8,
    /// Id of the cluster.
    pub cluster_id: Utf8Bytes,
    /// Id of the controller, or of a broker that passes requests on to it.
    #[field(default = -1)]
    pub controller_id: i32,
    /// The brokers.
    pub brokers: Vec<DescribeClusterBroker>,
    /// Bit set of what the client may do with the cluster; `i32::MIN` if it did not ask.
    #[field(default = i32::MIN)]
    pub cluster_authorized_operations: i32,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A broker.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribeClusterBroker {
    /// Its id.
    pub broker_id: i32,
    /// Host name or address.
    pub host: Utf8Bytes,
    /// TCP port.
    pub port: i32,
    /// Its rack, null if it has none.
    pub rack: Option<Utf8Bytes>,
    /// Whether it is fenced.
    #[field(versions = 2..)]
    pub is_fenced: bool,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
