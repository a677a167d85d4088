//! Compacted topics of a whole broker: the broker's own stop growing, and a log is opened with its topic's settings.

#![allow(clippy::unwrap_used)] // Helpers of tests fail like tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use klamm_broker::Broker;
use klamm_broker::disk::{Disk, MemoryDisk};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::*;
use klamm_protocol::records::{BatchBuilder, BatchOptions};
use klamm_runtime::MemoryNet;

use super::configs::{BROKER, SET, adjust};
use super::groups::{commit, committed};
use super::record_errors::create;
use super::wire::*;

const SEGMENT_BYTES: u64 = 16_384;

pub(super) struct Home {
    pub(super) disk: MemoryDisk,
    net: Arc<MemoryNet>,
    settings: Vec<(&'static str, String)>,
}

impl Home {
    pub(super) fn new(settings: &[(&'static str, &str)]) -> Self {
        let settings = settings.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self { disk: MemoryDisk::new(), net: Arc::new(MemoryNet::new()), settings }
    }

    pub(super) async fn start(&self) -> Broker {
        let builder =
            Broker::builder().data_dir("/data").disk(Arc::new(self.disk.clone())).net(self.net.clone());
        let set =
            |builder: klamm_broker::BrokerBuilder, (name, value): &(&str, String)| builder.set(*name, value);
        self.settings.iter().fold(builder, set).start().await.unwrap()
    }

    pub(super) async fn connect(&self, broker: &Broker) -> Wire {
        Wire::connect(&*self.net, broker.bootstrap()).await
    }

    fn logs(&self, partition: &str) -> Vec<PathBuf> {
        let dir = Path::new("/data").join(partition);
        let names = self.disk.read_dir(&dir).unwrap().into_iter().map(|entry| entry.name);
        names.filter(|name| name.ends_with(".log")).map(|name| dir.join(name)).collect()
    }

    fn size(&self, partition: &str) -> u64 {
        self.logs(partition).iter().map(|path| self.disk.open(path).unwrap().size().unwrap()).sum()
    }
}

/// By the same measure ten million commits take no more: what is not compacted yet is at most as much as what is, and
/// the segment that is appended to.
#[tokio::test(start_paused = true)]
async fn committed_offsets_do_not_grow_with_the_commits() {
    let segment_bytes = SEGMENT_BYTES.to_string();
    let home = Home::new(&[
        ("offsets.topic.num.partitions", "1"),
        ("offsets.topic.segment.bytes", &segment_bytes),
        ("log.cleaner.backoff.ms", "1000"),
    ]);
    let mut broker = home.start().await;
    let mut wire = home.connect(&broker).await;
    wire.metadata(&["t"]).await;
    committed(&mut wire, "g", "t").await;
    let (mut written, mut largest) = (0, 0);
    for round in 0..60 {
        for offset in 0..100 {
            let answer = wire.ask_in(&commit("g", "t", round * 100 + offset), 9).await;
            assert_eq!(answer.topics[0].partitions[0].error_code, 0);
        }
        let before = home.size("__consumer_offsets-0");
        tokio::time::sleep(Duration::from_secs(3)).await;
        let after = home.size("__consumer_offsets-0");
        written += before - after;
        largest = largest.max(after);
    }
    assert!(written > 20 * SEGMENT_BYTES, "{written}");
    assert!(largest < 3 * SEGMENT_BYTES, "{largest}");
    for clean in [true, false] {
        if clean {
            broker.shutdown().await.unwrap();
        }
        drop(broker);
        home.disk.kill();
        broker = home.start().await;
        let mut wire = home.connect(&broker).await;
        assert_eq!(committed(&mut wire, "g", "t").await, 5_999);
    }
}

async fn init(wire: &mut Wire, id: &str) -> InitProducerIdResponse {
    let request = InitProducerIdRequest {
        transactional_id: Some(id.into()),
        transaction_timeout_ms: 60_000,
        ..InitProducerIdRequest::default()
    };
    loop {
        let answer = wire.ask_in(&request, 4).await;
        let loading = [
            ErrorCode::CoordinatorLoadInProgress,
            ErrorCode::NotCoordinator,
            ErrorCode::CoordinatorNotAvailable,
        ]
        .map(ErrorCode::code);
        if !loading.contains(&answer.error_code) {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn transaction_state_does_not_grow_with_the_transactions() {
    let segment_bytes = SEGMENT_BYTES.to_string();
    let home = Home::new(&[
        ("transaction.state.log.num.partitions", "1"),
        ("transaction.state.log.segment.bytes", &segment_bytes),
        ("log.cleaner.backoff.ms", "1000"),
    ]);
    let broker = home.start().await;
    let mut wire = home.connect(&broker).await;
    let find = FindCoordinatorRequest { key: "id".into(), key_type: 1, ..FindCoordinatorRequest::default() };
    wire.ask_in(&find, 3).await;
    let (mut last, mut largest) = (init(&mut wire, "id").await, 0);
    for _ in 0..30 {
        for _ in 0..60 {
            let next = init(&mut wire, "id").await;
            assert_eq!(
                (next.error_code, next.producer_id, next.producer_epoch),
                (0, last.producer_id, last.producer_epoch + 1)
            );
            last = next;
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        largest = largest.max(home.size("__transaction_state-0"));
    }
    assert!(largest < 3 * SEGMENT_BYTES, "{largest}");
    drop(broker);
    home.disk.kill();
    let broker = home.start().await;
    let next = init(&mut home.connect(&broker).await, "id").await;
    assert_eq!((next.producer_id, next.producer_epoch), (last.producer_id, last.producer_epoch + 1));
}

fn keyed(key: &str) -> bytes::Bytes {
    let mut batch = BatchBuilder::new(BatchOptions::default());
    batch.append(1, Some(key.as_bytes()), Some(&[b'x'; 100]), []).unwrap();
    batch.build().unwrap()
}

/// What a crash leaves between a compaction and its checkpoint: gaps that only the topic's settings explain.
#[tokio::test(start_paused = true)]
async fn a_compacted_log_is_opened_as_one() {
    let home = Home::new(&[("log.cleaner.backoff.ms", "1000")]);
    let broker = home.start().await;
    let mut wire = home.connect(&broker).await;
    let settings =
        [("cleanup.policy", "compact"), ("segment.bytes", "1024"), ("min.cleanable.dirty.ratio", "0.1")];
    create(&mut wire, "t", &settings).await;
    for number in 0..100 {
        let produced = wire.produce("t", keyed(&format!("{}", number % 3))).await;
        assert_eq!((produced.error_code, produced.base_offset), (0, number));
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let left = wire.read_all("t").await;
    assert!(left.len() < 30, "{}", left.len());
    drop(broker);
    home.disk.kill();
    for name in ["cleaner-offset-checkpoint", "gap-end-checkpoint", "recovery-point-offset-checkpoint"] {
        let _ = home.disk.remove(&Path::new("/data").join(name));
    }
    for log in home.logs("t-0") {
        // Where there is one.
        let _ = home.disk.remove(&log.with_extension("index"));
    }
    let broker = home.start().await;
    let mut wire = home.connect(&broker).await;
    assert_eq!(wire.read_all("t").await, left);
    assert_eq!(wire.produce("t", keyed("next")).await.base_offset, 100);
}

/// By the broker's settings it could be one with gaps; by its topic's it cannot.
#[tokio::test(start_paused = true)]
async fn a_missing_segment_is_damage_where_the_topic_has_no_gaps() {
    for (policy, offline) in [("delete", true), ("compact", false)] {
        let home = Home::new(&[("log.cleanup.policy", "compact"), ("log.cleaner.enable", "false")]);
        let broker = home.start().await;
        let mut wire = home.connect(&broker).await;
        create(&mut wire, "t", &[("cleanup.policy", policy), ("segment.bytes", "1024")]).await;
        for number in 0..30 {
            assert_eq!(wire.produce("t", keyed(&number.to_string())).await.error_code, 0);
        }
        broker.shutdown().await.unwrap();
        drop(broker);
        let logs = home.logs("t-0");
        home.disk.remove(&logs[1]).unwrap();
        let broker = home.start().await;
        let mut wire = home.connect(&broker).await;
        let expected = if offline { ErrorCode::KafkaStorageError } else { ErrorCode::None };
        assert_eq!(wire.produce("t", keyed("next")).await.error_code, expected.code(), "{policy}");
    }
}

/// The cleaner was told to look once a day, and is told another thing.
#[tokio::test(start_paused = true)]
async fn the_cleaner_goes_by_settings_that_are_altered() {
    let home = Home::new(&[("log.cleaner.backoff.ms", "86400000")]);
    let broker = home.start().await;
    let mut wire = home.connect(&broker).await;
    create(&mut wire, "t", &[("cleanup.policy", "compact"), ("segment.bytes", "1024")]).await;
    for _ in 0..100 {
        assert_eq!(wire.produce("t", keyed("k")).await.error_code, 0);
    }
    let before = home.size("t-0");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(home.size("t-0"), before);
    let changes = [("log.cleaner.backoff.ms", SET, Some("1000"))];
    assert_eq!(adjust(&mut wire, BROKER, "", &changes, false).await, 0);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let after = home.size("t-0");
    assert!(after < before / 2, "{after} of {before}");
    let changes = [("log.cleaner.min.cleanable.ratio", SET, Some("1.5"))];
    assert_eq!(adjust(&mut wire, BROKER, "", &changes, false).await, ErrorCode::InvalidRequest.code());
}
