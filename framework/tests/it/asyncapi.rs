//! The AsyncAPI document of an app: what is in it, and that it is one.

use std::collections::BTreeSet;
use std::time::Duration;

use klamm::asyncapi::JsonSchema;
use klamm::client::NewTopic;
use klamm::prelude::*;
use klamm::testing::TestKit;
use serde_json::{Value as Tree, json};

/// What is in the box.
#[derive(Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "klamm::serde::schemars")]
struct Item {
    name: String,
    cents: i64,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "klamm::serde::schemars")]
struct Order {
    id: u64,
    items: Vec<Item>,
}

#[derive(Serialize, Deserialize, JsonSchema, Record)]
#[schemars(crate = "klamm::serde::schemars")]
#[record(json)]
struct Invoice {
    order: u64,
}

#[derive(Serialize, Deserialize, Record)]
#[record(json)]
struct Bare {
    id: u64,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "klamm::serde::schemars")]
struct Placed {
    id: u64,
}

#[derive(Serialize, Deserialize)]
struct Cancelled {
    id: u64,
}

#[derive(Record)]
#[record(json, header = "klamm-type")]
enum Event {
    #[record(name = "order.placed")]
    Placed(Placed),
    #[record(name = "order.cancelled")]
    Cancelled(Cancelled),
}

#[derive(Headers)]
#[headers(rename_all = "kebab-case")]
struct Trace {
    trace_id: String,
    #[header(big_endian)]
    hops: Option<i32>,
}

#[kafka_listener(topics = "orders", group = "billing")]
async fn invoice_for(_key: Key<String>, _order: klamm::serde::Json<Order>, _trace: Trace) {}

#[kafka_listener(topics = ["a", "b"], group = "bare", batch)]
async fn bare(batch: Batch<(RecordMeta, Bare)>) {
    assert!(!batch.is_empty());
}

#[kafka_listener(pattern = "audit-.*", group = "audit")]
async fn audit(_record: ConsumerRecord) {}

#[kafka_listener(topics = "events", group = "events")]
async fn events(event: Event) {
    match event {
        Event::Placed(Placed { id }) | Event::Cancelled(Cancelled { id }) => assert!(id > 0),
    }
}

#[kafka_listener(topics = "quotes", group = "quotes")]
async fn quote(_key: Key<i64>, _text: Value<String>) -> Result<Reply<Invoice>, String> {
    Ok(Invoice { order: 1 }.into())
}

#[kafka_listener(topics = "${in.topic:in}", group = "quotes", send_to = "answers")]
async fn answer(_bytes: Value<Vec<u8>>) -> Reply<klamm::serde::Json<Vec<Invoice>>> {
    klamm::serde::Json(Vec::new()).into()
}

fn app() -> App {
    App::new("one.example:9092, two.example:9092")
        .info("billing <1>", "1.4.0")
        .property("in.topic", "placed-by-property")
        .topic(NewTopic::new("orders").partitions(12).replication(3))
        .topic(NewTopic::new("declared"))
        .template::<String, Invoice>("invoices")
        .template::<(), klamm::serde::Json<Order>>("orders")
        .listener(invoice_for)
        .listener(bare)
        .listener(audit)
        .listener(events)
        .listener(quote)
        .listener(answer)
}

async fn document() -> Tree {
    let document = app().asyncapi().await.unwrap();
    check(document.value());
    document.value().clone()
}

#[tokio::test]
async fn listeners_and_templates_are_operations_on_channels() {
    let document = document().await;
    let at = |pointer: &str| document.pointer(pointer).cloned().unwrap_or_default();
    assert_eq!(at("/asyncapi"), json!("3.1.0"));
    assert_eq!(at("/info"), json!({ "title": "billing <1>", "version": "1.4.0" }));
    assert_eq!(at("/servers/kafka-2/host"), json!("two.example:9092"));
    let kafka = json!({ "topic": "orders", "partitions": 12, "replicas": 3, "bindingVersion": "0.5.0" });
    assert_eq!(at("/channels/orders/bindings/kafka"), kafka);
    assert_eq!(at("/channels/declared/messages"), json!({}));
    let names = |pointer: &str| at(pointer).as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        names("/operations"),
        [
            "answer",
            "audit",
            "bare-a",
            "bare-b",
            "events",
            "invoice_for",
            "quote",
            "send-invoices",
            "send-orders"
        ]
    );
    let group = json!({ "type": "string", "enum": ["billing"] });
    assert_eq!(at("/operations/invoice_for/bindings/kafka/groupId"), group);
    assert_eq!(at("/operations/send-invoices/action"), json!("send"));
    assert_eq!(at("/channels/pattern-audit-./address"), Tree::Null);
    assert!(names("/channels").contains(&"placed-by-property".to_owned()), "{:?}", names("/channels"));
}

