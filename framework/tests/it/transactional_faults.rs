//! Transactional listeners on coordinators that fail in every way: no output is lost or there twice, nothing is silent.

use std::time::Duration;

use klamm::client::testing::{Answer, FakeBroker};
use klamm::client::{ApiKey, Client, ErrorCode, IsolationLevel, Record};
use klamm::listener::{BoxError, ListenerFailure, ListenerHandle};
use klamm::prelude::*;
use klamm::testing::TestKit;
use tokio::time::{Instant, sleep, timeout};

use crate::seen::{Gate, Seen, until};
use crate::transactional::committed;

const TEN_SECONDS: Duration = Duration::from_secs(10);
const TEN_MINUTES: Duration = Duration::from_secs(600);

async fn copies(Value(text): Value<String>, tx: Tx, State(seen): State<Seen>) -> Result<(), BoxError> {
    seen.add(&text);
    tx.send("out", "k", &*text).await?;
    match text.starts_with("bad") {
        true => Err(text.into()),
        false => Ok(()),
    }
}

async fn copying(broker: &FakeBroker, seen: &Seen) -> (AppHandle, ListenerHandle) {
    copying_up_to(1, broker, seen).await
}

/// So many records share a transaction.
async fn copying_up_to(most: usize, broker: &FakeBroker, seen: &Seen) -> (AppHandle, ListenerHandle) {
    broker.topic("t", 1).topic("out", 1).topic("t-dlt", 1);
    let listener = Listener::on("t").group("g").transactional();
    let listener = if most > 1 { listener.shared_transactions(most, TEN_SECONDS) } else { listener };
    let listener = listener.on_failure(FailurePolicy::new()).handle(copies);
    let app = App::with_client(broker.client().await.unwrap()).state(seen.clone()).listener(listener);
    let app = app.start().await.unwrap();
    let handle = app.listener("copies").unwrap();
    (app, handle)
}

/// To the input, by a producer that asks for no identity.
async fn send(broker: &FakeBroker, values: &[impl AsRef<str>]) {
    let producer = broker.client().await.unwrap().producer().idempotent(false).build().unwrap();
    for value in values {
        producer.send(Record::to("t").partition(0).value(value.as_ref().to_owned())).await.unwrap();
    }
}

/// What readers of committed records see.
async fn read(client: &Client, topic: &str) -> Vec<String> {
    let consumer = client.consumer().assign([(topic, 0)]).isolation(IsolationLevel::ReadCommitted);
    let mut consumer = consumer.from_beginning().start().await.unwrap();
    let mut found = Vec::new();
    while let Ok(Some(record)) = timeout(Duration::from_secs(5), consumer.next()).await {
        found.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
    }
    found
}

/// Each step of a transaction fails in each way, also after it was carried out: who commits may not know whether it
/// was, and finds out.
#[tokio::test(start_paused = true)]
async fn steps_that_fail_in_every_way_leave_each_output_once() {
    every_step_fails(1).await;
}

#[tokio::test(start_paused = true)]
async fn steps_of_shared_transactions_that_fail_in_every_way_leave_each_output_once() {
    every_step_fails(3).await;
}

