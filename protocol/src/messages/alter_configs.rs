//! AlterConfigs, key 33: replace all settings of resources.
//!
//! A setting that is not named goes back to its default. IncrementalAlterConfigs changes only what it names.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// The settings.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 33, versions = 0..=2, flexible = 2..)]
pub struct AlterConfigsRequest {
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
    /// All settings that it is to have.
    pub configs: Vec<AlterableConfig>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A setting.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct AlterableConfig {
    /// Kafka's name of it.
    pub name: Utf8Bytes,
    /// Its value.
    #[field(default = empty)]
    pub value: Option<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// What was changed.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=2, flexible = 2..)]
pub struct AlterConfigsResponse {
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
