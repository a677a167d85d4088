//! What is there after a stop and a start, and after a crash.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use klamm_broker::disk::{MemoryDisk, Tear};
use klamm_broker::{Broker, BrokerError};
use klamm_protocol::messages::*;
use klamm_runtime::MemoryNet;

use super::groups::{commit, committed, join_alone};
use super::wire::*;

#[tokio::test]
async fn topics_records_groups_and_offsets_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let start = || Broker::builder().data_dir(dir.path()).set("offsets.topic.num.partitions", 4).start();
    let broker = start().await.unwrap();
    let mut wire = tcp(&broker).await;
    let id = wire.metadata(&["t"]).await.topics[0].topic_id;
    let cluster = wire.metadata(&[]).await.cluster_id;
    wire.produce("t", batch(&["a", "b"])).await;
    let joined = join_alone(&mut wire, "g").await;
    let mut request = commit("g", "t", 1);
    request.generation_id_or_member_epoch = joined.generation_id;
    request.member_id = joined.member_id.clone();
    assert_eq!(wire.ask_in(&request, 9).await.topics[0].partitions[0].error_code, 0);
    let first_id = wire.ask_in(&InitProducerIdRequest::default(), 4).await.producer_id;
    broker.shutdown().await.unwrap();
    assert!(wire.receive_raw().await.is_none());
    drop(broker);

    let broker = start().await.unwrap();
    let mut wire = tcp(&broker).await;
    let metadata = wire.metadata(&["t"]).await;
    assert_eq!((metadata.topics[0].topic_id, &metadata.cluster_id), (id, &cluster));
    assert_eq!(wire.read_all("t").await, ["a", "b"]);
    assert_eq!(committed(&mut wire, "g", "t").await, 1);
    let beat = HeartbeatRequest {
        group_id: "g".into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id,
        ..HeartbeatRequest::default()
    };
    assert_eq!(wire.ask(&beat).await.error_code, 0, "the member need not notice");
    assert!(wire.ask_in(&InitProducerIdRequest::default(), 4).await.producer_id > first_id);
    broker.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_survives_crashes_and_producer_ids_never_repeat() {
    let net = Arc::new(MemoryNet::new());
    let disk = MemoryDisk::new();
    let mut producer_ids = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for round in 0..20 {
        let broker = Broker::builder()
            .data_dir("/data")
            .set("offsets.topic.num.partitions", 3)
            .disk(Arc::new(disk.clone()))
            .net(net.clone())
            .start()
            .await
            .unwrap();
        let mut wire = Wire::connect(&*net, broker.bootstrap()).await;
        let topic = wire.metadata(&["t"]).await.topics.remove(0);
        assert_eq!(topic.error_code, 0);
        ids.insert(topic.topic_id);
        let all = wire.read_all("t").await;
        assert_eq!(all, (0..round).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(committed(&mut wire, "g", "t").await, round - 1);
        for _ in 0..3 {
            let id = wire.ask_in(&InitProducerIdRequest::default(), 4).await.producer_id;
            assert!(producer_ids.insert(id), "producer id {id} was given out twice");
        }
        assert_eq!(wire.produce("t", batch(&[&round.to_string()])).await.error_code, 0);
        assert_eq!(wire.ask_in(&commit("g", "t", round), 9).await.topics[0].partitions[0].error_code, 0);
        drop(broker);
        disk.crash(Tear::Prefix(round as u64));
    }
    assert_eq!(ids.len(), 1, "one topic, one id");
}

#[tokio::test]
async fn a_broker_that_is_there_keeps_another_out_of_its_data_and_its_address() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::builder().data_dir(dir.path()).start().await.unwrap();
    let second = Broker::builder().data_dir(dir.path()).start().await.unwrap_err();
    assert!(matches!(second, BrokerError::Storage(_)), "{second}");
    let second = Broker::builder().ephemeral().listen(broker.bootstrap()).start().await.unwrap_err();
    assert!(matches!(second, BrokerError::Listen { .. }), "{second}");
    let nowhere = Broker::builder().start().await.unwrap_err();
    assert!(matches!(nowhere, BrokerError::NoDataDir), "{nowhere}");
    let open = Broker::builder().ephemeral().listen("0.0.0.0:0").start().await.unwrap_err();
    assert!(open.to_string().contains("danger_plaintext_network=true"), "{open}");
}

#[tokio::test(start_paused = true)]
async fn a_graceful_stop_answers_what_waits() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    wire.metadata(&["t"]).await;
    wire.send_in(&fetch_request("t", 0, 3_600_000), 12).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    let started = tokio::time::Instant::now();
    memory.broker.shutdown().await.unwrap();
    let (_, answer) = wire.receive_in::<FetchRequest>(12).await;
    assert_eq!(answer.responses[0].partitions[0].error_code, 0);
    assert!(wire.receive_raw().await.is_none());
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn several_listeners_are_each_told_their_own_address() {
    let broker =
        Broker::builder().ephemeral().listen("127.0.0.1:0").listen("127.0.0.2:0").start().await.unwrap();
    let bootstraps: Vec<&str> = broker.bootstrap().split(',').collect();
    assert_eq!(bootstraps.len(), 2);
    for bootstrap in bootstraps {
        let mut wire = Wire::connect(&klamm_runtime::TcpNet, bootstrap).await;
        let broker = wire.metadata(&[]).await.brokers.remove(0);
        assert_eq!(format!("{}:{}", broker.host, broker.port), bootstrap);
    }
}

#[tokio::test]
#[allow(clippy::disallowed_methods)] // A file of settings, as a user would write it.
async fn settings_come_from_a_file_and_from_the_builder() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("server.properties");
    let text = format!(
        "# a test\nlog.dirs={}/one,{0}/two\nnum.partitions=2\nnum.partition=5\n",
        dir.path().display()
    );
    std::fs::write(&file, text).unwrap();
    let broker = Broker::builder().config_file(&file).set("num.partitions", 3).start().await.unwrap();
    let mut wire = tcp(&broker).await;
    assert_eq!(wire.metadata(&["t"]).await.topics[0].partitions.len(), 3);
    broker.shutdown().await.unwrap();
    assert!(
        dir.path().join("one/meta.properties").exists() && dir.path().join("two/meta.properties").exists()
    );
    let bad = Broker::builder().ephemeral().set("num.partitions", "many").start().await.unwrap_err();
    assert_eq!(bad.to_string(), "setting num.partitions=many: must be a whole number from 1 to 100000");
}