async fn every_step_fails(most: usize) {
    let (broker, seen) = (FakeBroker::start_in_memory().await.unwrap(), Seen::default());
    let (app, handle) = copying_up_to(most, &broker, &seen).await;
    let answers = [
        Answer::DisconnectBefore,
        Answer::DisconnectAfter,
        Answer::ThenDisconnect,
        Answer::Never,
        Answer::Hang,
        Answer::Delayed(Duration::from_secs(40)),
        Answer::Error(ErrorCode::NotCoordinator),
        Answer::Error(ErrorCode::CoordinatorLoadInProgress),
        Answer::Error(ErrorCode::CoordinatorNotAvailable),
        Answer::Error(ErrorCode::ConcurrentTransactions),
        Answer::Error(ErrorCode::UnknownServerError),
        Answer::Error(ErrorCode::InvalidTxnState),
        Answer::Error(ErrorCode::ProducerFenced),
        Answer::Error(ErrorCode::InvalidProducerEpoch),
        Answer::Error(ErrorCode::IllegalGeneration),
    ];
    let apis = [
        ApiKey::EndTxn,
        ApiKey::TxnOffsetCommit,
        ApiKey::AddOffsetsToTxn,
        ApiKey::AddPartitionsToTxn,
        ApiKey::Produce,
        ApiKey::InitProducerId,
        ApiKey::OffsetFetch,
    ];
    let mut sent = Vec::new();
    for api in apis {
        for answer in &answers {
            for (count, also_lookup) in [(1, false), (3, true)] {
                match (api, answer) {
                    // No broker answers so; it would be the record's failure.
                    (ApiKey::Produce, Answer::Error(ErrorCode::IllegalGeneration)) => continue,
                    (ApiKey::Produce, _) => broker.next_for("out", api, count, answer.clone()),
                    _ => broker.next(api, count, answer.clone()),
                };
                if also_lookup {
                    // What was asked to find out fails, too.
                    broker.next(ApiKey::OffsetFetch, 1, Answer::DisconnectAfter);
                    broker.next(ApiKey::InitProducerId, 1, Answer::DisconnectAfter);
                }
                let values = [format!("{}", sent.len()), format!("{}", sent.len() + 1)];
                let story = format!("{api:?} {count} x {answer:?}");
                timeout(TEN_MINUTES, send(&broker, &values)).await.unwrap_or_else(|_| panic!("{story}"));
                sent.extend(values);
                let all = async {
                    while broker.committed("g", ("t", 0)) != Some(sent.len() as i64) {
                        assert!(handle.is_running(), "{story}: {:?}", handle.failure().await);
                        sleep(Duration::from_millis(100)).await;
                    }
                };
                let all = timeout(TEN_MINUTES, all).await;
                all.unwrap_or_else(|_| panic!("{story}: {:?}", handle.troubles()));
                broker.behave();
            }
        }
    }
    assert_eq!(read(&broker.client().await.unwrap(), "out").await, sent);
    assert!(handle.troubles().is_empty(), "{:?}", handle.troubles());
    assert!(app.shutdown(TEN_MINUTES).await.is_clean());
}

/// The commit is done, nobody says so, and the coordinator is away for minutes: the record must not be copied again.
#[tokio::test(start_paused = true)]
async fn a_commit_whose_answer_is_lost_for_long_is_looked_up() {
    let (broker, seen) = (FakeBroker::start_in_memory().await.unwrap(), Seen::default());
    let (_app, handle) = copying(&broker, &seen).await;
    send(&broker, &["zero"]).await;
    handle.wait_handled(1).await.unwrap();
    broker.next(ApiKey::EndTxn, 1, Answer::DisconnectAfter);
    broker.always(ApiKey::InitProducerId, Answer::DisconnectBefore);
    let away = async {
        until(|| broker.requests(ApiKey::EndTxn) >= 2).await;
        broker.always(ApiKey::EndTxn, Answer::DisconnectBefore);
        until(|| !handle.troubles().is_empty()).await;
        let trouble = handle.troubles().remove(0).to_string();
        assert!(trouble.starts_with("t-0: its transactions fail"), "{trouble}");
        sleep(TEN_MINUTES).await;
        broker.behave();
    };
    tokio::join!(send(&broker, &["one", "two"]), away);
    timeout(TEN_MINUTES, handle.wait_handled(3)).await.unwrap().unwrap();
    assert_eq!(seen.all(), ["zero", "one", "two"], "each was handled once");
    assert_eq!(read(&broker.client().await.unwrap(), "out").await, ["zero", "one", "two"]);
    assert!(handle.troubles().is_empty());
}

