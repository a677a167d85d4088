//! Streams of all topics that match a pattern: which they are, and what cannot follow them.

use klamm::streams::{Repartitioned, StreamsBuilder, TopologyError, TopologyTestDriver};

fn refused(build: impl FnOnce(&mut StreamsBuilder)) -> TopologyError {
    let mut streams = StreamsBuilder::new();
    build(&mut streams);
    streams.build().unwrap_err()
}

#[test]
fn s1_1_topics_that_match_are_read_and_others_are_not() {
    let mut streams = StreamsBuilder::new();
    let orders = streams.stream_matching::<String, String>("orders-[a-z]+");
    orders
        .map_values_in_context(|at, _, value| Ok(format!("{value} of {}", at.topic().unwrap_or("?"))))
        .to("all");
    streams.stream::<String, String>("clicks").to("clicked");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    driver.input::<String, String>("orders-eu").pipe("a", "tea").at(1);
    driver.input::<String, String>("orders-us").pipe("a", "cake").at(2);
    driver.input::<String, String>("clicks").pipe("a", "click").at(3);
    driver.input::<String, String>("orders-eu").pipe("b", "tea").at(4);
    let all = driver.output::<String, String>("all").read_all();
    assert_eq!(all, [("a", "tea of orders-eu"), ("a", "cake of orders-us"), ("b", "tea of orders-eu")]);
    let unread = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        driver.input::<String, String>("my-orders-eu");
    }));
    assert!(unread.is_err());
}

#[test]
fn what_topics_to_come_cannot_feed_is_refused_with_the_reason() {
    let error = refused(|streams| {
        streams.stream_matching::<String, String>("orders-.*").group_by_key().count("counts");
    });
    assert!(matches!(&error, TopologyError::PatternWithState { .. }), "{error}");
    let text = error.to_string();
    assert!(text.starts_with("`matching(orders-.*)` reads topics that are still to come"), "{text}");
    assert!(text.contains("`matching(orders-.*).count`"), "{text}");
    let error = refused(|streams| {
        let users = streams.table::<String, String>("users");
        streams.stream_matching::<String, String>("orders-.*").join(&users, |order, _| order.clone());
    });
    assert!(matches!(error, TopologyError::PatternWithState { .. }), "{error}");
    let error = refused(|streams| {
        let orders = streams.stream_matching::<String, String>("orders-.*");
        orders.group_by(|_, value| value.clone()).count("counts");
    });
    assert!(
        matches!(&error, TopologyError::PatternWithoutPartitions { topic, .. } if topic == "counts-repartition")
    );
    let error = refused(|streams| {
        streams.stream_matching::<String, String>("orders-(").to("out");
    });
    assert!(matches!(error, TopologyError::BadPattern { .. }), "{error}");
}

#[test]
fn a_topic_has_one_reader() {
    let error = refused(|streams| {
        streams.stream_matching::<String, String>("orders-.*").to("all");
        streams.stream::<String, String>("orders-eu").to("eu");
    });
    assert!(
        matches!(&error, TopologyError::PatternOverlaps { topic, .. } if topic == "orders-eu"),
        "{error}"
    );
    let error = refused(|streams| {
        streams.stream_matching::<String, String>("orders-.*").to("all");
        streams.stream_matching::<String, String>("orders-.*").to("more");
    });
    assert!(matches!(error, TopologyError::PatternOverlaps { .. }), "{error}");
    let mut streams = StreamsBuilder::new();
    let orders = streams.stream_matching::<String, String>("orders-.*");
    orders.repartition(Repartitioned::named("orders").partitions(2)).group_by_key().count("counts");
    let described = streams.build().unwrap().describe().to_string();
    assert!(described.contains("Source: matching(orders-.*) (topics: [orders-.*])"), "{described}");
}

#[cfg(feature = "embedded")]
mod running {
    use std::time::Duration;

    use klamm::client::{Client, NewTopic, Record};
    use klamm::streams::{StreamsApp, StreamsConfig, Topology};
    use klamm_broker::Broker;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(60);

