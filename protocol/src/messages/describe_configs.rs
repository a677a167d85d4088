//! DescribeConfigs, key 32: settings of topics, brokers and other resources.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Whose settings.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 32, versions = 1..=4, flexible = 4..)]
pub struct DescribeConfigsRequest {
    /// The resources.
    pub resources: Vec<DescribeConfigsResource>,
    /// Whether to tell the other settings that a value can come from.
    pub include_synonyms: bool,
    /// Whether to tell what each setting means.
    #[field(versions = 3..)]
    pub include_documentation: bool,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A resource.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribeConfigsResource {
    /// Kind: 2 topic, 4 broker, 8 broker logger, 16 client metrics, 32 group.
    pub resource_type: i8,
    /// Its name; a broker's id, empty for the default of all brokers.
    pub resource_name: Utf8Bytes,
    /// Settings wanted, null for all.
    #[field(default = empty)]
    pub configuration_keys: Option<Vec<Utf8Bytes>>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The settings.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 1..=4, flexible = 4..)]
pub struct DescribeConfigsResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Results by resource.
    pub results: Vec<DescribeConfigsResult>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one resource.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribeConfigsResult {
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The reason in words.
    #[field(default = empty)]
    pub error_message: Option<Utf8Bytes>,
    /// Kind of resource.
    pub resource_type: i8,
    /// Its name.
    pub resource_name: Utf8Bytes,
    /// Its settings.
    pub configs: Vec<DescribeConfigsResourceResult>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A setting.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribeConfigsResourceResult {
    /// Kafka's name of it.
    pub name: Utf8Bytes,
    /// Its value, null if it is secret or not set.
    #[field(default = empty)]
    pub value: Option<Utf8Bytes>,
    /// Whether it cannot be changed while the broker runs.
    pub read_only: bool,
    /// Where the value comes from: 1 topic, 2 broker, 3 default of all brokers, 4 the broker's file, 5 Kafka's default,
    /// 6 broker logger, 7 client metrics, 8 group; -1 or 0 unknown.
    #[field(default = -1)]
    pub config_source: i8,
    /// Whether it is secret.
    pub is_sensitive: bool,
    /// Settings that the value can come from, the one in force first.
    pub synonyms: Vec<DescribeConfigsSynonym>,
    /// Type of the value: 1 boolean, 2 string, 3 int, 4 short, 5 long, 6 double, 7 list, 8 class, 9 password; 0
    /// unknown.
    #[field(versions = 3.., ignorable)]
    pub config_type: i8,
    /// What it means, null if not asked for.
    #[field(versions = 3.., default = empty, ignorable)]
    pub documentation: Option<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A setting that a value can come from.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribeConfigsSynonym {
    /// Kafka's name of it.
    pub name: Utf8Bytes,
    /// Its value, null if it is secret or not set.
    #[field(default = empty)]
    pub value: Option<Utf8Bytes>,
    /// Where it is set, as `config_source` counts.
    pub source: i8,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
