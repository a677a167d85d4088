//! The fake broker itself: what it promises to whoever tests a service with it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::testing::{Answer, FakeBroker};
use klamm_client::{
    Client, Consumer, ErrorCode, IsolationLevel, NewTopic, OffsetReset, ProduceError, Record, TopicPartition,
    Watch,
};
use klamm_protocol::ApiKey;
use klamm_protocol::messages::ProduceRequest;
use tokio::time::{Instant, timeout};

use crate::scripted::{self, TOPIC};

const DEADLINE: Duration = Duration::from_secs(30);

async fn values(consumer: &mut Consumer, count: usize) -> Vec<String> {
    let mut values = Vec::new();
    while values.len() < count {
        let record = timeout(DEADLINE, consumer.next()).await.unwrap().unwrap().unwrap();
        values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
    }
    values
}

/// Over real sockets: everything that a service does with a broker.
#[tokio::test]
async fn it_serves_over_tcp() {
    let broker = FakeBroker::start().await.unwrap();
    assert!(broker.bootstrap().starts_with("127.0.0.1:"));
    broker.topic("orders", 2);
    let client = timeout(DEADLINE, Client::connect(broker.bootstrap())).await.unwrap().unwrap();
    let made = client.admin().create_topics(&[NewTopic::new("more").partitions(3)]).await.unwrap();
    assert!(made["more"].is_ok());
    let again = client.admin().create_topics(&[NewTopic::new("more"), NewTopic::new("a b")]).await.unwrap();
    assert_eq!(again["more"].as_ref().unwrap_err().code(), Some(ErrorCode::TopicAlreadyExists));
    assert_eq!(again["a b"].as_ref().unwrap_err().code(), Some(ErrorCode::InvalidTopicException));
    assert_eq!(client.partition_count("more").await.unwrap(), 3);
    let producer = client.producer().build().unwrap();
    for number in 0..4 {
        let record = Record::to("orders").partition(number % 2).value(number.to_string());
        timeout(DEADLINE, producer.send(record)).await.unwrap().unwrap();
    }
    assert_eq!(
        (broker.values("orders", 0), broker.values("orders", 1).len()),
        (vec!["0".into(), "2".into()], 2)
    );
    let mut consumer =
        client.consumer().group("billing").topics(["orders"]).from_beginning().start().await.unwrap();
    let mut read = values(&mut consumer, 4).await;
    read.sort();
    assert_eq!(read, ["0", "1", "2", "3"]);
    timeout(DEADLINE, consumer.handle().commit([((("orders", 1).into()), 2)])).await.unwrap().unwrap();
    assert_eq!(broker.committed("billing", ("orders", 1)), Some(2));
    assert_eq!(broker.committed("billing", ("orders", 0)), None);
    timeout(DEADLINE, consumer.close()).await.unwrap().unwrap();
    assert_eq!(broker.requests(ApiKey::LeaveGroup), 1);
}

