//! Running an application: pauses, states, slow records, tasks that fail, closing in time.

use std::time::Duration;

use klamm::client::testing::Answer;
use klamm::client::{ApiKey, ErrorCode, TopicPartition};
use klamm::streams::{AppState, StreamsBuilder, StreamsError};
use klamm::testing::TestKit;

use crate::pipeline::{APPLICATION, Pipeline, caught_up, topology, until};

#[klamm::test]
async fn nothing_is_processed_while_it_is_paused(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let app = topology().start(pipeline.config(1)).await.unwrap();
    pipeline.feed(50).await;
    caught_up(&app).await;
    app.pause();
    assert!(app.is_paused());
    app.commit().await; // The thread has seen it.
    pipeline.feed(50).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(app.metrics().processed, 50);
    app.resume();
    caught_up(&app).await;
    pipeline.is_exact(&[&app]).await;
    app.close().await.unwrap();
}

#[klamm::test]
async fn states_can_be_watched(kit: TestKit) {
    let pipeline = Pipeline::new(&kit).await;
    let app = topology().start(pipeline.config(1)).await.unwrap();
    let mut states = app.states();
    states.wait_for(|state| *state == AppState::Running).await.unwrap();
    let closing = tokio::spawn(app.close());
    states.wait_for(|state| *state == AppState::Closed).await.unwrap();
    closing.await.unwrap().unwrap();
}

/// A round was 1,000 records of a task whatever they took, and so long commits, rebalances and the end waited.
#[klamm::test]
async fn slow_records_do_not_hold_up_commits(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let mut streams = StreamsBuilder::new();
    let slow = streams.stream::<String, String>("in").map_values(|value| {
        std::thread::sleep(Duration::from_millis(5));
        value.clone()
    });
    slow.to("echo");
    pipeline.feed(2_000).await;
    let app = streams.build().unwrap().start(pipeline.config(1)).await.unwrap();
    until(|| app.metrics().commits > 0).await;
    let processed = app.metrics().processed;
    assert!(processed < 100, "{processed} before the first commit");
    app.close().await.unwrap();
}

/// Records of other tasks were processed twice for one that cannot be.
#[klamm::test]
async fn what_others_did_is_committed_when_a_task_fails(kit: TestKit) {
    let pipeline = Pipeline::new(&kit).await;
    let mut streams = StreamsBuilder::new();
    streams.stream::<String, i64>("in").to("echo");
    let config = pipeline.config(1).commit_interval(Duration::from_secs(100_000));
    let app = streams.build().unwrap().start(config).await.unwrap();
    app.wait_for(AppState::Running).await.unwrap();
    kit.send_to("in", 0, "k", 1_i64).await;
    until(|| app.metrics().processed == 1).await;
    kit.send_to("in", 1, "k", "no number").await;
    let failure = app.ended().await.unwrap_err();
    assert!(matches!(&*failure, StreamsError::Task { task, .. } if task.partition == 1), "{failure}");
    assert_eq!(kit.committed(APPLICATION, "in", 0).await, Some(1));
    assert_eq!(kit.committed(APPLICATION, "in", 1).await, None);
}

#[klamm::test]
async fn closing_has_a_deadline(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let app = topology().start(pipeline.config(1)).await.unwrap();
    pipeline.feed(50).await;
    caught_up(&app).await;
    kit.faults().always(ApiKey::OffsetCommit, Answer::Error(ErrorCode::CoordinatorLoadInProgress));
    pipeline.feed(50).await;
    until(|| app.metrics().processed == 100).await;
    let late = app.close_within(Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(&*late, StreamsError::TimedOut { .. }), "{late}");
    kit.faults().behave();
    let next = topology().start(pipeline.config(1)).await.unwrap();
    caught_up(&next).await;
    next.close().await.unwrap();
}

/// Of a repartition topic, which nobody else reads, nothing is kept that is processed.
#[klamm::test]
async fn repartition_topics_are_purged(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let mut streams = StreamsBuilder::new();
    streams.stream::<String, String>("in").group_by(|_, value| value.clone()).count("by-value");
    let app = streams.build().unwrap().start(pipeline.config(1)).await.unwrap();
    pipeline.feed(200).await;
    caught_up(&app).await;
    let topics = kit.client().admin().list_topics().await.unwrap();
    let repartition = topics.iter().map(|topic| topic.name.clone()).find(|name| name.contains("repartition"));
    let repartition = repartition.unwrap();
    let partitions: Vec<_> = (0..4).map(|n| TopicPartition::new(repartition.clone(), n)).collect();
    let reader = kit.client().consumer().assign(partitions.clone()).start().await.unwrap();
    let first = reader.handle().beginning_offsets(&partitions).await.unwrap();
    assert_eq!(first.values().sum::<i64>(), 0);
    tokio::time::sleep(Duration::from_secs(32)).await;
    let first = reader.handle().beginning_offsets(&partitions).await.unwrap();
    let ends = reader.handle().end_offsets(&partitions).await.unwrap();
    assert_eq!(first, ends);
    app.close().await.unwrap();
}
