//! Settings of the broker that are altered while it runs: they hold at once, for logs that are there and logs that
//! come, and after every end of the broker.

use std::sync::Arc;

use klamm_broker::Broker;
use klamm_broker::disk::{Calls, DiskCall, MemoryDisk};
use klamm_protocol::messages::CreateTopicsRequest;
use klamm_protocol::messages::create_topics::CreatableTopic;
use klamm_protocol::{ErrorCode, Utf8Bytes};
use klamm_runtime::MemoryNet;

use super::configs::*;
use super::wire::*;

const ALL: &str = "";
const THIS: &str = "1";
const LIMIT: &str = "message.max.bytes";

async fn set(wire: &mut Wire, broker: &str, name: &str, value: &str) {
    assert_eq!(adjust(wire, BROKER, broker, &[(name, SET, Some(value))], false).await, 0, "{name}={value}");
}

async fn take_back(wire: &mut Wire, broker: &str, name: &str) {
    assert_eq!(adjust(wire, BROKER, broker, &[(name, DELETE, None)], false).await, 0, "{name}");
}

/// A setting with its sources: `name=value:source`, the one in force first.
async fn synonyms(wire: &mut Wire, kind: i8, resource: &str, name: &str) -> String {
    let all = describe(wire, resource_named(kind, resource)).await.configs;
    let Some(found) = all.into_iter().find(|one| *one.name == *name) else { return String::new() };
    assert!(!found.read_only && !found.is_sensitive);
    let told = |value: Option<Utf8Bytes>| value.map_or_else(String::new, |value| value.to_string());
    let all =
        found.synonyms.into_iter().map(|one| format!("{}={}:{}", one.name, told(one.value), one.source));
    all.collect::<Vec<_>>().join(" ")
}

/// Whether a batch of so many bytes is too large for a topic.
async fn refuses(wire: &mut Wire, topic: &str, bytes: usize) -> bool {
    let code = ErrorCode::from_code(wire.produce(topic, batch(&[&"x".repeat(bytes)])).await.error_code);
    assert!(matches!(code, ErrorCode::None | ErrorCode::MessageTooLarge), "{code:?}");
    code == ErrorCode::MessageTooLarge
}

#[tokio::test(start_paused = true)]
async fn what_is_altered_is_told_with_its_source_and_goes_before_the_file() {
    let memory = InMemory::with(|builder| builder.set("log.retention.hours", 2)).await;
    let mut wire = memory.connect().await;
    create(&mut wire, "t").await;
    set(&mut wire, ALL, "log.retention.ms", "70").await;
    set(&mut wire, THIS, "log.retention.ms", "80").await;
    let broker =
        "log.retention.ms=80:2 log.retention.ms=70:3 log.retention.hours=2:4 log.retention.hours=168:5";
    assert_eq!(synonyms(&mut wire, BROKER, THIS, "log.retention.ms").await, broker);
    assert_eq!(synonyms(&mut wire, BROKER, ALL, "log.retention.ms").await, "log.retention.ms=70:3");
    assert_eq!(synonyms(&mut wire, TOPIC, "t", "retention.ms").await, broker);
    set(&mut wire, ALL, "log.cleanup.policy", "compact").await;
    assert_eq!(adjust(&mut wire, TOPIC, "t", &[("retention.ms", SET, Some("90"))], false).await, 0);
    assert_eq!(synonyms(&mut wire, TOPIC, "t", "retention.ms").await, format!("retention.ms=90:1 {broker}"));
    let policy = "log.cleanup.policy=compact:3 log.cleanup.policy=delete:5";
    assert_eq!(synonyms(&mut wire, TOPIC, "t", "cleanup.policy").await, policy);
    take_back(&mut wire, THIS, "log.retention.ms").await;
    take_back(&mut wire, ALL, "log.retention.ms").await;
    assert_eq!(synonyms(&mut wire, BROKER, ALL, "log.retention.ms").await, "");
    let broker = "log.retention.hours=2:4 log.retention.hours=168:5";
    assert_eq!(synonyms(&mut wire, BROKER, THIS, "log.retention.ms").await, broker);
}

