//! Directories that were taken away between two runs: what was in them is not begun anew as if it had never been.
#![allow(clippy::unwrap_used)] // Helpers of tests fail like tests.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use klamm_broker::Broker;
use klamm_broker::disk::{Disk, MemoryDisk};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::DeleteTopicsRequest;
use klamm_runtime::MemoryNet;

use super::wire::*;

const HOME: &str = "/data/t-0";
const ELSEWHERE: &str = "/elsewhere/t-0";

struct Place {
    disk: MemoryDisk,
    net: Arc<MemoryNet>,
}

impl Place {
    fn new() -> Self {
        Self { disk: MemoryDisk::new(), net: Arc::new(MemoryNet::new()) }
    }

    async fn try_start(&self) -> Result<(Broker, Wire), String> {
        let disk = Arc::new(self.disk.clone());
        let builder = Broker::builder().data_dir("/data").disk(disk).net(self.net.clone());
        let broker = builder.set("log.retention.ms", -1).start().await.map_err(|error| error.to_string())?;
        let wire = Wire::connect(&*self.net, broker.bootstrap()).await;
        Ok((broker, wire))
    }

    async fn start(&self) -> (Broker, Wire) {
        self.try_start().await.unwrap()
    }

    /// Topics `t` and `other` with a record each, and a clean stop.
    async fn filled() -> Self {
        let place = Self::new();
        let (broker, mut wire) = place.start().await;
        for topic in ["t", "other"] {
            assert_eq!(wire.metadata(&[topic]).await.topics[0].error_code, 0);
            wire.produce(topic, batch(&["kept"])).await;
        }
        stop((broker, wire), true).await;
        place
    }
}

async fn stop((broker, wire): (Broker, Wire), clean: bool) {
    if clean {
        broker.shutdown().await.unwrap();
    }
    drop((broker, wire));
    // Its tasks end.
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// It was made anew without a word: the topic was empty, and its offsets were given out again.
#[tokio::test(start_paused = true)]
async fn a_partition_whose_directory_is_gone_is_not_begun_anew() {
    let place = Place::filled().await;
    place.disk.create_dir_all(Path::new("/elsewhere")).unwrap();
    place.disk.rename(Path::new(HOME), Path::new(ELSEWHERE)).unwrap();
    for clean in [true, false, true] {
        let (broker, mut wire) = place.start().await;
        // Also when it was looked at again and again, and the checkpoints were written.
        tokio::time::sleep(Duration::from_secs(400)).await;
        let refused = wire.produce("t", batch(&["instead"])).await;
        assert_eq!(refused.error_code, ErrorCode::KafkaStorageError.code());
        assert_eq!(wire.fetch("t", 0).await.error_code, ErrorCode::KafkaStorageError.code());
        assert_eq!(wire.read_all("other").await, ["kept"]);
        stop((broker, wire), clean).await;
    }
    assert!(!place.disk.exists(Path::new(HOME)));
    place.disk.rename(Path::new(ELSEWHERE), Path::new(HOME)).unwrap();
    let (_broker, mut wire) = place.start().await;
    assert_eq!(wire.read_all("t").await, ["kept"]);
}

#[tokio::test(start_paused = true)]
async fn deleting_the_topic_accepts_the_loss() {
    let place = Place::filled().await;
    place.disk.remove_dir_all(Path::new(HOME)).unwrap();
    let (broker, mut wire) = place.start().await;
    let delete = DeleteTopicsRequest { topic_names: vec!["t".into()], ..DeleteTopicsRequest::default() };
    assert_eq!(wire.ask_in(&delete, 5).await.responses[0].error_code, 0);
    for again in [false, true] {
        assert_eq!(wire.metadata(&["t"]).await.topics[0].error_code, 0);
        assert_eq!(wire.produce("t", batch(&["new"])).await.base_offset, i64::from(again));
    }
    stop((broker, wire), true).await;
    let (_broker, mut wire) = place.start().await;
    assert_eq!(wire.read_all("t").await, ["new", "new"]);
}

/// The broker began with no topics, and what was there was in no metadata.
#[tokio::test(start_paused = true)]
async fn a_broker_whose_metadata_log_is_gone_does_not_start() {
    let place = Place::filled().await;
    place.disk.create_dir_all(Path::new("/elsewhere")).unwrap();
    let (home, elsewhere) = (Path::new("/data/__cluster_metadata-0"), Path::new("/elsewhere/m"));
    place.disk.rename(home, elsewhere).unwrap();
    for _ in 0..2 {
        let refused = place.try_start().await.map(drop).unwrap_err();
        assert!(refused.contains("/data/__cluster_metadata-0 is missing"), "{refused}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    place.disk.rename(elsewhere, home).unwrap();
    let (_broker, mut wire) = place.start().await;
    assert_eq!(wire.read_all("t").await, ["kept"]);
}

/// Of two log directories one was on a file system that was not mounted. Its partitions were begun anew in the empty
/// mount point, and what was acknowledged there was hidden when it was mounted again.
#[tokio::test(start_paused = true)]
async fn an_empty_log_directory_beside_others_is_not_taken_for_new_while_something_is_missing() {
    let (disk, net) = (MemoryDisk::new(), Arc::new(MemoryNet::new()));
    let start = |dirs: &str| {
        let builder = Broker::builder().set("log.dirs", dirs).disk(Arc::new(disk.clone())).net(net.clone());
        builder.set("num.partitions", 4).start()
    };
    let broker = start("/one,/two").await.unwrap();
    let mut wire = Wire::connect(&*net, broker.bootstrap()).await;
    wire.metadata(&["t"]).await;
    wire.produce("t", batch(&["kept"])).await;
    stop((broker, wire), true).await;
    disk.create_dir_all(Path::new("/unmounted")).unwrap();
    // The metadata log is in one of them.
    for dir in ["/one", "/two"].map(Path::new) {
        let unmounted = Path::new("/unmounted/it");
        disk.rename(dir, unmounted).unwrap();
        for _ in 0..2 {
            let refused = start("/one,/two").await.map(drop).unwrap_err().to_string();
            assert!(refused.contains(" is empty: is its file system mounted?"), "{refused}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        disk.remove_dir_all(dir).unwrap();
        disk.rename(unmounted, dir).unwrap();
    }
    // One that is really new is taken, and belongs to the broker from then on.
    let broker = start("/one,/two,/three").await.unwrap();
    let wire = Wire::connect(&*net, broker.bootstrap()).await;
    assert!(disk.exists(Path::new("/three/meta.properties")));
    stop((broker, wire), true).await;
    let broker = start("/one,/two,/three").await.unwrap();
    let mut wire = Wire::connect(&*net, broker.bootstrap()).await;
    assert_eq!(wire.fetch("t", 0).await.error_code, 0);
}
