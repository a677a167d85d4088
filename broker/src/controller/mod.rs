//! Cluster metadata: commands are checked against the image, become records, and the records become the next image.
//!
//! [`Image`] and the commands are pure; [`Controller`] keeps the records in a log of its own, the partition
//! `__cluster_metadata-0`, and makes partitions on disk follow the image.

mod command;
mod image;
mod record;
mod service;

pub use command::{CreateTopic, TopicError, is_valid_name};
pub use image::{Image, Topic, is_internal};
pub use record::MetadataRecord;
pub(crate) use service::Logs;
pub use service::{Controller, ControllerError, METADATA_TOPIC, View};
