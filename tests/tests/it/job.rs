//! The job that proves a cluster: a pipeline turns lines into shouting, a listener hears them.

use std::collections::BTreeSet;
use std::time::Duration;

use klamm::prelude::*;
use klamm::streams::{StreamsBuilder, StreamsConfig};
use klamm_client::{Client, NewTopic, Record};

/// Runs a listener and a pipeline against the cluster at `bootstrap`, on a hundred records.
pub(crate) async fn shout_and_hear(bootstrap: &str) {
    let client = Client::connect(bootstrap).await.expect("the cluster answers");
    let topics = ["lines", "shouted"].map(|name| NewTopic::new(name).partitions(2));
    client.admin().create_topics(&topics).await.expect("topics are created");

    let mut builder = StreamsBuilder::new();
    builder.stream::<String, String>("lines").map_values(|line| line.to_uppercase()).to("shouted");
    let state = tempfile::tempdir().unwrap();
    let config = StreamsConfig::new("shouter", bootstrap)
        .state_dir(state.path())
        .commit_interval(Duration::from_millis(100));
    let pipeline = builder.build().unwrap().start(config).await.expect("the pipeline starts");

    let (heard, mut hearing) = tokio::sync::mpsc::unbounded_channel::<String>();
    let hear = move |Value(line): Value<String>| {
        let heard = heard.clone();
        async move { heard.send(line).map_err(|_| "nobody listens") }
    };
    let listener = Listener::on("shouted").group("hearers").handle(hear);
    let app = App::new(bootstrap).listener(listener).start().await.expect("the listener starts");

    let producer = client.producer().build().unwrap();
    for number in 0..100 {
        producer
            .send(Record::to("lines").key(number.to_string()).value(format!("line {number}")))
            .await
            .unwrap();
    }
    let mut lines = BTreeSet::new();
    let all_heard = async {
        while lines.len() < 100 {
            lines.insert(hearing.recv().await.expect("the listener runs"));
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all_heard).await.expect("a hundred lines arrive");
    assert!((0..100).all(|number| lines.contains(&format!("LINE {number}"))), "{lines:?}");

    app.shutdown(Duration::from_secs(10)).await;
    pipeline.close().await.unwrap();
}
