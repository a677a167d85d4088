//! How long records wait for inputs that have none (`max.task.idle.ms`): in the driver, and in applications.

use std::time::Duration;

use klamm::streams::{Repartitioned, StreamsBuilder, Topology, TopologyTestDriver};

fn both() -> Topology {
    let mut streams = StreamsBuilder::new();
    streams.stream::<String, String>(["left", "right"]).to("both");
    streams.build().unwrap()
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The worked example of Kafka Streams: of two partitions the smallest head is next, and records out of order in their
/// partition stay so.
#[test]
fn the_smallest_time_is_next() {
    let mut driver = TopologyTestDriver::new(both());
    driver.max_task_idle(ms(1_000));
    let (left, right) = (driver.input::<String, i64>("left"), driver.input::<String, i64>("right"));
    let told = driver.output::<String, i64>("both");
    for at in [1, 5, 3, 9] {
        left.pipe("A", at).at(at);
    }
    assert!(told.read_all().is_empty(), "the other input may have older ones");
    for at in [2, 4, 2, 7] {
        right.pipe("B", at).at(at);
    }
    let seen: Vec<_> = told.read_all().into_iter().map(|record| (record.key, record.value)).collect();
    let seen: Vec<_> = seen.iter().map(|(key, value)| (&**key, *value)).collect();
    assert_eq!(seen, [("A", 1), ("B", 2), ("B", 4), ("B", 2), ("A", 5), ("A", 3), ("B", 7)]);
    driver.advance_wall_clock(ms(999));
    assert!(told.read_all().is_empty(), "`right` may have another one before 9");
    driver.advance_wall_clock(ms(1));
    assert_eq!(told.read_all(), [("A", 9)]);
}

/// A partition that never gets a record holds others back once, not for each of theirs.
#[test]
fn an_input_that_stays_empty_is_waited_for_once() {
    let mut driver = TopologyTestDriver::new(both());
    driver.max_task_idle(ms(100));
    let (left, told) = (driver.input::<String, String>("left"), driver.output::<String, String>("both"));
    left.pipe("k", "1").at(1);
    driver.advance_wall_clock(ms(100));
    assert_eq!(told.read_all(), [("k", "1")]);
    left.pipe("k", "2").at(2);
    assert_eq!(told.read_all(), [("k", "2")]);
    // One from far in the future is no reason to wait either, or not to.
    left.pipe("k", "3").at(i64::MAX);
    assert_eq!(told.read_all(), [("k", "3")]);
    // One that has just had records is waited for, and so is the other one when it had one at last.
    driver.input::<String, String>("right").pipe("k", "4").at(3);
    assert!(told.read_all().is_empty());
    left.pipe("k", "5").at(4);
    assert_eq!(told.read_all(), [("k", "4")]);
    driver.advance_wall_clock(ms(99));
    assert!(told.read_all().is_empty());
    driver.advance_wall_clock(ms(1));
    assert_eq!(told.read_all(), [("k", "5")]);
}

/// What is behind a repartition topic waits on its own.
#[test]
fn each_task_waits_for_its_own_inputs() {
    let mut streams = StreamsBuilder::new();
    let keyed = streams.stream::<String, String>("left").select_key(|_, value| value.clone());
    let right = streams.stream::<String, String>("right");
    keyed.repartition(Repartitioned::named("by-value")).merge(&right).to("both");
    let mut driver = TopologyTestDriver::new(streams.build().unwrap());
    driver.max_task_idle(ms(100));
    let told = driver.output::<String, String>("both");
    driver.input::<String, String>("left").pipe("k", "v").at(5);
    assert!(told.read_all().is_empty());
    driver.input::<String, String>("right").pipe("w", "w").at(3);
    assert_eq!(told.read_all(), [("w", "w")]);
    driver.advance_wall_clock(ms(100));
    assert_eq!(told.read_all(), [("v", "v")]);
}

#[cfg(feature = "testing")]
mod applications {
    use klamm::client::testing::Answer;
    use klamm::client::{ApiKey, Record};
    use klamm::streams::{AppState, StreamsApp};
    use klamm::testing::TestKit;

    use super::*;
    use crate::pipeline::{Pipeline, caught_up, text, until};

    async fn start(pipeline: &Pipeline, instance: usize, longest: Option<Duration>) -> StreamsApp {
        let app = both().start(pipeline.config(instance).max_task_idle(longest)).await.unwrap();
        app.wait_for(AppState::Running).await.unwrap();
        app
    }

    async fn send(kit: &TestKit, topic: &str, at: i64) {
        let producer = kit.client().producer().build().unwrap();
        producer
            .send(Record::to(topic).key("k").value(format!("{topic}{at}")).timestamp_ms(at))
            .await
            .unwrap();
    }

    async fn pipeline(kit: &TestKit) -> Pipeline {
        let pipeline = Pipeline::new(kit).await;
        for topic in ["left", "right", "both"] {
            kit.create_topic(topic, 1).await;
        }
        pipeline
    }

    async fn told(pipeline: &Pipeline) -> Vec<String> {
        pipeline.read("both").await.into_iter().map(|record| text(&record.value.unwrap())).collect()
    }

    #[klamm::test]
    async fn a_slow_producer_is_waited_for(kit: TestKit) {
        let pipeline = pipeline(&kit).await;
        let app = start(&pipeline, 1, Some(Duration::from_secs(3))).await;
        send(&kit, "left", 20).await;
        tokio::time::sleep(ms(500)).await;
        assert_eq!(app.metrics().processed, 0, "an older one may come");
        send(&kit, "right", 10).await;
        until(|| app.metrics().processed == 2).await;
        caught_up(&app).await;
        assert_eq!(told(&pipeline).await, ["right10", "left20"]);
        app.close().await.unwrap();
    }

    /// The wait is not over for the next owner, nor is anything lost or done twice.
    #[klamm::test]
    async fn a_rebalance_in_the_middle_of_a_wait_begins_it_anew(kit: TestKit) {
        let pipeline = pipeline(&kit).await;
        let first = start(&pipeline, 1, Some(Duration::from_secs(100))).await;
        send(&kit, "left", 20).await;
        tokio::time::sleep(ms(200)).await;
        let second = both().start(pipeline.config(2).max_task_idle(Duration::from_secs(100))).await.unwrap();
        first.close().await.unwrap();
        until(|| second.metrics().tasks == 1).await;
        tokio::time::sleep(ms(300)).await;
        assert_eq!(second.metrics().processed, 0);
        send(&kit, "right", 10).await;
        until(|| second.metrics().processed == 1).await;
        second.commit().await;
        assert_eq!(told(&pipeline).await, ["right10"]);
        second.close().await.unwrap();
    }

    /// It has nothing, as far as was heard; what has come since may be older.
    #[klamm::test]
    async fn an_input_whose_leader_does_not_answer_is_waited_for(kit: TestKit) {
        let pipeline = pipeline(&kit).await;
        let app = start(&pipeline, 1, Some(ms(1_500))).await;
        send(&kit, "left", 20).await;
        tokio::time::sleep(ms(200)).await;
        kit.faults().always(ApiKey::Fetch, Answer::Hang);
        tokio::time::sleep(ms(700)).await;
        send(&kit, "right", 10).await;
        tokio::time::sleep(ms(1_500)).await;
        assert_eq!(app.metrics().processed, 0, "an older one may have come");
        kit.faults().behave().disconnect();
        caught_up(&app).await;
        assert_eq!(told(&pipeline).await, ["right10", "left20"]);
        app.close().await.unwrap();
    }

    /// By default it does not wait for producers, and turned off for nothing at all.
    #[klamm::test]
    async fn nobody_waits_unless_told_to(kit: TestKit) {
        let pipeline = pipeline(&kit).await;
        for (instance, longest) in [(1, Some(Duration::ZERO)), (2, None)] {
            let app = start(&pipeline, instance, longest).await;
            send(&kit, "left", 20).await;
            until(|| app.metrics().processed == 1).await;
            app.close().await.unwrap();
        }
    }
}
