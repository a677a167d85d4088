//! A schema registry: what is asked of it and how often, and records that wait for it.

use std::sync::Arc;
use std::time::Duration;

use klamm::client::Record as OutRecord;
use klamm::prelude::*;
use klamm::serde::registry::{
    Compatibility, RegistryError, Schema, SchemaReference, SchemaType, SubjectNaming, Version,
};
use klamm::serde::{AvroSerde, DefaultSerde, Registered, SchemaRegistry, SerdeError, deserialize, serialize};
use klamm::testing::{TestKit, TestRegistry};
use tokio::time::{Instant, sleep};

use crate::seen::{Seen, until};

const OLD_ORDER: &str = include_str!("old_order.avsc");

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Record)]
#[record(
    avro,
    registry,
    schema = r#"{"type": "record", "name": "Order", "namespace": "shop", "fields": [
    {"name": "id", "type": "long"}, {"name": "note", "type": ["null", "string"], "default": null}]}"#
)]
struct Order {
    id: i64,
    note: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Record)]
#[record(avro, registry, schema_file = "tests/it/old_order.avsc")]
struct OldOrder {
    id: i64,
}

#[derive(Clone, PartialEq, prost::Message, Record)]
#[record(protobuf, registry, schema = "package shop; message Other {} message Order { uint64 id = 1; }")]
#[record(message = "shop.Order")]
struct ProtoOrder {
    #[prost(uint64, tag = "1")]
    id: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Record)]
#[record(
    json_schema,
    registry,
    schema = r#"{"title": "Order", "type": "object", "required": ["id"],
    "properties": {"id": {"type": "integer", "minimum": 1}}}"#
)]
struct JsonOrder {
    id: i64,
}

fn order(id: i64) -> Order {
    Order { id, note: None }
}

fn avro(text: &str) -> Schema {
    Schema::new(SchemaType::Avro, text)
}

async fn registry(kit: &TestKit) -> (TestRegistry, SchemaRegistry) {
    let server = kit.registry().await;
    let client = server.client().build().unwrap();
    (server, client)
}

#[kafka_listener(topics = "orders", group = "billing")]
async fn bill_registered(order: Order, State(seen): State<Seen>) {
    seen.add(format!("{} {:?}", order.id, order.note));
}

#[kafka_listener(topics = "questions", group = "answering")]
async fn confirm(order: Order) -> Reply<Order> {
    Order { note: Some("confirmed".to_owned()), ..order }.into()
}

/// Neither requests nor replies knew the app's registry, and a reply did not wait for what had to be looked up.
#[klamm::test]
async fn requests_and_replies_have_their_schemas_in_the_apps_registry(kit: TestKit) {
    let (_server, client) = registry(&kit).await;
    let app = kit.app().state(client).listener(confirm).start().await;
    for id in 1..=2 {
        let reply: Order = app.request("questions", order(id)).await.unwrap();
        assert_eq!(reply, Order { id, note: Some("confirmed".to_owned()) });
    }
    let requester = app.requester::<Order, Order>("questions").start().await.unwrap();
    assert_eq!(requester.request(order(3)).await.unwrap().id, 3);
}

/// What went into a transaction, and the keys of requests, did not know the app's registry.
#[klamm::test]
async fn transactions_and_keys_have_their_schemas_in_the_apps_registry(kit: TestKit) {
    let (_server, client) = registry(&kit).await;
    let app = kit.app().state(client).listener(confirm).start().await;
    let transactions = app.transactions("shop-1");
    transactions.run(|tx| async move { tx.send("bills", order(7), order(1)).await }).await.unwrap();
    let bill = kit.topic("bills").next().await;
    assert!(bill.key.unwrap().starts_with(&[0]) && bill.value.unwrap().starts_with(&[0]), "ids of schemas");
    let reply: Order = app.request("questions", order(2)).key(order(9)).await.unwrap();
    assert_eq!(reply.id, 2);
}

#[klamm::test]
async fn values_that_are_routed_have_their_schemas_in_the_apps_registry(kit: TestKit) {
    let (_server, client) = registry(&kit).await;
    let app = kit.app().state(client).listener(confirm).start().await;
    let routing = app.routing().values::<Order>("bills");
    routing.send("k".to_owned(), order(1)).await.unwrap();
    let bill = kit.topic("bills").next().await;
    assert!(bill.value.unwrap().starts_with(&[0]), "the id of a schema");
}

