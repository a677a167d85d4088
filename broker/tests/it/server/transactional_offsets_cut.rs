//! A transaction that reads, writes and commits how far it has read, and of which the power goes or tears at each of
//! its writes and syncs: what it has written and how far it has read are there together, or neither is.

use std::time::Duration;

use klamm_broker::disk::{Calls, DiskCall, MemoryDisk, Tear};
use klamm_protocol::ErrorCode;

use super::groups::{commit, committed};
use super::transacting::*;
use super::transactional_offsets::*;
use super::wire::*;

/// What the group had committed before, and what the transaction commits.
const BEFORE: i64 = 3;
const AFTER: i64 = 7;

/// How far a client came.
#[derive(Debug, Default)]
struct Told {
    pending: bool,
    asked_to_end: bool,
    ended: bool,
}

/// Writes a record and how far it has read, and ends, as far as it goes.
async fn transact(wire: &mut Wire, client: Client, commits: bool, version_2: bool) -> Told {
    let mut told = Told::default();
    if !version_2 {
        let codes = add(wire, &add_request(client, &[("out", &[0])]), 3).await;
        let added = add_offsets(wire, client).await;
        if codes.values().any(|code| *code != 0) || added != ErrorCode::None {
            return told;
        }
    }
    let (produce_version, version, end_version) =
        if version_2 { (PRODUCE_2, ADDS, END_2) } else { (9, 4, 4) };
    if produce(wire, &write(client, "out", 0, "x"), produce_version).await.error_code != 0 {
        return told;
    }
    if commit_in(wire, &offset_request(client, "in", AFTER), version).await != ErrorCode::None {
        return told;
    }
    told.pending = true;
    told.asked_to_end = true;
    told.ended = wire.ask_in(&end_request(client, commits), end_version).await.error_code == 0;
    told
}

/// Runs a transaction that is cut at the `point`-th write or sync; false when it had no such.
async fn cut_at(point: u64, tear: Tear, commits: bool, version_2: bool) -> bool {
    let what = format!("point {point}, {tear:?}, commits {commits}, version 2 {version_2}");
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["in", "out"]).await;
    assert_eq!(wire.ask_in(&commit(GROUP, "in", BEFORE), 9).await.topics[0].partitions[0].error_code, 0);
    let client = init(&mut wire).await;
    let calls = Calls::of(&[DiskCall::Write, DiskCall::Sync, DiskCall::SyncDir]);
    broker.disk.cut_power(calls.nth(point), tear);
    let told = transact(&mut wire, client, commits, version_2).await;
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
    let at_once = committed(&mut wire, GROUP, "in").await;
    assert!(at_once == BEFORE || at_once == AFTER, "{what}: {at_once} after {told:?}");
    // What nobody ended takes too long, then.
    tokio::time::sleep(Duration::from_secs(65)).await;
    let mut now = state(&mut wire, TX).await;
    while now.starts_with("Prepare") || now == "COORDINATOR_LOAD_IN_PROGRESS" {
        tokio::time::sleep(Duration::from_millis(50)).await;
        now = state(&mut wire, TX).await;
    }
    let is_committed = log(&mut wire, "out").await.iter().any(|value| value == "COMMIT");
    assert!(!told.ended || is_committed == commits, "{what}: {told:?}");
    assert!(told.asked_to_end || !is_committed, "{what}: {told:?}");
    let expected = if is_committed { AFTER } else { BEFORE };
    assert_eq!(committed(&mut wire, GROUP, "in").await, expected, "{what}: {told:?}, {now}");
    assert_eq!(stable_offset(&mut wire, "in").await, (0, expected), "{what}: nothing is left open");
    if at_once == AFTER {
        assert!(is_committed, "{what}: seen before it was decided");
    }
    // Id and group are of use again.
    let next = init(&mut wire).await;
    assert_eq!(
        commit_in(&mut wire, &offset_request(next, "in", AFTER + 1), ADDS).await,
        ErrorCode::None,
        "{what}"
    );
    end(&mut wire, next, true, END_2).await;
    until(&mut wire, TX, "CompleteCommit").await;
    assert_eq!(stable_offset(&mut wire, "in").await, (0, AFTER + 1), "{what}");
    was_cut
}

async fn at_every_point(tears: bool) {
    for (commits, version_2) in [(true, true), (false, true), (true, false), (false, false)] {
        let mut point = 1;
        let tear = |point| if tears { Tear::Prefix(point) } else { Tear::None };
        while cut_at(point, tear(point), commits, version_2).await {
            point += 1;
        }
        assert!(point > 10, "a transaction has more steps than {point}");
    }
}

#[tokio::test(start_paused = true)]
async fn wherever_the_power_goes_records_and_offsets_of_a_transaction_share_their_fate() {
    at_every_point(false).await;
}

#[tokio::test(start_paused = true)]
async fn wherever_the_power_goes_and_tears_records_and_offsets_share_their_fate() {
    at_every_point(true).await;
}
