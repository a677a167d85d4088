//! The metrics of streams: the table is what is told and what the documentation has, what happened is counted, and
//! programs see it without a recorder.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use klamm::client::{MetricKind, Record};
use klamm::listener::BoxError;
use klamm::streams::{
    AfterFailure, ErrorPolicy, InRecord, METRICS, Materialized, Processor, ProcessorContext, Punctuation,
    PunctuationType, StreamsBuilder, TaskState, Topology,
};
use klamm::testing::TestKit;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

use crate::pipeline::{Pipeline, caught_up, topology, until};

/// Ticks every 20 ms.
struct Ticker;

impl Processor<String, String> for Ticker {
    type Key = String;
    type Value = String;

    fn init(&mut self, context: &mut ProcessorContext<'_, String, String>) -> Result<(), BoxError> {
        context.schedule(Duration::from_millis(20), PunctuationType::WallClock);
        Ok(())
    }

    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, String, String>,
        record: InRecord<'_, String, String>,
    ) -> Result<(), BoxError> {
        Ok(context.forward(record.key, record.value)?)
    }

    fn punctuate(
        &mut self,
        _: &mut ProcessorContext<'_, String, String>,
        _: Punctuation,
    ) -> Result<(), BoxError> {
        Ok(())
    }
}

/// Skips every tenth record, lets a clock tick, and counts.
fn eventful() -> Topology {
    let mut streams = StreamsBuilder::new();
    let input = streams.stream::<String, String>("in");
    let sound = input
        .try_map_values(|value| {
            let number: u32 = value.parse()?;
            if number.is_multiple_of(10) { Err(BoxError::from("a tenth")) } else { Ok(value.clone()) }
        })
        .named("sieve")
        .on_error(ErrorPolicy::skip());
    sound.process(|| Ticker).named("ticker").to("echo");
    sound.group_by_key().count(Materialized::named("counts")).to_stream().to("totals");
    streams.build().unwrap()
}

/// By name, then by the values of the labels but the first, which is the application.
type Told = BTreeMap<String, BTreeMap<String, f64>>;

/// What was told since the last time.
fn told(snapshotter: &Snapshotter) -> Told {
    let mut told = Told::new();
    for (key, unit, description, value) in snapshotter.snapshot().into_vec() {
        let key = key.key();
        if !key.name().starts_with("klamm_streams_") {
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
        let values: Vec<&str> = key.labels().skip(1).map(metrics::Label::value).collect();
        told.entry(key.name().to_owned()).or_default().insert(values.join(" "), value);
    }
    told
}

#[klamm::test]
async fn the_table_is_what_is_told(kit: TestKit) {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recorded = metrics::set_default_local_recorder(&recorder);
    let mut pipeline = Pipeline::new(&kit).await;
    pipeline.feed(1_000).await;
    let first = eventful().start(pipeline.config(1).threads(2)).await.unwrap();
    caught_up(&first).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let now = told(&snapshotter);
    let value = |name: &str, labels: &str| now[&format!("klamm_streams_{name}")][labels];
    assert_eq!((value("state", "running"), value("state", "rebalancing")), (1.0, 0.0));
    assert_eq!((value("tasks", "running"), value("tasks", "restoring")), (4.0, 0.0));
    assert_eq!((value("paused", "asked"), value("threads", "")), (0.0, 2.0));
    assert!(value("cache_bytes", "") > 0.0 && value("store_cache_bytes", "0_0 counts") > 0.0);
    assert!(value("block_cache_bytes", "") > 0.0 && value("write_buffer_bytes", "") > 0.0);
    assert!(value("store_memtable_bytes", "0_1 counts") > 0.0);
    let rows: f64 = now["klamm_streams_store_rows"].values().sum();
    assert!(rows >= 7.0, "an estimate of at least all keys: {rows}");
    first.close().await.unwrap();
    let then = told(&snapshotter);
    // Another directory has nothing.
    let second = eventful().start(pipeline.config(2)).await.unwrap();
    caught_up(&second).await;
    second.close().await.unwrap();
    let last = told(&snapshotter);
    let sum = |name: &str, labels: &str| {
        let of = |told: &Told| told[&format!("klamm_streams_{name}")].get(labels).copied().unwrap_or(0.0);
        of(&now) + of(&then) + of(&last)
    };
    let processed: f64 = (0..4).map(|task| sum("processed_total", &format!("0_{task}"))).sum();
    assert_eq!(processed, 1_000.0);
    assert_eq!(sum("failures_total", "sieve skipped"), 100.0);
    let failed: f64 = (0..4).map(|task| sum("dropped_total", &format!("0_{task} failed"))).sum();
    assert_eq!(failed, 100.0);
    assert!(sum("punctuations_total", "ticker") > 20.0);
    assert!(sum("commits_total", "0 ok") >= 1.0 && sum("commits_total", "1 ok") >= 1.0);
    assert!(sum("commit_seconds", "0") >= 1.0);
    let of_counts = |name: &str| (0..4).map(|task| sum(name, &format!("0_{task} counts"))).sum::<f64>();
    assert_eq!(of_counts("cache_hits_total") + of_counts("cache_misses_total"), 900.0);
    assert_eq!(of_counts("cache_misses_total"), 7.0, "each key once");
    assert!(of_counts("restored_total") >= 7.0 && of_counts("restored_bytes_total") >= 7.0 * 10.0);
    assert!((0..4).any(|task| sum("record_age_seconds", &format!("0_{task}")) > 0.0));
    assert!((0..4).any(|task| sum("process_seconds", &format!("0_{task}")) > 0.0));
    for metric in METRICS {
        assert!(
            now.contains_key(metric.name) || last.contains_key(metric.name),
            "{} is not told",
            metric.name
        );
    }
}

#[klamm::test]
async fn tasks_that_fail_are_told_until_they_are_past_it(kit: TestKit) {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recorded = metrics::set_default_local_recorder(&recorder);
    let pipeline = Pipeline::new(&kit).await;
    let is_well = Arc::new(AtomicBool::new(false));
    let well = Arc::clone(&is_well);
    let mut streams = StreamsBuilder::new();
    let input = streams.stream::<String, String>("in").try_map_values(move |value| {
        if well.load(Ordering::Acquire) { Ok(value.clone()) } else { Err("not yet") }
    });
    input.to("echo");
    let wait = Duration::from_millis(100);
    let config = pipeline.config(1).on_task_failure(move |_| AfterFailure::RestartTask(wait));
    let app = streams.build().unwrap().start(config).await.unwrap();
    let producer = kit.client().producer().build().unwrap();
    for partition in [1, 3] {
        producer.send(Record::to("in").key("k").value("v").partition(partition)).await.unwrap();
    }
    // The recorder tells what has changed since it was asked last.
    let mut failing = 0.0;
    let mut are_failing = |tasks: f64| {
        let told = told(&snapshotter);
        failing += told.get("klamm_streams_failing_tasks").and_then(|of| of.get("")).copied().unwrap_or(0.0);
        failing == tasks
    };
    until(|| app.failing_tasks().len() == 2).await;
    until(|| are_failing(2.0)).await;
    is_well.store(true, Ordering::Release);
    caught_up(&app).await;
    until(|| app.failing_tasks().is_empty()).await;
    until(|| are_failing(0.0)).await;
    app.close().await.unwrap();
}

/// The page has a row for each metric, as the table in the code has it.
#[tokio::test]
async fn the_documentation_has_the_table_of_metrics() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/observing.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let found: Vec<&str> = page.lines().filter(|line| line.starts_with("| `klamm_streams_")).collect();
    let wanted: Vec<String> = METRICS
        .iter()
        .map(|metric| {
            let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            format!("| `{}` | {} | {} | {} |", metric.name, metric.kind, labels.join(", "), metric.doc)
        })
        .collect();
    assert_eq!(found, wanted, "the rows should be:\n{}", wanted.join("\n"));
}

