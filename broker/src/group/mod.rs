//! The group coordinator: what happens to groups and their offsets, on the runtime that all coordinators share.
//!
//! ```text
//! service        what requests ask                    offsets_topic  `__consumer_offsets` is there
//! machine        the groups of one partition as the runtime knows them
//! coordinator    the groups of one partition: pure    commits        what happens to their offsets
//! calls          what goes in and comes out           records        how groups and offsets are written down
//! offset_calls   the same of offsets, and groups as they are shown
//! state          one group from generation to generation             requests  what members ask of it
//! members        its members: who has joined, whose session ends     member    one of them
//! offsets        what it committed                    pending        what open transactions have written for it
//! removal        how groups and offsets go            subscription   the topics its members subscribe to
//! transacting    what transactions ask of groups
//! changes        what is not durable of its offsets   producers      who wrote what open transactions have, of late
//! ```

mod calls;
mod changes;
mod commits;
mod coordinator;
mod machine;
mod member;
mod members;
mod offset_calls;
mod offsets;
mod offsets_topic;
mod pending;
mod producers;
mod records;
mod removal;
mod requests;
mod service;
mod state;
mod subscription;
#[cfg(test)]
mod tests;
mod transacting;

pub(crate) use calls::{Caller, JoinGroup, JoinReply, SyncGroup};
pub(crate) use member::Protocol;
pub(crate) use offset_calls::{Commit, CommittedOffset, FetchOffsets, FetchTopic, FetchedTopic};
pub(crate) use offsets_topic::OFFSETS_TOPIC;
pub(crate) use service::GroupService;