    fn topology() -> Topology {
        let mut streams = StreamsBuilder::new();
        let matching = streams.stream_matching::<String, String>("orders-[a-z]+");
        matching.merge(&streams.stream::<String, String>("in")).to("out");
        let repartitioned = Repartitioned::named("orders").partitions(4);
        matching.repartition(repartitioned).group_by_key().count("counts");
        streams.build().unwrap()
    }

    async fn create(client: &Client, topic: &str, partitions: i32) {
        let created = client.admin().create_topics(&[NewTopic::new(topic).partitions(partitions)]).await;
        assert!(created.unwrap().values().all(Result::is_ok));
    }

    async fn send(client: &Client, topic: &str, partitions: i32) {
        let producer = client.producer().build().unwrap();
        for number in 0..20 {
            let record = Record::to(topic).partition(number % partitions).key("k").value(number.to_string());
            drop(producer.enqueue(record).await.unwrap());
        }
        producer.close().await.unwrap();
    }

    async fn counted(app: &StreamsApp, records: i64) {
        let wait = async {
            loop {
                app.caught_up().await.unwrap();
                let store = app.store::<String, i64>("counts").unwrap();
                match store.get("k").await.unwrap() {
                    Some(counted) if counted >= records => return assert_eq!(counted, records),
                    _ => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let counted = tokio::time::timeout(DEADLINE, wait).await;
        counted.unwrap_or_else(|_| panic!("{records} records are never counted: {app:?}"));
    }

    /// Topics with different numbers of partitions, without a pattern: a task of those that only one has waited for the
    /// other one, which has no partition for it, and processed nothing.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_task_does_not_wait_for_a_partition_that_its_topic_does_not_have() {
        let broker = Broker::builder().ephemeral().start().await.unwrap();
        let client = Client::connect(broker.bootstrap()).await.unwrap();
        for (topic, partitions) in [("few", 1), ("many", 4), ("out", 1)] {
            create(&client, topic, partitions).await;
        }
        let mut streams = StreamsBuilder::new();
        streams.stream::<String, String>(["few", "many"]).to("out");
        let config = StreamsConfig::new("unequal", broker.bootstrap());
        let app = streams.build().unwrap().start(config.client(client.clone())).await.unwrap();
        send(&client, "many", 4).await;
        send(&client, "few", 1).await;
        tokio::time::timeout(DEADLINE, app.caught_up()).await.unwrap().unwrap();
        assert_eq!(app.metrics().processed, 40);
        app.close().await.unwrap();
        broker.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn s1_1_topics_that_are_made_later_are_taken_up() {
        let broker = Broker::builder().ephemeral().start().await.unwrap();
        let client = Client::builder().bootstrap(broker.bootstrap());
        let client = client.metadata_max_age(Duration::from_millis(200)).build().await.unwrap();
        for (topic, partitions) in [("orders-eu", 2), ("other", 2), ("in", 3), ("out", 1)] {
            create(&client, topic, partitions).await;
        }
        let directory = tempfile::tempdir().unwrap();
        let config = StreamsConfig::new("matching", broker.bootstrap())
            .client(client.clone())
            .state_dir(directory.path())
            .commit_interval(Duration::from_millis(50));
        let app = topology().start(config.clone()).await.unwrap();
        for (topic, partitions) in [("orders-eu", 2), ("other", 2), ("in", 3)] {
            send(&client, topic, partitions).await;
        }
        counted(&app, 20).await;
        create(&client, "orders-us", 5).await;
        send(&client, "orders-us", 5).await;
        counted(&app, 40).await;
        app.close().await.unwrap();
        // What was committed of both is not read again, and what came meanwhile is.
        send(&client, "orders-us", 5).await;
        let app = topology().start(config).await.unwrap();
        send(&client, "orders-eu", 2).await;
        counted(&app, 80).await;
        app.close().await.unwrap();
        broker.shutdown().await.unwrap();
    }
}