/// For all brokers, for this one, for a topic: the narrower goes first. It holds when it is answered, and after a
/// crash.
#[tokio::test(start_paused = true)]
async fn a_limit_that_is_altered_holds_at_once_and_after_a_crash() {
    let disk = Durable::default();
    let mut broker = disk.start().await;
    let mut wire = disk.connect(&broker).await;
    for topic in ["t", "own"] {
        create(&mut wire, topic).await;
    }
    assert_eq!(adjust(&mut wire, TOPIC, "own", &[("max.message.bytes", SET, Some("5000"))], false).await, 0);
    assert!(!refuses(&mut wire, "t", 900).await);
    assert_eq!(adjust(&mut wire, BROKER, ALL, &[(LIMIT, SET, Some("500"))], true).await, 0);
    assert!(!refuses(&mut wire, "t", 900).await, "only asked");
    set(&mut wire, ALL, LIMIT, "500").await;
    assert!(refuses(&mut wire, "t", 900).await && !refuses(&mut wire, "t", 300).await);
    assert!(!refuses(&mut wire, "own", 900).await);
    create(&mut wire, "new").await;
    assert!(refuses(&mut wire, "new", 900).await);
    set(&mut wire, THIS, LIMIT, "200").await;
    for crash in [false, true] {
        broker = if crash {
            disk.crash(broker).await
        } else {
            broker.shutdown().await.unwrap();
            drop(broker);
            disk.start().await
        };
        wire = disk.connect(&broker).await;
        for topic in ["t", "new"] {
            assert!(refuses(&mut wire, topic, 300).await && !refuses(&mut wire, topic, 50).await, "{topic}");
        }
        assert!(!refuses(&mut wire, "own", 900).await);
    }
    take_back(&mut wire, THIS, LIMIT).await;
    assert!(refuses(&mut wire, "t", 900).await && !refuses(&mut wire, "t", 300).await);
    take_back(&mut wire, ALL, LIMIT).await;
    assert!(!refuses(&mut wire, "t", 900).await);
    drop(broker);
}

/// A topic whose directories are being made while a setting changes does not keep the one before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_being_made_gets_the_new_setting() {
    let (disk, net) = (MemoryDisk::new(), Arc::new(MemoryNet::new()));
    let builder = Broker::builder().data_dir("/data").disk(Arc::new(disk.on_threads()));
    let broker = builder.net(net.clone()).start().await.unwrap();
    let mut wire = Wire::connect(&*net, broker.bootstrap()).await;
    let hang = disk.hang(Calls::of(&[DiskCall::CreateDir]).on("/late"));
    let topic = CreatableTopic {
        name: "late".into(),
        num_partitions: 1,
        replication_factor: 1,
        ..CreatableTopic::default()
    };
    let mut request =
        CreateTopicsRequest { topics: vec![topic], timeout_ms: 200, ..CreateTopicsRequest::default() };
    assert_eq!(wire.ask(&request).await.topics[0].error_code, ErrorCode::RequestTimedOut.code());
    set(&mut wire, THIS, LIMIT, "500").await;
    hang.release();
    request.timeout_ms = 60_000;
    assert_eq!(wire.ask(&request).await.topics[0].error_code, ErrorCode::TopicAlreadyExists.code());
    // The look that began with the old setting is followed by one with the new.
    for _ in 0..200 {
        if refuses(&mut wire, "late", 900).await {
            return;
        }
        wire.ask(&request).await;
    }
    panic!("it has the old setting");
}

#[tokio::test(start_paused = true)]
async fn connections_are_as_many_as_there_may_be_now() {
    let memory = InMemory::start().await;
    let mut first = memory.connect().await;
    set(&mut first, THIS, "max.connections", "1").await;
    assert!(memory.connect().await.receive_raw().await.is_none(), "there is one");
    first.metadata(&[]).await;
    set(&mut first, THIS, "max.connections", "2").await;
    memory.connect().await.metadata(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_altered_is_refused() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    let good = (LIMIT, SET, Some("500"));
    for (kind, name, change) in [
        (BROKER, THIS, ("log.dirs", SET, Some("/elsewhere"))),
        (BROKER, ALL, ("log.retention.hours", SET, Some("1"))),
        (BROKER, THIS, ("log.retention.ms", SET, Some("soon"))),
        (BROKER, THIS, ("max.connections", SET, Some("0"))),
        (BROKER, ALL, ("max.connections.per.ip", SET, Some("0"))),
        (BROKER, THIS, ("no.such.thing", SET, Some("1"))),
        (BROKER, "2", ("log.retention.ms", SET, Some("1"))),
        (8, THIS, ("root", SET, Some("DEBUG"))),
        (16, "metrics", ("interval.ms", SET, Some("1000"))),
        (32, "group", ("consumer.session.timeout.ms", SET, Some("45000"))),
    ] {
        let code = adjust(&mut wire, kind, name, &[good, change], false).await;
        assert_eq!(code, ErrorCode::InvalidRequest.code(), "{change:?}");
        if kind != BROKER {
            let told = describe(&mut wire, resource_named(kind, name)).await;
            assert_eq!(told.error_code, ErrorCode::InvalidRequest.code());
            assert!(told.error_message.is_some_and(|message| message.len() > 20));
        }
    }
    assert_eq!(synonyms(&mut wire, BROKER, THIS, LIMIT).await, "message.max.bytes=1048588:5");
}