#[tokio::test]
async fn messages_have_the_schemas_of_their_types() {
    let document = document().await;
    let at = |pointer: &str| document.pointer(pointer).cloned().unwrap_or_default();
    let order = at("/components/messages/Order");
    assert_eq!(order["contentType"], "application/json");
    assert_eq!(order["payload"], json!({ "$ref": "#/components/schemas/Order" }));
    assert_eq!(order["bindings"]["kafka"]["key"], json!({ "type": "string" }));
    let headers = json!({
        "type": "object",
        "properties": { "trace-id": { "type": "string" }, "hops": { "type": "integer" } },
        "required": ["trace-id"],
    });
    assert_eq!(order["headers"], headers);
    // What is sent has no key there, so it is another message of the same payload.
    assert_eq!(at("/components/messages/Order-2/payload"), order["payload"]);
    assert_eq!(at("/components/schemas/Item/description"), json!("What is in the box."));
    // A type without a schema is a message all the same.
    assert_eq!(at("/components/messages/Bare"), json!({ "name": "Bare", "contentType": "application/json" }));
    assert_eq!(at("/components/messages/record"), json!({ "name": "record" }));
    let placed = at("/components/messages/Placed");
    assert_eq!(placed["headers"]["properties"]["klamm-type"]["const"], "order.placed");
    assert_eq!(placed["payload"]["$ref"], "#/components/schemas/Placed");
    assert_eq!(at("/components/messages/Cancelled/payload"), Tree::Null);
    assert_eq!(at("/channels/events/messages").as_object().unwrap().len(), 2);
    // Bytes are nothing that JSON Schema knows.
    assert_eq!(at("/components/messages/Vec-u8/payload"), Tree::Null);
}

#[tokio::test]
async fn replies_go_where_they_are_asked_for_or_sent() {
    let document = document().await;
    let at = |pointer: &str| document.pointer(pointer).cloned().unwrap_or_default();
    let reply = at("/operations/quote/reply");
    assert_eq!(reply["address"]["location"], "$message.header#/kafka_replyTopic");
    assert_eq!(reply["channel"]["$ref"], "#/channels/replies-of-quote");
    assert_eq!(at("/channels/replies-of-quote/address"), Tree::Null);
    let message = at("/components/messages/String");
    assert_eq!(message["correlationId"]["location"], "$message.header#/kafka_correlationId");
    assert_eq!(message["bindings"]["kafka"]["key"], json!({ "type": "integer", "format": "int64" }));
    assert_eq!(at("/operations/answer/reply/channel/$ref"), json!("#/channels/answers"));
    let payload = at("/components/messages/Vec-Invoice/payload");
    assert_eq!(payload, json!({ "type": "array", "items": { "$ref": "#/components/schemas/Invoice" } }));
}

async fn by_hand(_order: klamm::serde::Json<Unseen>) {}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "klamm::serde::schemars")]
struct Unseen {
    #[allow(dead_code)]
    id: u64,
}

#[tokio::test]
async fn a_type_that_no_macro_saw_is_named_once() {
    let app = || App::new("b:1").listener(Listener::on("t").group("g").handle(by_hand));
    let payload = async |app: App| {
        let document = app.asyncapi().await.unwrap();
        check(document.value());
        document.value().pointer("/components/messages/Unseen/payload").cloned()
    };
    assert_eq!(payload(app()).await, None);
    let named = json!({ "$ref": "#/components/schemas/Unseen" });
    assert_eq!(payload(app().schema::<Unseen>()).await, Some(named));
}

#[tokio::test]
async fn what_would_keep_the_app_from_starting_is_told() {
    let listener = Listener::on("${nobody.says}").group("g").handle(audit);
    let refused = App::new("b:1").listener(listener).asyncapi().await.unwrap_err();
    assert!(refused.to_string().contains("nobody.says"), "{refused}");
}

