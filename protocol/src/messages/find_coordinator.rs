//! FindCoordinator, key 10: which broker coordinates a group or a transaction.
//!
//! Up to version 3 one key is asked for by the top-level fields; from version 4 any number through `coordinator_keys`.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Whose coordinator.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 10, versions = 0..=6, flexible = 3..)]
pub struct FindCoordinatorRequest {
    /// Group id or transactional id, up to version 3.
    #[field(versions = ..=3)]
    pub key: Utf8Bytes,
    /// What the keys are: 0 groups, 1 transactions, 2 share partitions.
    #[field(versions = 1..)]
    pub key_type: i8,
    /// Group ids, transactional ids or share partitions, from version 4.
    #[field(versions = 4..)]
    pub coordinator_keys: Vec<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The coordinators.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=6, flexible = 3..)]
pub struct FindCoordinatorResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    #[field(versions = 1.., ignorable)]
    pub throttle_time_ms: i32,
    /// Error code, 0 for success; up to version 3.
    #[field(versions = ..=3)]
    pub error_code: i16,
    /// The reason in words; up to version 3.
    #[field(versions = 1..=3, ignorable)]
    pub error_message: Option<Utf8Bytes>,
    /// Broker id, -1 if there is no coordinator; up to version 3.
    #[field(versions = ..=3)]
    pub node_id: i32,
    /// Host name or address; up to version 3.
    #[field(versions = ..=3)]
    pub host: Utf8Bytes,
    /// TCP port; up to version 3.
    #[field(versions = ..=3)]
    pub port: i32,
    /// Results by key, from version 4.
    #[field(versions = 4..)]
    pub coordinators: Vec<Coordinator>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The coordinator of one key.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct Coordinator {
    /// The key asked for.
    pub key: Utf8Bytes,
    /// Broker id, -1 if there is no coordinator.
    pub node_id: i32,
    /// Host name or address.
    pub host: Utf8Bytes,
    /// TCP port.
    pub port: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The reason in words.
    pub error_message: Option<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
