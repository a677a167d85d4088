//! What there may be only so much of: time for a request, connections, groups, names.
//!
//! Beside these: peers that do not read, and memory for requests (`server/floods.rs`, `server/storms.rs`); connections
//! over the limit (`server/bad_input.rs`); fetches that wait (`server/fetch_waits.rs`); fetch sessions
//! (`server/fetch_sessions.rs: there_are_as_many_as_there_may_be`); producers of a partition
//! (`storage/produce_rules.rs`); members of a group (`group/tests/capacity.rs`); quotas of many clients
//! (`quota/meters.rs`).

use std::time::Duration;

use klamm_protocol::ErrorCode;
use klamm_protocol::frame::encode_request;
use klamm_protocol::messages::*;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::target::{READ_TIMEOUT, Target, join};
use super::times;
use super::wire::Wire;
use crate::alloc;

/// A byte now and then, and never a whole request.
#[tokio::test(start_paused = true)]
async fn a_request_that_comes_byte_by_byte_has_its_time() {
    let mut target = Target::start().await;
    let frame = encode_request(&MetadataRequest::default(), 9, 1, Some("slow")).unwrap();
    let mut long = frame.to_vec();
    long.resize(10_000, 0);
    long[..4].copy_from_slice(&9_996_u32.to_be_bytes());
    for (what, bytes, from) in [("length", &frame[..], 0), ("body", &long, 40)] {
        let mut wire = target.connect().await;
        wire.send(&bytes[..from]).await;
        let begun = Instant::now();
        let dripping = async {
            for byte in &bytes[from..] {
                tokio::time::sleep(Duration::from_secs(2)).await;
                if wire.stream.write_all(&[*byte]).await.is_err() {
                    break;
                }
            }
        };
        // A length has four bytes, and would be there in eight seconds.
        tokio::time::timeout(Duration::from_secs(100), dripping).await.expect(what);
        let most = READ_TIMEOUT * 2 + Duration::from_secs(3);
        assert!(begun.elapsed() <= most, "{what}: {:?}", begun.elapsed());
        target.unharmed(what, true).await;
    }
}

/// Each of those who say nothing takes a few kilobytes, and others are served beside them.
#[tokio::test(start_paused = true)]
async fn thousands_who_say_nothing_take_little() {
    let count = times(2_000, 10_000) as usize;
    let mut target =
        Target::with(|builder| builder.set("max.connections", 20_000).set("max.connections.per.ip", 20_000))
            .await;
    let before = alloc::watch();
    let mut idle = Vec::new();
    for number in 0..count {
        let mut wire = target.connect().await;
        // Half a length, some of them.
        wire.send(&[0, 0][..number % 3]).await;
        idle.push(wire);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let each = (alloc::watch() - before) / count as isize;
    assert!(each < 24 << 10, "{each} bytes each");
    let mut wire = target.connect().await;
    let asked = std::time::Instant::now();
    wire.ask(&ApiVersionsRequest::default()).await;
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    drop(idle);
    tokio::time::sleep(READ_TIMEOUT).await;
    target.unharmed("thousands went", true).await;
}

/// Come and gone, with a word or without.
#[tokio::test(start_paused = true)]
async fn a_flood_of_connections_leaves_nothing_behind() {
    let mut target = Target::start().await;
    let word = encode_request(&ApiVersionsRequest::default(), 0, 1, None).unwrap();
    for number in 0..times(2_000, 20_000) as usize {
        let mut wire = target.connect().await;
        wire.send(&word[..number % (word.len() + 1)]).await;
        if number % 7 == 0 {
            wire.receive_or_not().await;
        }
        if number % 500 == 499 {
            drop(wire);
            tokio::time::sleep(Duration::from_secs(1)).await;
            target.unharmed(&format!("{number} connections"), true).await;
        }
    }
}

impl Wire {
    /// An answer, if one comes at once.
    async fn receive_or_not(&mut self) {
        let _ = tokio::time::timeout(Duration::from_millis(1), self.receive()).await;
    }
}

/// One consumer in thousands of groups; who does not come back is forgotten, with the groups.
#[tokio::test(start_paused = true)]
async fn groups_that_somebody_asked_to_join_are_forgotten() {
    let count = times(2_000, 100_000);
    let mut target = Target::start().await;
    let mut wire = target.connect().await;
    let before = alloc::watch();
    for number in 0..count {
        let told = wire.ask(&join(&format!("group-{number}"))).await;
        assert_eq!(told.error_code, ErrorCode::MemberIdRequired.code());
    }
    let each = (alloc::watch() - before) / count as isize;
    assert!(each < 8 << 10, "{each} bytes for each group");
    // The session that was asked for, and a little more.
    tokio::time::sleep(Duration::from_secs(61)).await;
    let mut wire = target.connect().await;
    let listed = wire.ask(&ListGroupsRequest::default()).await;
    assert!(listed.groups.len() <= 1, "{} groups are left", listed.groups.len());
    target.unharmed("groups", true).await;
}

/// Names of clients and of what is asked for are not kept.
#[tokio::test(start_paused = true)]
async fn names_that_are_made_up_are_not_kept() {
    let mut target = Target::start().await;
    let mut wire = target.connect().await;
    for number in 0..times(3_000, 200_000) {
        let name = format!("{number:0200}");
        let frames = match number % 4 {
            0 => encode_request(&ApiVersionsRequest::default(), 0, 1, Some(&name)),
            1 => {
                let request = HeartbeatRequest { group_id: name.into(), ..HeartbeatRequest::default() };
                encode_request(&request, 4, 1, None)
            }
            2 => {
                let states = DescribeTransactionsRequest {
                    transactional_ids: vec![name.into()],
                    ..DescribeTransactionsRequest::default()
                };
                encode_request(&states, 0, 1, None)
            }
            _ => {
                let find = FindCoordinatorRequest { key: name.into(), ..FindCoordinatorRequest::default() };
                encode_request(&find, 3, 1, None)
            }
        };
        wire.send(&frames.unwrap()).await;
        assert!(wire.receive().await.is_some());
        if number % 1_000 == 999 {
            target.unharmed(&format!("{number} names"), true).await;
        }
    }
}