#[tokio::test(start_paused = true)]
async fn each_answer_does_what_it_says() {
    let broker = scripted::start(2).await;
    let client = broker.client_builder().request_timeout(Duration::from_secs(5)).build().await.unwrap();
    let builder = client.producer().request_timeout(Duration::from_secs(5));
    let producer = builder.delivery_timeout(Duration::from_secs(9)).build().unwrap();
    let send = |value: &'static str| producer.send(Record::to(TOPIC).partition(0).value(value));
    send("first").await.unwrap();
    let took = async |answer: Answer, value| {
        let (before, connections) = (broker.requests(ApiKey::Produce), broker.connections());
        broker.next(ApiKey::Produce, 1, answer);
        let began = Instant::now();
        send(value).await.unwrap();
        (
            broker.requests(ApiKey::Produce) - before,
            broker.connections() - connections,
            began.elapsed().as_secs(),
        )
    };
    assert_eq!(took(Answer::Usual, "a").await, (1, 0, 0));
    assert_eq!(took(Answer::Error(ErrorCode::NotEnoughReplicas), "b").await, (2, 0, 0));
    assert_eq!(took(Answer::Delayed(Duration::from_secs(3)), "c").await, (1, 0, 3));
    assert_eq!(took(Answer::DisconnectBefore, "d").await, (2, 1, 0));
    assert_eq!(took(Answer::DisconnectAfter, "e").await, (2, 1, 0));
    assert_eq!(took(Answer::Never, "f").await, (2, 1, 5));
    assert_eq!(took(Answer::Hang, "g").await, (2, 1, 5));
    let (requests, _, seconds) = took(Answer::ThenDisconnect, "h").await;
    assert_eq!((requests, seconds), (1, 0));
    let told = Answer::edited::<ProduceRequest>(|answer| {
        answer.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses).for_each(|part| {
            part.base_offset += 1_000;
        });
    });
    broker.next(ApiKey::Produce, 1, told);
    assert_eq!(send("i").await.unwrap().offset, 1_009);
    assert_eq!(broker.values(TOPIC, 0), ["first", "a", "b", "c", "d", "e", "f", "g", "h", "i"]);
    // What was written is kept for a look, decoded.
    let seen = broker.seen(ApiKey::Produce);
    assert_eq!(seen.len(), broker.requests(ApiKey::Produce));
    let last: ProduceRequest = seen.last().unwrap().decode().unwrap();
    assert_eq!((last.acks, last.topic_data.len(), seen[0].client_id.as_deref()), (-1, 1, Some("klamm")));
}

