//! DescribeDelegationToken, key 41: the tokens that there are.

use bytes::Bytes;
use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Whose tokens.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 41, versions = 1..=3, flexible = 2..)]
pub struct DescribeDelegationTokenRequest {
    /// Their owners, null for all.
    #[field(default = empty)]
    pub owners: Option<Vec<DescribeDelegationTokenOwner>>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Somebody whose tokens are described.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribeDelegationTokenOwner {
    /// Kind of the principal, such as `User`.
    pub principal_type: Utf8Bytes,
    /// Name of the principal.
    pub principal_name: Utf8Bytes,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The tokens.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 1..=3, flexible = 2..)]
pub struct DescribeDelegationTokenResponse {
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The tokens that whoever asks may see.
    pub tokens: Vec<DescribedDelegationToken>,
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A token.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribedDelegationToken {
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
    pub issue_timestamp: i64,
    /// When it expires unless it is renewed, in milliseconds since the Unix epoch.
    pub expiry_timestamp: i64,
    /// When it expires for good, in milliseconds since the Unix epoch.
    pub max_timestamp: i64,
    /// Its id: the name to log in with.
    pub token_id: Utf8Bytes,
    /// Its secret: the password to log in with.
    pub hmac: Bytes,
    /// Who may renew it.
    pub renewers: Vec<DescribedDelegationTokenRenewer>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Somebody who may renew a token.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribedDelegationTokenRenewer {
    /// Kind of the principal.
    pub principal_type: Utf8Bytes,
    /// Name of the principal.
    pub principal_name: Utf8Bytes,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
