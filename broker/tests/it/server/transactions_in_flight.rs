//! The older flow of transactions with many requests in flight, over several connections and a disk that hangs: their
//! answers come in any order, and what counts is the order of the log.

#![allow(clippy::unwrap_used)] // Helpers of tests fail like tests.

use std::sync::Arc;
use std::time::Duration;

use klamm_broker::Broker;
use klamm_broker::disk::{Calls, DiskCall, MemoryDisk};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::*;
use klamm_protocol::records::batches;
use klamm_runtime::{MemoryNet, Rng, SeededRng};

use super::groups::committed;
use super::transacting::*;
use super::transactional_offsets::{GROUP, add_offsets, offset_request, stable_offset};
use super::wire::*;

/// Versions in which a partition has to be added to a transaction first.
const PRODUCE_1: i16 = 11;
const COMMIT_OFFSETS_1: i16 = 4;
const END_1: i16 = 4;
const DEADLINE: Duration = Duration::from_secs(60);

/// The offsets that the group has in the log for partition 0 of `t`, in the order of the log.
async fn logged(wire: &mut Wire) -> Vec<i64> {
    let (mut offset, mut all) = (0, Vec::new());
    loop {
        let found = wire.fetch("__consumer_offsets", offset).await;
        assert_eq!(found.error_code, 0);
        let before = offset;
        for batch in batches(found.records.unwrap().into_bytes().unwrap()) {
            let batch = batch.unwrap();
            offset = batch.header().next_offset();
            if batch.header().is_control() {
                continue;
            }
            for record in batch.records(1 << 20).unwrap().iter().map(Result::unwrap) {
                // Two bytes of version, then the group; values begin with a version and the offset.
                let (key, value) = (record.key.unwrap(), record.value.unwrap_or_default());
                let named =
                    [&[0, 1, 0, GROUP.len() as u8][..], GROUP.as_bytes(), &[0, 1], b"t", &[0; 4]].concat();
                if key == named {
                    all.push(i64::from_be_bytes(value[2..10].try_into().unwrap()));
                }
            }
        }
        if offset == before {
            return all;
        }
    }
}

struct Place {
    disk: MemoryDisk,
    net: Arc<MemoryNet>,
    broker: Broker,
}

impl Place {
    async fn start() -> Self {
        let (disk, net) = (MemoryDisk::new(), Arc::new(MemoryNet::new()));
        let builder = Broker::builder().data_dir("/data").disk(Arc::new(disk.on_threads())).net(net.clone());
        let builder = builder.set("transaction.state.log.num.partitions", 1);
        let broker = builder.set("offsets.topic.num.partitions", 1).start().await.unwrap();
        Self { disk, net, broker }
    }

    async fn connect(&self) -> Wire {
        Wire::connect(&*self.net, self.broker.bootstrap()).await
    }
}

/// One transaction: offsets over three connections, records over one, all of it in flight at the same time.
async fn transact(place: &Place, wires: &mut [Wire], client: Client, round: i64, rng: &SeededRng) -> bool {
    let commit = rng.below(3) > 0;
    assert!(
        add(&mut wires[0], &add_request(client, &[("t", &[0])]), 3).await.values().all(|code| *code == 0)
    );
    assert_eq!(add_offsets(&mut wires[0], client).await, ErrorCode::None);
    let (before, logged_before) =
        (committed(&mut wires[0], GROUP, "t").await, logged(&mut wires[0]).await.len());
    let writes =
        Calls::of(&[DiskCall::Write]).on([".log", "__consumer_offsets-0", "/t-0"][rng.below(3) as usize]);
    let hang = place.disk.hang(writes.nth(1 + rng.below(3)).and_all_after());
    let mut sent = vec![0; wires.len()];
    let count = 4 + rng.below(20) as i64;
    for number in 0..count {
        let on = rng.below(3) as usize;
        let offset = round * 1_000 + (number * 7) % count;
        wires[on].send_in(&offset_request(client, "t", offset), COMMIT_OFFSETS_1).await;
        sent[on] += 1;
    }
    let records = rng.below(5) as i32;
    let (records_wire, offset_wires) = wires.split_last_mut().unwrap();
    for sequence in 0..records {
        let request = write(client, "t", sequence, &format!("{round}-{sequence}"));
        records_wire.send_in(&request, PRODUCE_1).await;
    }
    // Some of it gets that far; how much does not matter.
    tokio::time::sleep(Duration::from_millis(rng.below(4))).await;
    drop(hang);
    place.disk.clear_faults();
    for (wire, count) in offset_wires.iter_mut().zip(&sent) {
        for _ in 0..*count {
            let (_, answer) = wire.receive_in::<TxnOffsetCommitRequest>(COMMIT_OFFSETS_1).await;
            assert_eq!(answer.topics[0].partitions[0].error_code, 0);
        }
    }
    let mut last = -1;
    for _ in 0..records {
        let (_, answer) = records_wire.receive_in::<ProduceRequest>(PRODUCE_1).await;
        let told = &answer.responses[0].partition_responses[0];
        assert!(told.error_code == 0 && told.base_offset > last, "{told:?} after {last}");
        last = told.base_offset;
    }
    let wire = &mut wires[0];
    assert_eq!(committed(wire, GROUP, "t").await, before, "nothing counts yet");
    assert_eq!(stable_offset(wire, "t").await.0, ErrorCode::UnstableOffsetCommit.code());
    end(wire, client, commit, END_1).await;
    until(wire, TX, if commit { "CompleteCommit" } else { "CompleteAbort" }).await;
    let all = logged(wire).await;
    assert_eq!(all.len() - logged_before, count as usize, "each is in the log once");
    let expected = if commit { *all.last().unwrap() } else { before };
    assert_eq!(committed(wire, GROUP, "t").await, expected, "the last in the log counts: {all:?}");
    // A late one belongs to no transaction, which is said so from this version on.
    let late = wire.ask_in(&offset_request(client, "t", 999_999), COMMIT_OFFSETS_1).await;
    assert_eq!(late.topics[0].partitions[0].error_code, ErrorCode::TransactionAbortable.code());
    commit
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_requests_in_flight_the_last_in_the_log_counts() {
    let first = std::env::var("KLAMM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    for seed in first..first + 4 {
        println!("KLAMM_SEED={seed}");
        let rng = SeededRng::new(seed);
        let place = Place::start().await;
        let mut wires = Vec::new();
        for _ in 0..4 {
            wires.push(place.connect().await);
        }
        wires[0].metadata(&["t"]).await;
        committed(&mut wires[0], GROUP, "t").await;
        let mut expected = Vec::new();
        for round in 1..8 {
            // Each begins anew, so that sequence numbers do.
            let client = init(&mut wires[0]).await;
            let transaction = transact(&place, &mut wires, client, round, &rng);
            let committed = tokio::time::timeout(DEADLINE, transaction).await.expect("in time");
            expected.push(committed);
        }
        let ends = log(&mut wires[0], "t").await;
        let ends: Vec<bool> = ends
            .iter()
            .filter(|one| one.chars().all(char::is_alphabetic))
            .map(|one| one == "COMMIT")
            .collect();
        assert_eq!(ends, expected, "each transaction has one marker");
        place.broker.shutdown().await.unwrap();
    }
}
