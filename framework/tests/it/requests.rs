//! Requests and replies: every reply reaches who asked, in time or not at all, and nothing is left over.

#![allow(clippy::disallowed_methods)] // Who answers lives as long as the test.

use std::time::Duration;

use klamm::client::{Client, Headers, Producer, Record};
use klamm::prelude::*;
use klamm::template::request::{ReplyError, ReplyTo, Requester, RequesterBuilder};
use klamm::testing::TestKit;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::seen::until;

/// A plain client that answers: with the text twice; a failure to "fail"; rubbish to "rubbish"; nothing to "null";
/// late to "late"; twice to "twice"; never to "never".
async fn answer(client: &Client, topic: &'static str) -> JoinHandle<()> {
    let count = client.partition_count(topic).await.unwrap();
    let all: Vec<_> = (0..count).map(|partition| (topic, partition)).collect();
    let mut consumer = client.consumer().assign(all).from_beginning().start().await.unwrap();
    let producer = client.producer().build().unwrap();
    tokio::task::spawn(async move {
        while let Some(Ok(request)) = consumer.next().await {
            let reply_to = ReplyTo::of(&request.headers).expect("every request wants a reply");
            let text = String::from_utf8(request.value.unwrap().to_vec()).unwrap();
            drop(tokio::task::spawn(reply(producer.clone(), reply_to, text)));
        }
    })
}

async fn reply(producer: Producer, reply_to: ReplyTo, text: String) {
    let twice = reply_to.reply(format!("{text}{text}"));
    let replies = match text.as_str() {
        "never" => vec![],
        "fail" => vec![reply_to.failure("my::Error", "cannot")],
        "odd failure" => vec![reply_to.reply("no").header("status", "500")],
        "rubbish" => vec![reply_to.reply(vec![0xff])],
        "null" => vec![Record { value: None, ..reply_to.reply("") }],
        "twice" => vec![twice.clone(), twice],
        _ => vec![twice],
    };
    if text == "late" {
        sleep(Duration::from_secs(60)).await;
    }
    for reply in replies {
        producer.send(reply).await.unwrap();
    }
}

async fn requester(kit: &TestKit) -> Requester<String, String> {
    let producer = kit.client().producer().build().unwrap();
    RequesterBuilder::new(kit.client(), &producer, "questions").start().await.unwrap()
}

#[klamm::test]
async fn a_request_is_answered(kit: TestKit) {
    kit.create_topic("questions", 3).await;
    kit.create_topic("questions-replies", 5).await;
    let _answering = answer(kit.client(), "questions").await;
    async fn nothing() {}
    let app = kit.app().listener(Listener::on("t").group("g").handle(nothing)).start().await;
    let reply: String =
        app.request("questions", "ab".to_owned()).timeout(Duration::from_secs(2)).await.unwrap();
    assert_eq!(reply, "abab");
    let asked = kit.topic("questions").next().await;
    let header = |name| asked.headers.last(name).flatten().unwrap().to_vec();
    assert_eq!(header("kafka_replyTopic"), b"questions-replies");
    assert_eq!(header("kafka_correlationId").len(), 16);
    let partition = i32::from_be_bytes(header("kafka_replyPartition").try_into().unwrap());
    assert_eq!(kit.topic("questions-replies").next().await.partition, partition);
    let groups = kit.client().admin().list_groups().await.unwrap();
    assert!(groups.iter().all(|group| &*group.group == "g"), "replies need no group: {groups:?}");
}

#[klamm::test]
async fn a_hundred_requests_at_once_get_their_own_replies(kit: TestKit) {
    kit.create_topic("questions", 3).await;
    let _answering = answer(kit.client(), "questions").await;
    let requester = requester(&kit).await;
    let all = (0..100).map(|number| {
        let request = requester.request(format!("{number}-")).key(i64::from(number));
        async move { (number, request.await) }
    });
    for (number, reply) in futures::future::join_all(all).await {
        assert_eq!(reply.unwrap(), format!("{number}-{number}-"));
    }
    let stats = requester.stats();
    assert_eq!((stats.waiting, stats.delivered, stats.late, stats.foreign), (0, 100, 0, 0));
}

#[klamm::test(needs_paused_clock)]
async fn who_waits_too_long_is_told_and_the_late_reply_is_counted(kit: TestKit) {
    kit.create_topic("questions", 1).await;
    let _answering = answer(kit.client(), "questions").await;
    let requester = requester(&kit).await;
    let started = Instant::now();
    let late = requester.request("late".to_owned()).timeout(Duration::from_secs(3)).await.unwrap_err();
    assert_eq!(started.elapsed().as_secs(), 3);
    assert!(matches!(&late, ReplyError::Timeout { received: 0, sent: true, .. }), "{late:?}");
    assert!(late.to_string().contains("questions: 0 of the replies came within 3s"), "{late}");
    assert_eq!(requester.stats().waiting, 0);
    until(|| requester.stats().late == 1).await;
    assert_eq!(requester.request("x".to_owned()).await.unwrap(), "xx");
}

