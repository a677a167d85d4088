//! The metrics of listeners: the table is what is told, it counts what happened, and a recorder that comes late or
//! breaks harms nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use klamm::client::{MetricKind, NewTopic, Record as OutRecord};
use klamm::listener::{Before, BoxError, Delivery, ListenInterceptor, METRICS, Unsendable};
use klamm::prelude::*;
use klamm::testing::TestKit;
use metrics::{
    CounterFn, GaugeFn, HistogramFn, Key as MetricKey, KeyName, Metadata, Recorder, SharedString, Unit,
};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

use crate::seen::{Gate, Seen, note, until};

const HOUR: Duration = Duration::from_secs(3_600);

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

/// What was told of listeners: by name, then by the values of the labels.
type Told = BTreeMap<String, BTreeMap<String, f64>>;

/// Runs a test under a recorder of its own.
fn told_of<Fut: Future<Output = ()>>(test: impl FnOnce(TestKit) -> Fut) -> Told {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        runtime().block_on(async {
            let kit = TestKit::in_process().await;
            timeout(HOUR, test(kit)).await.unwrap();
        });
    });
    let mut told = Told::new();
    for (key, unit, description, value) in snapshotter.snapshot().into_vec() {
        let key = key.key();
        if !key.name().starts_with("klamm_listener_") {
            continue;
        }
        let row = METRICS.iter().find(|metric| metric.name == key.name());
        let row = row.unwrap_or_else(|| panic!("{key} is not in the table"));
        assert!(unit.is_some() && description.is_some(), "{key} has no description");
        let labels: Vec<&str> = key.labels().map(metrics::Label::key).collect();
        assert_eq!(labels, row.labels, "{key}");
        let (kind, value) = match value {
            DebugValue::Counter(count) => (MetricKind::Counter, count as f64),
            DebugValue::Gauge(value) => (MetricKind::Gauge, value.into_inner()),
            DebugValue::Histogram(values) => (MetricKind::Histogram, values.len() as f64),
        };
        assert_eq!(kind, row.kind, "{key}");
        // The group is the same for all.
        let values: Vec<&str> =
            key.labels().filter(|label| label.key() != "group").map(metrics::Label::value).collect();
        told.entry(key.name().to_owned()).or_default().insert(values.join(" "), value);
    }
    told
}

/// Fails on what begins with "bad".
async fn picky(Value(text): Value<String>) -> Result<(), String> {
    if text.starts_with("bad") { Err(text) } else { Ok(()) }
}

async fn held(Value(_text): Value<String>, State(gate): State<Gate>) {
    gate.pass().await;
}

async fn answer(Value(text): Value<String>) -> Reply<String> {
    text.into()
}

#[derive(Debug)]
struct NoSpam;

impl ListenInterceptor for NoSpam {
    fn before(&self, delivery: &Delivery<'_>) -> Result<Before, BoxError> {
        let is_spam = delivery.record().value.as_deref() == Some(b"spam");
        Ok(if is_spam { Before::Discard } else { Before::Handle })
    }
}

/// Everything that has a metric happens once at least.
async fn everything(kit: TestKit) {
    let topics = ["t", "p", "s", "h", "a", "f"].map(|name| NewTopic::new(name).partitions(1));
    let small = NewTopic::new("p-dlt").partitions(1).config("max.message.bytes", "1");
    kit.client().admin().create_topics(&[&topics[..], &[small]].concat()).await.unwrap();
    let retried = FailurePolicy::new().retry_in_place(Backoff::immediate().attempts(2));
    let retried = retried.retry_topics([Duration::from_secs(1)]);
    let parks = FailurePolicy::new().unsendable(Unsendable::Park("lot".into()));
    let on = |topic: &str| Listener::on(topic.to_owned()).group("g").id(topic.to_owned());
    let listener = |topic: &str, policy| on(topic).on_failure(policy).intercept(NoSpam).handle(picky);
    let app = kit.app().state(Gate::default());
    let app = app.listener(listener("t", retried)).listener(listener("p", parks));
    let app = app.listener(listener("s", FailurePolicy::new().skip()));
    let app = app.listener(listener("f", FailurePolicy::new().stop()));
    let app = app.listener(on("h").slow_after(Duration::from_secs(5)).handle(held));
    let app = app.listener(on("a").send_to("answers").handle(answer)).start().await;
    for (topic, value) in [
        ("t", "good"),
        ("t", "bad"),
        ("t", "spam"),
        ("p", "bad"),
        ("s", "bad"),
        ("h", "stuck"),
        ("a", "b"),
        ("f", "bad"),
    ] {
        kit.send(topic, "k", value).await;
    }
    for (listener, records) in [("t", 4), ("p", 1), ("s", 1), ("a", 1)] {
        app.handled(listener, records).await;
    }
    app.listener("f").unwrap().failure().await.unwrap();
    sleep(Duration::from_secs(10)).await;
    assert!(app.listener("h").unwrap().oldest() >= Duration::from_secs(9));
    for n in 0..3 {
        kit.send("h", "k", format!("{n}")).await;
    }
    app.listener("t").unwrap().pause().await.unwrap();
    sleep(Duration::from_secs(2)).await;
    app.shutdown(Duration::ZERO).await;
}