#[tokio::test(start_paused = true)]
async fn one_partition_misbehaves_and_the_others_do_not() {
    let broker = scripted::start(2).await;
    broker.topic("other", 1);
    let client = broker.client().await.unwrap();
    let producer = client.producer().build().unwrap();
    broker.next_for((TOPIC, 1), ApiKey::Produce, 3, Answer::Error(ErrorCode::NotLeaderOrFollower));
    broker.always_for("other", ApiKey::Produce, Answer::Error(ErrorCode::TopicAuthorizationFailed));
    let send = |topic, partition| producer.send(Record::to(topic).partition(partition).value("a"));
    let (zero, one, other) = tokio::join!(send(TOPIC, 0), send(TOPIC, 1), send("other", 0));
    assert_eq!((zero.unwrap().offset, one.unwrap().offset), (0, 0));
    let refused = ErrorCode::TopicAuthorizationFailed;
    assert!(matches!(&other, Err(ProduceError::Broker { code, .. }) if *code == refused), "{other:?}");
    assert!(broker.values("other", 0).is_empty());
    broker.behave();
    send("other", 0).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn members_share_a_topic_and_take_over_from_each_other() {
    let broker = scripted::start(4).await;
    let client = broker.client().await.unwrap();
    let member = async || {
        let builder = client.consumer().group("g").topics([TOPIC]).from_beginning();
        builder.heartbeat_interval(Duration::from_secs(1)).start().await.unwrap()
    };
    let (mut first, mut second) = (member().await, member().await);
    let shared = async {
        loop {
            let _ = timeout(Duration::from_millis(100), first.next()).await;
            let _ = timeout(Duration::from_millis(100), second.next()).await;
            let (one, other) = (first.handle().assignment(), second.handle().assignment());
            let all: BTreeSet<TopicPartition> = one.iter().chain(&other).cloned().collect();
            if (one.len(), other.len(), all.len()) == (2, 2, 4) {
                break;
            }
        }
    };
    timeout(DEADLINE, shared).await.unwrap();
    first.close().await.unwrap();
    let taken_over = async {
        while second.handle().assignment().len() < 4 {
            let _ = timeout(Duration::from_millis(100), second.next()).await;
        }
    };
    timeout(DEADLINE, taken_over).await.unwrap();
    assert_eq!(broker.expelled("g"), 0, "nobody was dropped for silence");
}

struct Unwatched;

impl Watch for Unwatched {
    fn told(&self, _fate: Result<(&TopicPartition, i64), &ProduceError>) {}
}

#[tokio::test(start_paused = true)]
async fn transactions_are_all_or_nothing() {
    let broker = scripted::start(2).await;
    let client = broker.client().await.unwrap();
    let mut producer = client.producer().transactional_id("x").build().unwrap();
    for (value, commit) in [("a", true), ("b", false), ("c", true)] {
        let transaction = producer.begin().await.unwrap();
        let record = |partition| Record::to(TOPIC).partition(partition).value(value);
        if value == "a" {
            transaction
                .enqueue_all((0..2).map(record), &(Arc::new(Unwatched) as Arc<dyn Watch>))
                .await
                .unwrap();
        } else {
            for partition in 0..2 {
                transaction.send(record(partition)).await.unwrap();
            }
        }
        match commit {
            true => transaction.commit().await.unwrap(),
            false => transaction.abort().await.unwrap(),
        }
    }
    for (isolation, expected) in [
        (IsolationLevel::ReadCommitted, &["a", "c"][..]),
        (IsolationLevel::ReadUncommitted, &["a", "b", "c"]),
    ] {
        for partition in 0..2 {
            let builder =
                client.consumer().assign([(TOPIC, partition)]).from_beginning().isolation(isolation);
            let mut consumer = builder.start().await.unwrap();
            assert_eq!(values(&mut consumer, expected.len()).await, expected);
        }
    }
    // Another producer under this id fences the first.
    let open = producer.begin().await.unwrap();
    open.send(Record::to(TOPIC).partition(0).value("fenced")).await.unwrap();
    let mut successor = client.producer().transactional_id("x").build().unwrap();
    successor.begin().await.unwrap().commit().await.unwrap();
    assert!(open.commit().await.unwrap_err().is_fatal());
    let mut consumer = client.consumer().assign([(TOPIC, 0)]).from_beginning();
    consumer = consumer.isolation(IsolationLevel::ReadCommitted).auto_offset_reset(OffsetReset::Earliest);
    let mut consumer = consumer.start().await.unwrap();
    assert_eq!(values(&mut consumer, 2).await, ["a", "c"]);
    assert!(timeout(DEADLINE, consumer.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_older_or_poorer_broker_can_be_had() {
    let broker = scripted::start(1).await;
    broker
        .up_to_version(ApiKey::Produce, 12)
        .up_to_version(ApiKey::Fetch, 12)
        .without(ApiKey::InitProducerId);
    let client = broker.client().await.unwrap();
    let error = client.producer().build().unwrap().send(Record::to(TOPIC).value("a")).await.unwrap_err();
    assert!(error.to_string().contains("InitProducerId") && !error.is_retriable(), "{error}");
    let producer = client.producer().idempotent(false).build().unwrap();
    producer.send(Record::to(TOPIC).value("a")).await.unwrap();
    let mut consumer = client.consumer().assign([(TOPIC, 0)]).from_beginning().start().await.unwrap();
    assert_eq!(values(&mut consumer, 1).await, ["a"]);
    assert!(
        broker.seen(ApiKey::Produce).iter().chain(&broker.seen(ApiKey::Fetch)).all(|seen| seen.version == 12)
    );
}

#[tokio::test(start_paused = true)]
async fn connections_are_cut_and_made_again() {
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    let producer = client.producer().build().unwrap();
    producer.send(Record::to(TOPIC).value("a")).await.unwrap();
    let before = broker.connections();
    broker.disconnect();
    producer.send(Record::to(TOPIC).value("b")).await.unwrap();
    assert!(broker.connections() > before);
    assert_eq!(broker.values(TOPIC, 0), ["a", "b"]);
    timeout(DEADLINE, broker.until(|broker| broker.requests(ApiKey::Produce) >= 2)).await.unwrap();
}

#[tokio::test]
#[should_panic(expected = "topic \"a b\"")]
async fn an_illegal_topic_is_a_mistake_of_the_test() {
    FakeBroker::start_in_memory().await.unwrap().topic("a b", 1);
}
