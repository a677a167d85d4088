//! Requests and replies when the world changes under them: reply topics that grow, go away or never were.

#![allow(clippy::disallowed_methods)] // Who answers lives as long as the test.

use std::time::Duration;

use klamm::client::admin::NewPartitions;
use klamm::client::testing::FakeBroker;
use klamm::client::{Client, Record};
use klamm::prelude::*;
use klamm::template::request::{ReplyTo, Requester, RequesterBuilder};
use klamm::testing::TestKit;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::seen::until;

/// Of the paused clock: whatever takes longer is stuck.
const LONG: Duration = Duration::from_secs(3_600);

/// Answers with the text twice; to "p3" in partition 3.
async fn answer(client: &Client) -> JoinHandle<()> {
    let mut consumer = client.consumer().assign([("questions", 0)]).from_beginning().start().await.unwrap();
    let (client, usual) = (client.clone(), client.producer().build().unwrap());
    tokio::task::spawn(async move {
        while let Some(Ok(request)) = consumer.next().await {
            let reply_to = ReplyTo::of(&request.headers).expect("every request wants a reply");
            let text = String::from_utf8(request.value.unwrap().to_vec()).unwrap();
            let mut reply = reply_to.reply(format!("{text}{text}"));
            let mut producer = usual.clone();
            if text == "p3" {
                reply.partition = Some(3);
                // One that has just come up knows the topic as it is.
                producer = client.producer().build().unwrap();
            }
            drop(tokio::task::spawn(async move { drop(producer.send(reply).await) }));
        }
    })
}

async fn topics(kit: &TestKit, partitions: i32) -> JoinHandle<()> {
    kit.create_topic("questions", 1).await;
    kit.create_topic("questions-replies", partitions).await;
    answer(kit.client()).await
}

fn builder(kit: &TestKit) -> RequesterBuilder<String, String> {
    RequesterBuilder::new(kit.client(), &kit.client().producer().build().unwrap(), "questions")
}

/// Who answers as it likes puts replies into partitions that came later, too.
#[klamm::test]
async fn replies_in_partitions_that_came_later_are_read(kit: TestKit) {
    let _answering = topics(&kit, 1).await;
    let requester =
        builder(&kit).every_reply_partition().timeout(Duration::from_secs(30)).start().await.unwrap();
    assert_eq!(requester.request("a".to_owned()).await.unwrap(), "aa");
    let grown = [("questions-replies", NewPartitions::total(4))].map(|(name, to)| (name.into(), to)).into();
    kit.client().admin().create_partitions(&grown).await.unwrap();
    assert_eq!(requester.request("p3".to_owned()).await.unwrap(), "p3p3");
    assert_eq!(requester.request("b".to_owned()).await.unwrap(), "bb");
}

/// The reply topic is deleted and made anew, with less in it than before.
#[klamm::test]
async fn a_reply_topic_that_is_made_anew_is_read(kit: TestKit) {
    let _answering = topics(&kit, 1).await;
    let requester = builder(&kit).start().await.unwrap();
    for _ in 0..5 {
        assert_eq!(requester.request("a".to_owned()).await.unwrap(), "aa");
    }
    kit.client().admin().delete_topics(&["questions-replies"]).await.unwrap();
    sleep(Duration::from_secs(2)).await;
    kit.create_topic("questions-replies", 1).await;
    let again = requester.request("b".to_owned()).timeout(Duration::from_secs(120)).await;
    assert_eq!(again.unwrap(), "bb");
}

#[klamm::test(deadline = "100000s")]
async fn ten_thousand_requests_at_once_get_their_own_replies(kit: TestKit) {
    let _answering = topics(&kit, 1).await;
    let requester = builder(&kit).timeout(Duration::from_secs(600)).start().await.unwrap();
    let all = (0..10_000).map(|number| {
        let request = requester.request(format!("{number}-"));
        async move { (number, request.await) }
    });
    for (number, reply) in futures::future::join_all(all).await {
        assert_eq!(reply.unwrap(), format!("{number}-{number}-"));
    }
    let stats = requester.stats();
    assert_eq!((stats.waiting, stats.delivered, stats.late, stats.foreign), (0, 10_000, 0, 0));
}

/// Nothing is read any more, and nothing sent: that is said at once.
#[klamm::test]
async fn requests_after_the_end_are_told_at_once(kit: TestKit) {
    let _answering = topics(&kit, 1).await;
    async fn nothing() {}
    let app = App::with_client(kit.client().clone()).listener(Listener::on("t").group("g").handle(nothing));
    let app = app.start().await.unwrap();
    let requester: Requester<String, String> = app.requester("questions").start().await.unwrap();
    let reply: String = app.request("questions", "a".to_owned()).await.unwrap();
    assert_eq!(reply, "aa");
    app.shutdown(Duration::from_secs(1)).await;
    let started = tokio::time::Instant::now();
    for error in [
        requester.request("a".to_owned()).await.unwrap_err(),
        app.request::<String, String>("questions", "a".to_owned()).await.unwrap_err(),
    ] {
        assert!(!error.may_have_been_sent(), "{error}");
    }
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[kafka_listener(topics = "requests", group = "g", on_failure = FailurePolicy::new().dead_letter())]
async fn shout(Value(text): Value<String>) -> Reply<String> {
    Reply::new(text.to_uppercase())
}

fn request(text: &str, to: impl Into<String>) -> Record {
    Record::to("requests").key("k").value(text.to_owned()).header("kafka_replyTopic", to.into())
}

/// Who asks may name any topic and partition: what does not exist is that record's failure, and those behind it are
/// committed.
#[klamm::test(deadline = "100000s")]
async fn a_reply_that_can_go_nowhere_is_that_records_failure(kit: TestKit) {
    kit.create_topic("replies", 2).await;
    kit.create_topic("requests", 1).await;
    let app = kit.app().listener(shout).start().await;
    for nowhere in ["a/b".to_owned(), "x".repeat(300), "x".repeat(40_000)] {
        kit.send_record(request("nowhere", nowhere)).await;
    }
    let far = request("far", "replies").header("kafka_replyPartition", 99_i32.to_be_bytes().to_vec());
    kit.send_record(far).await;
    kit.send_record(request("good", "replies")).await;
    timeout(LONG, app.handled("shout", 5)).await.expect("it goes on");
    until(|| true).await;
    assert_eq!(kit.topic("requests-dlt").values::<String>().await.len(), 4);
    assert_eq!(kit.committed("g", "requests", 0).await, Some(5));
}

/// The brokers make no topics, and a request names one that is not there: its record fails in the end. What comes
/// behind it was never committed.
#[tokio::test(start_paused = true)]
async fn a_reply_to_a_topic_that_never_comes_is_a_failure_in_the_end() {
    let broker = FakeBroker::start_in_memory().await.unwrap();
    broker.topic("requests", 1).topic("replies", 1).topic("requests-dlt", 1);
    let client = broker.client().await.unwrap();
    let app = App::with_client(client.clone()).listener(shout).start().await.unwrap();
    let handle = app.listener("shout").unwrap();
    let producer = client.producer().build().unwrap();
    producer.send(request("a", "no-such-topic")).await.unwrap();
    producer.send(request("b", "replies")).await.unwrap();
    timeout(LONG, handle.wait_handled(2)).await.expect("it ends").unwrap();
    until(|| broker.committed("g", ("requests", 0)) == Some(2)).await;
    assert_eq!(
        (broker.values("replies", 0), broker.values("requests-dlt", 0)),
        (vec!["B".into()], vec!["a".into()])
    );
}
