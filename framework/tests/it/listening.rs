//! The ordinary life of a listener: records come in, arguments are made, offsets are committed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use klamm::client::Record as OutRecord;
use klamm::prelude::*;
use klamm::testing::TestKit;
use tokio::time::sleep;

use crate::seen::{Seen, note, until};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    id: u64,
    cents: i64,
}

#[derive(Debug, Clone, Default)]
struct Ledger(Seen);

impl Ledger {
    async fn charge(&self, id: u64, cents: i64) -> Result<(), std::io::Error> {
        self.0.add(format!("{id}:{cents}"));
        Ok(())
    }
}

#[kafka_listener(topics = "orders", group = "billing")]
async fn bill(Json(order): Json<Order>, State(ledger): State<Ledger>) -> Result<(), std::io::Error> {
    ledger.charge(order.id, order.cents).await
}

#[klamm::test]
async fn charges_every_order_once(kit: TestKit) {
    let ledger = Ledger::default();
    let app = kit.app().state(ledger.clone()).listener(bill).start().await;
    kit.send("orders", "k1", Json(Order { id: 1, cents: 250 })).await;
    app.handled("bill", 1).await;
    assert_eq!(kit.committed("billing", "orders", 0).await, Some(1));
    kit.topic("orders-dlt").stays_empty().await;
    assert_eq!(ledger.0.all(), ["1:250"]);
}

