//! UpdateFeatures, key 57: raise or lower the cluster's feature levels.
//!
//! From version 2 only errors of the whole request are told.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// The levels.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 57, versions = 0..=2, flexible = 0..)]
pub struct UpdateFeaturesRequest {
    /// Longest wait, in milliseconds.
    #[field(default = 60_000)]
    pub timeout_ms: i32,
    /// By feature.
    pub feature_updates: Vec<FeatureUpdateKey>,
    /// Whether to check only.
    #[field(versions = 1..)]
    pub validate_only: bool,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A level wanted.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct FeatureUpdateKey {
    /// Name, such as `transaction.version`.
    pub feature: Utf8Bytes,
    /// The level; below 1 to stop using the feature.
    pub max_version_level: i16,
    /// Whether it may be lower than now, in version 0.
    #[field(versions = ..=0)]
    pub allow_downgrade: bool,
    /// 1 higher only, 2 lower if nothing is lost, 3 lower even so.
    #[field(versions = 1.., default = 1)]
    pub upgrade_type: i8,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// What was changed.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=2, flexible = 0..)]
pub struct UpdateFeaturesResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Error of the whole request, 0 for none.
    pub error_code: i16,
    /// The reason in words.
    #[field(default = empty)]
    pub error_message: Option<Utf8Bytes>,
    /// Results by feature, up to version 1.
    #[field(versions = ..=1, ignorable)]
    pub results: Vec<UpdatableFeatureResult>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one feature.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct UpdatableFeatureResult {
    /// Its name.
    pub feature: Utf8Bytes,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The reason in words.
    #[field(default = empty)]
    pub error_message: Option<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
