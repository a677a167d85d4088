//! SaslHandshake, key 17: agree on a SASL mechanism.
//!
//! After version 1 the mechanism's messages travel in SaslAuthenticate; after version 0 they travel without any frame
//! of Kafka's.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// The mechanism wanted.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 17, versions = 0..=1)]
pub struct SaslHandshakeRequest {
    /// Name of the mechanism, such as `SCRAM-SHA-512`.
    pub mechanism: Utf8Bytes,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Whether the broker has it.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=1)]
pub struct SaslHandshakeResponse {
    /// Error code, 0 for success.
    pub error_code: i16,
    /// Mechanisms that the broker offers.
    pub mechanisms: Vec<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
