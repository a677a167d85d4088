//! A disk that fails or loses power in the middle of things: what was acknowledged is there, and what
//! was half done is put right.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use klamm_broker::disk::{Disk, MemoryDisk, Tear};
use klamm_broker::{Broker, BrokerError};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::create_topics::CreatableTopic;
use klamm_protocol::messages::{CreateTopicsRequest, DeleteTopicsRequest, MetadataRequest};
use klamm_runtime::MemoryNet;

use super::wire::*;

async fn start(disk: &MemoryDisk, net: &Arc<MemoryNet>) -> Result<Broker, BrokerError> {
    let builder = Broker::builder().data_dir("/data").disk(Arc::new(disk.clone())).net(net.clone());
    let builder = builder.set("log.segment.delete.delay.ms", 0);
    builder.set("auto.create.topics.enable", false).start().await
}

/// Asks for some topics and takes one away again. Says what was acknowledged: created and still wanted, or gone.
async fn churn(wire: &mut Wire) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut there, mut gone) = (BTreeSet::new(), BTreeSet::new());
    for name in ["a", "b", "c"] {
        let topic = CreatableTopic {
            name: name.into(),
            num_partitions: 3,
            replication_factor: 1,
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
        if wire.ask(&request).await.topics[0].error_code == 0 {
            there.insert(name.to_owned());
        }
    }
    let request = DeleteTopicsRequest { topic_names: vec!["b".into()], ..DeleteTopicsRequest::default() };
    if wire.ask_in(&request, 5).await.responses[0].error_code == 0 {
        there.remove("b");
        gone.insert("b".to_owned());
    }
    (there, gone)
}

#[tokio::test(start_paused = true)]
async fn wherever_the_power_goes_topics_are_whole_or_not_there() {
    for point in 1..40 {
        let (disk, net) = (MemoryDisk::new(), Arc::new(MemoryNet::new()));
        let broker = start(&disk, &net).await.unwrap();
        let mut wire = Wire::connect(&*net, broker.bootstrap()).await;
        // From this sync on nothing gets to the disk any more; the power goes a little later.
        disk.fail_nth_sync(point);
        let (there, gone) = churn(&mut wire).await;
        drop(broker);
        disk.crash(Tear::Prefix(point));

        let broker = start(&disk, &net).await.unwrap();
        let mut wire = Wire::connect(&*net, broker.bootstrap()).await;
        let all = wire.ask(&MetadataRequest { topics: None, ..MetadataRequest::default() }).await;
        let names: BTreeSet<String> =
            all.topics.iter().map(|topic| topic.name.as_ref().unwrap().to_string()).collect();
        assert!(names.is_superset(&there), "point {point}: {there:?} were acknowledged, {names:?} are there");
        assert!(names.is_disjoint(&gone), "point {point}: {gone:?} were deleted, {names:?} are there");
        for topic in &all.topics {
            assert_eq!((topic.error_code, topic.partitions.len()), (0, 3), "point {point}");
            let name = topic.name.as_ref().unwrap();
            assert_eq!(wire.produce(name, batch(&["x"])).await.error_code, 0, "point {point}: {name}");
        }
        let on_disk: BTreeSet<String> = disk
            .read_dir(Path::new("/data"))
            .unwrap()
            .into_iter()
            .filter(|entry| entry.is_dir && !entry.name.starts_with("__"))
            .map(|entry| entry.name)
            .collect();
        let expected: BTreeSet<String> =
            names.iter().flat_map(|name| (0..3).map(move |index| format!("{name}-{index}"))).collect();
        assert_eq!(on_disk, expected, "point {point}: directories follow the metadata");
        broker.shutdown().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_sync_is_told_and_makes_the_partition_read_only_until_a_restart() {
    let (disk, net) = (MemoryDisk::new(), Arc::new(MemoryNet::new()));
    let builder =
        || Broker::builder().data_dir("/data").disk(Arc::new(disk.clone())).net(net.clone()).start();
    let broker = builder().await.unwrap();
    let mut wire = Wire::connect(&*net, broker.bootstrap()).await;
    wire.metadata(&["t", "other"]).await;
    assert_eq!(wire.produce("t", batch(&["a"])).await.error_code, 0);
    disk.fail_nth_sync(1);
    let failed = wire.produce("t", batch(&["b"])).await;
    assert_eq!(failed.error_code, ErrorCode::KafkaStorageError.code());
    assert!(failed.error_message.is_some());
    assert_eq!(wire.produce("t", batch(&["c"])).await.error_code, ErrorCode::KafkaStorageError.code());
    assert_eq!(wire.read_all("t").await, ["a"], "what was durable can be read");
    assert!(broker.shutdown().await.is_err(), "and the stop was not clean");
    drop(broker);
    disk.crash(Tear::None);
    tokio::time::sleep(Duration::from_millis(1)).await;

    let broker = builder().await.unwrap();
    let mut wire = Wire::connect(&*net, broker.bootstrap()).await;
    assert_eq!(wire.read_all("t").await, ["a"]);
    assert_eq!(wire.produce("t", batch(&["d"])).await.base_offset, 1);
}
