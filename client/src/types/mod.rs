//! Small types that producer, consumer and admin share.

mod headers;
mod isolation_level;
mod offset;
mod topic_partition;

pub use headers::Headers;
pub use isolation_level::IsolationLevel;
pub use offset::OffsetAndMetadata;
pub use topic_partition::TopicPartition;
