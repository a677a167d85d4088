//! CreateDelegationToken, key 38: a short-lived secret with which somebody else can log in (KIP-48).

use bytes::Bytes;
use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// For whom, and for how long.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 38, versions = 1..=3, flexible = 2..)]
pub struct CreateDelegationTokenRequest {
    /// Kind of the owner's principal, null or empty for whoever asks.
    #[field(versions = 3.., default = empty)]
    pub owner_principal_type: Option<Utf8Bytes>,
    /// Name of the owner's principal, null or empty for whoever asks.
    #[field(versions = 3.., default = empty)]
    pub owner_principal_name: Option<Utf8Bytes>,
    /// Who may renew it before it expires.
    pub renewers: Vec<CreatableRenewers>,
    /// Longest life in milliseconds; -1 for what the broker allows.
    pub max_lifetime_ms: i64,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Somebody who may renew a token.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct CreatableRenewers {
    /// Kind of the principal, such as `User`.
    pub principal_type: Utf8Bytes,
    /// Name of the principal.
    pub principal_name: Utf8Bytes,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The token.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 1..=3, flexible = 2..)]
pub struct CreateDelegationTokenResponse {
    /// Error code, 0 for success.
    pub error_code: i16,
    /// Kind of the owner's principal.
    pub principal_type: Utf8Bytes,
    /// Name of the owner's principal.
    pub principal_name: Utf8Bytes,
    /// Kind of the principal that asked for it.
    #[field(versions = 3.., ignorable)]
    pub token_requester_principal_type: Utf8Bytes,
    /// Name of the principal that asked for it.
    #[field(versions = 3.., ignorable)]
    pub token_requester_principal_name: Utf8Bytes,
    /// When it was made, in milliseconds since the Unix epoch.
    pub issue_timestamp_ms: i64,
    /// When it expires unless it is renewed, in milliseconds since the Unix epoch.
    pub expiry_timestamp_ms: i64,
    /// When it expires for good, in milliseconds since the Unix epoch.
    pub max_timestamp_ms: i64,
    /// Its id: the name to log in with.
    pub token_id: Utf8Bytes,
    /// Its secret: the password to log in with.
    pub hmac: Bytes,
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
