//! Requests to the groups, the transactions and the controller, in any order and now and then bent, with restarts
//! between, polite and not. What was answered stays: who reads what is committed sees all of what was committed and
//! nothing of what was aborted, and a start changes nothing that anybody can ask for.
//!
//! Beside these: the same machines without a server, under random members, times and crashes (`group/tests/random.rs`,
//! `txn/tests/random.rs`, `controller/simulation.rs`), and the whole broker (`simulation`).

mod check;
mod steps;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use klamm_broker::Broker;
use klamm_broker::disk::MemoryDisk;
use klamm_protocol::{ApiKey, Request, Utf8Bytes};
use klamm_runtime::{MemoryNet, Rng, SeededRng, TokioClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::cases::frame_of;
use super::heard::Heard;
use super::mutate::mutate;
use super::requests;
use super::target::NOW_MS;
use super::wire::Wire;
use super::{rng, seed, times};

const TOPICS: [&str; 3] = ["a", "b", "c"];
const GROUPS: [&str; 2] = ["g", "h"];
const IDS: [&str; 2] = ["x", "y"];

/// Bent, they may end a transaction, or be part of one.
const OF_TRANSACTIONS: [ApiKey; 6] = [
    ApiKey::Produce,
    ApiKey::InitProducerId,
    ApiKey::AddPartitionsToTxn,
    ApiKey::AddOffsetsToTxn,
    ApiKey::TxnOffsetCommit,
    ApiKey::EndTxn,
];

/// Bent, they may delete topics or records: the keys of creation and deletion are neighbours.
const OF_TOPICS: [ApiKey; 5] = [
    ApiKey::CreateTopics,
    ApiKey::DeleteTopics,
    ApiKey::DeleteRecords,
    ApiKey::CreatePartitions,
    ApiKey::OffsetDelete,
];

/// What is known of a value that was written in a transaction.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    /// Whose it is, and nobody has ended it.
    Open(usize),
    Committed,
    Aborted,
    Unknown,
}

#[derive(Debug, Clone, Default)]
struct Producer {
    id: i64,
    epoch: i16,
    /// By topic.
    sequences: BTreeMap<&'static str, i32>,
}

struct World {
    disk: MemoryDisk,
    net: Arc<MemoryNet>,
    clock: Arc<TokioClock>,
    broker: Broker,
    wire: Wire,
    producers: [Producer; 2],
    members: BTreeMap<&'static str, (Utf8Bytes, i32)>,
    /// By topic, offset and value.
    values: BTreeMap<(&'static str, i64, String), Fate>,
    written: usize,
    asked: usize,
    bent: usize,
}

async fn start(disk: &MemoryDisk, net: &Arc<MemoryNet>, clock: &Arc<TokioClock>) -> Broker {
    Broker::builder()
        .data_dir("/data")
        .disk(Arc::new(disk.clone()))
        .net(net.clone())
        .clock(clock.clone())
        .set("offsets.topic.num.partitions", 2)
        .set("transaction.state.log.num.partitions", 2)
        .set("max.partitions", 60)
        .set("auto.create.topics.enable", false)
        .start()
        .await
        .unwrap()
}

impl World {
    async fn new() -> Self {
        let (disk, net) = (MemoryDisk::new(), Arc::new(MemoryNet::new()));
        let clock = Arc::new(TokioClock::starting_at(NOW_MS));
        let broker = start(&disk, &net, &clock).await;
        let wire = Wire::connect(&*net, broker.bootstrap()).await;
        let (producers, members, values) = (Default::default(), BTreeMap::new(), BTreeMap::new());
        Self { disk, net, clock, broker, wire, producers, members, values, written: 0, asked: 0, bent: 0 }
    }

    /// Asks, or sends what is bent in such a way that nobody knows what it means; then there is no answer.
    async fn ask<R: Request>(&mut self, request: &R, version: i16, rng: &SeededRng) -> Option<R::Response> {
        // Another retention would take records later on.
        if rng.below(8) > 0 || R::KEY == ApiKey::IncrementalAlterConfigs {
            self.asked += 1;
            return Some(self.wire.ask_in(request, version).await);
        }
        self.bent += 1;
        let frame = frame_of(request, version);
        let bent = mutate(&frame, std::slice::from_ref(&frame), rng);
        let mut stream = self.net_stream().await;
        let _ = stream.write_all(&bent.bytes).await;
        let _ = stream.shutdown().await;
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "no end of {} ({})", R::NAME, bent.how);
        if OF_TOPICS.contains(&R::KEY) {
            // Any topic's records may be gone.
            self.values.clear();
        }
        if !OF_TRANSACTIONS.contains(&R::KEY) {
            return None;
        }
        // Whatever it was taken for.
        let open = self.values.values_mut().filter(|fate| matches!(fate, Fate::Open(_)));
        open.for_each(|fate| *fate = Fate::Unknown);
        None
    }

    async fn net_stream(&self) -> Box<dyn klamm_runtime::Stream> {
        klamm_runtime::Net::connect(&*self.net, self.broker.bootstrap()).await.unwrap()
    }
}

/// Histories of their own seeds, each with a polite restart and one that is not.
#[tokio::test(start_paused = true)]
async fn what_was_answered_stays_whatever_is_asked_in_between() {
    let seed = seed();
    let (mut asked, mut bent, mut fates) = (0, 0, [0; 2]);
    for history in 0..times(6, 120) {
        let (heard, _guard) = Heard::listen();
        let mut world = World::new().await;
        for topic in TOPICS {
            let created = world.wire.ask_in(&requests::create(topic, 1), 5).await;
            assert_eq!(created.topics[0].error_code, 0);
        }
        for part in 0..3_u64 {
            let rng = rng(seed, "coordinators", history << 8 | part);
            for _ in 0..80 {
                world.step(&rng).await;
            }
            world.restart(part == 1, &format!("history {history}, part {part}")).await;
            heard.no_defect(&format!("history {history}"));
        }
        (asked, bent) = (asked + world.asked, bent + world.bent);
        for (place, fate) in [Fate::Committed, Fate::Aborted].into_iter().enumerate() {
            fates[place] += world.values.values().filter(|found| **found == fate).count();
        }
    }
    assert!(asked > 500 && bent > 100, "{asked} {bent}");
    assert!(fates.iter().all(|count| *count > 5), "{fates:?}");
}
