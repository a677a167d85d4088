//! PushTelemetry, key 72: metrics of a client (KIP-714).

use bytes::Bytes;
use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Uuid};

/// The metrics.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 72, versions = 0..=0, flexible = 0..)]
pub struct PushTelemetryRequest {
    /// Id of the client.
    pub client_instance_id: Uuid,
    /// The subscriptions that this answers.
    pub subscription_id: i32,
    /// Whether this is the client's last word.
    pub terminating: bool,
    /// Compression of the metrics, by Kafka's numbers.
    pub compression_type: i8,
    /// The metrics in OpenTelemetry's layout.
    pub metrics: Bytes,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Whether they were taken.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=0, flexible = 0..)]
pub struct PushTelemetryResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
