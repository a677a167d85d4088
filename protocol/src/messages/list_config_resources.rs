//! ListConfigResources, key 74: resources that have settings.
//!
//! Version 0 lists client metrics only.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Of which kinds.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 74, versions = 0..=1, flexible = 0..)]
pub struct ListConfigResourcesRequest {
    /// Kinds as DescribeConfigs counts them; empty for all.
    #[field(versions = 1..)]
    pub resource_types: Vec<i8>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The resources.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=1, flexible = 0..)]
pub struct ListConfigResourcesResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The resources.
    pub config_resources: Vec<ConfigResource>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A resource.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ConfigResource {
    /// Its name.
    pub resource_name: Utf8Bytes,
    /// Its kind.
    #[field(versions = 1.., default = 16, ignorable)]
    pub resource_type: i8,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