/// It counts for nothing that the world was wrong: the record is not given up for it.
#[tokio::test(start_paused = true)]
async fn a_coordinator_that_is_away_makes_no_dead_letters() {
    let (broker, seen) = (FakeBroker::start_in_memory().await.unwrap(), Seen::default());
    let (_app, handle) = copying(&broker, &seen).await;
    for api in [ApiKey::AddPartitionsToTxn, ApiKey::EndTxn, ApiKey::TxnOffsetCommit] {
        broker.always(api, Answer::Error(ErrorCode::CoordinatorNotAvailable));
    }
    send(&broker, &["one", "bad", "two"]).await;
    sleep(TEN_MINUTES).await;
    assert!(handle.is_running() && !handle.troubles().is_empty());
    broker.behave();
    timeout(TEN_MINUTES, handle.wait_handled(3)).await.unwrap().unwrap();
    let client = broker.client().await.unwrap();
    assert_eq!(read(&client, "out").await, ["one", "two"]);
    assert_eq!(read(&client, "t-dlt").await, ["bad"]);
}

/// What is made of records above one that is not finished would be made again after a crash.
#[tokio::test(start_paused = true)]
async fn nothing_is_committed_above_a_record_that_is_not_finished() {
    async fn in_batches(batch: Batch<Value<String>>, tx: Tx) -> Result<(), BoxError> {
        for Value(text) in batch {
            tx.send("out", "k", text).await?;
        }
        Ok(())
    }
    let broker = FakeBroker::start_in_memory().await.unwrap();
    broker.topic("t", 1).topic("out", 1).topic("t-dlt", 1);
    broker.always_for("t-dlt", ApiKey::Produce, Answer::Error(ErrorCode::TopicAuthorizationFailed));
    let client = broker.client().await.unwrap();
    let producer = client.producer().linger(Duration::from_millis(10)).build().unwrap();
    for value in [&b"0"[..], b"1", b"no text \xff", b"2"] {
        drop(producer.enqueue(Record::to("t").partition(0).value(value)).await.unwrap());
    }
    producer.flush().await.unwrap();
    let listener = Listener::on("t").group("g").transactional().batch(10, Duration::ZERO).handle(in_batches);
    let app = App::with_client(client.clone()).listener(listener).start().await.unwrap();
    let handle = app.listener("in_batches").unwrap();
    until(|| handle.troubles().len() == 1).await;
    assert_eq!(read(&client, "out").await, ["0", "1"]);
    assert_eq!(broker.committed("g", ("t", 0)), Some(2));
    broker.behave();
    timeout(TEN_MINUTES, handle.wait_handled(4)).await.unwrap().unwrap();
    assert_eq!(read(&client, "out").await, ["0", "1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn transactions_that_are_refused_end_the_listener_with_a_text_that_helps() {
    let refusals = [
        (ApiKey::InitProducerId, ErrorCode::TransactionalIdAuthorizationFailed),
        (ApiKey::InitProducerId, ErrorCode::InvalidTransactionTimeout),
        (ApiKey::TxnOffsetCommit, ErrorCode::GroupAuthorizationFailed),
    ];
    for (api, code) in refusals {
        let (broker, seen) = (FakeBroker::start_in_memory().await.unwrap(), Seen::default());
        broker.always(api, Answer::Error(code));
        let (_app, handle) = copying(&broker, &seen).await;
        send(&broker, &["one"]).await;
        let failure = timeout(TEN_MINUTES, handle.failure()).await.unwrap().unwrap();
        assert!(matches!(&failure, ListenerFailure::Transactions { .. }), "{failure:?}");
        let said = failure.to_string();
        assert!(said.contains("t-0") && said.contains("transactional ids that begin with"), "{said}");
        assert_eq!(broker.committed("g", ("t", 0)), None);
    }
}

/// Of a dead letter: it follows its own policy, in a transaction each time.
#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_is_refused_is_trimmed_and_then_its_partition_stands_still() {
    let (broker, seen) = (FakeBroker::start_in_memory().await.unwrap(), Seen::default());
    let (_app, handle) = copying(&broker, &seen).await;
    broker.always_for("t-dlt", ApiKey::Produce, Answer::Error(ErrorCode::TopicAuthorizationFailed));
    send(&broker, &["bad", "behind"]).await;
    until(|| handle.troubles().len() == 1).await;
    let trouble = handle.troubles().remove(0).to_string();
    assert!(trouble.starts_with("t-0, offset 0: a dead letter cannot be sent"), "{trouble}");
    assert!(trouble.contains("stands still"), "{trouble}");
    sleep(TEN_MINUTES).await;
    assert_eq!((seen.all(), broker.committed("g", ("t", 0))), (vec!["bad".to_owned()], None));
    broker.behave();
    timeout(TEN_MINUTES, handle.wait_handled(2)).await.unwrap().unwrap();
    let client = broker.client().await.unwrap();
    assert_eq!(read(&client, "t-dlt").await, ["bad"]);
    assert_eq!(read(&client, "out").await, ["behind"]);
    assert!(handle.troubles().is_empty());
}

/// Waits at a gate, between its outputs.
async fn gated(
    Value(text): Value<String>,
    tx: Tx,
    State(seen): State<Seen>,
    State(gate): State<Gate>,
) -> Result<(), BoxError> {
    tx.send("a", "k", &*text).await?;
    seen.add(&text);
    gate.pass().await;
    tx.send("b", "k", &*text).await?;
    Ok(())
}

fn gating() -> Listener {
    let listener = Listener::on("in").group("g").transactional().revoke_deadline(Duration::from_secs(3));
    listener.on_failure(FailurePolicy::new()).handle(gated)
}

/// Somebody ends the transaction by hand, or runs under its name: the partition is still ours, and goes on.
#[klamm::test]
async fn who_is_fenced_and_still_has_the_partition_goes_on(kit: TestKit) {
    kit.create_topic("in", 1).await;
    let (seen, gate) = (Seen::default(), Gate::default());
    let app = kit.app().state(seen.clone()).state(gate.clone()).listener(gating()).start().await;
    for round in 0..3 {
        kit.send("in", "k", format!("{round}")).await;
        until(|| seen.count(&round.to_string()) == 1).await;
        let mut other = kit.client().producer().transactional_id("g/in/0").build().unwrap();
        other.begin().await.unwrap().send(Record::to("a").partition(0).value("zombie")).await.unwrap();
        gate.let_through(2);
        app.handled("gated", round + 1).await;
        drop(other);
    }
    for topic in ["a", "b"] {
        assert_eq!(committed(&kit, topic).await, ["0", "1", "2"]);
    }
}

/// The handler outlasts the revoke: its outputs are aborted, and the other member's count.
#[klamm::test]
async fn a_handler_that_outlasts_its_partition_leaves_nothing(kit: TestKit) {
    kit.create_topic("in", 2).await;
    let (seen, gate) = (Seen::default(), Gate::default());
    let app = || kit.app().state(seen.clone()).state(gate.clone()).listener(gating());
    let first = app().start().await;
    for partition in 0..2 {
        kit.send_to("in", partition, "k", format!("{partition}")).await;
    }
    until(|| seen.all().len() == 2).await;
    let second = app().start().await;
    // Delivered again to the other one.
    until(|| seen.all().len() == 3).await;
    gate.let_through(100);
    let handled = |app: &klamm::testing::RunningTestApp| app.listener("gated").unwrap().handled();
    until(|| handled(&first) + handled(&second) == 2).await;
    sleep(TEN_MINUTES).await;
    for topic in ["a", "b"] {
        let mut all = committed(&kit, topic).await;
        all.sort();
        assert_eq!(all, ["0", "1"], "{topic}");
    }
}

/// What was in work when the position was moved is not committed over the new place.
#[klamm::test]
async fn a_seek_during_a_transaction_voids_it(kit: TestKit) {
    use klamm::listener::SeekTo;
    kit.create_topic("in", 1).await;
    let (seen, gate) = (Seen::default(), Gate::default());
    for text in ["0", "1", "2", "3"] {
        kit.send("in", "k", text).await;
    }
    let app = kit.app().state(seen.clone()).state(gate.clone()).listener(gating()).start().await;
    gate.let_through(2);
    until(|| seen.count("2") == 1).await;
    let listener = app.listener("gated").unwrap();
    listener.seek(("in", 0), SeekTo::Offset(1)).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    gate.let_through(1);
    until(|| seen.count("1") == 2).await;
    assert_eq!(kit.committed("g", "in", 0).await, Some(1), "the place that was sought");
    gate.let_through(100);
    app.handled("gated", 5).await;
    assert_eq!(committed(&kit, "b").await, ["0", "1", "1", "2", "3"]);
    listener.seek(("in", 0), SeekTo::End).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(kit.committed("g", "in", 0).await, Some(4));
    listener.seek(("in", 0), SeekTo::Beginning).await.unwrap();
    app.handled("gated", 9).await;
    assert_eq!(kit.committed("g", "in", 0).await, Some(4));
}

async fn slow(Value(text): Value<String>, tx: Tx, State(seen): State<Seen>) -> Result<(), BoxError> {
    seen.add(&text);
    tx.send("a", "k", &*text).await?;
    if text == "slow" {
        sleep(Duration::from_secs(100)).await;
    }
    Ok(())
}

/// It would be too slow for ever: it is a failure like any other.
#[klamm::test]
async fn a_handler_that_is_slower_than_its_transaction_may_be_fails(kit: TestKit) {
    kit.create_topic("in", 1).await;
    let seen = Seen::default();
    let policy = FailurePolicy::new().retry_in_place(Backoff::immediate().attempts(2));
    let listener = Listener::on("in").group("g").transactional().on_failure(policy);
    let listener = listener.transaction_timeout(Duration::from_secs(20)).handle(slow);
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    for text in ["quick", "slow", "next"] {
        kit.send("in", "k", text).await;
    }
    timeout(TEN_MINUTES, app.handled("slow", 3)).await.expect("it is given up");
    assert_eq!(seen.all(), ["quick", "slow", "slow", "next"]);
    assert_eq!(committed(&kit, "a").await, ["quick", "next"]);
    assert_eq!(committed(&kit, "in-dlt").await, ["slow"]);
}

async fn slow_before_it_sends(
    Value(text): Value<String>,
    tx: Tx,
    State(seen): State<Seen>,
) -> Result<(), BoxError> {
    seen.add(&text);
    tx.send("a", "k", &*text).await?;
    if text == "slow" {
        sleep(Duration::from_secs(100)).await;
        tx.send("a", "k", "late").await?;
    }
    Ok(())
}

/// What it sends in the end is refused by then, as if another producer had the transaction: it came again for ever.
#[klamm::test]
async fn a_handler_that_sends_when_its_transaction_was_given_up_fails(kit: TestKit) {
    kit.create_topic("in", 1).await;
    let seen = Seen::default();
    let policy = FailurePolicy::new().retry_in_place(Backoff::immediate().attempts(2));
    let listener = Listener::on("in").group("g").transactional().on_failure(policy);
    let listener = listener.transaction_timeout(Duration::from_secs(20)).handle(slow_before_it_sends);
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    for text in ["quick", "slow", "next"] {
        kit.send("in", "k", text).await;
    }
    timeout(TEN_MINUTES, app.handled("slow_before_it_sends", 3)).await.expect("it is given up");
    assert_eq!(seen.all(), ["quick", "slow", "slow", "next"]);
    assert_eq!(committed(&kit, "a").await, ["quick", "next"]);
    assert_eq!(committed(&kit, "in-dlt").await, ["slow"]);
}

/// The listener waits where its offsets would be, and hurries nobody who works elsewhere.
#[klamm::test]
async fn a_slow_partition_holds_up_no_other(kit: TestKit) {
    kit.create_topic("in", 2).await;
    let seen = Seen::default();
    let listener = Listener::on("in").group("g").transactional();
    let listener = listener.transaction_timeout(Duration::from_secs(300)).handle(slow);
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    let started = Instant::now();
    kit.send_to("in", 0, "k", "slow").await;
    for n in 0..20 {
        kit.send_to("in", 1, "k", format!("{n}")).await;
    }
    app.handled("slow", 20).await;
    assert!(started.elapsed() < Duration::from_secs(50), "{:?}", started.elapsed());
    app.handled("slow", 21).await;
    assert_eq!(kit.committed("g", "in", 0).await, Some(1));
}