#[klamm::test]
async fn a_listener_reads_what_others_wrote_with_an_older_schema(kit: TestKit) {
    let (server, client) = registry(&kit).await;
    let seen = Seen::default();
    let app = kit.app().state(client.clone()).state(seen.clone()).listener(bill_registered).start().await;
    let old = Registered::<AvroSerde>::new(Some(client.clone()));
    for id in 1..=3 {
        let bytes = serialize(&old, "orders", &mut Vec::new(), OldOrder { id }).await.unwrap();
        assert_eq!(bytes[..5], [0, 0, 0, 0, 1]);
        kit.send_record(OutRecord::to("orders").value(bytes)).await;
    }
    let new = app.template::<String, Order>("orders");
    for id in 4..=6 {
        new.send("k", Order { id, note: Some("new".to_owned()) }).await.unwrap();
    }
    app.handled("bill_registered", 6).await;
    let expected = ["1 None", "2 None", "3 None", "4 Some(\"new\")", "5 Some(\"new\")", "6 Some(\"new\")"];
    assert_eq!(seen.all(), expected);
    kit.topic("orders-dlt").stays_empty().await;
    // Each schema was registered once; the first is asked for by the listener, of the second the app knows nothing yet
    // but what it wrote.
    let asked = server.requests();
    let count = |wanted: &str| asked.iter().filter(|request| *request == wanted).count();
    assert_eq!(count("POST /subjects/orders-value/versions"), 2, "{asked:?}");
    assert_eq!((count("GET /schemas/ids/1"), count("GET /schemas/ids/2")), (1, 1), "{asked:?}");
}

#[kafka_listener(topics = "orders", group = "batches", batch)]
async fn bill_all(batch: Batch<Order>, State(seen): State<Seen>) {
    batch.iter().for_each(|order| seen.add(order.id.to_string()));
}

#[klamm::test]
async fn a_batch_waits_for_the_schemas_in_it(kit: TestKit) {
    let (server, client) = registry(&kit).await;
    let writer = server.client().build().unwrap();
    let (old, new) =
        (Registered::<AvroSerde>::new(Some(writer.clone())), Registered::<AvroSerde>::new(Some(writer)));
    for id in 0..10 {
        let bytes = match id % 2 {
            0 => serialize(&old, "orders", &mut Vec::new(), OldOrder { id }).await,
            _ => serialize(&new, "orders", &mut Vec::new(), order(id)).await,
        };
        kit.send_record(OutRecord::to("orders").value(bytes.unwrap())).await;
    }
    let seen = Seen::default();
    let app = kit.app().state(client).state(seen.clone()).listener(bill_all).start().await;
    app.handled("bill_all", 10).await;
    assert_eq!(seen.all(), (0..10).map(|id| id.to_string()).collect::<Vec<_>>());
}

#[klamm::test]
async fn what_is_not_there_costs_a_batch_only_its_own_records(kit: TestKit) {
    let (_server, client) = registry(&kit).await;
    let serde = Registered::<AvroSerde>::new(Some(client.clone()));
    for id in [71, 72, 73] {
        kit.send_record(OutRecord::to("orders").value(vec![0, 0, 0, 0, id, 2])).await;
        let bytes = serialize(&serde, "orders", &mut Vec::new(), order(id.into())).await.unwrap();
        kit.send_record(OutRecord::to("orders").value(bytes)).await;
    }
    let seen = Seen::default();
    let reading = kit.app().state(client).state(seen.clone()).listener(bill_all).start().await;
    reading.handled("bill_all", 3).await;
    assert_eq!(seen.all(), ["71", "72", "73"]);
    let mut dead = kit.topic("orders-dlt");
    for id in [71, 72, 73] {
        assert_eq!(dead.next().await.value.unwrap()[4], id);
    }
}

