//! UnregisterBroker, key 64: forget a broker that is gone for good.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Which broker.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 64, versions = 0..=0, flexible = 0..)]
pub struct UnregisterBrokerRequest {
    /// Id of the broker.
    pub broker_id: i32,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Whether it is forgotten.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=0, flexible = 0..)]
pub struct UnregisterBrokerResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The reason in words.
    #[field(default = empty)]
    pub error_message: Option<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
