//! Consumer groups: membership, assignments, offsets.
//!
//! ```text
//! member.rs        one member of a group                      (pure)
//! classic.rs       how it joins and syncs                     (pure)
//! epochs.rs        how it follows the coordinator (KIP-848)   (pure)
//! reconciler.rs    giving up and taking over partitions       (pure)
//! heart.rs         when heartbeats are due                    (pure)
//! event.rs         what a member is told and asks for
//! assignors.rs     how a leader shares out partitions         (pure)
//! strategy.rs      the assignors that a member offers         (pure)
//! pattern.rs       the topics that a pattern stands for       (pure)
//! protocol.rs      what members tell each other               (pure)
//! task.rs          runs what a member asks for
//! coordinator.rs   the way to a group's coordinator
//! requests.rs      a member's requests
//! metadata.rs      who a consumer is in its group
//! offsets.rs       committing and fetching committed offsets
//! ```
//!
#![doc = include_str!("membership.md")]

pub(crate) mod assignors;
mod classic;
mod coordinator;
mod epochs;
mod event;
mod heart;
mod member;
mod metadata;
pub(crate) mod offsets;
mod pattern;
mod protocol;
mod reconciler;
mod requests;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod simulation_epochs;
#[cfg(test)]
mod stories;
mod strategy;
mod task;

pub use assignors::Assignor;
pub(crate) use coordinator::CoordinatorLink;
pub use event::GroupProtocol;
pub(crate) use event::{Report, Settings, moved};
pub use metadata::GroupMetadata;
pub(crate) use pattern::{Except, TopicPattern};
pub use protocol::MemberShare;
pub(crate) use protocol::decode_assignment;
pub(crate) use strategy::Strategy;
pub use strategy::{GroupMember, PartitionAssignor};
pub(crate) use task::{Close, MemberTask, Membership, Owner, Wanted};
