//! In which order the records of several topics are processed.

use std::time::Duration;

use klamm::client::testing::Answer;
use klamm::client::{ApiKey, IsolationLevel, Record, TopicPartition};
use klamm::streams::{JoinWindows, StreamsBuilder};
use klamm::testing::TestKit;

use crate::pipeline::{Pipeline, text, until};

/// The records of one topic were processed while those of the other one, older ones among them, lay beside them.
#[klamm::test]
async fn what_becomes_visible_together_is_processed_in_the_order_of_its_time(kit: TestKit) {
    const ROUNDS: i64 = 15;
    const RECORDS: i64 = 40;
    let pipeline = Pipeline::new(&kit).await;
    for topic in ["L", "R"] {
        kit.create_topic(topic, 1).await;
    }
    let mut streams = StreamsBuilder::new();
    let (left, right) = (streams.stream::<String, String>("L"), streams.stream::<String, String>("R"));
    let near = JoinWindows::of(Duration::from_millis(20));
    left.left_join_within(&right, "both", near, |l, r: Option<&String>| format!("{l}+{r:?}")).to("echo");
    let app = streams.build().unwrap().start(pipeline.config(1).exactly_once()).await.unwrap();
    let mut producer = kit.client().producer().transactional_id("feeder").build().unwrap();
    let both = ["L", "R"].map(|topic| TopicPartition::new(topic, 0));
    let nothing: [TopicPartition; 0] = [];
    let reader = kit.client().consumer().assign(nothing).isolation(IsolationLevel::ReadCommitted);
    let reader = reader.start().await.unwrap();
    for round in 0..ROUNDS {
        // The markers of a transaction are not written at once in both: nothing is read before they are.
        kit.faults().always(ApiKey::Fetch, Answer::DisconnectBefore).disconnect();
        let transaction = producer.begin().await.unwrap();
        for number in 0..RECORDS {
            let at = round * 10_000 + number * 50;
            for (topic, at) in [("L", at), ("R", at + 5)] {
                let value = format!("{topic}{round}.{number}");
                let record = Record::to(topic).key("k").value(value).timestamp_ms(at);
                drop(transaction.enqueue(record).await.unwrap());
            }
        }
        transaction.commit().await.unwrap();
        // Each round leaves its records and a marker in both.
        let ends = (round + 1) * (RECORDS + 1);
        while reader.handle().end_offsets(&both).await.unwrap().values().any(|end| *end < ends) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        kit.faults().behave();
        let all = u64::try_from((round + 1) * RECORDS * 2).unwrap();
        until(|| app.metrics().processed == all).await;
    }
    app.commit().await;
    let told = pipeline.read("echo").await;
    let lonely: Vec<_> = told.into_iter().map(|record| text(&record.value.unwrap())).collect();
    let lonely: Vec<_> = lonely.into_iter().filter(|line| line.contains("None")).collect();
    assert_eq!(lonely, Vec::<String>::new());
    app.close().await.unwrap();
}
