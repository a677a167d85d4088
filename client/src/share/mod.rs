//! Reading from share groups (KIP-932): queues whose members have partitions in common.
//!
//! ```text
//! builder.rs    how a share consumer is made
//! settings.rs   its settings, also from text
//! consumer.rs   ShareConsumer: hands out records, sends what is said of them
//! record.rs     ShareRecord: a record that is locked for this consumer
//! member.rs     membership of the group                              (pure)
//! sharing.rs    what is asked of which leader, what answers mean     (pure)
//! leader.rs     one leader: its session, its locks, its request      (pure)
//! session.rs    what a leader remembers                              (pure)
//! locks.rs      the records that a leader has locked                 (pure)
//! opened.rs     fetched bytes to records                             (pure)
//! requests.rs   requests as they go over the wire, and their answers
//! task.rs       the task that sends them
//! shared.rs     what all of these share
//! ```
//!
#![doc = include_str!("sharing.md")]

mod builder;
mod consumer;
mod leader;
mod locks;
mod member;
mod opened;
mod record;
mod requests;
mod session;
mod settings;
mod shared;
mod sharing;
mod task;

pub use builder::ShareConsumerBuilder;
pub use consumer::{Acknowledged, ShareConsumer};
pub use record::ShareRecord;
pub use settings::AcknowledgementMode;
pub use sharing::AcquireMode;
