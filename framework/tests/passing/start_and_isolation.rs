//! Where a group begins, and what it sees, as words and as expressions.

use std::time::Duration;

use klamm::client::{IsolationLevel, OffsetReset};
use klamm::listener::CommitOnAssign;
use klamm::prelude::*;

#[kafka_listener(topics = "t", group = "g", offset_reset = earliest, isolation = read_uncommitted)]
async fn earliest() {}

#[kafka_listener(topics = "t", group = "g", offset_reset = latest, commit_on_assign = never)]
async fn latest() {}

#[kafka_listener(topics = "t", group = "g", offset_reset = none, commit_on_assign = always)]
async fn nowhere() {}

#[kafka_listener(
    topics = "t",
    group = "g",
    offset_reset = OffsetReset::ByDuration(Duration::from_secs(60)),
    commit_on_assign = CommitOnAssign::LatestOnly,
    isolation = IsolationLevel::ReadCommitted
)]
async fn expressions() {}