#[klamm::test]
async fn programs_see_what_tasks_did_without_a_recorder(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    pipeline.feed(700).await;
    let first = topology().start(pipeline.config(1).threads(2)).await.unwrap();
    caught_up(&first).await;
    let tasks = first.tasks();
    assert_eq!(tasks.iter().map(|task| task.processed).sum::<u64>(), 700);
    assert_eq!(tasks.len(), 4);
    assert_eq!(tasks.iter().filter(|task| task.thread == 1).count(), 2);
    for task in &tasks {
        assert_eq!((task.state, task.stores.len(), task.dropped.total()), (TaskState::Running, 1, 0));
        let store = &task.stores[0];
        assert_eq!((&*store.name, store.restored, store.left_to_restore), ("counts", 0, 0));
        assert_eq!(store.cache_hits + store.cache_misses, task.processed);
        assert_eq!(task.record_age.is_some(), task.processed > 0);
    }
    assert!(first.metrics().cache_bytes > 0 && first.metrics().write_buffer_bytes > 0);
    first.close().await.unwrap();
    let second = topology().start(pipeline.config(2)).await.unwrap();
    caught_up(&second).await;
    let stores: Vec<_> = second.tasks().into_iter().flat_map(|task| task.stores).collect();
    let restored: u64 = stores.iter().map(|store| store.restored).sum();
    assert_eq!(restored, second.metrics().restored);
    assert!(restored >= 7 && stores.iter().all(|store| store.left_to_restore == 0));
    assert_eq!(stores.iter().filter_map(|store| store.rows).sum::<u64>(), 7);
    second.close().await.unwrap();
}

/// One without a size would count as none.
struct Panicking(u8);

impl Recorder for Panicking {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        assert!(self.0 == 0 || !key.name().starts_with("klamm_streams_"), "a recorder that panics");
        Counter::noop()
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        assert!(self.0 == 0 || !key.name().starts_with("klamm_streams_"), "a recorder that panics");
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[klamm::test]
async fn a_recorder_that_panics_harms_nobody(kit: TestKit) {
    let recorder = Panicking(1);
    let _recorded = metrics::set_default_local_recorder(&recorder);
    let mut pipeline = Pipeline::new(&kit).await;
    let app = topology().start(pipeline.config(1)).await.unwrap();
    pipeline.feed(100).await;
    caught_up(&app).await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    pipeline.feed(100).await;
    caught_up(&app).await;
    until(|| app.metrics().processed == 200).await;
    pipeline.is_exact(&[&app]).await;
    app.close().await.unwrap();
}
