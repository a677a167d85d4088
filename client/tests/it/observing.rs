//! What an operator sees: metrics, and the events that a program may listen to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm_client::{
    Client, ClientBuilder, ClientEvent, Compression, ConsumeError, ErrorCode, METRICS, MetricKind, Observer,
    OffsetReset, ProduceError, Record, Sasl, Security, TopicPartition,
};
use klamm_protocol::ApiKey;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tokio::time::timeout;

use crate::fake::{FakeBroker, Fault, TOPIC};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const DEADLINE: Duration = Duration::from_secs(600);

pub(crate) fn builder(broker: &FakeBroker) -> ClientBuilder {
    Client::builder().bootstrap(&broker.address).net(Arc::new(broker.net.clone()))
}

/// Everything that has a metric happens once.
pub(crate) async fn everything(broker: &FakeBroker, client: &Client) {
    let producer =
        client.producer().compression(Compression::Lz4).max_request_bytes(10_000).buffer_bytes(10_000);
    let producer = producer.build().unwrap();
    broker.script(ApiKey::Produce, [Fault::Refuse(ErrorCode::NotEnoughReplicas)]);
    let value = "v".repeat(6_000);
    let first = producer.enqueue(Record::to(TOPIC).partition(0).value(value.clone())).await.unwrap();
    // There is no room for a second one before the first is acknowledged.
    producer.send(Record::to(TOPIC).partition(0).value(value)).await.unwrap();
    first.await.unwrap();
    let too_large = producer.send(Record::to(TOPIC).partition(0).value("v".repeat(20_000))).await;
    assert!(matches!(too_large, Err(ProduceError::RecordTooLarge { .. })));
    broker.script(ApiKey::Produce, [Fault::Disconnect]);
    producer.send(Record::to(TOPIC).partition(1).value("w")).await.unwrap();
    producer.close().await.unwrap();

    let mut transactional = client.producer().transactional_id("id").build().unwrap();
    let transaction = transactional.begin().await.unwrap();
    transaction.send(Record::to(TOPIC).partition(0).value("in a transaction")).await.unwrap();
    transaction.commit().await.unwrap();

    let consumer = client.consumer().group("g").topics([TOPIC]).session_timeout(6 * SECOND);
    let mut consumer = consumer.auto_offset_reset(OffsetReset::None).start().await.unwrap();
    let error = consumer.next().await.unwrap().unwrap_err();
    assert!(matches!(error, ConsumeError::NoOffset { .. }), "{error}");
    let handle = consumer.handle();
    for partition in 0..2 {
        handle.seek_to_beginning(&TopicPartition::new(TOPIC, partition)).unwrap();
    }
    for _ in 0..4 {
        let record = loop {
            if let Ok(record) = consumer.next().await.unwrap() {
                break record;
            }
        };
        consumer.commit(&record).await.unwrap();
    }
    broker.state().group.expel();
    let events = async {
        loop {
            let _ = consumer.next().await.unwrap();
        }
    };
    // Heartbeats tell it, it joins again, and there is no offset to go on from in one of the partitions.
    let _ = timeout(20 * SECOND, events).await;
    consumer.close().await.unwrap();
}

#[test]
fn the_table_of_metrics_is_what_is_told() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let broker = FakeBroker::start(2).await;
            broker.state().has_transactions = true;
            broker.state().throttle_ms = 1;
            let client = builder(&broker).client_id("observed").build().await.unwrap();
            timeout(DEADLINE, everything(&broker, &client)).await.unwrap();
        });
    });
    let mut told: BTreeMap<String, (MetricKind, Vec<String>, bool)> = BTreeMap::new();
    for (key, unit, description, value) in snapshotter.snapshot().into_vec() {
        let key = key.key();
        let labels: Vec<String> = key.labels().map(|label| label.key().to_owned()).collect();
        let (kind, used) = match value {
            DebugValue::Counter(count) => (MetricKind::Counter, count > 0),
            // It may have gone back to nothing.
            DebugValue::Gauge(_) => (MetricKind::Gauge, true),
            DebugValue::Histogram(values) => (MetricKind::Histogram, !values.is_empty()),
        };
        assert!(unit.is_some() && description.is_some(), "{key} has no description");
        for label in key.labels().filter(|label| label.key() == "client_id") {
            assert_eq!(label.value(), "observed");
        }
        let entry = told.entry(key.name().to_owned()).or_insert((kind, labels.clone(), false));
        assert_eq!((entry.0, &entry.1), (kind, &labels), "{key}");
        entry.2 |= used;
    }
    for metric in METRICS {
        let (kind, labels, used) =
            told.remove(metric.name).unwrap_or_else(|| panic!("{} is not told", metric.name));
        assert_eq!(
            (kind, &*labels),
            (metric.kind, &*metric.labels.iter().map(|&label| label.to_owned()).collect::<Vec<_>>())
        );
        assert!(used, "{} has no value", metric.name);
    }
    assert!(told.is_empty(), "not in the table: {told:?}");
}