#[klamm::test]
async fn a_reply_that_says_nothing_good_is_an_error(kit: TestKit) {
    kit.create_topic("questions", 1).await;
    let _answering = answer(kit.client(), "questions").await;
    let producer = kit.client().producer().build().unwrap();
    let requester: Requester<String, String> = RequesterBuilder::new(kit.client(), &producer, "questions")
        .error_reply(|reply| {
            let status = reply.headers.last("status")??;
            assert!(status != b"panic");
            Some(String::from_utf8_lossy(status).into_owned())
        })
        .start()
        .await
        .unwrap();
    let ask = |text: &str| requester.request(text.to_owned());
    let failed = ask("fail").await.unwrap_err();
    assert!(
        matches!(&failed, ReplyError::Failed { type_name: Some(name), .. } if &**name == "my::Error"),
        "{failed:?}"
    );
    assert_eq!(failed.to_string(), "the request failed there: cannot");
    assert_eq!(ask("odd failure").await.unwrap_err().to_string(), "the request failed there: 500");
    assert!(matches!(ask("rubbish").await, Err(ReplyError::Decode(_))));
    assert!(matches!(ask("null").await, Err(ReplyError::NoValue)));
    assert_eq!(requester.stats().waiting, 0);
}

/// Dropped at every await: nobody waits any more, and the next request is answered.
#[klamm::test(deadline = "100000s")]
async fn a_request_that_is_dropped_leaves_nothing_behind(kit: TestKit) {
    use std::pin::pin;
    use std::task::Poll;
    kit.create_topic("questions", 1).await;
    let _answering = answer(kit.client(), "questions").await;
    let requester = requester(&kit).await;
    for polls in 0.. {
        let mut request = pin!(requester.request("x".to_owned()).into_future());
        let mut left = polls;
        let answered = std::future::poll_fn(|cx| match request.as_mut().poll(cx) {
            Poll::Ready(reply) => Poll::Ready(Some(reply)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => {
                left -= 1;
                Poll::Pending
            }
        });
        let answered = answered.await;
        request.set(requester.request("unused".to_owned()).into_future());
        assert_eq!(requester.stats().waiting, 0, "after {polls} polls");
        if let Some(reply) = answered {
            assert_eq!(reply.unwrap(), "xx");
            break;
        }
        assert!(polls < 100, "it is never answered");
    }
    assert_eq!(requester.request("y".to_owned()).await.unwrap(), "yy");
}

#[klamm::test(needs_paused_clock)]
async fn several_replies_are_gathered(kit: TestKit) {
    kit.create_topic("questions", 1).await;
    let _answering = [answer(kit.client(), "questions").await, answer(kit.client(), "questions").await];
    let requester = requester(&kit).await;
    let ask = |text: &str| requester.request(text.to_owned());
    assert_eq!(ask("a").collect(2).await.unwrap(), ["aa", "aa"]);
    let late = ask("a").collect(3).await.unwrap_err();
    assert!(matches!(late, ReplyError::Timeout { received: 2, sent: true, .. }), "{late:?}");
    let some = ask("twice").collect_until(|replies| replies.len() == 3).await.unwrap();
    assert!(some.complete && some.replies.len() == 3);
    let all = ask("twice").collect_until(|_| false).await.unwrap();
    assert!(!all.complete && all.replies.len() == 4);
    assert_eq!(requester.stats().waiting, 0);
}

#[klamm::test]
async fn instances_that_share_a_partition_get_their_own_replies(kit: TestKit) {
    kit.create_topic("questions", 1).await;
    kit.create_topic("questions-replies", 1).await;
    let _answering = answer(kit.client(), "questions").await;
    let (one, other) = (requester(&kit).await, requester(&kit).await);
    let both = tokio::join!(one.request("a".to_owned()), other.request("b".to_owned()));
    assert_eq!((both.0.unwrap(), both.1.unwrap()), ("aa".to_owned(), "bb".to_owned()));
    until(|| one.stats().foreign + other.stats().foreign == 2).await;
}

#[klamm::test]
async fn replies_may_come_to_a_place_that_is_named(kit: TestKit) {
    kit.create_topic("questions", 1).await;
    kit.create_topic("answers", 4).await;
    let _answering = answer(kit.client(), "questions").await;
    let producer = kit.client().producer().build().unwrap();
    let builder = || {
        RequesterBuilder::<String, String>::new(kit.client(), &producer, "questions").reply_topic("answers")
    };
    let named = builder().reply_partition(3).start().await.unwrap();
    assert_eq!(named.request("a".to_owned()).await.unwrap(), "aa");
    assert_eq!(kit.topic("answers").records().await[0].partition, 3);
    let wrong = builder().reply_partition(4).start().await.unwrap_err();
    assert!(wrong.to_string().contains("has 4 partitions and no partition 4"), "{wrong}");

    let every = builder().every_reply_partition().timeout(Duration::from_secs(9)).start().await.unwrap();
    assert_eq!(every.request("b".to_owned()).header("h", "1").partition(0).await.unwrap(), "bb");
    let asked = kit.topic("questions").records().await;
    let last: &Headers = &asked.last().unwrap().headers;
    assert!(last.last("kafka_replyPartition").is_none() && last.last("h").is_some());
}
