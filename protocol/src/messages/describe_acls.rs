//! DescribeAcls, key 29: list access rules.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Which rules: those that every filter lets through.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 29, versions = 1..=3, flexible = 2..)]
pub struct DescribeAclsRequest {
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

/// The rules.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 1..=3, flexible = 2..)]
pub struct DescribeAclsResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The reason in words.
    #[field(default = empty)]
    pub error_message: Option<Utf8Bytes>,
    /// Rules by resource.
    pub resources: Vec<DescribeAclsResource>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A resource that has rules.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribeAclsResource {
    /// Kind of resource.
    pub resource_type: i8,
    /// Its name or prefix.
    pub resource_name: Utf8Bytes,
    /// 3 literal, 4 prefix.
    #[field(default = 3)]
    pub pattern_type: i8,
    /// The rules.
    pub acls: Vec<AclDescription>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct AclDescription {
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
