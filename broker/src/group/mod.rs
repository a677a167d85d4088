//! The group coordinator: a pure state machine ([`Coordinator`]) and the service that feeds it and keeps its log.

mod calls;
mod coordinator;
mod member;
mod offsets;
mod records;
mod requests;
mod service;
mod shard;
mod state;
#[cfg(test)]
mod tests;
mod timers;

pub use crate::config::GroupConfig;
pub use calls::{
    Caller, Commit, CommittedOffset, Effects, GroupDescription, GroupListing, JoinGroup, JoinReply,
    JoinedMember, MemberDescription, Now, Reply, StoredRecord, SyncGroup, SyncReply,
};
pub use coordinator::Coordinator;
pub use member::{Protocol, Ticket};
pub use service::{Committing, GroupService, OFFSETS_TOPIC};
