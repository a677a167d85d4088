//! Schema registries and serializers that we did not write: Confluent's Python client writes and reads Avro with ours
//! through the test kit's registry, and our client talks to franz-go's registry.

use std::process::Stdio;
use std::time::Duration;

use klamm::broker::Broker;
use klamm::serde::registry::{
    Compatibility, RegistryError, Schema, SchemaReference, SchemaRegistry, SchemaType, Version,
};
use klamm::serde::{AvroRecord, AvroSerde, AvroType, Registered, deserialize, serialize};
use klamm::testing::TestRegistry;
use klamm_client::{Client, Record};
use klamm_tests::{repository, run};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use super::installed::{go_build, python};

const STEP: Duration = Duration::from_secs(60);
const TOPIC: &str = "orders";

const ORDER: &str = r#"{"type": "record", "name": "Order", "namespace": "shop", "fields": [
    {"name": "id", "type": "long"}, {"name": "note", "type": ["null", "string"], "default": null}]}"#;

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Order {
    id: i64,
    note: Option<String>,
}

impl AvroRecord for Order {
    fn avro_type() -> &'static AvroType {
        static TYPE: std::sync::LazyLock<AvroType> = std::sync::LazyLock::new(|| AvroType::parse(ORDER));
        &TYPE
    }
}

fn order(id: i64) -> Order {
    Order { id, note: (id % 2 == 0).then(|| format!("klamm-{id}")) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confluents_python_client_and_ours_read_each_other_through_our_registry() {
    let what = "Confluent's serializers";
    let Some(interpreter) = python(what, "confluent-schema-registry") else { return };
    let (broker, registry) =
        (Broker::builder().ephemeral().start().await.unwrap(), TestRegistry::on_tcp().await);
    let client = Client::connect(broker.bootstrap()).await.unwrap();
    let serde = Registered::<AvroSerde>::new(Some(registry.client().build().unwrap()));
    let producer = client.producer().build().unwrap();
    let back = format!("{TOPIC}-back");
    for id in 0..10 {
        let value = serialize(&serde, &back, &mut Vec::new(), order(id)).await.unwrap();
        timeout(STEP, producer.send(Record::to(&*back).value(value))).await.unwrap().unwrap();
    }

    let program = repository().join("tests/foreign/python/schema_registry.py");
    let url = registry.url();
    let arguments = [program.to_str().unwrap(), &url, broker.bootstrap(), TOPIC];
    let finished = run(&interpreter, arguments, STEP).await;
    let said: Vec<&str> = finished.stdout.lines().collect();
    assert!(finished.success, "{said:#?}\n{}\n{:#?}", finished.stderr, registry.requests());
    // The schema is the one that our side has registered for the other topic: one id, a version in each subject.
    for line in [
        "latest 1 1",
        "found 1 1",
        "subjects orders-back-value orders-value",
        "versions 1",
        "compatible True",
        "compatible False",
        "refused 409 409",
        "missing 404 40401",
        "unknown 404 40403",
        "invalid 422 42201",
        "read 0 klamm-0",
        "read 9 None",
        "deleted 1",
        "done",
    ] {
        assert!(said.contains(&line), "`{line}` is missing: {said:#?}\n{}", finished.stderr);
    }

    let mut consumer = client.consumer().assign([(TOPIC, 0)]).from_beginning().start().await.unwrap();
    for number in 0..10 {
        let record = timeout(STEP, consumer.next()).await.unwrap().unwrap().unwrap();
        let read = deserialize::<Order, _>(&serde, TOPIC, &record.headers, &record.value.unwrap()).await;
        assert_eq!(read.unwrap(), Order { id: number, note: Some(format!("python-{number}")) });
    }
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_client_talks_to_franz_gos_registry() {
    let Some(program) = go_build("franz-go's schema registry", "schema-registry").await else { return };
    let mut process = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the registry starts");
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let ready = timeout(STEP, lines.next_line()).await.unwrap().unwrap().unwrap();
    let registry = SchemaRegistry::builder(ready.strip_prefix("ready ").unwrap()).build().unwrap();
    let avro = |text: &str| Schema::new(SchemaType::Avro, text);

    let serde = Registered::<AvroSerde>::new(Some(registry.clone()));
    let bytes = serialize(&serde, TOPIC, &mut Vec::new(), order(4)).await.unwrap();
    let other = Registered::<AvroSerde>::new(Some(SchemaRegistry::builder(&ready[6..]).build().unwrap()));
    let read: Order = deserialize(&other, TOPIC, &klamm_client::Headers::new(), &bytes).await.unwrap();
    assert_eq!(read, order(4));

    assert_eq!(registry.subjects().await.unwrap(), ["orders-value"]);
    assert_eq!(registry.versions("orders-value").await.unwrap(), [1]);
    let latest = registry.version("orders-value", Version::Latest).await.unwrap();
    assert_eq!((latest.version, &latest.schema), (1, &registry.schema_by_id(latest.id).await.unwrap()));
    assert_eq!(registry.find("orders-value", &avro(ORDER)).await.unwrap().id, latest.id);
    let reference = SchemaReference { name: "shop.Order".into(), subject: "orders-value".into(), version: 1 };
    let list = Schema {
        references: vec![reference],
        ..avro(r#"{"type": "record", "name": "List", "fields": [{"name": "first", "type": "shop.Order"}]}"#)
    };
    let id = registry.register("list-value", &list).await.unwrap();
    assert_eq!(registry.schema_by_id(id).await.unwrap().references, list.references);

    assert!(matches!(registry.schema_by_id(4711).await, Err(RegistryError::NotFound { code: 40_403, .. })));
    assert!(matches!(registry.versions("nobody").await, Err(RegistryError::NotFound { code: 40_401, .. })));
    registry.set_compatibility(Some("orders-value"), Compatibility::Full).await.unwrap();
    assert_eq!(registry.compatibility(Some("orders-value")).await.unwrap(), Compatibility::Full);
    assert_eq!(registry.compatibility(Some("list-value")).await.unwrap(), Compatibility::Backward);
    assert_eq!(registry.delete_subject("list-value", false).await.unwrap(), [1]);
    assert_eq!(registry.delete_subject("list-value", true).await.unwrap(), [1]);
    drop(process.stdin.take());
    assert!(timeout(STEP, process.wait()).await.unwrap().unwrap().success());
}
