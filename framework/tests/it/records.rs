//! Types that say how they are written: as arguments, in batches, in templates; several on one topic; headers as a
//! struct.

use std::borrow::Cow;

use klamm::client::Record as OutRecord;
use klamm::prelude::*;
use klamm::serde::{DefaultSerde, RecordKey, RecordTopic, Serde, UnknownRecord};
use klamm::testing::TestKit;

use crate::seen::Seen;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Record)]
#[record(json, topic = "orders", key = id)]
struct Order {
    id: u64,
    cents: i64,
}

fn order(id: u64) -> Order {
    Order { id, cents: 250 }
}

#[kafka_listener(topics = Order::TOPIC, group = "billing")]
async fn bill_typed(order: Order, State(seen): State<Seen>) {
    seen.add(format!("{order:?}"));
}

#[klamm::test]
async fn a_taught_type_is_an_argument_and_a_templates_value(kit: TestKit) {
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(bill_typed).start().await;
    kit.template::<u64, Order>(Order::TOPIC).send(*order(7).key(), order(7)).await.unwrap();
    app.handled("bill_typed", 1).await;
    assert_eq!(seen.all(), ["Order { id: 7, cents: 250 }"]);
    let written = kit.topic("orders").records().await;
    assert_eq!(
        written[0].value.as_deref(),
        Some(&br#"{"id":7,"cents":250}"#[..]),
        "as `Json<Order>` writes it"
    );
    assert_eq!(written[0].key.as_deref(), Some(&7_u64.to_be_bytes()[..]));
}

#[kafka_listener(topics = "orders", group = "g")]
async fn any(order: Option<Order>, State(seen): State<Seen>) {
    seen.add(format!("{:?}", order.map(|order| order.id)));
}

#[kafka_listener(topics = "orders", group = "h")]
async fn looked_at(order: Result<Order, Rejection>, State(seen): State<Seen>) {
    seen.add(match order {
        Ok(order) => format!("{}", order.id),
        Err(rejection) => format!("{rejection}"),
    });
}

#[klamm::test]
async fn tombstones_and_what_does_not_decode(kit: TestKit) {
    kit.send("orders", "k", order(1)).await;
    kit.send_record(OutRecord::to("orders").key("k")).await;
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(any).start().await;
    app.handled("any", 2).await;
    assert_eq!(seen.all(), ["Some(1)", "None"]);
    kit.topic("orders-dlt").stays_empty().await;

    kit.send("orders", "k", "{").await;
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(looked_at).start().await;
    app.handled("looked_at", 3).await;
    let seen = seen.all();
    assert_eq!((&*seen[0], &*seen[1]), ("1", "the record has no value (it is a tombstone)"));
    assert!(
        seen[2].starts_with("the value does not decode: 1 bytes are not a ")
            && seen[2].contains("Order in JSON")
    );
}

#[kafka_listener(topics = "orders", group = "g", batch(max = 10))]
async fn together(batch: Batch<Order>, State(seen): State<Seen>) {
    batch.iter().for_each(|order| seen.add(format!("{}", order.id)));
}

#[klamm::test]
async fn a_batch_of_taught_types_leaves_out_what_does_not_decode(kit: TestKit) {
    for id in 0..5 {
        kit.send("orders", "k", order(id)).await;
    }
    kit.send("orders", "k", "not an order").await;
    kit.send("orders", "k", order(5)).await;
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(together).start().await;
    app.handled("together", 6).await;
    assert_eq!(seen.all(), ["0", "1", "2", "3", "4", "5"]);
    assert_eq!(kit.topic("orders-dlt").next_value::<String>().await, "not an order");
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Placed {
    id: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Cancelled {
    why: String,
}

#[derive(Debug, PartialEq, Record)]
#[record(json, header = "klamm-type")]
enum OrderEvent {
    #[record(name = "order.placed")]
    Placed(Placed),
    Cancelled(Cancelled),
}

#[kafka_listener(topics = "events", group = "g")]
async fn follow(event: OrderEvent, State(seen): State<Seen>) {
    seen.add(format!("{event:?}"));
}

#[klamm::test]
async fn the_types_of_a_topic_are_told_apart_by_a_header(kit: TestKit) {
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(follow).start().await;
    let events = kit.template::<String, OrderEvent>("events");
    events.send("k", OrderEvent::Placed(Placed { id: 7 })).await.unwrap();
    events.send("k", OrderEvent::Cancelled(Cancelled { why: "late".to_owned() })).await.unwrap();
    kit.send_record(OutRecord::to("events").value("{}").header("klamm-type", "order.paid")).await;
    kit.send_record(OutRecord::to("events").value("{}")).await;
    app.handled("follow", 2).await;
    assert_eq!(seen.all(), ["Placed(Placed { id: 7 })", "Cancelled(Cancelled { why: \"late\" })"]);
    let written = kit.topic("events").records().await;
    assert_eq!(written[0].headers.last("klamm-type"), Some(Some(&b"order.placed"[..])));
    assert_eq!(written[0].value.as_deref(), Some(&br#"{"id":7}"#[..]));

    let mut dead = kit.topic("events-dlt");
    let said = |record: &ConsumerRecord| {
        let message = record.headers.last("kafka_dlt-exception-message").flatten().unwrap();
        String::from_utf8_lossy(message).into_owned()
    };
    let first = said(&dead.next().await);
    assert!(
        first.contains("`order.paid`") && first.contains("order.placed") && first.contains("Cancelled"),
        "{first}"
    );
    assert!(said(&dead.next().await).contains("no header `klamm-type`"));
}

#[kafka_listener(topics = "calls", group = "g", send_to = "answers")]
async fn answer_by_type(Value(id): Value<String>) -> Reply<OrderEvent> {
    OrderEvent::Placed(Placed { id: id.parse().unwrap_or(0) }).into()
}

/// Its headers were left out: who read the reply could not tell what it was.
#[klamm::test]
async fn a_reply_is_written_as_a_template_writes_it(kit: TestKit) {
    let app = kit.app().listener(answer_by_type).start().await;
    kit.send("calls", "k", "7").await;
    app.handled("answer_by_type", 1).await;
    let [reply] = &kit.topic("answers").records().await[..] else { panic!("one reply") };
    assert_eq!(reply.headers.last("klamm-type"), Some(Some(&b"order.placed"[..])));
    assert_eq!(reply.value.as_deref(), Some(&br#"{"id":7}"#[..]));
}

/// Spring-kafka's JSON serializer names the class in a header; so can we, and read what we do not know.
#[derive(Debug, PartialEq, Record)]
#[record(json, header = "__TypeId__")]
enum FromSpring {
    #[record(name = "com.acme.OrderPlaced")]
    Placed(Placed),
    #[record(other)]
    Other(UnknownRecord),
}

#[test]
fn types_are_named_as_spring_names_them_and_the_rest_has_a_variant() {
    let serde = <FromSpring as DefaultSerde>::Serde::default();
    let read = |name: &str, text: &'static str| {
        let headers: Headers = [("__TypeId__", name.to_owned())].into_iter().collect();
        serde.deserialize_record("t", &headers, &text.into())
    };
    assert_eq!(read("com.acme.OrderPlaced", r#"{"id":1}"#).unwrap(), FromSpring::Placed(Placed { id: 1 }));
    assert!(read("com.acme.OrderPlaced", "{}").is_err(), "a known type that is broken is not another one");
    let Ok(FromSpring::Other(unknown)) = read("com.acme.OrderPaid", "?") else { panic!("it has a variant") };
    assert_eq!((&*unknown.name, &unknown.bytes[..]), ("com.acme.OrderPaid", &b"?"[..]));
    let mut headers = Vec::new();
    serde.serialize_record("t", &mut headers, &FromSpring::Other(unknown)).unwrap();
    assert_eq!(Headers::from(headers).last("__TypeId__"), Some(Some(&b"com.acme.OrderPaid"[..])));
}

/// serde's own tag inside of the JSON needs nothing of ours.
#[derive(Debug, PartialEq, Serialize, Deserialize, Record)]
#[record(json)]
#[serde(tag = "type")]
enum TaggedInside {
    Placed { id: u64 },
}

#[test]
fn a_tag_inside_of_the_json_is_told_when_it_is_unknown() {
    let serde = <TaggedInside as DefaultSerde>::Serde::default();
    let read = |text: &'static str| Serde::<TaggedInside>::deserialize(&serde, "t", &text.into());
    assert_eq!(read(r#"{"type":"Placed","id":1}"#).unwrap(), TaggedInside::Placed { id: 1 });
    assert!(read(r#"{"type":"Paid"}"#).unwrap_err().to_string().contains("unknown variant `Paid`"));
}

#[derive(Debug, PartialEq, Serialize, Deserialize, Record)]
#[record(postcard)]
struct Envelope<T> {
    inner: T,
}

#[test]
fn generic_types_are_taught_too() {
    let serde = <Envelope<Cow<'static, str>> as DefaultSerde>::Serde::default();
    let bytes = serde.serialize("t", &Envelope { inner: Cow::Borrowed("a") }).unwrap();
    assert_eq!(bytes, "\u{1}a");
}

#[derive(Debug, Clone, PartialEq, Headers)]
#[headers(rename_all = "kebab-case")]
struct Trace {
    trace_id: String,
    #[header(big_endian)]
    attempt: i32,
    tenant: Option<u64>,
    #[header(rename = "tag")]
    tags: Vec<String>,
}

#[kafka_listener(topics = "traced", group = "g")]
async fn traced(trace: Trace, State(seen): State<Seen>) {
    seen.add(format!("{trace:?}"));
}

#[klamm::test]
async fn headers_are_a_struct_in_and_out(kit: TestKit) {
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(traced).start().await;
    let trace = Trace {
        trace_id: "7f".to_owned(),
        attempt: 258,
        tenant: Some(3),
        tags: vec!["a".into(), "b".into()],
    };
    let template = kit.template::<String, String>("traced");
    template.record("x".to_owned()).headers(trace.clone()).send().await.unwrap();
    app.handled("traced", 1).await;
    assert_eq!(seen.all(), [format!("{trace:?}")]);
    let written = &kit.topic("traced").records().await[0];
    assert_eq!(written.headers.last("attempt"), Some(Some(&[0, 0, 1, 2][..])));
    assert_eq!(written.headers.last("tenant"), Some(Some(&b"3"[..])));

    kit.send_record(OutRecord::to("traced").value("x").header("trace-id", "1")).await;
    let dead = kit.topic("traced-dlt").next().await;
    let said = dead.headers.last("kafka_dlt-exception-message").flatten().map(<[u8]>::to_vec);
    assert_eq!(said.as_deref(), Some(&b"the record has no header `attempt`"[..]));
}
