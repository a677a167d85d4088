//! IncrementalAlterConfigs, key 44: change single settings of resources.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// The changes.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 44, versions = 0..=1, flexible = 1..)]
pub struct IncrementalAlterConfigsRequest {
    /// By resource.
    pub resources: Vec<AlterConfigsResource>,
    /// Whether to check only.
    pub validate_only: bool,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A resource.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct AlterConfigsResource {
    /// Kind, as DescribeConfigs counts.
    pub resource_type: i8,
    /// Its name.
    pub resource_name: Utf8Bytes,
    /// The changes.
    pub configs: Vec<AlterableConfig>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct AlterableConfig {
    /// Kafka's name of the setting.
    pub name: Utf8Bytes,
    /// 0 set, 1 back to the default, 2 append to a list, 3 remove from a list.
    pub config_operation: i8,
    /// The value, null to go back to the default.
    #[field(default = empty)]
    pub value: Option<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// What was changed.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=1, flexible = 1..)]
pub struct IncrementalAlterConfigsResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Results by resource.
    pub responses: Vec<AlterConfigsResourceResponse>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one resource.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct AlterConfigsResourceResponse {
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The reason in words.
    #[field(default = empty)]
    pub error_message: Option<Utf8Bytes>,
    /// Kind of resource.
    pub resource_type: i8,
    /// Its name.
    pub resource_name: Utf8Bytes,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
