//! Transactions whose coordinator lies, falls silent or is cut off: what is known of the outcome is told, and no more.

use std::time::Duration;

use klamm_client::testing::{Answer, FakeBroker};
use klamm_client::{Client, ErrorCode, Record, TopicPartition, TransactionError, TransactionalProducer};
use klamm_protocol::ApiKey;
use klamm_protocol::messages::*;
use tokio::time::{Instant, timeout};

use super::{Case, LIE, RECOVERY, Watch, client, each, watch_panics};
use crate::scripted::{self, TOPIC};

const PATIENCE: Duration = Duration::from_secs(10);

async fn with_a_producer() -> (FakeBroker, Client, TransactionalProducer) {
    let broker = scripted::start(1).await;
    let client = client(&broker).await;
    let builder = client.producer().request_timeout(Duration::from_secs(3)).max_block(PATIENCE);
    let builder = builder.delivery_timeout(PATIENCE).transactional_id("x");
    (broker, client, builder.build().unwrap())
}

async fn committed(client: &Client) -> Vec<String> {
    let consumer = client.consumer().assign([(TOPIC, 0)]).from_beginning();
    let mut consumer = consumer.isolation(klamm_client::IsolationLevel::ReadCommitted).start().await.unwrap();
    let mut values = Vec::new();
    while let Ok(Some(record)) = timeout(Duration::from_secs(2), consumer.next()).await {
        values.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
    }
    values
}

/// A commit that was asked for and never answered may have come about, and nothing else says so.
#[tokio::test(start_paused = true)]
async fn a_commit_without_an_answer_has_an_unknown_outcome() {
    for answer in [Answer::DisconnectAfter, Answer::Never, Answer::Hang, Answer::DisconnectBefore] {
        watch_panics();
        let (broker, client, mut producer) = with_a_producer().await;
        let transaction = producer.begin().await.unwrap();
        transaction.send(Record::to(TOPIC).value("a")).await.unwrap();
        broker.always(ApiKey::EndTxn, answer.clone());
        let began = Instant::now();
        let error = transaction.commit().await.unwrap_err();
        assert!(matches!(error, TransactionError::UnknownOutcome { .. }), "{answer:?}: {error}");
        assert!(error.may_have_been_committed() && !error.is_retriable() && !error.is_fatal(), "{answer:?}");
        // The last attempt begins within the patience and may take the request timeout.
        assert!(began.elapsed() <= PATIENCE + Duration::from_secs(4), "{answer:?}: {:?}", began.elapsed());
        broker.behave();
        // The next transaction neither waits for the one before it nor brings it back.
        let next = timeout(RECOVERY, producer.begin()).await.unwrap().unwrap();
        next.send(Record::to(TOPIC).value("b")).await.unwrap();
        next.commit().await.unwrap();
        let came_about = matches!(answer, Answer::DisconnectAfter | Answer::Never);
        let expected: &[&str] = if came_about { &["a", "b"] } else { &["b"] };
        assert_eq!(committed(&client).await, expected, "{answer:?}");
    }
}

/// It came about, its answer got lost, and another producer took the id before it was asked again: the refusal then
/// says nothing of the commit.
#[tokio::test(start_paused = true)]
async fn a_commit_that_is_refused_when_it_is_asked_for_again_has_an_unknown_outcome() {
    for (code, fenced) in [(ErrorCode::ProducerFenced, true), (ErrorCode::InvalidTxnState, false)] {
        let (broker, client, mut producer) = with_a_producer().await;
        let transaction = producer.begin().await.unwrap();
        transaction.send(Record::to(TOPIC).value("a")).await.unwrap();
        broker.next(ApiKey::EndTxn, 1, Answer::DisconnectAfter);
        broker.next(ApiKey::EndTxn, 1, Answer::Error(code));
        let error = transaction.commit().await.unwrap_err();
        assert!(error.may_have_been_committed() && error.to_string().contains("is not known"), "{error}");
        assert_eq!(committed(&client).await, ["a"], "{code}");
        let next = producer.begin().await;
        assert_eq!(next.is_err_and(|error| error.is_fatal()), fenced, "{code}");
    }
    // Refused at once, it did not come about.
    let (broker, _client, mut producer) = with_a_producer().await;
    let transaction = producer.begin().await.unwrap();
    transaction.send(Record::to(TOPIC).value("a")).await.unwrap();
    broker.next(ApiKey::EndTxn, 1, Answer::Error(ErrorCode::ProducerFenced));
    let error = transaction.commit().await.unwrap_err();
    assert!(matches!(error, TransactionError::Fenced { .. }), "{error}");
}

