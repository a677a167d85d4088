//! Applications whose stream time goes on without records: across restarts, rebalances, pauses and lost disks.

use klamm::client::testing::Answer;
use klamm::client::{ApiKey, Record};
use klamm::listener::BoxError;
use klamm::streams::{InRecord, Processor, ProcessorContext, StreamsApp, StreamsBuilder, StreamsConfig};
use klamm::testing::TestKit;

use crate::idle_time::{KINDS, ms, topology};
use crate::pipeline::{APPLICATION, Pipeline, caught_up, until};

async fn send(kit: &TestKit, number: i64, at: i64) {
    let value = number.to_be_bytes().to_vec();
    let producer = kit.client().producer().build().unwrap();
    let record = Record::to("in").key("k").value(value).timestamp_ms(at).partition(0);
    producer.send(record).await.unwrap();
}

/// Start and bits of what is told.
async fn told(pipeline: &Pipeline) -> Vec<(i64, i64)> {
    let told = pipeline.read("out").await.into_iter().map(|record| {
        let (key, value) = (record.key.unwrap(), record.value.unwrap());
        let number = |bytes: &[u8]| i64::from_be_bytes(bytes.try_into().unwrap());
        (number(&key[key.len() - 8..]), number(&value))
    });
    told.collect()
}

async fn start(pipeline: &Pipeline, instance: usize, exactly_once: bool) -> StreamsApp {
    let config: StreamsConfig = pipeline.config(instance).idle_after(ms(300));
    let config = if exactly_once { config.exactly_once() } else { config };
    topology(KINDS[0]).start(config).await.unwrap()
}

async fn closes_once(kit: &TestKit, exactly_once: bool, disks: [usize; 3]) {
    let pipeline = Pipeline::new(kit).await;
    kit.create_topic("out", 4).await;
    let app = start(&pipeline, disks[0], exactly_once).await;
    send(kit, 1, 1_000).await;
    pipeline.holds("out", 1).await;
    assert_eq!(told(&pipeline).await, [(1_000, 1)]);
    caught_up(&app).await;
    // Vanishes, or leaves, and the next one knows what is closed.
    if exactly_once {
        app.close().await.unwrap();
    } else {
        drop(app);
    }
    let app = start(&pipeline, disks[1], exactly_once).await;
    send(kit, 2, 1_001).await;
    until(|| app.metrics().dropped.late == 1).await;
    send(kit, 4, 5_000).await;
    pipeline.holds("out", 2).await;
    app.close().await.unwrap();
    let app = start(&pipeline, disks[2], exactly_once).await;
    caught_up(&app).await;
    tokio::time::sleep(ms(600)).await;
    assert_eq!(told(&pipeline).await, [(1_000, 1), (5_000, 4)]);
    app.close().await.unwrap();
}

#[klamm::test]
async fn a_window_that_closed_in_silence_is_closed_after_a_restart(kit: TestKit) {
    closes_once(&kit, false, [1, 1, 1]).await;
}

/// The changelog knows of records only: how far time had gone on without them is committed with the offsets.
#[klamm::test]
async fn a_window_that_closed_in_silence_is_closed_on_an_empty_disk(kit: TestKit) {
    closes_once(&kit, true, [1, 2, 3]).await;
}

/// Restarts and rebalances in the middle of a silence only make it longer.
#[klamm::test]
async fn a_silence_that_is_interrupted_begins_anew(kit: TestKit) {
    let pipeline = Pipeline::new(&kit).await;
    kit.create_topic("out", 4).await;
    let mut app = start(&pipeline, 0, true).await;
    send(&kit, 1, 1_000).await;
    until(|| app.metrics().processed == 1).await;
    for instance in 1..4 {
        let next = start(&pipeline, instance, true).await;
        app.close().await.unwrap();
        app = next;
    }
    pipeline.holds("out", 1).await;
    tokio::time::sleep(ms(600)).await;
    assert_eq!(told(&pipeline).await, [(1_000, 1)]);
    app.close().await.unwrap();
}

/// While it is paused records may lie there.
#[klamm::test]
async fn nothing_closes_while_the_application_is_paused(kit: TestKit) {
    let pipeline = Pipeline::new(&kit).await;
    kit.create_topic("out", 4).await;
    let app = start(&pipeline, 1, false).await;
    send(&kit, 1, 1_000).await;
    until(|| app.metrics().processed == 1).await;
    app.pause();
    tokio::time::sleep(ms(900)).await;
    send(&kit, 2, 1_001).await;
    tokio::time::sleep(ms(100)).await;
    app.resume();
    pipeline.holds("out", 1).await;
    assert_eq!(told(&pipeline).await, [(1_000, 3)]);
    assert_eq!(app.metrics().dropped.late, 0);
    app.close().await.unwrap();
}

/// What it does not tell of may lie there: a leader that did not answer was taken for one that has nothing.
#[klamm::test]
async fn nothing_closes_while_the_leader_does_not_answer(kit: TestKit) {
    let pipeline = Pipeline::new(&kit).await;
    kit.create_topic("out", 4).await;
    let app = topology(KINDS[0]).start(pipeline.config(1).idle_after(ms(1_500))).await.unwrap();
    send(&kit, 1, 1_000).await;
    until(|| app.metrics().processed == 1).await;
    kit.faults().always(ApiKey::Fetch, Answer::Hang);
    // What is under way is answered.
    tokio::time::sleep(ms(700)).await;
    send(&kit, 2, 1_001).await;
    tokio::time::sleep(ms(1_800)).await;
    kit.faults().behave().disconnect();
    pipeline.holds("out", 1).await;
    assert_eq!(told(&pipeline).await, [(1_000, 3)]);
    assert_eq!(app.metrics().dropped.late, 0);
    app.close().await.unwrap();
}

/// Says what it thinks the time is.
struct Clock;

impl Processor<String, String> for Clock {
    type Key = String;
    type Value = i64;

    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, String, i64>,
        record: InRecord<'_, String, String>,
    ) -> Result<(), BoxError> {
        let now_ms = context.stream_time_ms();
        context.forward(record.key, &now_ms)?;
        Ok(())
    }
}

/// Stream time of a task without stores began anew with each start: an old record was the newest then. Kafka
/// Streams keeps it beside the offset, and in the same words.
#[klamm::test]
async fn c14_the_time_of_a_task_without_stores_survives_a_restart(kit: TestKit) {
    let pipeline = Pipeline::new(&kit).await;
    kit.create_topic("out", 4).await;
    let clocks = || {
        let mut streams = StreamsBuilder::new();
        streams.stream::<String, String>("in").process(|| Clock).to("out");
        streams.build().unwrap()
    };
    for (instance, at) in [(1, 2_000), (2, 1_000), (3, 1_500)] {
        let app = clocks().start(pipeline.config(instance)).await.unwrap();
        send(&kit, 0, at).await;
        caught_up(&app).await;
        app.close().await.unwrap();
    }
    let seen: Vec<i64> = pipeline
        .read("out")
        .await
        .into_iter()
        .map(|record| i64::from_be_bytes(record.value.unwrap()[..].try_into().unwrap()))
        .collect();
    assert_eq!(seen, [-1, 2_000, 2_000]);
    let partition = klamm::client::TopicPartition::new("in", 0);
    let nothing: [klamm::client::TopicPartition; 0] = [];
    let reader = kit.client().consumer().group(APPLICATION).assign(nothing).start().await.unwrap();
    let committed = reader.handle().committed(std::slice::from_ref(&partition)).await.unwrap();
    assert_eq!((committed[&partition].offset, &*committed[&partition].metadata), (3, "AgAAAAAAAAfQ"));
}
