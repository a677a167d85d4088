//! DescribeUserScramCredentials, key 50: which users have SCRAM credentials.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Which users.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 50, versions = 0..=0, flexible = 0..)]
pub struct DescribeUserScramCredentialsRequest {
    /// The users; null or empty for all.
    #[field(default = empty)]
    pub users: Option<Vec<UserName>>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct UserName {
    /// The user's name.
    pub name: Utf8Bytes,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Their credentials.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=0, flexible = 0..)]
pub struct DescribeUserScramCredentialsResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Error of the whole request, 0 for none.
    pub error_code: i16,
    /// The reason in words.
    #[field(default = empty)]
    pub error_message: Option<Utf8Bytes>,
    /// Results by user.
    pub results: Vec<DescribeUserScramCredentialsResult>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one user.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribeUserScramCredentialsResult {
    /// The user's name.
    pub user: Utf8Bytes,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The reason in words.
    #[field(default = empty)]
    pub error_message: Option<Utf8Bytes>,
    /// The user's credentials.
    pub credential_infos: Vec<CredentialInfo>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// What may be told of a credential.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct CredentialInfo {
    /// 1 SCRAM-SHA-256, 2 SCRAM-SHA-512.
    pub mechanism: i8,
    /// How often the password was hashed.
    pub iterations: i32,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
