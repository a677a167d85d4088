//! Tests of the coordinator: stories of single groups, what happens at each deadline, who is refused what, and random
//! histories that check what must always hold.

mod atomicity;
mod capacity;
mod deadlines;
mod deletion;
mod lifetimes;
mod random;
mod refusals;
mod retention;
mod rollback;
mod sim;
mod static_members;
mod stories;
mod transactions;

use super::calls::{Caller, Command, JoinGroup, JoinReply, JoinedMember, Reply, SyncGroup, SyncReply};
use super::coordinator::Coordinator;
use super::member::Protocol;
use super::offset_calls::{
    Commit, CommittedOffset, FetchOffsets, FetchTopic, FetchedTopic, GroupDescription, GroupListing,
    MemberDescription,
};
use crate::config::GroupConfig;
use crate::coordinator::{Answer, Effects, Now, Step, StoredRecord, Ticket};
