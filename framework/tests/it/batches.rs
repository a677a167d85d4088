//! Batch handlers: an outcome for each record.

use std::time::Duration;

use klamm::prelude::*;
use klamm::testing::TestKit;

use crate::seen::Seen;

#[kafka_listener(topics = "t", group = "g", batch(max = 4), on_failure = twice)]
async fn each(batch: Batch<(RecordMeta, Value<String>)>, State(seen): State<Seen>) -> BatchOutcome {
    seen.add(format!("{} records", batch.len()));
    batch
        .each(|(meta, Value(text))| {
            let seen = seen.clone();
            async move {
                seen.add(&text);
                match &*text {
                    "always" => Err("never works"),
                    "once" if meta.attempt == 1 => Err("did not work"),
                    "panic" if meta.attempt == 1 => panic!("did not work"),
                    _ => Ok(()),
                }
            }
        })
        .await
}

fn twice() -> FailurePolicy {
    FailurePolicy::new().retry_in_place(Backoff::fixed(Duration::from_secs(1)).attempts(2))
}

#[klamm::test]
async fn only_what_failed_comes_again(kit: TestKit) {
    for text in ["a", "once", "always", "panic", "b"] {
        kit.send("t", "k", text).await;
    }
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(each).start().await;
    app.handled("each", 5).await;
    assert_eq!(
        seen.all(),
        [
            "4 records",
            "a",
            "once",
            "always",
            "panic",
            "3 records",
            "once",
            "always",
            "panic",
            "1 records",
            "b"
        ]
    );
    assert_eq!(kit.committed("g", "t", 0).await, Some(5));
    assert_eq!(kit.topic("t-dlt").values::<String>().await, ["always"]);
}

#[kafka_listener(topics = "t", group = "g", batch, on_failure = twice)]
async fn numbers(batch: Batch<Value<i64>>, State(seen): State<Seen>) -> Result<(), String> {
    seen.add(format!("{:?}", batch.iter().map(|number| number.0).collect::<Vec<_>>()));
    if seen.all().len() == 1 { Err("the first time".to_owned()) } else { Ok(()) }
}

#[klamm::test]
async fn what_does_not_decode_is_not_in_the_batch_and_an_error_fails_it_whole(kit: TestKit) {
    kit.send("t", "k", 1_i64).await;
    kit.send("t", "k", "two").await;
    kit.send("t", "k", 3_i64).await;
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(numbers).start().await;
    app.handled("numbers", 3).await;
    assert_eq!(seen.all(), ["[1, 3]", "[1, 3]"]);
    assert_eq!(kit.topic("t-dlt").values::<String>().await, ["two"]);
    assert_eq!(kit.committed("g", "t", 0).await, Some(3));
}

#[kafka_listener(topics = "t", group = "g", batch(max = 5, wait = "10s"))]
async fn gathered(batch: Batch<Value<String>>, State(seen): State<Seen>) {
    seen.add(batch.len().to_string());
}

#[klamm::test]
async fn a_batch_waits_for_more_but_not_when_it_is_full(kit: TestKit) {
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(gathered).start().await;
    for n in 0..7 {
        kit.send("t", "k", format!("{n}")).await;
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    app.handled("gathered", 7).await;
    assert_eq!(seen.all(), ["5", "2"]);
}
