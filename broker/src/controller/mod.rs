//! Cluster metadata: commands are checked against the image, become records, and what is committed makes the next
//! image, which the directories on disk follow.
//!
//! ```text
//! service       Controller: where commands are handed in and the metadata is seen
//! task          the one task that takes them: writes, publishes, has directories looked at
//! decide        what it decides; pure       command   what may be done, and its records; pure
//!                                           change    changes of topics that exist; pure
//! change_quotas     changes of clients' quotas; pure            change_broker     changes of brokers' settings; pure
//! broker_settings   what was altered of those; pure             error             why something cannot be done
//! image         what there is; pure         record    the records of the metadata log
//! reconcile     what to do on disk; pure    directories   does it
//! metadata_log  the partition __cluster_metadata-0, in the place of a quorum
//! snapshot      the image as records, so that the log before it can go; pure     snapshot_files    its files
//! snapshots     when one is due, and the one that is being written
//! view          what requests see: an image with its logs
//! ```
#![doc = include_str!("metadata.md")]

mod broker_settings;
mod change;
mod change_broker;
mod change_quotas;
mod command;
mod decide;
mod directories;
mod error;
mod image;
mod metadata_log;
mod reconcile;
mod record;
mod service;
mod shared;
#[cfg(test)]
mod simulation;
mod snapshot;
mod snapshot_files;
mod snapshots;
mod task;
mod view;

pub(crate) use change::{Adjustment, Change, ChangeTopic};
pub(crate) use change_broker::ChangeBroker;
pub(crate) use change_quotas::ChangeQuotas;
pub use command::CreateTopic;
pub use decide::DeletedTopic;
pub use image::METADATA_TOPIC;
pub use record::MetadataRecord;
pub use service::Controller;

pub(crate) use command::is_valid_name;
pub(crate) use error::ControllerError;
pub(crate) use image::{Topic, is_internal};
pub(crate) use view::{Logs, View};

/// How many commands one request has under way at the same time: enough to share an fsync, few enough to cost nothing.
pub(crate) const COMMANDS_AT_ONCE: usize = 64;
