//! DescribeClientQuotas, key 48: list quotas.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Which quotas.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 48, versions = 0..=1, flexible = 1..)]
pub struct DescribeClientQuotasRequest {
    /// Filters; a quota must pass all.
    pub components: Vec<ComponentData>,
    /// Whether quotas of more kinds of entity than are named here are left out.
    pub strict: bool,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A filter by one kind of entity.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ComponentData {
    /// Kind: `user`, `client-id` or `ip`.
    pub entity_type: Utf8Bytes,
    /// 0 this name, 1 the default, 2 any name.
    pub match_type: i8,
    /// The name, null unless it matters.
    #[field(default = empty)]
    pub r#match: Option<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The quotas.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=1, flexible = 1..)]
pub struct DescribeClientQuotasResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The reason in words.
    #[field(default = empty)]
    pub error_message: Option<Utf8Bytes>,
    /// By entity, null after an error.
    #[field(default = empty)]
    pub entries: Option<Vec<EntryData>>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The quotas of one entity.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct EntryData {
    /// What the entity is made of.
    pub entity: Vec<EntityData>,
    /// Its quotas.
    pub values: Vec<ValueData>,
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

/// A quota.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ValueData {
    /// Its name, such as `producer_byte_rate`.
    pub key: Utf8Bytes,
    /// Its value.
    pub value: f64,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
