//! A disk that hangs holds its own partitions and nothing else.
//!
//! Two writes, or two reads, that hung on one partition stopped the whole broker on two cores: they ran on the
//! runtime's workers, and whoever asked the partition for anything waited behind them.

#![allow(clippy::unwrap_used)] // Helpers of tests fail like tests.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use klamm_broker::Broker;
use klamm_broker::disk::{Calls, Disk, DiskCall, Hang, MemoryDisk};
use klamm_protocol::frame::encode_request;
use klamm_protocol::messages::create_topics::CreatableTopic;
use klamm_protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, FetchRequest, ListOffsetsRequest, ProduceRequest,
};
use klamm_runtime::MemoryNet;

use super::wire::*;

/// So long may an answer take that no hanging disk has anything to do with.
const SOON: Duration = Duration::from_secs(5);

/// A broker with two log directories on a disk whose calls may hang, and three topics: `slow`, whose disk will hang,
/// one beside it, and one in the other directory.
struct Broken {
    disk: MemoryDisk,
    net: Arc<MemoryNet>,
    broker: Option<Broker>,
    slow: String,
    beside: String,
    elsewhere: String,
}

impl Broken {
    async fn start() -> Self {
        let (disk, net) = (MemoryDisk::new(), Arc::new(MemoryNet::new()));
        let broker = start(&disk, &net).await;
        let mut wire = Wire::connect(&*net, broker.bootstrap()).await;
        for name in ["ant", "bee", "cat", "dog"] {
            let topic = CreatableTopic {
                name: name.into(),
                num_partitions: 1,
                replication_factor: 1,
                ..CreatableTopic::default()
            };
            let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
            assert_eq!(wire.ask(&request).await.topics[0].error_code, 0);
            for value in ["one", "two"] {
                assert_eq!(wire.produce(name, batch(&[value])).await.error_code, 0);
            }
        }
        let topics_in = |dir: &str| -> Vec<String> {
            let entries = disk.read_dir(Path::new(dir)).unwrap().into_iter();
            let names = entries.filter_map(|entry| entry.name.strip_suffix("-0").map(str::to_owned));
            names.filter(|name| !name.starts_with("__")).collect()
        };
        let (here, there) = (topics_in("/b"), topics_in("/a"));
        let (slow, beside, elsewhere) = (here[0].clone(), here[1].clone(), there[0].clone());
        Self { disk, net, broker: Some(broker), slow, beside, elsewhere }
    }

    /// Nothing of the logs is known but what is on the disk.
    async fn restart(&mut self) {
        self.broker.take().unwrap().shutdown().await.unwrap();
        self.broker = Some(start(&self.disk, &self.net).await);
    }

    async fn connect(&self) -> Wire {
        Wire::connect(&*self.net, self.broker.as_ref().unwrap().bootstrap()).await
    }

    /// Lets calls on the log of the slow topic hang.
    fn hang(&self, call: DiskCall) -> Released {
        let calls =
            Calls::of(&[call]).on(&format!("{}-0/00000000000000000000.log", self.slow)).and_all_after();
        Released::at_the_end(self.disk.hang(calls))
    }

    /// What everybody else may ask for meanwhile.
    async fn others_are_served(&self) {
        let others = async {
            let mut wire = self.connect().await;
            wire.ask(&ApiVersionsRequest::default()).await;
            let all = wire.metadata(&[&self.slow, &self.beside, &self.elsewhere]).await;
            assert!(all.topics.iter().all(|topic| topic.error_code == 0));
            let end = wire.ask(&list_end(&self.slow)).await;
            assert_eq!(end.topics[0].partitions[0].offset, 2);
            assert_eq!(wire.fetch(&self.slow, 2).await.error_code, 0, "at the end");
            for topic in [&self.beside, &self.elsewhere] {
                assert_eq!(wire.produce(topic, batch(&["three"])).await.error_code, 0, "{topic}");
                assert_eq!(wire.read_all(topic).await, ["one", "two", "three"], "{topic}");
            }
        };
        tokio::time::timeout(SOON, others).await.expect("others are served");
    }
}

async fn start(disk: &MemoryDisk, net: &Arc<MemoryNet>) -> Broker {
    let builder = Broker::builder().set("log.dirs", "/a,/b").disk(Arc::new(disk.on_threads()));
    builder.net(net.clone()).start().await.unwrap()
}

fn list_end(topic: &str) -> ListOffsetsRequest {
    let partition = ListOffsetsPartition { timestamp: -1, ..ListOffsetsPartition::default() };
    let topic =
        ListOffsetsTopic { name: topic.into(), partitions: vec![partition], ..ListOffsetsTopic::default() };
    ListOffsetsRequest { topics: vec![topic], ..ListOffsetsRequest::default() }
}

/// Calls that hang, and a thread that lets them go at last: when all workers hang, no timer ends the test.
struct Released {
    hang: Arc<Hang>,
    _test_goes_on: mpsc::Sender<()>,
}

