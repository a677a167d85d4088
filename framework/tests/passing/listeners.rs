//! Every form that a listener may have, and that the functions stay functions.

use std::time::Duration;

use klamm::listener::{HeaderName, Partitions, StartAt};
use klamm::prelude::*;

#[derive(Debug, Serialize, Deserialize, Record)]
#[record(json)]
struct Order {
    id: u64,
}

#[derive(Clone)]
struct Ledger;

#[derive(Debug)]
struct Refused;

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("refused")
    }
}

impl std::error::Error for Refused {}

const TOPIC: &str = "orders";

#[kafka_listener(topics = "orders", group = "billing")]
async fn bill(Json(order): Json<Order>, State(_ledger): State<Ledger>) -> Result<(), Refused> {
    if order.id == 0 { Err(Refused) } else { Ok(()) }
}

#[kafka_listener(topics = ["a", "b"], group = "g", ack = manual)]
async fn careful(Value(_text): Value<String>, _meta: RecordMeta, ack: Ack) -> Result<(), Error> {
    Ok(ack.now().await?)
}

#[kafka_listener(pattern = "clicks-.*", group = "g", batch(max = 500, wait = "50ms"))]
async fn clicks(batch: Batch<Json<Order>>) -> BatchOutcome {
    batch.each(|click| async move { if click.id == 0 { Err(Refused) } else { Ok(()) } }).await
}

#[kafka_listener(
    topics = TOPIC,
    group = format!("{TOPIC}-group"),
    id = "other",
    concurrency = 2 * 2,
    dispatch = by_key
)]
async fn expressions(
    Header(trace): Header<"trace-id", String>,
    tenant: Option<Header<"tenant", i64>>,
    Key(_key): Key<String>,
    order: Result<Value<Order>, Rejection>,
    _headers: Headers,
    _record: ConsumerRecord,
) {
    let _: (String, Option<i64>) = (trace, tenant.map(|tenant| tenant.0));
    let _ = order;
}

#[kafka_listener(topics = vec!["a"], group = "g", on_failure = patient, ack = record, dispatch = unordered)]
async fn with_policy() -> Result<(), String> {
    Err("never".to_owned())
}

#[kafka_listener(topics = "a", group = "g", on_failure = FailurePolicy::new().stop(), batch, ack = manual)]
async fn manual_batch(
    batch: Batch<(RecordMeta, Option<Value<String>>)>,
    ack: Ack,
    State(_ledger): State<Ledger>,
) -> Result<BatchOutcome, Error> {
    for (meta, value) in &batch {
        let _ = (meta.offset, value);
    }
    ack.mark();
    Ok(BatchOutcome::ok())
}

#[kafka_listener(
    topics = "a",
    group = "g",
    offset_reset = latest,
    commit_on_assign = never,
    max_in_flight = 50 * 2,
    max_in_flight_bytes = 1 << 20,
    intercept = Nobody,
    revoke_deadline = "2s",
    idle_after = "5m",
    slow_after = "90s",
    auto_start = false,
    container_group = "tables",
    restart = Backoff::fixed(Duration::from_secs(1)).forever()
)]
async fn every_setting() {}

#[kafka_listener(partitions = [Partitions::all("prices").start_at(StartAt::Beginning)])]
async fn a_table(Value(price): Value<i64>, prices: Template<String, i64>) {
    let _ = (price, prices);
}

#[kafka_listener(partitions = [Partitions::of("prices", 0..4), Partitions::of("orders", 7)], group = "g")]
async fn some_partitions() {}

#[kafka_listener(
    topics = "a",
    group = "g",
    offset_reset = klamm::client::OffsetReset::ByDuration(Duration::from_secs(3_600)),
    revoke_deadline = Duration::from_secs(2)
)]
async fn settings_that_are_expressions() {}

#[derive(Debug)]
struct Nobody;

impl klamm::listener::ListenInterceptor for Nobody {}

fn patient() -> FailurePolicy {
    FailurePolicy::new()
        .fatal::<Refused>()
        .retry_in_place(Backoff::exponential(Duration::from_millis(100)).attempts(3))
        .dead_letter()
}

mod inner {
    use klamm::prelude::*;

    #[kafka_listener(topics = "a", group = "g")]
    pub(crate) async fn r#match(Value(_text): Value<String>) {}
}

struct TraceId;

impl HeaderName for TraceId {
    const NAME: &'static str = "trace-id";
}

async fn plain(Header(_trace, ..): Header<TraceId, String>) {}

#[test]
fn works() {
    let calls = async {
        bill(Json(Order { id: 1 }), State(Ledger)).await.unwrap();
        careful(Value("x".to_owned()), RecordMeta::new("a", 0, 0), Ack::detached()).await.unwrap();
        assert!(!clicks(Batch::new(vec![Json(Order { id: 0 })])).await.is_ok());
        let order = Ok(Value(Order { id: 1 }));
        expressions(Header::new("x".into()), None, Key("k".into()), order, Headers::new(), record()).await;
        inner::r#match(Value(String::new())).await;
    };
    drop(calls);

    // A function under the macro is also a plain handler.
    let listener =
        Listener::on("orders").group("billing").concurrency(4).dispatch(Dispatch::by_key()).handle(bill);
    assert_eq!((listener.id(), listener.group()), ("bill", "billing"));
    let _ = Listener::on_pattern("a.*").group("g").ack(AckPolicy::Record).handle(plain);
    let _ = Listener::on(["a", "b"]).group("g").handle(|Value(_text): Value<String>| async {});
    let _ = App::new("127.0.0.1:1").state(Ledger).listener(bill).listener(inner::r#match).listener(listener);
    let _ = App::new("127.0.0.1:1").discover();
}

fn record() -> ConsumerRecord {
    ConsumerRecord {
        topic: "a".into(),
        partition: 0,
        offset: 0,
        timestamp_ms: 0,
        timestamp_type: klamm::client::TimestampType::CreateTime,
        leader_epoch: None,
        key: None,
        value: None,
        headers: Headers::new(),
    }
}
