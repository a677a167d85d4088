//! Registries that misbehave, and ids that are nowhere: what is a record's fault costs that record, and what is not
//! costs none.

use std::sync::Arc;
use std::time::Duration;

use klamm::client::Record as OutRecord;
use klamm::listener::{Delivery, FromRecord, Rejection};
use klamm::prelude::*;
use klamm::serde::SchemaRegistry;
use klamm::testing::TestKit;
use klamm_runtime::{MemoryNet, Net, Tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use crate::seen::{Seen, until};

const ORDER: &str = r#"{"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}]}"#;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Record)]
#[record(avro, registry, schema = ORDER)]
struct Order {
    id: i64,
}

/// What a registry does with a request: its path, and the how-manieth it is.
type Says = dyn Fn(&str, usize) -> Does + Send + Sync;

enum Does {
    Answer(u16, String),
    AnswerAfter(Duration, u16, String),
    NeverAnswer,
}

/// A registry that does what the test says.
struct FakeRegistry {
    net: MemoryNet,
    asked: Seen,
    _tasks: Tasks,
}

impl FakeRegistry {
    async fn new(says: impl Fn(&str, usize) -> Does + Send + Sync + 'static) -> Self {
        let (net, asked, tasks, says) = (MemoryNet::new(), Seen::default(), Tasks::new(), Arc::new(says));
        let mut listener = net.bind("registry:8081").await.unwrap();
        let (connections, seen) = (Tasks::new(), asked.clone());
        tasks.spawn("fake registry", async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections
                    .spawn("its connection", answer(stream, Arc::clone(&says) as Arc<Says>, seen.clone()));
            }
        });
        Self { net, asked, _tasks: tasks }
    }

    fn client(&self) -> SchemaRegistry {
        SchemaRegistry::builder("http://registry:8081").net(Arc::new(self.net.clone())).build().unwrap()
    }
}

async fn answer(mut stream: Box<dyn klamm_runtime::Stream>, says: Arc<Says>, asked: Seen) {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let head = String::from_utf8_lossy(&request).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let earlier = asked.all().len();
    asked.add(path);
    let (status, body) = match says(path, earlier) {
        Does::Answer(status, body) => (status, body),
        Does::AnswerAfter(delay, status, body) => {
            sleep(delay).await;
            (status, body)
        }
        Does::NeverAnswer => std::future::pending().await,
    };
    let head = format!("HTTP/1.1 {status} Said\r\ncontent-length: {}\r\n\r\n", body.len());
    let _ = stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await;
}