impl Released {
    fn at_the_end(hang: Hang) -> Self {
        let hang = Arc::new(hang);
        let (sender, ended) = mpsc::channel();
        let late = hang.clone();
        std::thread::spawn(move || {
            let _ = ended.recv_timeout(4 * SOON);
            late.release();
        });
        Self { hang, _test_goes_on: sender }
    }

    async fn is_reached(&self) {
        let reached = async {
            while self.hang.waiting() == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(SOON, reached).await.expect("a call hangs");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_hang_hold_only_their_partition() {
    let broken = Broken::start().await;
    let hang = broken.hang(DiskCall::Write);
    let mut writers = Vec::new();
    for _ in 0..3 {
        let mut wire = broken.connect().await;
        wire.send_in(&produce_request(&broken.slow, batch(&["late"]), -1), 9).await;
        writers.push(wire);
    }
    hang.is_reached().await;
    broken.others_are_served().await;
    hang.hang.release();
    for wire in &mut writers {
        let (_, answer) = wire.receive_in::<ProduceRequest>(9).await;
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    }
    let all = broken.connect().await.read_all(&broken.slow).await;
    assert_eq!(all, ["one", "two", "late", "late", "late"]);
}

/// A batch that waits for the disk is a slice of its frame and keeps all of it. Only the batch was counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_count_for_as_long_as_their_batches_wait_for_the_disk() {
    const FRAME_BYTES: usize = 1 << 20;
    let broken = Broken::start().await;
    let hang = broken.hang(DiskCall::Write);
    let taken = || broken.broker.as_ref().unwrap().request_bytes_taken();
    let mut wire = broken.connect().await;
    let request = produce_request(&broken.slow, batch(&["late"]), -1);
    let mut frame = encode_request(&request, 9, 1, Some("wire")).unwrap().to_vec();
    frame.resize(4 + FRAME_BYTES, 0);
    frame[..4].copy_from_slice(&(FRAME_BYTES as u32).to_be_bytes());
    for _ in 0..3 {
        wire.send_raw(&frame).await;
    }
    hang.is_reached().await;
    // A later request on the connection was answered in its turn, so that all three were worked on.
    let mut other = broken.connect().await;
    let all_came = async {
        while taken() < 3 * FRAME_BYTES {
            other.metadata(&[&broken.elsewhere]).await;
        }
    };
    tokio::time::timeout(SOON, all_came).await.expect("all three frames count");
    hang.hang.release();
    for _ in 0..3 {
        wire.receive_in::<ProduceRequest>(9).await;
    }
    let given_back = async {
        while taken() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, given_back).await.expect("all of it comes back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn syncs_that_hang_hold_only_their_partition() {
    let broken = Broken::start().await;
    let hang = broken.hang(DiskCall::Sync);
    let mut writer = broken.connect().await;
    for _ in 0..3 {
        writer.send_in(&produce_request(&broken.slow, batch(&["late"]), -1), 9).await;
    }
    hang.is_reached().await;
    broken.others_are_served().await;
    hang.hang.release();
    for _ in 0..3 {
        let (_, answer) = writer.receive_in::<ProduceRequest>(9).await;
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_hang_hold_only_their_partition() {
    let mut broken = Broken::start().await;
    broken.restart().await;
    let hang = broken.hang(DiskCall::Read);
    let mut readers = Vec::new();
    for _ in 0..3 {
        let mut wire = broken.connect().await;
        wire.send_in(&fetch_request(&broken.slow, 0, 60_000), 12).await;
        readers.push(wire);
    }
    hang.is_reached().await;
    broken.others_are_served().await;

    // A consumer of both is not held up by the one for longer than a moment.
    let mut both = fetch_request(&broken.slow, 0, 0);
    both.topics.extend(fetch_request(&broken.elsewhere, 0, 0).topics);
    let mut wire = broken.connect().await;
    let answer = tokio::time::timeout(SOON, wire.ask_in(&both, 12)).await.expect("an answer");
    let [slow, elsewhere] = [0, 1].map(|topic| answer.responses[topic].partitions[0].clone());
    assert_eq!((slow.error_code, slow.high_watermark, values(&slow).len()), (0, 2, 0));
    assert_eq!(values(&elsewhere).len(), 3);

    hang.hang.release();
    for wire in &mut readers {
        let (_, answer) = wire.receive_in::<FetchRequest>(12).await;
        assert_eq!(values(&answer.responses[0].partitions[0]).len(), 2);
    }
}

/// A batch that was begun is appended whoever waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_hangs_is_done_though_its_connection_has_gone() {
    let broken = Broken::start().await;
    let hang = broken.hang(DiskCall::Write);
    let mut gone = broken.connect().await;
    gone.send_in(&produce_request(&broken.slow, batch(&["late"]), -1), 9).await;
    hang.is_reached().await;
    drop(gone);
    hang.hang.release();
    let appended = async {
        let mut wire = broken.connect().await;
        while wire.read_all(&broken.slow).await != ["one", "two", "late"] {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(SOON, appended).await.expect("the batch is there");
}
