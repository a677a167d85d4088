//! CreateAcls, key 30: add access rules.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// The rules.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 30, versions = 1..=3, flexible = 2..)]
pub struct CreateAclsRequest {
    /// The rules.
    pub creations: Vec<AclCreation>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct AclCreation {
    /// Kind of resource.
    pub resource_type: i8,
    /// Its name or prefix.
    pub resource_name: Utf8Bytes,
    /// 3 literal, 4 prefix.
    #[field(default = 3)]
    pub resource_pattern_type: i8,
    /// Principal such as `User:alice`.
    pub principal: Utf8Bytes,
    /// Host, `*` for all.
    pub host: Utf8Bytes,
    /// Operation.
    pub operation: i8,
    /// 2 deny, 3 allow.
    pub permission_type: i8,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// What was added.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 1..=3, flexible = 2..)]
pub struct CreateAclsResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Results in the order of the request.
    pub results: Vec<AclCreationResult>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one rule.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct AclCreationResult {
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The reason in words.
    #[field(default = empty)]
    pub error_message: Option<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