#[tokio::test]
async fn names_that_clash_stay_apart_and_odd_ones_are_made_plain() {
    let odd = |id: &'static str, topic: &'static str| Listener::on(topic).group("g").id(id).handle(audit);
    let pattern = Listener::on_pattern("a/~.*|b").group("g").id("p/~").handle(audit);
    let same = Listener::on_pattern("a/~.+|b").group("g").id("p~/").handle(audit);
    let app =
        App::new("").listener(odd("x/y", "t")).listener(odd("x y", "t")).listener(pattern).listener(same);
    let document = app.asyncapi().await.unwrap();
    check(document.value());
    let operations: Vec<_> = document.value()["operations"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(operations, ["p", "p-2", "x-y", "x-y-2"]);
    assert_eq!(document.value()["channels"].as_object().unwrap().len(), 3);
    assert_eq!(document.value().get("servers"), None);
}

#[klamm::test]
async fn a_running_app_tells_the_listeners_that_it_has_now(kit: TestKit) {
    let app = kit.app().listener(invoice_for).start().await;
    let operations = |app: &klamm::AppHandle| {
        let document = app.asyncapi();
        check(document.value());
        document.value()["operations"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(operations(&app), ["invoice_for"]);
    app.registry().add(Listener::on("late").group("late").id("late").handle(audit)).await.unwrap();
    assert_eq!(operations(&app), ["invoice_for", "late"]);
    app.registry().remove("late", Duration::from_secs(1)).await.unwrap();
    assert_eq!(operations(&app), ["invoice_for"]);
}

#[tokio::test]
async fn a_page_has_it_all_and_no_markup_of_others() {
    let page = app().asyncapi().await.unwrap().page();
    assert!(page.starts_with("<!DOCTYPE html>"), "{page}");
    for part in [
        "billing &lt;1&gt;",
        "<code>one.example:9092</code>",
        "id=\"channels-orders\"",
        "12 partitions",
        "href=\"#messages-Order\"",
        "trace-id",
        "billing",
        "application/json",
        "replies-of-quote",
    ] {
        assert!(page.contains(part), "{part} is not in\n{page}");
    }
    assert!(!page.contains("<1>") && !page.contains("<script"), "{page}");
}

/// A folder of folders, called as no reference may be.
#[derive(Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "klamm::serde::schemars", rename = "a/b~c <b>ü</b> %41")]
struct Folder {
    folders: Vec<Folder>,
    parent: Option<Box<Folder>>,
    #[serde(rename = "in/out~ <i>")]
    wrapped: Wrapped<Option<Item>>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "klamm::serde::schemars", rename = "Wrapped<{T}>")]
struct Wrapped<T> {
    inner: Vec<T>,
}

mod other {
    use klamm::prelude::*;

    #[derive(Serialize, Deserialize, klamm::asyncapi::JsonSchema)]
    #[schemars(crate = "klamm::serde::schemars", rename = "a-b-c-b-b-41")]
    pub struct Item {
        pub weight: f64,
    }

    #[derive(Serialize, Deserialize, klamm::asyncapi::JsonSchema)]
    #[schemars(crate = "klamm::serde::schemars")]
    pub struct Order {
        pub items: Vec<Item>,
        pub refers: serde_json::Value,
    }
}

/// Names of schemas are their authors', who may call them what no component may be called.
#[tokio::test]
async fn schemas_with_odd_names_are_found_under_plain_ones() {
    let app = App::new("b:1")
        .schema::<Folder>()
        .schema::<other::Order>()
        .schema::<Vec<other::Item>>()
        .template::<String, klamm::serde::Json<Folder>>("folders")
        .template::<String, klamm::serde::Json<other::Order>>("orders")
        .template::<String, klamm::serde::Json<Vec<other::Item>>>("orders")
        .listener(invoice_for);
    let document = app.asyncapi().await.unwrap();
    let names: Vec<_> = document.value()["components"]["schemas"].as_object().unwrap().keys().collect();
    check(document.value());
    assert_eq!(names.len(), 6, "{names:?}");
    assert!(!document.page().contains("<b>"));
}

/// The process under test is this one, started once more.
#[tokio::test]
async fn a_run_prints_the_document_where_the_environment_asks_for_it() {
    const TEST: &str = "asyncapi::a_run_prints_the_document_where_the_environment_asks_for_it";
    const ASKED_FOR: &str = "KLAMM_ASYNCAPI";
    if std::env::var_os(ASKED_FOR).is_some() {
        // Nobody answers there, and nobody is asked.
        let ended = app().run().await;
        return println!("ended: {:?}", ended.map_err(|error| error.to_string()));
    }
    let said = async |form: &str| {
        let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
        child.args([TEST, "--exact", "--nocapture"]).env(ASKED_FOR, form).kill_on_drop(true);
        let output = tokio::time::timeout(Duration::from_secs(60), child.output()).await.unwrap().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let json = said("json").await;
    let document = &json[json.find('{').unwrap()..=json.rfind('}').unwrap()];
    let document: Tree = serde_json::from_str(document).unwrap();
    check(&document);
    assert!(json.contains("ended: Ok"), "{json}");
    let page = said("html").await;
    assert!(page.contains("<!DOCTYPE html>") && page.contains("ended: Ok"), "{page}");
    let wrong = said("yaml").await;
    assert!(wrong.contains("KLAMM_ASYNCAPI is `json` or `html`, and not `yaml`"), "{wrong}");
}

/// What a document must be by AsyncAPI 3.1, as far as ours have it.
fn check(document: &Tree) {
    only(document, &["asyncapi", "info", "channels", "operations", "components"], &["servers"]);
    only(&document["info"], &["title", "version"], &[]);
    references(document, document);
    let empty = serde_json::Map::new();
    for (name, server) in document["servers"].as_object().unwrap_or(&empty) {
        is_name(name);
        only(server, &["host", "protocol"], &[]);
    }
    let mut addresses = BTreeSet::new();
    for (id, channel) in document["channels"].as_object().unwrap() {
        is_name(id);
        only(channel, &["address", "messages"], &["description", "bindings"]);
        if let Some(address) = channel["address"].as_str() {
            assert!(addresses.insert(address), "{address} has two channels");
            only(&channel["bindings"], &["kafka"], &[]);
            only(&channel["bindings"]["kafka"], &["topic", "bindingVersion"], &["partitions", "replicas"]);
        } else {
            assert!(channel["address"].is_null());
        }
        for message in channel["messages"].as_object().unwrap().values() {
            only(message, &["$ref"], &[]);
        }
    }
    for (id, operation) in document["operations"].as_object().unwrap() {
        is_name(id);
        only(operation, &["action", "channel", "messages"], &["title", "bindings", "reply"]);
        assert!(["send", "receive"].contains(&operation["action"].as_str().unwrap()));
        on_channel(document, operation);
        if let Some(reply) = operation.get("reply") {
            only(reply, &["channel", "messages"], &["address"]);
            on_channel(document, reply);
            if reply.get("address").is_some() {
                only(&reply["address"], &["location"], &[]);
                let channel = document.pointer(&reply["channel"]["$ref"].as_str().unwrap()[1..]).unwrap();
                assert!(channel["address"].is_null(), "an address is said twice");
            }
        }
    }
    only(&document["components"], &["messages", "schemas"], &[]);
    for (name, message) in document["components"]["messages"].as_object().unwrap() {
        is_name(name);
        only(message, &["name"], &["contentType", "payload", "headers", "correlationId", "bindings"]);
        if let Some(headers) = message.get("headers") {
            assert_eq!(headers["type"], "object", "headers are an object");
        }
    }
    document["components"]["schemas"].as_object().unwrap().keys().for_each(|name| is_name(name));
}

/// Messages are those of the channel.
fn on_channel(document: &Tree, operation: &Tree) {
    let channel = operation["channel"]["$ref"].as_str().unwrap();
    assert!(channel.strip_prefix("#/channels/").is_some_and(|id| !id.contains('/')), "{channel}");
    assert!(document.pointer(&channel[1..]).is_some());
    for message in operation["messages"].as_array().unwrap() {
        let message = message["$ref"].as_str().unwrap();
        assert!(message.starts_with(&format!("{channel}/messages/")), "{message} is not of {channel}");
    }
}

fn references(part: &Tree, document: &Tree) {
    match part {
        Tree::Object(map) => {
            if let Some(reference) = map.get("$ref") {
                let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{pointer} leads nowhere");
                assert_eq!(map.len(), 1, "what stands beside a reference is lost");
            }
            map.values().for_each(|part| references(part, document));
        }
        Tree::Array(all) => all.iter().for_each(|part| references(part, document)),
        _ => {}
    }
}

fn only(part: &Tree, required: &[&str], more: &[&str]) {
    let map = part.as_object().unwrap();
    for name in required {
        assert!(map.contains_key(*name), "{name} is missing in {part}");
    }
    for name in map.keys() {
        assert!(required.contains(&&**name) || more.contains(&&**name), "{name} is too much in {part}");
    }
}

fn is_name(name: &str) {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || ".-_".contains(letter);
    assert!(!name.is_empty() && name.chars().all(allowed), "{name}");
}