#[klamm::test]
async fn records_from_before_the_first_start_are_handled_in_order(kit: TestKit) {
    for n in 0..200 {
        kit.send("lines", "k", format!("{n}")).await;
    }
    let seen = Seen::default();
    let listener = Listener::on("lines").group("g").handle(note);
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    app.handled("note", 200).await;
    assert_eq!(seen.all(), (0..200).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(kit.committed("g", "lines", 0).await, Some(200));
}

#[kafka_listener(topics = "parts", group = "g")]
async fn parts(
    key: Option<Key<String>>,
    value: Option<Value<String>>,
    Header(trace): Header<"trace", String>,
    missing: Option<Header<"missing", String>>,
    number: Result<Header<"number", i64>, Rejection>,
    meta: RecordMeta,
    headers: Headers,
    State(seen): State<Seen>,
) {
    let (key, value) = (key.map(|key| key.0), value.map(|value| value.0));
    seen.add(format!(
        "{key:?} {value:?} {trace} {} {} {}",
        missing.is_some(),
        number.is_ok(),
        headers.iter().count()
    ));
    seen.add(format!("{} {} {} {} {}", meta.topic, meta.offset, meta.attempt, meta.listener, meta.group));
}

#[klamm::test]
async fn arguments_are_made_of_every_part(kit: TestKit) {
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(parts).start().await;
    kit.send_record(
        OutRecord::to("parts").header("trace", "old").header("trace", "7f").header("number", "x"),
    )
    .await;
    app.handled("parts", 1).await;
    assert_eq!(seen.all(), ["None None 7f false false 3", "parts 0 1 parts g"]);
}

#[klamm::test]
async fn a_pattern_covers_many_topics(kit: TestKit) {
    kit.create_topic("clicks-a", 1).await;
    kit.create_topic("clicks-b", 2).await;
    kit.create_topic("other", 1).await;
    let seen = Seen::default();
    let listener = Listener::on_pattern("clicks-.*").group("g").handle(note);
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    kit.send("clicks-a", "k", "a").await;
    kit.send_to("clicks-b", 1, "k", "b").await;
    kit.send("other", "k", "c").await;
    app.handled("note", 2).await;
    let seen: BTreeSet<_> = seen.all().into_iter().collect();
    assert_eq!(seen, BTreeSet::from(["a".to_owned(), "b".to_owned()]));
}

#[derive(Debug, Clone, Default)]
struct Load {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

async fn slow(State(load): State<Load>) {
    let now = load.now.fetch_add(1, Ordering::SeqCst) + 1;
    load.most.fetch_max(now, Ordering::SeqCst);
    sleep(Duration::from_millis(10)).await;
    load.now.fetch_sub(1, Ordering::SeqCst);
}

#[klamm::test]
async fn concurrency_is_used_and_never_exceeded(kit: TestKit) {
    kit.create_topic("work", 8).await;
    for (dispatch, expected) in
        [(Dispatch::by_partition(), 3), (Dispatch::by_key(), 3), (Dispatch::unordered(), 3)]
    {
        let load = Load::default();
        let listener = Listener::on("work").group(format!("{dispatch:?}")).concurrency(3).dispatch(dispatch);
        let app = kit.app().state(load.clone()).listener(listener.handle(slow)).start().await;
        let already = kit.topic("work").records().await.len() as u64;
        for n in 0..40 {
            kit.send_to("work", n % 8, format!("{n}"), "x").await;
        }
        app.handled("slow", already + 40).await;
        assert_eq!(load.most.load(Ordering::SeqCst), expected, "{dispatch:?}");
        app.stop().await;
    }
}

#[klamm::test]
async fn one_partition_is_one_at_a_time(kit: TestKit) {
    let load = Load::default();
    let app = kit.app().state(load.clone());
    let app = app.listener(Listener::on("work").group("g").concurrency(8).handle(slow)).start().await;
    for n in 0..20 {
        kit.send("work", format!("{n}"), "x").await;
    }
    app.handled("slow", 20).await;
    assert_eq!(load.most.load(Ordering::SeqCst), 1);
}

async fn uneven(Value(text): Value<String>, State(seen): State<Seen>) {
    let n: u64 = text.parse().unwrap();
    sleep(Duration::from_millis(n * 7919 % 97)).await;
    seen.add(text);
}

#[klamm::test]
async fn commits_never_pass_the_lowest_unfinished_record(kit: TestKit) {
    const RECORDS: u64 = 300;
    let seen = Seen::default();
    let listener =
        Listener::on("uneven").group("g").concurrency(16).dispatch(Dispatch::unordered()).handle(uneven);
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    for n in 0..RECORDS {
        kit.send("uneven", "k", n.to_string()).await;
    }
    let mut moved = BTreeSet::new();
    loop {
        let committed = kit.committed("g", "uneven", 0).await.unwrap_or(0);
        // Looked at after the commit: what is below it must be finished by now.
        let finished: BTreeSet<i64> = seen.all().iter().map(|n| n.parse().unwrap()).collect();
        let lowest_unfinished = (0..).find(|n| !finished.contains(n)).unwrap();
        assert!(
            committed <= lowest_unfinished,
            "{committed} is committed, {lowest_unfinished} is not finished"
        );
        moved.insert(committed);
        if committed == RECORDS as i64 {
            break;
        }
        sleep(Duration::from_millis(5)).await;
    }
    app.handled("uneven", RECORDS).await;
    assert_eq!(seen.all().len() as u64, RECORDS);
    assert_ne!(
        seen.all(),
        (0..RECORDS).map(|n| n.to_string()).collect::<Vec<_>>(),
        "they did finish out of order"
    );
}

#[klamm::test]
async fn a_full_partition_is_paused_and_the_others_flow(kit: TestKit) {
    kit.create_topic("t", 2).await;
    let (seen, gate) = (Seen::default(), crate::seen::Gate::default());
    let blocked = {
        let gate = gate.clone();
        move |Value(text): Value<String>, meta: RecordMeta, State(seen): State<Seen>| {
            let gate = gate.clone();
            async move {
                if meta.partition == 0 {
                    gate.pass().await;
                }
                seen.add(text);
            }
        }
    };
    let listener = Listener::on("t").group("g").id("l").concurrency(2).max_in_flight(5).handle(blocked);
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    for n in 0..50 {
        kit.send_to("t", 0, "k", format!("blocked {n}")).await;
    }
    for n in 0..50 {
        kit.send_to("t", 1, "k", format!("free {n}")).await;
    }
    until(|| seen.all().len() == 50).await;
    assert!(seen.all().iter().all(|text| text.starts_with("free")));
    gate.let_through(50);
    app.handled("l", 100).await;
    assert_eq!(kit.committed("g", "t", 0).await, Some(50));
}

#[klamm::test]
async fn templates_write_what_serdes_say(kit: TestKit) {
    let template = kit.template::<i64, Json<Order>>("out");
    let at = template
        .record(Json(Order { id: 1, cents: 2 }))
        .key(258)
        .header("h", "v")
        .timestamp_ms(7)
        .send()
        .await;
    assert_eq!((at.as_ref().unwrap().offset, at.unwrap().partition), (0, 0));
    template.send_tombstone(258).await.unwrap();
    let records = kit.topic("out").records().await;
    assert_eq!(records[0].key.as_deref(), Some(&[0, 0, 0, 0, 0, 0, 1, 2][..]));
    assert_eq!(records[0].value.as_deref(), Some(&br#"{"id":1,"cents":2}"#[..]));
    assert_eq!(records[0].headers.last("h"), Some(Some(&b"v"[..])));
    assert_eq!(records[0].timestamp_ms, 7);
    assert_eq!((&records[1].key, &records[1].value), (&records[0].key, &None));
}

#[cfg(feature = "garde")]
mod valid {
    use garde::Validate;
    use klamm::listener::Valid;

    use super::*;

    #[derive(Debug, Deserialize, Validate)]
    struct Priced {
        #[garde(range(min = 1))]
        cents: i64,
        #[garde(length(min = 1))]
        customer: String,
    }

    async fn priced(Valid(Json(priced)): Valid<Json<Priced>>, State(seen): State<Seen>) {
        seen.add(format!("{} {}", priced.customer, priced.cents));
    }

    #[klamm::test]
    async fn what_breaks_the_rules_of_its_type_goes_to_the_failure_policy_once_and_says_which(kit: TestKit) {
        let seen = Seen::default();
        kit.send("t", "k", r#"{"cents":0,"customer":""}"#).await;
        kit.send("t", "k", r#"{"cents":5,"customer":"ann"}"#).await;
        let listener = Listener::on("t").group("g").handle(priced);
        let _app = kit.app().state(seen.clone()).listener(listener).start().await;
        until(|| seen.all() == ["ann 5"]).await;
        let letters = kit.topic("t-dlt").records().await;
        let message = letters[0].headers.last("kafka_dlt-exception-message").flatten().unwrap();
        let message = std::str::from_utf8(message).unwrap();
        assert!(
            message.contains("cents") && message.contains("customer") && !message.contains('\n'),
            "{message}"
        );
    }
}
