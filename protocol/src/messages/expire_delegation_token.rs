//! ExpireDelegationToken, key 40: end the life of a token.

use bytes::Bytes;
use klamm_protocol_derive::Message;

use crate::primitives::UnknownTags;

/// Which token, and until when.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 40, versions = 1..=2, flexible = 2..)]
pub struct ExpireDelegationTokenRequest {
    /// The token's secret.
    pub hmac: Bytes,
    /// After how long it is to expire, in milliseconds; negative for at once.
    pub expiry_time_period_ms: i64,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// When it expires now.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 1..=2, flexible = 2..)]
pub struct ExpireDelegationTokenResponse {
    /// Error code, 0 for success.
    pub error_code: i16,
    /// When the token expires, in milliseconds since the Unix epoch.
    pub expiry_timestamp_ms: i64,
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