#[test]
fn the_table_is_what_is_told() {
    let told = told_of(everything);
    for metric in METRICS {
        let values = told.get(metric.name).unwrap_or_else(|| panic!("{} is not told", metric.name));
        let used = metric.kind == MetricKind::Gauge || values.values().any(|value| *value > 0.0);
        assert!(used, "{} never had a value: {values:?}", metric.name);
    }
    let count = |name: &str, labels: &str| told[&format!("klamm_listener_{name}")].get(labels).copied();
    assert_eq!(count("deliveries_total", "t t"), Some(4.0), "good, bad twice, spam");
    assert_eq!(
        count("deliveries_total", "t t-retry-1s-g"),
        Some(2.0),
        "{:?}",
        told["klamm_listener_deliveries_total"]
    );
    assert_eq!(count("failures_total", "t t handler"), Some(2.0));
    assert_eq!(count("failures_total", "t t panicked"), Some(0.0));
    assert_eq!(count("retries_total", "t t"), Some(1.0));
    assert_eq!(count("retry_copies_total", "t t"), Some(1.0));
    assert_eq!(count("dead_letters_total", "t t-retry-1s-g"), Some(1.0));
    assert_eq!(count("discarded_total", "t t"), Some(1.0));
    assert_eq!((count("parked_total", "p p"), count("dead_letters_total", "p p")), (Some(1.0), Some(0.0)));
    assert!(count("output_failures_total", "p dead_letter") >= Some(1.0));
    assert_eq!(count("skipped_total", "s s"), Some(1.0));
    assert_eq!(count("replies_total", "a a"), Some(1.0));
    assert_eq!((count("ends_total", "f failed"), count("ends_total", "t stopped")), (Some(1.0), Some(1.0)));
    assert_eq!(count("drain_unfinished_total", "h"), Some(1.0));
    assert!(count("pauses_total", "t") >= Some(1.0) && count("rebalances_total", "t assigned") >= Some(1.0));
    for gauge in METRICS.iter().filter(|metric| metric.kind == MetricKind::Gauge) {
        // Of one that has ended nothing is left.
        assert!(
            told[gauge.name].values().all(|value| value.abs() < 1e-9),
            "{}: {:?}",
            gauge.name,
            told[gauge.name]
        );
    }
}

/// The page has a row for each metric, as the table in the code has it.
#[tokio::test]
async fn the_documentation_has_the_table_of_metrics() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/observing.md");
    let page = klamm::client::runtime::read_text_file(&path).await.unwrap();
    let found: Vec<&str> = page.lines().filter(|line| line.starts_with("| `klamm_listener_")).collect();
    let wanted: Vec<String> = METRICS
        .iter()
        .map(|metric| {
            let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            format!("| `{}` | {} | {} | {} |", metric.name, metric.kind, labels.join(", "), metric.doc)
        })
        .collect();
    assert_eq!(found, wanted, "the rows should be:\n{}", wanted.join("\n"));
}

/// How it stands is told while it runs.
#[test]
fn gauges_say_how_a_listener_stands() {
    let told = told_of(|kit| async move {
        kit.create_topic("t", 2).await;
        let listener =
            Listener::on("t").group("g").slow_after(Duration::from_secs(5)).max_in_flight(10).handle(held);
        let app = kit.app().state(Gate::default()).listener(listener).start().await;
        for n in 0..4 {
            kit.send_to("t", 0, "k", format!("{n}")).await;
        }
        let handle = app.listener("held").unwrap();
        until(|| handle.lag() == Some(4)).await;
        sleep(Duration::from_secs(20)).await;
        // What it told last stays: it is not ended in good order, and its handle keeps it from being forgotten.
        std::mem::forget(handle);
    });
    let value = |name: &str, labels: &str| told[&format!("klamm_listener_{name}")][labels];
    assert_eq!((value("lag_records", "held t 0"), value("lag_records", "held t 1")), (4.0, 0.0));
    assert_eq!((value("unfinished_records", "held"), value("in_flight_records", "held")), (4.0, 4.0));
    assert_eq!((value("budget_used_ratio", "held"), value("assigned_partitions", "held")), (0.4, 2.0));
    assert_eq!((value("running_calls", "held"), value("slow_calls", "held")), (1.0, 1.0));
    assert_eq!((value("live", "held"), value("ready", "held"), value("troubles", "held")), (1.0, 1.0, 0.0));
    assert!(
        (18.0..=21.0).contains(&value("oldest_seconds", "held")) && value("poll_age_seconds", "held") <= 5.1
    );
    assert!(value("in_flight_bytes", "held") > 1_000.0, "256 more for each");
}

