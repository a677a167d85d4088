//! AlterClientQuotas, key 49: set and remove quotas.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// The changes.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 49, versions = 0..=1, flexible = 1..)]
pub struct AlterClientQuotasRequest {
    /// By entity.
    pub entries: Vec<EntryData>,
    /// Whether to check only.
    pub validate_only: bool,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Changes for one entity.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct EntryData {
    /// What the entity is made of.
    pub entity: Vec<EntityData>,
    /// The changes.
    pub ops: Vec<OpData>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A part of an entity.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct EntityData {
    /// Kind: `user`, `client-id` or `ip`.
    pub entity_type: Utf8Bytes,
    /// Its name, null for the default.
    #[field(default = empty)]
    pub entity_name: Option<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OpData {
    /// Name of the quota, such as `producer_byte_rate`.
    pub key: Utf8Bytes,
    /// Its value; without a meaning when it is removed.
    pub value: f64,
    /// Whether it is removed.
    pub remove: bool,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// What was changed.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=1, flexible = 1..)]
pub struct AlterClientQuotasResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Results by entity.
    pub entries: Vec<EntryResult>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one entity.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct EntryResult {
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The reason in words.
    #[field(default = empty)]
    pub error_message: Option<Utf8Bytes>,
    /// What the entity is made of.
    pub entity: Vec<EntityData>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