fn not_found() -> Does {
    Does::Answer(404, r#"{"error_code": 40403, "message": "Schema not found"}"#.to_owned())
}

fn schema(text: &str, more: &str) -> Does {
    Does::Answer(200, format!(r#"{{"schema": {}{more}}}"#, serde_json::Value::from(text)))
}

/// Id 1 is an order, and everything else what `other` says.
fn orders(path: &str, other: impl Fn() -> Does) -> Does {
    match path {
        "/schemas/ids/1" => schema(ORDER, ""),
        path if path.ends_with("/subjects") => Does::Answer(200, "[]".to_owned()),
        _ => other(),
    }
}

/// An order of this number, in a schema of this id.
async fn send(kit: &TestKit, id: i32, order: u8) {
    let value = [&[0][..], &id.to_be_bytes(), &[order * 2]].concat();
    kit.send_record(OutRecord::to("orders").value(value)).await;
}

#[kafka_listener(topics = "orders", group = "billing")]
async fn bill_one(order: Order, State(seen): State<Seen>) {
    seen.add(order.id.to_string());
}

#[kafka_listener(topics = "orders", group = "batches", batch(max = 2_000))]
async fn bill_many(batch: Batch<Order>, State(seen): State<Seen>) {
    batch.iter().for_each(|order| seen.add(order.id.to_string()));
}

async fn dead_are(kit: &TestKit, ids: &[i32]) {
    let mut dead = kit.topic("orders-dlt");
    for id in ids {
        assert_eq!(dead.next().await.value.unwrap()[1..5], id.to_be_bytes());
    }
    assert_eq!(dead.records().await.len(), ids.len());
}

/// The registry did not remember such refusals; the batch asked twice and then gave up every record in it.
#[klamm::test]
async fn a_schema_that_cannot_be_had_costs_a_batch_only_its_own_record(kit: TestKit) {
    let registry = FakeRegistry::new(|path, _| match path {
        "/schemas/ids/2" => {
            schema(ORDER, r#", "references": [{"name": "gone", "subject": "gone", "version": 1}]"#)
        }
        "/schemas/ids/3" => Does::Answer(422, r#"{"error_code": 42201, "message": "no"}"#.to_owned()),
        path => orders(path, not_found),
    })
    .await;
    for (id, order) in [(1, 10), (2, 11), (3, 12), (4, 13), (1, 14)] {
        send(&kit, id, order).await;
    }
    let seen = Seen::default();
    let app = kit.app().state(registry.client()).state(seen.clone()).listener(bill_many).start().await;
    app.handled("bill_many", 2).await;
    assert_eq!(seen.all(), ["10", "14"]);
    dead_are(&kit, &[2, 3, 4]).await;
}

/// What was not there was forgotten before the batch was through: it asked for the first again and again, and gave up
/// every record in the end.
#[klamm::test(needs_paused_clock)]
async fn ids_that_a_slow_registry_does_not_have_cost_a_batch_only_their_own_records(kit: TestKit) {
    let slow = || {
        let body = r#"{"error_code": 40403, "message": "Schema not found"}"#.to_owned();
        Does::AnswerAfter(Duration::from_secs(1), 404, body)
    };
    let registry = FakeRegistry::new(move |path, _| orders(path, slow)).await;
    let unknown: Vec<i32> = (100..120).collect();
    for id in &unknown {
        send(&kit, *id, 1).await;
    }
    send(&kit, 1, 7).await;
    let (seen, started) = (Seen::default(), Instant::now());
    let app = kit.app().state(registry.client()).state(seen.clone()).listener(bill_many).start().await;
    app.handled("bill_many", 1).await;
    assert_eq!(seen.all(), ["7"]);
    dead_are(&kit, &unknown).await;
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
}

/// More lookups than one call may ask for were taken for a serde that never has enough.
#[klamm::test]
async fn a_batch_of_a_thousand_unknown_ids_is_not_the_end_of_the_good_ones(kit: TestKit) {
    let registry = FakeRegistry::new(|path, _| orders(path, not_found)).await;
    for id in 100..1_150 {
        send(&kit, id, 1).await;
    }
    send(&kit, 1, 7).await;
    let seen = Seen::default();
    let app = kit.app().state(registry.client()).state(seen.clone()).listener(bill_many).start().await;
    app.handled("bill_many", 1).await;
    assert_eq!(seen.all(), ["7"]);
    assert!(registry.asked.all().len() < 1_100, "{}", registry.asked.all().len());
}

/// What the registry answered was none of its own faults, but was taken for one: the record held its partition for
/// ever.
#[klamm::test]
async fn a_schema_that_nobody_here_can_use_is_a_dead_letter_and_not_an_outage(kit: TestKit) {
    let registry = FakeRegistry::new(|path, _| match path {
        "/schemas/ids/2" => schema("struct Order {}", r#", "schemaType": "THRIFT""#),
        "/schemas/ids/3" => {
            let one = |at| format!(r#"{{"name": "n{at}", "subject": "s{at}", "version": 1}}"#);
            let all: Vec<_> = (0..101).map(one).collect();
            schema(ORDER, &format!(r#", "references": [{}]"#, all.join(",")))
        }
        // Larger than any answer may be.
        "/schemas/ids/4" => schema(&format!("{ORDER}{}", " ".repeat(17 << 20)), ""),
        path if path.starts_with("/subjects/s") => {
            Does::Answer(200, r#"{"subject": "s", "version": 1, "id": 9, "schema": "\"int\""}"#.to_owned())
        }
        path => orders(path, not_found),
    })
    .await;
    for (id, order) in [(2, 10), (3, 11), (4, 13), (1, 12)] {
        send(&kit, id, order).await;
    }
    let seen = Seen::default();
    let _app = kit.app().state(registry.client()).state(seen.clone()).listener(bill_one).start().await;
    until(|| seen.count("12") == 1).await;
    assert_eq!(seen.all(), ["12"]);
    let mut dead = kit.topic("orders-dlt");
    for part in ["THRIFT", "more than 100", "bytes"] {
        let record = dead.next().await;
        let said = record.headers.last("kafka_dlt-exception-message").flatten().unwrap();
        let said = String::from_utf8_lossy(said);
        assert!(said.contains(part) && !said.contains("is no schema registry"), "{said}");
    }
}

/// Not a registry's words: a gateway's, which say nothing of the record.
#[klamm::test(needs_paused_clock)]
async fn refusals_in_html_hold_records_and_give_none_up(kit: TestKit) {
    let registry = FakeRegistry::new(|path, earlier| match (path, earlier) {
        (_, 0) => Does::Answer(409, "<html>conflict</html>".to_owned()),
        (_, 1) => Does::Answer(422, "<html>firewall</html>".to_owned()),
        (_, 2) => Does::Answer(404, "<html>not here</html>".to_owned()),
        (_, 3) => Does::Answer(302, String::new()),
        (_, 4) => Does::Answer(429, String::new()),
        (_, 5) => Does::Answer(200, "<html>welcome</html>".to_owned()),
        (_, 6) => Does::Answer(200, r#"{"schema": "{\"ty"#.to_owned()),
        (_, 7) => Does::NeverAnswer,
        (path, _) => orders(path, not_found),
    })
    .await;
    send(&kit, 1, 7).await;
    let seen = Seen::default();
    let app = kit.app().state(registry.client()).state(seen.clone()).listener(bill_one).start().await;
    app.handled("bill_one", 1).await;
    assert_eq!(seen.all(), ["7"]);
    kit.topic("orders-dlt").stays_empty().await;
}

/// Deep enough to use up the stack of a library that reads it, in a field that nobody asks for.
#[klamm::test]
async fn a_schema_that_is_a_bomb_is_an_error_or_a_schema(kit: TestKit) {
    let registry = FakeRegistry::new(|path, _| match path {
        "/schemas/ids/2" => {
            let deep = format!(r#"{}"int"{}"#, r#"{"type":"array","items":"#.repeat(120), "}".repeat(120));
            let fields = format!(r#"{{"name":"id","type":"long"}},{{"name":"deep","type":{deep}}}"#);
            schema(&format!(r#"{{"type":"record","name":"Order","fields":[{fields}]}}"#), "")
        }
        "/schemas/ids/3" => {
            let one = |at| format!(r#"{{"name":"f{at}","type":"int"}}"#);
            let many: Vec<_> = (0..200_000).map(one).collect();
            schema(&format!(r#"{{"type":"record","name":"Order","fields":[{}]}}"#, many.join(",")), "")
        }
        path => orders(path, not_found),
    })
    .await;
    for (id, order) in [(2, 10), (3, 11), (1, 12)] {
        send(&kit, id, order).await;
    }
    let seen = Seen::default();
    let _app = kit.app().state(registry.client()).state(seen.clone()).listener(bill_one).start().await;
    until(|| seen.count("12") == 1).await;
}

/// The schema is there; what cannot be had is only for messages.
#[klamm::test(needs_paused_clock)]
async fn a_registry_that_does_not_tell_subjects_holds_nobody_up(kit: TestKit) {
    let registry = FakeRegistry::new(|path, _| match path {
        path if path.ends_with("/subjects") => Does::NeverAnswer,
        path => orders(path, not_found),
    })
    .await;
    send(&kit, 1, 7).await;
    let (seen, started) = (Seen::default(), Instant::now());
    let app = kit.app().state(registry.client()).state(seen.clone()).listener(bill_one).start().await;
    app.handled("bill_one", 1).await;
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

#[derive(Debug, thiserror::Error)]
#[error("no order: {0}")]
struct NoOrder(#[source] Rejection);

impl From<NoOrder> for Rejection {
    fn from(error: NoOrder) -> Self {
        Self::other(error)
    }
}

struct Checked(Order);

impl FromRecord for Checked {
    type Rejection = NoOrder;

    fn from_record(delivery: &Delivery<'_>) -> Result<Self, NoOrder> {
        Order::from_record(delivery).map(Self).map_err(NoOrder)
    }
}

#[kafka_listener(topics = "orders", group = "checking")]
async fn check(Checked(order): Checked, State(seen): State<Seen>) {
    seen.add(order.id.to_string());
}

#[kafka_listener(topics = "orders", group = "trying")]
async fn try_to(order: Result<Checked, NoOrder>, State(seen): State<Seen>) {
    seen.add(order.map_or_else(|error| error.to_string(), |Checked(order)| order.id.to_string()));
}

/// An extractor that has an error of its own lost the first record of every schema.
#[klamm::test]
async fn extractors_with_errors_of_their_own_wait_too(kit: TestKit) {
    let registry = FakeRegistry::new(|path, _| orders(path, not_found)).await;
    send(&kit, 1, 7).await;
    let (seen, other) = (Seen::default(), Seen::default());
    let app = kit.app().state(registry.client()).state(seen.clone()).listener(check).start().await;
    app.handled("check", 1).await;
    assert_eq!(seen.all(), ["7"]);
    let app = kit.app().state(registry.client()).state(other.clone()).listener(try_to).start().await;
    app.handled("try_to", 1).await;
    assert_eq!(other.all(), ["7"]);
}

#[kafka_listener(topics = "orders", group = "headers")]
async fn by_header(Header(order): Header<"order", Order>, State(seen): State<Seen>) {
    seen.add(order.id.to_string());
}

/// A header's type was always without a registry.
#[klamm::test]
async fn a_header_is_read_with_the_apps_registry(kit: TestKit) {
    let registry = FakeRegistry::new(|path, _| orders(path, not_found)).await;
    kit.send_record(OutRecord::to("orders").value("x").header("order", vec![0, 0, 0, 0, 1, 14])).await;
    let seen = Seen::default();
    let app = kit.app().state(registry.client()).state(seen.clone()).listener(by_header).start().await;
    app.handled("by_header", 1).await;
    assert_eq!(seen.all(), ["7"]);
}

#[kafka_listener(topics = "orders", group = "keys", dispatch = by_key)]
async fn by_key(order: Order, State(seen): State<Seen>) {
    seen.add(order.id.to_string());
}

/// The first of a key waits for its schema: those of the key wait behind it, those of others do not, and nothing is
/// committed over it, however the app ends.
#[klamm::test(needs_paused_clock)]
async fn what_waits_for_its_schema_is_neither_overtaken_by_its_key_nor_committed_over(kit: TestKit) {
    let is_down = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let down = Arc::clone(&is_down);
    let registry = FakeRegistry::new(move |path, _| match path {
        "/schemas/ids/2" if down.load(std::sync::atomic::Ordering::SeqCst) => Does::NeverAnswer,
        "/schemas/ids/2" => schema(ORDER, ""),
        path => orders(path, not_found),
    })
    .await;
    let send = async |key: &'static str, id: i32, order: u8| {
        let value = [&[0][..], &id.to_be_bytes(), &[order * 2]].concat();
        kit.send_record(OutRecord::to("orders").key(key).value(value)).await;
    };
    for (key, id, order) in
        [("a", 2, 10), ("a", 1, 11), ("b", 1, 12), ("c", 2, 13), ("b", 1, 14), ("a", 1, 15)]
    {
        send(key, id, order).await;
    }
    let seen = Seen::default();
    let app = kit.app().state(registry.client()).state(seen.clone()).listener(by_key).start().await;
    until(|| seen.all().len() == 2).await;
    sleep(Duration::from_secs(100)).await;
    assert_eq!(seen.all(), ["12", "14"]);
    assert_eq!(kit.committed("keys", "orders", 0).await.unwrap_or(0), 0);
    app.stop().await;
    assert_eq!(kit.committed("keys", "orders", 0).await.unwrap_or(0), 0);

    is_down.store(false, std::sync::atomic::Ordering::SeqCst);
    let again = Seen::default();
    let app = kit.app().state(registry.client()).state(again.clone()).listener(by_key).start().await;
    app.handled("by_key", 6).await;
    let all = again.all();
    let of_a: Vec<_> = all.iter().filter(|order| ["10", "11", "15"].contains(&order.as_str())).collect();
    assert_eq!(of_a, ["10", "11", "15"]);
    app.stop().await;
    assert_eq!(kit.committed("keys", "orders", 0).await, Some(6));
}