#[klamm::test(needs_paused_clock)]
async fn records_wait_for_a_registry_that_is_down_and_none_is_given_up(kit: TestKit) {
    let (server, client) = registry(&kit).await;
    let writer = Registered::<AvroSerde>::new(Some(server.client().build().unwrap()));
    let bytes = serialize(&writer, "orders", &mut Vec::new(), order(1)).await.unwrap();
    // Far longer than the failure policy has patience: it is not the record's fault.
    server.fail_next(503, 60);
    server.fail_next(401, 5);
    kit.send_record(OutRecord::to("orders").value(bytes)).await;
    let (seen, started) = (Seen::default(), Instant::now());
    let app = kit.app().state(client).state(seen.clone()).listener(bill_registered).start().await;
    app.handled("bill_registered", 1).await;
    assert!(started.elapsed() > Duration::from_secs(120), "{:?}", started.elapsed());
    kit.topic("orders-dlt").stays_empty().await;
}

#[klamm::test]
async fn what_cannot_be_read_is_rejected_with_id_subject_and_setting(kit: TestKit) {
    let (_server, client) = registry(&kit).await;
    let other = r#"{"type": "record", "name": "Order", "fields": [{"name": "name", "type": "string"}]}"#;
    let id = client.register("others-value", &avro(other)).await.unwrap();
    let seen = Seen::default();
    let app = kit.app().state(client.clone()).state(seen.clone()).listener(bill_registered).start().await;
    let with_id = |id: i32| [&[0][..], &id.to_be_bytes(), &[2, b'x']].concat();
    for value in [with_id(99), with_id(id), b"{\"id\": 1}".to_vec(), vec![0, 0]] {
        kit.send_record(OutRecord::to("orders").value(value)).await;
    }
    let mut dead = kit.topic("orders-dlt");
    let mut said = Vec::new();
    for _ in 0..4 {
        let record = dead.next().await;
        let message = record.headers.last("kafka_dlt-exception-message").flatten().unwrap();
        said.push(String::from_utf8_lossy(message).into_owned());
    }
    for part in ["schema with the id 99", "40403", "http://"] {
        assert!(said[0].contains(part), "{}", said[0]);
    }
    for part in ["id 1", "`others-value`", "`id` was not written and has no default", "set_compatibility"] {
        assert!(said[1].contains(part), "{}", said[1]);
    }
    assert!(said[2].contains("0x7b") && said[3].contains("2 bytes cannot begin"), "{said:?}");
    // A later record of another schema is read: nothing is stuck.
    app.template::<String, Order>("orders").send("k", order(5)).await.unwrap();
    app.handled("bill_registered", 1).await;
    assert_eq!(seen.all(), ["5 None"]);
}

#[klamm::test]
async fn an_app_without_the_registry_does_not_start(kit: TestKit) {
    let started = klamm::App::with_client(kit.client().clone())
        .state(Seen::default())
        .listener(bill_registered)
        .start()
        .await;
    let said = started.unwrap_err().to_string();
    assert!(said.contains("SchemaRegistry"), "{said}");
    let alone = kit.template::<String, Order>("orders").send("k", order(1)).await.unwrap_err().to_string();
    assert!(alone.contains("there is no schema registry") && alone.contains("App::state"), "{alone}");
}

#[klamm::test(needs_paused_clock)]
async fn a_crowd_asks_once_and_an_id_that_is_not_there_is_asked_for_now_and_then(kit: TestKit) {
    let (server, client) = registry(&kit).await;
    let serde = Registered::<AvroSerde>::new(Some(client));
    let bytes = klamm::serde::Bytes::from_static(&[0, 0, 0, 0, 9, 2]);
    let headers = Headers::new();
    let read = || deserialize::<Order, _>(&serde, "orders", &headers, &bytes);
    for result in futures::future::join_all((0..50).map(|_| read())).await {
        assert!(matches!(result, Err(SerdeError::Lookup(error)) if !error.is_transient()));
    }
    let count = || server.requests().iter().filter(|request| *request == "GET /schemas/ids/9").count();
    assert_eq!(count(), 1);
    assert!(read().await.is_err());
    assert_eq!(count(), 1, "remembered");
    sleep(Duration::from_secs(11)).await;
    assert!(read().await.is_err());
    assert_eq!(count(), 2);
}

