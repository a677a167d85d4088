//! DeleteAcls, key 31: remove access rules.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Which rules.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 31, versions = 1..=3, flexible = 2..)]
pub struct DeleteAclsRequest {
    /// Rules that one of them lets through are removed.
    pub filters: Vec<DeleteAclsFilter>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A filter.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DeleteAclsFilter {
    /// Kind of resource; 1 for any.
    pub resource_type_filter: i8,
    /// Name of the resource, null for any.
    #[field(default = empty)]
    pub resource_name_filter: Option<Utf8Bytes>,
    /// How the name is meant: 1 any, 2 every rule that matches the name, 3 literal, 4 prefix.
    #[field(default = 3)]
    pub pattern_type_filter: i8,
    /// Principal such as `User:alice`, null for any.
    #[field(default = empty)]
    pub principal_filter: Option<Utf8Bytes>,
    /// Host, null for any.
    #[field(default = empty)]
    pub host_filter: Option<Utf8Bytes>,
    /// Operation; 1 for any.
    pub operation: i8,
    /// 1 any, 2 deny, 3 allow.
    pub permission_type: i8,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// What was removed.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 1..=3, flexible = 2..)]
pub struct DeleteAclsResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Results in the order of the request.
    pub filter_results: Vec<DeleteAclsFilterResult>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one filter.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DeleteAclsFilterResult {
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The reason in words.
    #[field(default = empty)]
    pub error_message: Option<Utf8Bytes>,
    /// Rules that it let through.
    pub matching_acls: Vec<DeleteAclsMatchingAcl>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A rule that was found.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DeleteAclsMatchingAcl {
    /// Error code of its removal, 0 for success.
    pub error_code: i16,
    /// The reason in words.
    #[field(default = empty)]
    pub error_message: Option<Utf8Bytes>,
    /// Kind of resource.
    pub resource_type: i8,
    /// Its name or prefix.
    pub resource_name: Utf8Bytes,
    /// 3 literal, 4 prefix.
    #[field(default = 3)]
    pub pattern_type: i8,
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
