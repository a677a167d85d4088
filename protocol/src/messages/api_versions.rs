//! ApiVersions, key 18: which versions a broker speaks; the first request on most connections.
//!
//! Its response always has header version 0, and a broker answers a version that it does not know with error
//! 35 in version 0 (KIP-511).

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 18, versions = 0..=5, flexible = 3..)]
pub struct ApiVersionsRequest {
    /// Name of the client library.
    #[field(versions = 3.., ignorable)]
    pub client_software_name: Utf8Bytes,
    /// Version of the client library.
    #[field(versions = 3.., ignorable)]
    pub client_software_version: Utf8Bytes,
    /// Cluster that the client means to reach (KIP-1242), null if it does not care.
    #[field(versions = 5.., ignorable)]
    pub cluster_id: Option<Utf8Bytes>,
    /// Broker that the client means to reach (KIP-1242), -1 if it does not care.
    #[field(versions = 5.., default = -1, ignorable)]
    pub node_id: i32,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// What the broker speaks.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=5, flexible = 3..)]
pub struct ApiVersionsResponse {
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The APIs.
    pub api_keys: Vec<ApiVersion>,
    /// Time the request was held back because of a quota, in milliseconds.
    #[field(versions = 1.., ignorable)]
    pub throttle_time_ms: i32,
    /// Features that the broker could use.
    #[field(versions = 3.., tag = 0, ignorable)]
    pub supported_features: Vec<SupportedFeatureKey>,
    /// Epoch of the finalized features, -1 if unknown.
    #[field(versions = 3.., tag = 1, default = -1, ignorable)]
    pub finalized_features_epoch: i64,
    /// Features that the cluster uses, valid if the epoch is.
    #[field(versions = 3.., tag = 2, ignorable)]
    pub finalized_features: Vec<FinalizedFeatureKey>,
    /// Left over from the migration away from ZooKeeper.
    #[field(versions = 3.., tag = 3, ignorable)]
    pub zk_migration_ready: bool,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// An API and its versions.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ApiVersion {
    /// Key of the API.
    pub api_key: i16,
    /// First version.
    pub min_version: i16,
    /// Last version.
    pub max_version: i16,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A feature that the broker could use.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct SupportedFeatureKey {
    /// Name, such as `transaction.version`.
    pub name: Utf8Bytes,
    /// First version. Clients before version 4 cannot read 0 here: leave such a feature out for them (KAFKA-17011).
    pub min_version: i16,
    /// Last version.
    pub max_version: i16,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A feature that the cluster uses.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct FinalizedFeatureKey {
    /// Name, such as `transaction.version`.
    pub name: Utf8Bytes,
    /// Last version level.
    pub max_version_level: i16,
    /// First version level.
    pub min_version_level: i16,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
