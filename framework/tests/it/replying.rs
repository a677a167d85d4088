//! Handlers that answer by what they return.

use std::time::Duration;

use klamm::client::testing::{Answer, FakeBroker};
use klamm::client::{ApiKey, ErrorCode, Record as OutRecord};
use klamm::prelude::*;
use klamm::testing::TestKit;
use tokio::time::{sleep, timeout};

use crate::seen::until;

const MINUTES: Duration = Duration::from_secs(600);

#[kafka_listener(topics = "requests", group = "g", on_failure = FailurePolicy::new())]
async fn shout(Value(text): Value<String>) -> Result<Reply<String>, String> {
    if text == "bad" { Err(text) } else { Ok(Reply::new(text.to_uppercase()).header("by", "shout")) }
}

fn request(text: &str) -> OutRecord {
    let record = OutRecord::to("requests").key("k").value(text.to_owned());
    record.header("kafka_replyTopic", "replies").header("kafka_correlationId", format!("id of {text}"))
}

#[klamm::test]
async fn a_reply_goes_to_the_topic_and_partition_that_the_request_names(kit: TestKit) {
    kit.create_topic("replies", 3).await;
    let app = kit.app().listener(shout).start().await;
    kit.send_record(request("a").header("kafka_replyPartition", 2_i32.to_be_bytes().to_vec())).await;
    kit.send_record(request("bad")).await;
    app.handled("shout", 2).await;
    let [reply] = &kit.topic("replies").records().await[..] else { panic!("one reply") };
    assert_eq!(
        (reply.partition, reply.key.as_deref(), reply.value.as_deref()),
        (2, Some(&b"k"[..]), Some(&b"A"[..]))
    );
    assert_eq!(reply.headers.last("kafka_correlationId"), Some(Some(&b"id of a"[..])));
    assert_eq!(reply.headers.last("by"), Some(Some(&b"shout"[..])));
    assert_eq!(
        kit.topic("requests-dlt").values::<String>().await,
        ["bad"],
        "an error goes the way of all errors"
    );
    assert_eq!(kit.committed("g", "requests", 0).await, Some(2));
}

#[klamm::test]
async fn what_names_no_reply_topic_is_a_failure(kit: TestKit) {
    let app = kit.app().listener(shout).start().await;
    kit.send("requests", "k", "a").await;
    app.handled("shout", 1).await;
    let letter = kit.topic("requests-dlt").next().await;
    let message = letter.headers.last("kafka_dlt-exception-message").flatten().unwrap();
    assert!(String::from_utf8_lossy(message).contains("`kafka_replyTopic`"));
}

#[kafka_listener(topics = "in", group = "g", send_to = "out")]
async fn double(Value(number): Value<i64>) -> Reply<i64> {
    (number * 2).into()
}

#[klamm::test]
async fn a_listener_can_have_a_topic_for_all_its_replies(kit: TestKit) {
    let app = kit.app().listener(double).start().await;
    for n in 0..100_i64 {
        kit.send("in", "k", n).await;
    }
    app.handled("double", 100).await;
    assert_eq!(
        kit.topic("out").values::<i64>().await,
        (0..100).map(|n| n * 2).collect::<Vec<_>>(),
        "in their order"
    );
    let circle =
        Listener::on("in").group("g").send_to("in").handle(|_: Value<i64>| async { Reply::new(1_i64) });
    let refused = kit.app().listener(circle).try_start().await.unwrap_err().to_string();
    assert!(refused.contains("each would be a request again"), "{refused}");
}

/// What depends on a reply is not committed before it is acknowledged, and one that is refused is a failure.
#[tokio::test(start_paused = true)]
async fn a_record_is_finished_when_its_reply_is_acknowledged() {
    let broker = FakeBroker::start_in_memory().await.unwrap();
    broker.topic("requests", 1).topic("replies", 1).topic("requests-dlt", 1);
    broker.always_for("replies", ApiKey::Produce, Answer::Error(ErrorCode::NotEnoughReplicas));
    let client = broker.client().await.unwrap();
    let app = App::with_client(client.clone()).listener(shout).start().await.unwrap();
    let handle = app.listener("shout").unwrap();
    let producer = client.producer().build().unwrap();
    producer.send(request("a")).await.unwrap();
    until(|| handle.unfinished() == 1).await;
    sleep(Duration::from_secs(20)).await;
    assert_eq!((broker.committed("g", ("requests", 0)), handle.unfinished()), (None, 1));
    broker.behave();
    timeout(MINUTES, handle.wait_handled(1)).await.unwrap().unwrap();
    assert_eq!(broker.values("replies", 0), ["A"]);

    broker.always_for("replies", ApiKey::Produce, Answer::Error(ErrorCode::TopicAuthorizationFailed));
    producer.send(request("b")).await.unwrap();
    timeout(MINUTES, handle.wait_handled(2)).await.unwrap().unwrap();
    assert_eq!(broker.values("requests-dlt", 0), ["b"]);
    assert_eq!(broker.committed("g", ("requests", 0)), Some(2));
}