/// The page has a row for each metric, as the table in the code has it.
#[tokio::test]
async fn the_documentation_has_the_table_of_metrics() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/client.md");
    let page = klamm_client::runtime::read_text_file(&path).await.unwrap();
    let found: Vec<&str> = page.lines().filter(|line| line.starts_with("| `klamm_client_")).collect();
    let wanted: Vec<String> = METRICS
        .iter()
        .map(|metric| {
            let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            format!("| `{}` | {} | {} | {} |", metric.name, metric.kind, labels.join(", "), metric.doc)
        })
        .collect();
    assert_eq!(found, wanted, "the rows should be:\n{}", wanted.join("\n"));
}

/// What was told when ten records were produced in one batch and so many of them read.
fn told_after(read: usize, close: bool) -> BTreeMap<String, DebugValue> {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let broker = FakeBroker::start(1).await;
            let client = builder(&broker).build().await.unwrap();
            let producer = client.producer().linger(SECOND).build().unwrap();
            for number in 0..10 {
                let record = Record::to(TOPIC).partition(0).value(number.to_string());
                drop(producer.enqueue(record).await.unwrap());
            }
            producer.flush().await.unwrap();
            let assigned = [TopicPartition::new(TOPIC, 0)];
            let mut consumer = client.consumer().assign(assigned).from_beginning().start().await.unwrap();
            for _ in 0..read {
                timeout(DEADLINE, consumer.next()).await.unwrap().unwrap().unwrap();
            }
            // Longer than the time between two samples, with fetches that are held for half a second.
            tokio::time::sleep(3 * SECOND).await;
            if close {
                consumer.close().await.unwrap();
            } else {
                std::mem::forget(consumer);
            }
            std::mem::forget((producer, client));
        });
        std::mem::forget(runtime);
    });
    let mut told = BTreeMap::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let labels: Vec<_> = key.key().labels().map(metrics::Label::value).collect();
        told.insert(format!("{} {}", key.key().name(), labels.join(" ")), value);
    }
    told
}

#[test]
fn values_are_what_they_say() {
    let gauge = |told: &BTreeMap<String, DebugValue>, name: &str| match &told[name] {
        DebugValue::Gauge(value) => value.into_inner(),
        other => panic!("{name}: {other:?}"),
    };
    let (lag, assigned) =
        ("klamm_client_consumer_lag_records klamm  t 0", "klamm_client_consumer_assigned_partitions klamm ");
    let told = told_after(4, false);
    assert_eq!(told["klamm_client_producer_records_total klamm t"], DebugValue::Counter(10));
    match &told["klamm_client_producer_batch_records klamm"] {
        DebugValue::Histogram(records) => assert_eq!(*records, [10.0]),
        other => panic!("{other:?}"),
    }
    match &told["klamm_client_producer_queue_seconds klamm"] {
        DebugValue::Histogram(seconds) => assert_eq!(*seconds, [0.0], "flush does not linger"),
        other => panic!("{other:?}"),
    }
    assert_eq!(gauge(&told, "klamm_client_producer_buffer_bytes klamm"), 0.0);
    assert_eq!(told["klamm_client_consumer_records_total klamm  t"], DebugValue::Counter(10));
    assert_eq!((gauge(&told, lag), gauge(&told, assigned)), (6.0, 1.0));
    let told = told_after(10, false);
    assert_eq!((gauge(&told, lag), gauge(&told, assigned)), (0.0, 1.0));
    let told = told_after(4, true);
    assert_eq!((gauge(&told, lag), gauge(&told, assigned)), (0.0, 0.0), "what goes takes its part along");
}

#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<String>>>);

impl Observer for Events {
    fn on_event(&self, event: &ClientEvent) {
        let text = format!("{event:?}");
        let name = text.split([' ', '{', '(']).next().unwrap_or_default();
        self.0.lock().unwrap().push(name.to_owned());
    }
}

impl Events {
    fn count(&self, name: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|event| *event == name).count()
    }
}

struct Panics;

impl Observer for Panics {
    fn on_event(&self, event: &ClientEvent) {
        std::panic::panic_any(format!("a defect of the user's: {event:?}"));
    }
}