/// Handles are made when a listener starts: it shows nothing to a recorder that comes later, and goes on.
#[test]
fn a_recorder_that_comes_late_harms_nobody() {
    let runtime = runtime();
    let seen = Seen::default();
    let (kit, app) = runtime.block_on(async {
        let kit = TestKit::in_process().await;
        let listener = Listener::on("t").group("g").handle(note);
        let app = kit.app().state(seen.clone()).listener(listener).start().await;
        (kit, app)
    });
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            kit.send("t", "k", "v").await;
            timeout(HOUR, app.handled("note", 1)).await.unwrap();
            app.stop().await;
        });
    });
    let names: BTreeSet<String> =
        snapshotter.snapshot().into_vec().iter().map(|(key, ..)| key.key().name().to_owned()).collect();
    assert!(!names.iter().any(|name| name.starts_with("klamm_listener_")), "{names:?}");
}

/// A recorder that panics at everything that listeners tell it, or already at making a handle.
struct Broken {
    at_once: bool,
}

struct BrokenHandle;

impl CounterFn for BrokenHandle {
    fn increment(&self, _value: u64) {
        panic!("a counter that breaks");
    }
    fn absolute(&self, _value: u64) {
        panic!("a counter that breaks");
    }
}

impl GaugeFn for BrokenHandle {
    fn increment(&self, _value: f64) {
        panic!("a gauge that breaks");
    }
    fn decrement(&self, _value: f64) {
        panic!("a gauge that breaks");
    }
    fn set(&self, _value: f64) {
        panic!("a gauge that breaks");
    }
}

impl HistogramFn for BrokenHandle {
    fn record(&self, _value: f64) {
        panic!("a histogram that breaks");
    }
}

impl Broken {
    fn breaks(&self, key: &MetricKey) -> bool {
        let breaks = key.name().starts_with("klamm_listener_");
        assert!(!(breaks && self.at_once), "a recorder that breaks");
        breaks
    }
}

impl Recorder for Broken {
    fn describe_counter(&self, _key: KeyName, _unit: Option<Unit>, _description: SharedString) {}
    fn describe_gauge(&self, _key: KeyName, _unit: Option<Unit>, _description: SharedString) {}
    fn describe_histogram(&self, _key: KeyName, _unit: Option<Unit>, _description: SharedString) {}
    fn register_counter(&self, key: &MetricKey, _metadata: &Metadata<'_>) -> metrics::Counter {
        if self.breaks(key) {
            metrics::Counter::from_arc(Arc::new(BrokenHandle))
        } else {
            metrics::Counter::noop()
        }
    }
    fn register_gauge(&self, key: &MetricKey, _metadata: &Metadata<'_>) -> metrics::Gauge {
        if self.breaks(key) {
            metrics::Gauge::from_arc(Arc::new(BrokenHandle))
        } else {
            metrics::Gauge::noop()
        }
    }
    fn register_histogram(&self, key: &MetricKey, _metadata: &Metadata<'_>) -> metrics::Histogram {
        if self.breaks(key) {
            metrics::Histogram::from_arc(Arc::new(BrokenHandle))
        } else {
            metrics::Histogram::noop()
        }
    }
}

#[test]
fn a_recorder_that_panics_is_no_failure_of_a_record() {
    for at_once in [false, true] {
        let seen = Seen::default();
        metrics::with_local_recorder(&Broken { at_once }, || {
            runtime().block_on(async {
                let kit = TestKit::in_process().await;
                let policy = FailurePolicy::new().retry_in_place(Backoff::immediate().attempts(2));
                let listener = Listener::on("t").group("g").on_failure(policy).handle(crate::picky::picky);
                let app = kit.app().state(seen.clone()).listener(listener).start().await;
                for value in ["a", "bad", "b"] {
                    kit.send_record(OutRecord::to("t").key("k").value(value)).await;
                }
                timeout(HOUR, app.handled("picky", 3)).await.unwrap();
                sleep(Duration::from_secs(5)).await;
                assert!(app.health().is_ready(), "{}", app.health());
                assert_eq!(kit.committed("g", "t", 0).await, Some(3));
                assert!(app.stop().await.is_clean());
            });
        });
        assert_eq!(seen.all(), ["a", "bad", "bad", "b"], "{at_once}");
    }
}

/// A thousand lags are told one by one; the cost of more is one for each topic.
#[test]
fn thousands_of_partitions_have_a_bounded_number_of_metrics() {
    let told = told_of(|kit| async move {
        kit.create_topic("t", 1_200).await;
        let listener = Listener::on("t").group("g").handle(note);
        let app = kit.app().state(Seen::default()).listener(listener).start().await;
        kit.send_to("t", 1_199, "k", "v").await;
        app.handled("note", 1).await;
        sleep(Duration::from_secs(5)).await;
        assert_eq!(app.listener("note").unwrap().assignment().len(), 1_200);
        app.stop().await;
    });
    let lags = &told["klamm_listener_lag_records"];
    assert_eq!((lags.len(), lags.get("note t other")), (1_001, Some(&0.0)));
}