#[klamm::test(needs_paused_clock)]
async fn the_newest_schema_is_written_with_for_a_while(kit: TestKit) {
    let server = kit.registry().await;
    let client = server.client().use_latest(true).build().unwrap();
    let serde = Registered::<AvroSerde>::new(Some(client.clone()));
    let missing = serialize(&serde, "orders", &mut Vec::new(), order(1)).await.unwrap_err().to_string();
    assert!(missing.contains("orders-value") && missing.contains("40401"), "{missing}");
    client.register("orders-value", &avro(OLD_ORDER)).await.unwrap();
    let bytes = serialize(&serde, "orders", &mut Vec::new(), OldOrder { id: 3 }).await.unwrap();
    assert_eq!(bytes[..], [0, 0, 0, 0, 1, 6]);
    let newer = r#"{"type": "record", "name": "Order", "namespace": "shop", "fields": [
        {"name": "id", "type": "long"}, {"name": "more", "type": "int", "default": 0}]}"#;
    assert_eq!(client.register("orders-value", &avro(newer)).await.unwrap(), 2);
    let bytes = serialize(&serde, "orders", &mut Vec::new(), OldOrder { id: 3 }).await.unwrap();
    assert_eq!(bytes[4], 1, "still the one from before");
    sleep(Duration::from_secs(61)).await;
    // What the type does not have cannot be written, and says so.
    let said = serialize(&serde, "orders", &mut Vec::new(), OldOrder { id: 3 }).await;
    assert!(said.is_err() || said.unwrap()[4] == 2);
}

#[klamm::test]
async fn nothing_is_registered_unless_it_may_be(kit: TestKit) {
    let server = kit.registry().await;
    let client = server.client().auto_register(false).subjects(SubjectNaming::TopicRecord).build().unwrap();
    let serde = Registered::<AvroSerde>::new(Some(client.clone()));
    let said = serialize(&serde, "orders", &mut Vec::new(), order(1)).await.unwrap_err().to_string();
    assert!(said.contains("`orders-shop.Order`") && said.contains("auto_register(true)"), "{said}");
    assert_eq!(client.subjects().await.unwrap(), Vec::<String>::new());

    let registering = server.client().build().unwrap();
    registering
        .register("orders-value", &avro(r#"{"type": "record", "name": "Order", "fields": []}"#))
        .await
        .unwrap();
    registering.set_compatibility(Some("orders-value"), Compatibility::Backward).await.unwrap();
    let refused = r#"{"type": "record", "name": "Order", "fields": [{"name": "n", "type": "int"}]}"#;
    let error = registering.register("orders-value", &avro(refused)).await.unwrap_err();
    assert!(
        matches!(&error, RegistryError::Incompatible { subject, message, .. }
        if &**subject == "orders-value" && message.contains("no default")),
        "{error}"
    );
    let checked =
        registering.check_compatibility("orders-value", Version::Latest, &avro(refused)).await.unwrap();
    assert!(checked.unwrap_err()[0].contains("no default"));
    assert!(matches!(
        registering.register("a", &avro("{")).await,
        Err(RegistryError::Invalid { code: 42_201, .. })
    ));
    assert_eq!(registering.delete_subject("orders-value", false).await.unwrap(), [1]);
}

#[klamm::test(needs_paused_clock)]
async fn failures_of_the_server_are_tried_again_and_refusals_are_not(kit: TestKit) {
    let (server, client) = registry(&kit).await;
    server.fail_next(500, 2);
    assert_eq!(client.subjects().await.unwrap(), Vec::<String>::new());
    assert_eq!(server.requests().len(), 3);
    server.fail_next(500, 3);
    assert!(matches!(client.subjects().await, Err(RegistryError::Server { status: 500, .. })));
    server.fail_next(422, 1);
    assert!(matches!(client.subjects().await, Err(RegistryError::Invalid { .. })));
    assert_eq!(server.requests().len(), 7, "a refusal is not tried again");

    server.require_login("me", "secret");
    assert!(matches!(client.subjects().await, Err(RegistryError::Unauthorized { status: 401, .. })));
    let known = server.client().basic_auth("me", "secret").build().unwrap();
    assert!(known.subjects().await.is_ok());
    assert!(!format!("{known:?}").contains("secret"));
}

#[klamm::test(needs_paused_clock)]
async fn another_address_answers_for_one_that_is_gone(kit: TestKit) {
    let (gone, here) = (kit.registry().await, kit.registry().await);
    let urls = format!("{}, {}", gone.url(), here.url());
    // The network is the kit's in both.
    let client = here.client();
    drop(gone);
    let client = client.also_at(&urls).attempts(1).timeout(Duration::from_secs(2)).build().unwrap();
    let id = client.register("a", &avro("\"int\"")).await.unwrap();
    assert_eq!(client.schema_by_id(id).await.unwrap(), avro("\"int\""));
    assert!(here.requests().len() >= 2);
}

#[klamm::test]
async fn schemas_that_use_others_are_fetched_with_them(kit: TestKit) {
    let (_server, client) = registry(&kit).await;
    let note = r#"{"type": "record", "name": "shop.Note", "fields": [{"name": "text", "type": "string"}]}"#;
    client.register("note", &avro(note)).await.unwrap();
    let reference = SchemaReference { name: "shop.Note".into(), subject: "note".into(), version: 1 };
    let using = Schema {
        references: vec![reference],
        ..avro(
            r#"{"type": "record", "name": "shop.Order", "fields": [{"name": "id", "type": "long"},
            {"name": "about", "type": "shop.Note"}]}"#,
        )
    };
    let id = client.register("orders-value", &using).await.unwrap();
    let bytes = [&[0][..], &id.to_be_bytes(), &[14, 2, b'x']].concat().into();
    let serde = Registered::<AvroSerde>::new(Some(client));
    let read: Order = deserialize(&serde, "orders", &Headers::new(), &bytes).await.unwrap();
    assert_eq!(read, order(7));
}