#[tokio::test(start_paused = true)]
async fn observers_hear_of_what_happens_and_cannot_break_it() {
    let broker = FakeBroker::start(2).await;
    broker.state().has_transactions = true;
    broker.state().throttle_ms = 1;
    let events = Events::default();
    let client = builder(&broker).observer(Panics).observer(events.clone()).build().await.unwrap();
    assert_eq!(*events.0.lock().unwrap(), ["Connected"]);
    timeout(DEADLINE, everything(&broker, &client)).await.unwrap();
    for name in ["Disconnected", "Throttled", "PartitionsAssigned", "PartitionsLost", "PartitionsRevoked"] {
        assert!(
            events.count(name) > 0,
            "no {name}: {:?}",
            events.0.lock().unwrap().iter().collect::<BTreeSet<_>>()
        );
    }
    assert_eq!(events.count("Disconnected"), 1, "what is dropped is not lost");
    assert_eq!((events.count("MetadataLost"), events.count("ProducerFenced")), (0, 0));

    let mut transactional = client.producer().transactional_id("id").build().unwrap();
    let transaction = transactional.begin().await.unwrap();
    transaction.send(Record::to(TOPIC).partition(0).value("v")).await.unwrap();
    broker.script(ApiKey::EndTxn, [Fault::Refuse(ErrorCode::ProducerFenced)]);
    transaction.commit().await.unwrap_err();
    assert_eq!(events.count("ProducerFenced"), 1);

    broker.script(ApiKey::Metadata, vec![Fault::Disconnect; 4]);
    while client.admin().list_topics().await.is_err() {}
    while client.partition_count("another").await.is_ok() {}
    assert!(events.count("MetadataLost") <= 1);
    drop(broker);
    client.partition_count("yet another").await.unwrap_err();
    assert_eq!(events.count("MetadataLost"), 1 + events.count("MetadataRestored"));
    assert!(events.count("ConnectFailed") > 0);
}

#[tokio::test(start_paused = true)]
async fn observers_hear_of_a_refused_login() {
    let broker = FakeBroker::start(1).await;
    broker.state().refuses_logins = true;
    let events = Events::default();
    let security = Security::plaintext().danger_plaintext_credentials().sasl(Sasl::plain("alice", "hunter2"));
    builder(&broker).observer(events.clone()).security(security).build().await.unwrap_err();
    assert!(events.count("AuthenticationFailed") > 0, "{:?}", events.0);
    assert_eq!((events.count("Connected"), events.count("Disconnected")), (0, 0));
}

/// A recorder that breaks once everything is running. What it breaks is told to those who wait; nobody waits for ever.
struct Breaks(std::sync::atomic::AtomicBool);

impl metrics::CounterFn for Breaks {
    fn increment(&self, _: u64) {
        assert!(!self.0.load(std::sync::atomic::Ordering::Relaxed), "a defect of the recorder's");
    }

    fn absolute(&self, _: u64) {}
}

struct Recorder(Arc<Breaks>);

impl metrics::Recorder for Recorder {
    fn describe_counter(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
    fn describe_gauge(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
    fn describe_histogram(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
    fn register_counter(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Counter {
        metrics::Counter::from_arc(Arc::clone(&self.0))
    }
    fn register_gauge(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Gauge {
        metrics::Gauge::noop()
    }
    fn register_histogram(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Histogram {
        metrics::Histogram::noop()
    }
}

#[test]
fn nobody_waits_for_ever_because_of_a_recorder_that_panics() {
    let breaks = Arc::new(Breaks(Default::default()));
    let recorder = Recorder(Arc::clone(&breaks));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let broker = FakeBroker::start(1).await;
            broker.state().topic_id = klamm_client::Uuid::from_u128(7);
            let client = broker.client().await;
            let producer = client.producer().build().unwrap();
            producer.send(Record::to(TOPIC).partition(0).value("v")).await.unwrap();
            let mut consumer = client
                .consumer()
                .group("g")
                .topics([TOPIC])
                .auto_offset_reset(OffsetReset::Earliest)
                .start()
                .await
                .unwrap();
            let mut share = client.share_consumer("s").topics([TOPIC]).explicit().start().await.unwrap();
            timeout(5 * SECOND, consumer.next()).await.unwrap().unwrap().unwrap();
            let record = timeout(5 * SECOND, share.next()).await.unwrap().unwrap().unwrap();
            breaks.0.store(true, std::sync::atomic::Ordering::Relaxed);
            let sent = tokio::spawn(async move {
                timeout(DEADLINE, producer.send(Record::to(TOPIC).partition(0).value("w"))).await.is_ok()
            });
            assert!(sent.await.unwrap_or(true), "a panic goes to whoever asked, at worst");
            let _ = record.accept();
            timeout(DEADLINE, share.commit()).await.expect("an answer or an error").unwrap();
            timeout(DEADLINE, share.close()).await.expect("an answer or an error").unwrap();
            let got = tokio::spawn(async move { timeout(DEADLINE, consumer.next()).await.is_ok() });
            assert!(got.await.unwrap_or(true));
        });
    });
}
