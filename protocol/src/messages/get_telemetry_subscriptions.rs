//! GetTelemetrySubscriptions, key 71: which metrics of a client the cluster wants to have (KIP-714).

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes, Uuid};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 71, versions = 0..=0, flexible = 0..)]
pub struct GetTelemetrySubscriptionsRequest {
    /// Id of the client, zero the first time it asks.
    pub client_instance_id: Uuid,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=0, flexible = 0..)]
pub struct GetTelemetrySubscriptionsResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// Id that the client was given, or has.
    pub client_instance_id: Uuid,
    /// Stands for the subscriptions as they are now.
    pub subscription_id: i32,
    /// Compressions that the broker can undo, by Kafka's numbers, those it likes best first.
    pub accepted_compression_types: Vec<i8>,
    /// How often to push, in milliseconds.
    pub push_interval_ms: i32,
    /// How large a push may be.
    pub telemetry_max_bytes: i32,
    /// Whether to tell what was added since the last push, instead of sums since the beginning.
    pub delta_temporality: bool,
    /// Prefixes of the names of metrics that are wanted; none for no metrics, an empty one for all.
    pub requested_metrics: Vec<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
