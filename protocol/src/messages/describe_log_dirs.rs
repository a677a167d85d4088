//! DescribeLogDirs, key 35: what a broker's log directories hold.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Which partitions.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 35, versions = 1..=5, flexible = 2..)]
pub struct DescribeLogDirsRequest {
    /// Partitions by topic, null for all.
    #[field(default = empty)]
    pub topics: Option<Vec<DescribableLogDirTopic>>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Partitions of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribableLogDirTopic {
    /// Topic name.
    pub topic: Utf8Bytes,
    /// Partition numbers.
    pub partitions: Vec<i32>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The directories.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 1..=5, flexible = 2..)]
pub struct DescribeLogDirsResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Error code, 0 for success.
    #[field(versions = 3.., ignorable)]
    pub error_code: i16,
    /// The directories.
    pub results: Vec<DescribeLogDirsResult>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A directory.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribeLogDirsResult {
    /// Error code, 0 for success.
    pub error_code: i16,
    /// Its absolute path.
    pub log_dir: Utf8Bytes,
    /// What it holds, by topic.
    pub topics: Vec<DescribeLogDirsTopic>,
    /// Size of its volume, -1 if not told.
    #[field(versions = 4.., default = -1, ignorable)]
    pub total_bytes: i64,
    /// Room left on its volume, -1 if not told.
    #[field(versions = 4.., default = -1, ignorable)]
    pub usable_bytes: i64,
    /// Whether no new partitions are made in it (KIP-1066).
    #[field(versions = 5.., ignorable)]
    pub is_cordoned: bool,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Partitions of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribeLogDirsTopic {
    /// Topic name.
    pub name: Utf8Bytes,
    /// The partitions.
    pub partitions: Vec<DescribeLogDirsPartition>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The log of a partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribeLogDirsPartition {
    /// Partition number.
    pub partition_index: i32,
    /// Size of its segments in bytes.
    pub partition_size: i64,
    /// How far it is behind: the high watermark for the current log, the end of the current log for a future one.
    pub offset_lag: i64,
    /// Whether it is a copy that is on its way to this directory.
    pub is_future_key: bool,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
