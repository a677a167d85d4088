//! RenewDelegationToken, key 39: prolong the life of a token.

use bytes::Bytes;
use klamm_protocol_derive::Message;

use crate::primitives::UnknownTags;

/// Which token, and until when.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 39, versions = 1..=2, flexible = 2..)]
pub struct RenewDelegationTokenRequest {
    /// The token's secret.
    pub hmac: Bytes,
    /// How long it is to live from now on, in milliseconds; -1 for what the broker allows.
    pub renew_period_ms: i64,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// When it expires now.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 1..=2, flexible = 2..)]
pub struct RenewDelegationTokenResponse {
    /// Error code, 0 for success.
    pub error_code: i16,
    /// When the token expires, in milliseconds since the Unix epoch.
    pub expiry_timestamp_ms: i64,
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
