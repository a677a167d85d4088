//! SaslAuthenticate, key 36: carry one message of a SASL mechanism.

use bytes::Bytes;
use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// The client's message.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 36, versions = 0..=2, flexible = 2..)]
pub struct SaslAuthenticateRequest {
    /// What the mechanism says.
    pub auth_bytes: Bytes,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The broker's message.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=2, flexible = 2..)]
pub struct SaslAuthenticateResponse {
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The reason in words.
    #[field(default = empty)]
    pub error_message: Option<Utf8Bytes>,
    /// What the mechanism says.
    pub auth_bytes: Bytes,
    /// Time after which the client must authenticate again (KIP-368), in milliseconds; 0 for never.
    #[field(versions = 1.., ignorable)]
    pub session_lifetime_ms: i64,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
