//! A transaction of which the power goes, or the broker dies, before each of its writes and syncs. After the next start
//! it ends in all of its partitions in the same way, and as the client was told.

#![allow(clippy::unwrap_used)] // Helpers of tests fail like tests.

use std::io::ErrorKind;
use std::time::Duration;

use klamm_broker::disk::{Calls, DiskCall, MemoryDisk, Tear};
use klamm_protocol::ErrorCode;

use super::groups::committed;
use super::transacting::*;
use super::transactions_offsets::*;
use super::wire::*;

const TOPICS: [&str; 3] = ["t", "u", "v"];

/// How far a client came.
#[derive(Debug, Default)]
struct Told {
    /// What it has consumed counts with it.
    offset_written: bool,
    /// It asked for an end.
    asked_to_end: bool,
    ended: bool,
}

/// Writes into each topic and ends, as far as it goes.
async fn transact(wire: &mut Wire, client: Client, commit: bool, version_2: bool) -> Told {
    let mut told = Told::default();
    let (produce_version, end_version) = if version_2 { (PRODUCE_2, END_2) } else { (9, 4) };
    if !version_2 {
        let topics = TOPICS.map(|topic| (topic, [0].as_slice()));
        let codes = add(wire, &add_request(client, &topics), 3).await;
        if codes.values().any(|code| *code != 0) {
            return told;
        }
    }
    for topic in TOPICS {
        if produce(wire, &write(client, topic, 0, "x"), produce_version).await.error_code != 0 {
            return told;
        }
    }
    if !version_2 && add_offsets(wire, client).await != ErrorCode::None {
        return told;
    }
    let offsets_version = if version_2 { OFFSETS_2 } else { 3 };
    let offset = offset_request(client, "t", 7);
    if commit_offset(wire, &offset, offsets_version).await != ErrorCode::None {
        return told;
    }
    told.offset_written = true;
    told.asked_to_end = true;
    told.ended = wire.ask_in(&end_request(client, commit), end_version).await.error_code == 0;
    told
}

async fn is_ended_everywhere(wire: &mut Wire, told: &Told, commit: bool, point: &str) {
    let mut ends = Vec::new();
    for topic in TOPICS {
        let log = log(wire, topic).await;
        let stable = stable(wire, topic).await;
        assert_eq!(stable, i64::try_from(log.len()).unwrap(), "{point}: nobody waits in {topic}: {log:?}");
        if let Some(end) = log.iter().find(|value| *value != "x") {
            ends.push(end.clone());
        }
    }
    let offset = committed(wire, "g", "t").await;
    if told.offset_written {
        let commits = ends.first().is_some_and(|end| end == "COMMIT");
        assert_eq!(offset, if commits { 7 } else { -1 }, "{point}: {ends:?}");
    } else {
        assert_eq!(offset, -1, "{point}");
    }
    ends.dedup();
    assert!(ends.len() <= 1, "{point}: all the same: {ends:?} ({told:?})");
    if told.ended {
        assert_eq!(ends, [if commit { "COMMIT" } else { "ABORT" }], "{point}");
    } else if !told.asked_to_end {
        assert!(ends.is_empty() || ends == ["ABORT"], "{point}: {ends:?}");
    }
}

/// Runs a transaction that is cut at the `point`-th write or sync; false when it had no such.
async fn cut_at(point: u64, cut: impl Fn(&MemoryDisk, u64), commit: bool, version_2: bool) -> bool {
    let what = format!("point {point}, commit {commit}, version 2 {version_2}");
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&TOPICS).await;
    let client = init(&mut wire).await;
    cut(&broker.disk, point);
    let told = transact(&mut wire, client, commit, version_2).await;
    // Markers are written behind the answer.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut was_cut = false;
    let restart = |disk: &MemoryDisk| {
        was_cut = disk.power_on();
        if !was_cut {
            disk.kill();
        }
    };
    let broker = broker.again(restart).await;
    let mut wire = broker.connect().await;
    // What nobody ended takes too long, then.
    tokio::time::sleep(Duration::from_secs(65)).await;
    let mut now = state(&mut wire, TX).await;
    while now.starts_with("Prepare") || now == "COORDINATOR_LOAD_IN_PROGRESS" {
        tokio::time::sleep(Duration::from_millis(50)).await;
        now = state(&mut wire, TX).await;
    }
    assert!(now.starts_with("Complete") || now == "Empty", "{what}: {now}");
    is_ended_everywhere(&mut wire, &told, commit, &what).await;
    // The id is of use again.
    let next = init(&mut wire).await;
    for topic in TOPICS {
        let written = produce(&mut wire, &write(next, topic, 0, "x"), PRODUCE_2).await;
        assert_eq!(ErrorCode::from_code(written.error_code), ErrorCode::None, "{what}");
    }
    end(&mut wire, next, true, END_2).await;
    until(&mut wire, TX, "CompleteCommit").await;
    was_cut
}

async fn at_every_point(kinds: &[(bool, bool)], cut: impl Fn(&MemoryDisk, u64) + Copy) {
    for &(commit, version_2) in kinds {
        let mut point = 1;
        while cut_at(point, cut, commit, version_2).await {
            point += 1;
        }
        assert!(point > 10, "a transaction has more steps than {point}");
    }
}

/// The broker is killed, and what it has written is there. A write that is cut off is there by half.
#[tokio::test(start_paused = true)]
async fn wherever_the_broker_dies_a_transaction_ends_everywhere_alike() {
    for point in 1..=70 {
        let stop = |disk: &MemoryDisk, point| {
            let calls = Calls::of(&[DiskCall::Write, DiskCall::Sync, DiskCall::SyncDir]);
            disk.fail(calls.nth(point).and_all_after(), ErrorKind::Other);
        };
        cut_at(point, stop, point % 2 == 0, point % 3 != 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn wherever_the_power_goes_a_transaction_ends_everywhere_alike() {
    at_every_point(&[(true, true), (true, false)], |disk, point| {
        let calls = Calls::of(&[DiskCall::Write, DiskCall::Sync, DiskCall::SyncDir]);
        disk.cut_power(calls.nth(point), Tear::None);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn wherever_the_power_goes_and_tears_what_was_pending_too() {
    at_every_point(&[(false, true), (true, true)], |disk, point| {
        let calls = Calls::of(&[DiskCall::Write, DiskCall::Sync, DiskCall::SyncDir]);
        disk.cut_power(calls.nth(point), Tear::Prefix(point));
    })
    .await;
}