/// A coordinator that says no, for ever, has not committed: that is a timeout, and can be tried again.
#[tokio::test(start_paused = true)]
async fn a_commit_that_is_refused_for_ever_did_not_come_about() {
    for code in
        [ErrorCode::CoordinatorNotAvailable, ErrorCode::ConcurrentTransactions, ErrorCode::NotCoordinator]
    {
        let (broker, client, mut producer) = with_a_producer().await;
        let transaction = producer.begin().await.unwrap();
        transaction.send(Record::to(TOPIC).value("a")).await.unwrap();
        broker.always(ApiKey::EndTxn, Answer::Error(code));
        let error = transaction.commit().await.unwrap_err();
        assert!(matches!(error, TransactionError::Timeout { .. }), "{code}: {error}");
        assert!(!error.may_have_been_committed(), "{code}");
        broker.behave();
        let next = timeout(RECOVERY, producer.begin()).await.unwrap().unwrap();
        next.send(Record::to(TOPIC).value("b")).await.unwrap();
        next.commit().await.unwrap();
        assert_eq!(committed(&client).await, ["b"], "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_abort_without_an_answer_is_made_good_by_the_next_transaction() {
    for answer in [Answer::DisconnectAfter, Answer::DisconnectBefore, Answer::Never] {
        let (broker, client, mut producer) = with_a_producer().await;
        let transaction = producer.begin().await.unwrap();
        transaction.send(Record::to(TOPIC).value("a")).await.unwrap();
        broker.always(ApiKey::EndTxn, answer.clone());
        transaction.abort().await.unwrap();
        broker.behave();
        let next = timeout(RECOVERY, producer.begin()).await.unwrap().unwrap();
        next.send(Record::to(TOPIC).value("b")).await.unwrap();
        next.commit().await.unwrap();
        assert_eq!(committed(&client).await, ["b"], "{answer:?}");
    }
}

/// Each request of a transaction is cut once, before and after it is carried out: committed is there once.
#[tokio::test(start_paused = true)]
async fn every_cut_is_survived() {
    let apis = [
        ApiKey::FindCoordinator,
        ApiKey::InitProducerId,
        ApiKey::AddPartitionsToTxn,
        ApiKey::Produce,
        ApiKey::AddOffsetsToTxn,
        ApiKey::TxnOffsetCommit,
        ApiKey::EndTxn,
        ApiKey::Metadata,
    ];
    for answer in [Answer::DisconnectBefore, Answer::DisconnectAfter, Answer::Never, Answer::ThenDisconnect] {
        for api in apis {
            let (broker, client, mut producer) = with_a_producer().await;
            let consumer = client.consumer().group("g").topics([TOPIC]).start().await.unwrap();
            broker.until(|broker| broker.requests(ApiKey::Heartbeat) > 0).await;
            let group = consumer.handle().group_metadata().unwrap();
            for number in 0..3 {
                broker.next(api, 1, answer.clone());
                let transaction = producer.begin().await.unwrap();
                transaction.send(Record::to(TOPIC).value(number.to_string())).await.unwrap();
                let offsets = [(TopicPartition::new(TOPIC, 0), number + 1)];
                transaction.send_offsets(offsets, &group).await.unwrap();
                match number {
                    1 => transaction.abort().await.unwrap(),
                    _ => transaction.commit().await.unwrap(),
                }
            }
            assert_eq!(committed(&client).await, ["0", "2"], "{answer:?} {api:?}");
            assert_eq!(broker.committed("g", (TOPIC, 0)), Some(3), "{answer:?} {api:?}");
        }
    }
}

fn lies() -> Vec<Case> {
    let mut cases = vec![
        Case::edited::<InitProducerIdRequest>("init: an id of -1", |answer| answer.producer_id = -1),
        Case::edited::<InitProducerIdRequest>("init: an epoch of -1", |answer| answer.producer_epoch = -1),
        Case::edited::<InitProducerIdRequest>("init: the least id", |answer| answer.producer_id = i64::MIN),
        Case::edited::<AddPartitionsToTxnRequest>("partitions: none", |answer| {
            answer.results_by_topic_v3_and_below.clear();
        }),
        Case::edited::<AddPartitionsToTxnRequest>("partitions: others", |answer| {
            let topics = answer.results_by_topic_v3_and_below.iter_mut();
            topics.for_each(|topic| topic.name = "other".into());
        }),
        Case::edited::<TxnOffsetCommitRequest>("offsets: none", |answer| answer.topics.clear()),
        Case::edited::<TxnOffsetCommitRequest>("offsets: of others", |answer| {
            answer.topics.iter_mut().for_each(|topic| topic.name = "other".into());
        }),
        Case::edited::<EndTxnRequest>("end: an error that nobody knows", |answer| answer.error_code = 12_345),
        Case::edited::<EndTxnRequest>("end: fenced", |answer| {
            answer.error_code = ErrorCode::ProducerFenced.code();
        }),
    ];
    let codes = [ErrorCode::InvalidTxnState, ErrorCode::UnknownServerError, ErrorCode::Unknown(i16::MIN)];
    for api in
        [ApiKey::InitProducerId, ApiKey::AddPartitionsToTxn, ApiKey::AddOffsetsToTxn, ApiKey::TxnOffsetCommit]
    {
        cases.extend(codes.map(|code| Case::answered(api, Answer::Error(code))));
    }
    cases
}

/// What was not clearly acknowledged breaks the transaction, and it is not committed.
#[tokio::test(start_paused = true)]
async fn lies_break_the_transaction_and_only_that() {
    each(lies(), async |case| {
        let name = &case.name;
        let (broker, client, mut producer) = with_a_producer().await;
        let consumer = client.consumer().group("g").topics([TOPIC]).start().await.unwrap();
        broker.until(|broker| broker.requests(ApiKey::Heartbeat) > 0).await;
        let group = consumer.handle().group_metadata().unwrap();
        let watch = Watch::begin(case, &broker);
        let lied_to = async {
            let transaction = producer.begin().await.map_err(|error| error.to_string())?;
            let sent = transaction.send(Record::to(TOPIC).value("lied to")).await;
            sent.map_err(|error| error.to_string())?;
            let offsets = [(TopicPartition::new(TOPIC, 0), 7)];
            transaction.send_offsets(offsets, &group).await.map_err(|error| error.to_string())?;
            transaction.commit().await.map_err(|error| error.to_string())
        };
        let outcome = timeout(3 * LIE, lied_to).await.unwrap_or_else(|_| panic!("{name}: it does not end"));
        outcome.expect_err(name);
        watch.end();
        drop(producer);
        let mut next = client.producer().transactional_id("x").build().unwrap();
        let transaction = timeout(RECOVERY, next.begin()).await.unwrap().unwrap();
        transaction.send(Record::to(TOPIC).value("after")).await.unwrap();
        transaction.commit().await.unwrap();
        let told_falsely = name.starts_with("end:");
        let expected: &[&str] = if told_falsely { &["lied to", "after"] } else { &["after"] };
        assert_eq!(committed(&client).await, expected, "{name}");
        assert_eq!(broker.committed("g", (TOPIC, 0)), told_falsely.then_some(7), "{name}");
    })
    .await;
}
