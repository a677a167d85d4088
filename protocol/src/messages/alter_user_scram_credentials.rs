//! AlterUserScramCredentials, key 51: set and delete SCRAM credentials.

use bytes::Bytes;
use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// The changes.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 51, versions = 0..=0, flexible = 0..)]
pub struct AlterUserScramCredentialsRequest {
    /// Credentials to delete.
    pub deletions: Vec<ScramCredentialDeletion>,
    /// Credentials to set.
    pub upsertions: Vec<ScramCredentialUpsertion>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A credential to delete.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ScramCredentialDeletion {
    /// The user's name.
    pub name: Utf8Bytes,
    /// 1 SCRAM-SHA-256, 2 SCRAM-SHA-512.
    pub mechanism: i8,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A credential to set.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ScramCredentialUpsertion {
    /// The user's name.
    pub name: Utf8Bytes,
    /// 1 SCRAM-SHA-256, 2 SCRAM-SHA-512.
    pub mechanism: i8,
    /// How often the password was hashed.
    pub iterations: i32,
    /// What it was salted with.
    pub salt: Bytes,
    /// What came of it; the password itself never travels.
    pub salted_password: Bytes,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// What was changed.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=0, flexible = 0..)]
pub struct AlterUserScramCredentialsResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Results by user.
    pub results: Vec<AlterUserScramCredentialsResult>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one user.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct AlterUserScramCredentialsResult {
    /// The user's name.
    pub user: Utf8Bytes,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The reason in words.
    #[field(default = empty)]
    pub error_message: Option<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
