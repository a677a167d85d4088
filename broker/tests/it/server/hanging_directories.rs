//! A log directory that hangs holds up the topics that are made or removed in it, and nobody else: neither the topics
//! of other directories, nor who asks for a while and not longer, nor the broker's stop.

#![allow(clippy::unwrap_used)] // Helpers of tests fail like tests.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use klamm_broker::Broker;
use klamm_broker::disk::{Calls, Disk, DiskCall, Hang, MemoryDisk};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::create_topics::{CreatableTopic, CreatableTopicResult};
use klamm_protocol::messages::delete_topics::DeletableTopicResult;
use klamm_protocol::messages::{CreateTopicsRequest, DeleteTopicsRequest};
use klamm_runtime::MemoryNet;
use tokio::time::Instant;

use super::wire::*;

/// So long may an answer take that no hanging disk has anything to do with.
const SOON: Duration = Duration::from_secs(5);
const TIMED_OUT: i16 = ErrorCode::RequestTimedOut.code();

/// A broker with two log directories; the metadata log is in the first.
struct Broken {
    disk: MemoryDisk,
    net: Arc<MemoryNet>,
    broker: Broker,
}

impl Broken {
    async fn start() -> Self {
        let (disk, net) = (MemoryDisk::new(), Arc::new(MemoryNet::new()));
        let builder = Broker::builder().set("log.dirs", "/a,/b").disk(Arc::new(disk.on_threads()));
        let broker = builder.net(net.clone()).start().await.unwrap();
        assert!(disk.exists(Path::new("/a/__cluster_metadata-0")));
        Self { disk, net, broker }
    }

    async fn connect(&self) -> Wire {
        Wire::connect(&*self.net, self.broker.bootstrap()).await
    }

    fn topics_in(&self, dir: &str) -> BTreeSet<String> {
        let entries = self.disk.read_dir(Path::new(dir)).unwrap().into_iter();
        let names = entries.filter_map(|entry| entry.name.strip_suffix("-0").map(str::to_owned));
        names.filter(|name| !name.starts_with("__")).collect()
    }

    /// Lets calls hang, until this is dropped, or after a while: when a test fails nothing else would end it.
    fn hang(&self, calls: Calls) -> Arc<Hang> {
        let hang = Arc::new(self.disk.hang(calls));
        let late = Arc::downgrade(&hang);
        std::thread::spawn(move || {
            let (_keep, never) = mpsc::channel::<()>();
            let _ = never.recv_timeout(6 * SOON);
            if let Some(hang) = late.upgrade() {
                hang.release();
            }
        });
        hang
    }
}

async fn create(wire: &mut Wire, name: &str, timeout_ms: i32) -> CreatableTopicResult {
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: 1,
        replication_factor: 1,
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms, ..CreateTopicsRequest::default() };
    let answer = tokio::time::timeout(SOON, wire.ask(&request)).await.expect("an answer to a creation");
    answer.topics.into_iter().next().unwrap()
}

async fn delete(wire: &mut Wire, name: &str, timeout_ms: i32) -> DeletableTopicResult {
    let request = DeleteTopicsRequest { topic_names: vec![name.into()], timeout_ms, ..Default::default() };
    let answer = tokio::time::timeout(SOON, wire.ask_in(&request, 5)).await.expect("an answer to a deletion");
    answer.responses.into_iter().next().unwrap()
}