#[klamm::test]
async fn protobuf_and_json_schema_lie_in_it_too(kit: TestKit) {
    let (_server, client) = registry(&kit).await;
    let proto = ProtoOrder::serde_with(Some(&client), false);
    let bytes = serialize(&proto, "proto", &mut Vec::new(), ProtoOrder { id: 7 }).await.unwrap();
    assert_eq!(bytes[5..], [2, 2, 8, 7], "the second message of the file");
    let read: ProtoOrder = deserialize(&proto, "proto", &Headers::new(), &bytes).await.unwrap();
    assert_eq!(read.id, 7);
    let mut first = bytes.to_vec();
    first.splice(5..7, [0]);
    let said =
        deserialize::<ProtoOrder, _>(&proto, "proto", &Headers::new(), &first.into()).await.unwrap_err();
    assert!(said.to_string().contains("it is the message `shop.Other` and not `shop.Order`"), "{said}");

    let json = JsonOrder::serde_with(Some(&client), false);
    let bytes = serialize(&json, "json", &mut Vec::new(), JsonOrder { id: 7 }).await.unwrap();
    assert_eq!(&bytes[5..], br#"{"id":7}"#);
    let read: JsonOrder = deserialize(&json, "json", &Headers::new(), &bytes).await.unwrap();
    assert_eq!(read, JsonOrder { id: 7 });
    assert!(serialize(&json, "json", &mut Vec::new(), JsonOrder { id: 0 }).await.is_err());
    // One topic's id is another format's: the kind of schema is looked at.
    let said =
        deserialize::<ProtoOrder, _>(&proto, "json", &Headers::new(), &bytes).await.unwrap_err().to_string();
    assert!(said.contains("it is JSON and not PROTOBUF"), "{said}");
}

#[klamm::test]
async fn a_registry_that_goes_away_ends_what_waits_when_the_app_ends(kit: TestKit) {
    let (server, client) = registry(&kit).await;
    server.fail_next(503, 1_000_000);
    kit.send_record(OutRecord::to("orders").value(vec![0, 0, 0, 0, 1, 2])).await;
    let app = kit.app().state(client).state(Seen::default()).listener(bill_registered).start().await;
    until(|| !server.requests().is_empty()).await;
    let report = app.stop().await;
    let _ = report;
    assert_eq!(kit.committed("billing", "orders", 0).await.unwrap_or(0), 0, "it was not handled");
    let _: Arc<str> = "".into();
}