/// Whoever came after a topic of the directory that hung waited for it, too, and nobody was told anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_of_other_directories_come_and_go() {
    let broken = Broken::start().await;
    let mut wire = broken.connect().await;
    for name in ["ant", "bee", "cat", "dog"] {
        assert_eq!(create(&mut wire, name, 60_000).await.error_code, 0);
    }
    let [here, there] = ["/a", "/b"].map(|dir| broken.topics_in(dir).into_iter().next().unwrap());
    let hang = broken.hang(Calls::of(&[DiskCall::CreateDir, DiskCall::Rename]).on("/b/").and_all_after());
    let refused = delete(&mut wire, &there, 300).await;
    assert_eq!(refused.error_code, TIMED_OUT);
    assert!(refused.error_message.unwrap().contains("goes on"));
    assert_eq!(delete(&mut wire, &here, 60_000).await.error_code, 0);
    let (mut made, mut late) = (Vec::new(), Vec::new());
    for name in ["eel", "fox", "gnu", "hen", "ibex", "jay", "koi", "lynx"] {
        let answer = create(&mut wire, name, 1_000).await;
        if answer.error_code == 0 {
            made.push(name);
            assert_eq!(wire.produce(name, batch(&["x"])).await.error_code, 0);
            continue;
        }
        assert_eq!(answer.error_code, TIMED_OUT, "{:?}", answer.error_message);
        assert!(answer.error_message.unwrap().contains("goes on"));
        late.push(name);
    }
    assert!(made.len() >= 3 && late.len() >= 3, "{made:?} {late:?}");
    assert!(hang.waiting() > 0);
    let all_there = |names: &[&str], dir: &str| {
        let there = broken.topics_in(dir);
        names.iter().all(|name| there.contains(*name))
    };
    assert!(all_there(&made, "/a") && broken.topics_in("/b").contains(&there));
    hang.release();
    let goes_on = async {
        // Whoever was late on a busy machine may be here.
        let is_there = |name: &&str| all_there(&[*name], "/a") || all_there(&[*name], "/b");
        while !late.iter().all(is_there) || broken.topics_in("/b").contains(&there) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for name in &late {
            while wire.produce(name, batch(&["x"])).await.error_code != 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    tokio::time::timeout(SOON, goes_on).await.expect("what was begun is done");
    assert_eq!(create(&mut wire, &there, 60_000).await.error_code, 0);
}

/// What makes names in a directory keeps it from being renamed. It kept everybody else's, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_waits_for_the_disk_holds_no_other() {
    let broken = Broken::start().await;
    let mut wire = broken.connect().await;
    for name in ["ant", "bee", "cat", "dog"] {
        assert_eq!(create(&mut wire, name, 60_000).await.error_code, 0);
    }
    let mut there = broken.topics_in("/b").into_iter();
    let (slow, beside) = (there.next().unwrap(), there.next().unwrap());
    let checkpoint = format!("{slow}-0/leader-epoch-checkpoint");
    let hang = broken.hang(Calls::of(&[DiskCall::Create]).on(&checkpoint));
    let mut writer = broken.connect().await;
    writer.send_in(&produce_request(&slow, batch(&["x"]), -1), 9).await;
    let begun = Instant::now();
    while hang.waiting() == 0 && begun.elapsed() < SOON {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(delete(&mut wire, &slow, 300).await.error_code, TIMED_OUT);
    assert_eq!(delete(&mut wire, &beside, 60_000).await.error_code, 0);
    assert_eq!(create(&mut wire, &beside, 60_000).await.error_code, 0);
    assert_eq!(hang.waiting(), 1);
    hang.release();
    let gone = async {
        while broken.topics_in("/a").union(&broken.topics_in("/b")).any(|name| *name == slow) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, gone).await.expect("the deletion ends");
}

/// Where the metadata itself cannot be written nothing can be done, but everybody is told in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_the_metadata_is_told_in_time() {
    let broken = Broken::start().await;
    let mut wire = broken.connect().await;
    assert_eq!(create(&mut wire, "ant", 60_000).await.error_code, 0);
    let hang = broken.hang(Calls::of(&[DiskCall::Sync]).on("/a/__cluster_metadata-0").and_all_after());
    assert_eq!(create(&mut wire, "bee", 300).await.error_code, TIMED_OUT);
    assert_eq!(delete(&mut wire, "ant", 300).await.error_code, TIMED_OUT);
    assert_eq!(wire.produce("ant", batch(&["still here"])).await.error_code, 0);
    hang.release();
    assert_eq!(create(&mut wire, "bee", 60_000).await.error_code, ErrorCode::TopicAlreadyExists.code());
    let gone = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(delete(&mut wire, "ant", 60_000).await.error_code, gone);
}

/// It waited for the directory, and so did the operator.
#[tokio::test]
async fn a_stop_does_not_wait_for_a_directory_that_hangs() {
    let broken = Broken::start().await;
    let mut wire = broken.connect().await;
    for name in ["ant", "bee"] {
        assert_eq!(create(&mut wire, name, 60_000).await.error_code, 0);
        assert_eq!(wire.produce(name, batch(&["x"])).await.error_code, 0);
    }
    drop(wire);
    let hang = broken.hang(Calls::of(&[DiskCall::Sync]).on("/b/").and_all_after());
    let marker = |dir: &str| broken.disk.exists(&Path::new(dir).join(".kafka_cleanshutdown"));
    // Time stands still but for what this test makes of it.
    tokio::time::pause();
    let others_are_closed = async {
        while !marker("/a") || hang.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        tokio::time::advance(Duration::from_secs(8)).await;
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert!(!marker("/b"));
        tokio::time::advance(Duration::from_secs(2)).await;
    };
    let (stopped, ()) = tokio::join!(broken.broker.shutdown(), others_are_closed);
    let told = stopped.expect_err("not everything is durable").to_string();
    assert!(told.contains("/b ") && !told.contains("/a") && told.contains("is the disk well"), "{told}");
    assert!(marker("/a") && !marker("/b"));
    assert_eq!(hang.waiting(), 1);
}
