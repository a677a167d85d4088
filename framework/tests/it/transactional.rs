//! Transactional listeners: outputs and offsets are committed together, or not at all, whatever fails.

use std::time::Duration;

use klamm::client::{IsolationLevel, Record, TopicPartition};
use klamm::listener::BoxError;
use klamm::prelude::*;
use klamm::testing::TestKit;
use tokio::time::{sleep, timeout};

use crate::seen::{Gate, Seen, until};

const MINUTE: Duration = Duration::from_secs(60);

/// What readers of committed records see, once nothing more comes, by partition.
pub async fn committed(kit: &TestKit, topic: &str) -> Vec<String> {
    let Ok(count) = kit.client().partition_count(topic).await else { return Vec::new() };
    let all = (0..count).map(|partition| TopicPartition::new(topic, partition));
    let consumer = kit.client().consumer().assign(all).isolation(IsolationLevel::ReadCommitted);
    let mut consumer = consumer.from_beginning().start().await.unwrap();
    let mut found = Vec::new();
    while let Ok(Some(record)) = timeout(Duration::from_secs(5), consumer.next()).await {
        found.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
    }
    found
}

/// What was ever written, aborted or not.
pub async fn written(kit: &TestKit, topic: &str) -> usize {
    let consumer = kit.client().consumer().assign([(topic, 0)]).isolation(IsolationLevel::ReadUncommitted);
    let mut consumer = consumer.from_beginning().start().await.unwrap();
    let mut count = 0;
    while let Ok(Some(_)) = timeout(Duration::from_secs(5), consumer.next()).await {
        count += 1;
    }
    count
}

/// Sends twice. "bad" fails always, "weak" once, "panic" panics, between the two.
async fn copies(Value(text): Value<String>, tx: Tx, State(seen): State<Seen>) -> Result<(), BoxError> {
    seen.add(&text);
    tx.send("a", "k", &*text).await?;
    let before = seen.count(&text);
    match text.split(' ').next() {
        Some("bad") => return Err("it is bad".into()),
        Some("weak") if before == 1 => return Err("it is weak".into()),
        Some("panic") if before == 1 => panic!("it panics"),
        _ => {}
    }
    tx.send("b", "k", &*text).await?;
    Ok(())
}

fn copying() -> Listener {
    let policy = FailurePolicy::new().retry_in_place(Backoff::fixed(Duration::from_secs(1)).attempts(3));
    Listener::on("in").group("g").transactional().on_failure(policy).handle(copies)
}

#[klamm::test]
async fn outputs_and_offsets_are_committed_together(kit: TestKit) {
    kit.create_topic("in", 1).await;
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(copying()).start().await;
    for n in 0..5 {
        kit.send("in", "k", format!("{n}")).await;
    }
    app.handled("copies", 5).await;
    assert_eq!(kit.committed("g", "in", 0).await, Some(5));
    for topic in ["a", "b"] {
        assert_eq!(committed(&kit, topic).await, ["0", "1", "2", "3", "4"]);
    }
    assert!(app.listener("copies").unwrap().troubles().is_empty());
    assert!(app.stop().await.is_clean());
}

#[klamm::test]
async fn a_failure_in_the_middle_leaves_nothing_and_a_retry_begins_anew(kit: TestKit) {
    kit.create_topic("in", 1).await;
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(copying()).start().await;
    for text in ["0", "weak", "panic", "1"] {
        kit.send("in", "k", text).await;
    }
    app.handled("copies", 4).await;
    assert_eq!(seen.all(), ["0", "weak", "weak", "panic", "panic", "1"]);
    for topic in ["a", "b"] {
        assert_eq!(committed(&kit, topic).await, ["0", "weak", "panic", "1"]);
    }
    assert_eq!(kit.committed("g", "in", 0).await, Some(4));
}

/// Complaint 13 of spring-kafka's users: the output of an attempt and the copy of its record were both committed.
#[klamm::test]
async fn what_is_given_up_is_a_dead_letter_and_no_output(kit: TestKit) {
    kit.create_topic("in", 1).await;
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(copying()).start().await;
    for text in ["0", "bad", "1"] {
        kit.send("in", "k", text).await;
    }
    app.handled("copies", 3).await;
    assert_eq!(seen.all(), ["0", "bad", "bad", "bad", "1"]);
    for topic in ["a", "b"] {
        assert_eq!(committed(&kit, topic).await, ["0", "1"]);
    }
    assert_eq!(committed(&kit, "in-dlt").await, ["bad"]);
    assert_eq!(kit.committed("g", "in", 0).await, Some(3));
}

#[klamm::test]
async fn what_is_skipped_is_committed_with_what_comes_or_alone(kit: TestKit) {
    kit.create_topic("in", 1).await;
    let seen = Seen::default();
    let listener = Listener::on("in").group("g").transactional();
    let listener = listener.on_failure(FailurePolicy::new().skip()).handle(copies);
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    for (text, offset) in [("bad 1", 1), ("good", 2), ("bad 2", 3)] {
        kit.send("in", "k", text).await;
        app.handled("copies", offset).await;
        assert_eq!(kit.committed("g", "in", 0).await, Some(offset as i64));
    }
    assert_eq!(committed(&kit, "a").await, ["good"]);
}

#[klamm::test]
async fn copies_in_retry_topics_are_committed_with_the_offset(kit: TestKit) {
    kit.create_topic("in", 1).await;
    let seen = Seen::default();
    let policy = FailurePolicy::new().retry_topics([Duration::from_secs(10), MINUTE]).dead_letter();
    let listener = Listener::on("in").group("g").transactional().on_failure(policy).handle(copies);
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    for text in ["bad", "weak", "0"] {
        kit.send("in", "k", text).await;
    }
    // Each step is a record of its own.
    app.handled("copies", 3 + 3).await;
    assert_eq!(seen.count("bad"), 3);
    assert_eq!(seen.count("weak"), 2);
    assert_eq!(committed(&kit, "a").await, ["0", "weak"]);
    assert_eq!(committed(&kit, "b").await, ["0", "weak"]);
    assert_eq!(committed(&kit, "in-retry-10s-g").await, ["bad", "weak"]);
    assert_eq!(committed(&kit, "in-retry-1m-g").await, ["bad"]);
    assert_eq!(committed(&kit, "in-dlt").await, ["bad"]);
    for (topic, offset) in [("in", 3), ("in-retry-10s-g", 2), ("in-retry-1m-g", 1)] {
        let at = kit.committed("g", topic, 0).await.unwrap();
        // Behind the markers of the transactions that wrote there, or before the last of them.
        assert!(at >= offset, "{topic}: {at}");
    }
}

async fn answers(Value(text): Value<String>, tx: Tx) -> Result<Reply<String>, BoxError> {
    tx.send("a", "k", &*text).await?;
    match text.starts_with("bad") {
        true => Err("no answer".into()),
        false => Ok(Reply::new(format!("re: {text}"))),
    }
}

#[klamm::test]
async fn a_reply_is_part_of_the_transaction(kit: TestKit) {
    kit.create_topic("in", 1).await;
    let listener = Listener::on("in").group("g").transactional().send_to("replies");
    let listener = listener.on_failure(FailurePolicy::new()).handle(answers);
    let app = kit.app().listener(listener).start().await;
    for text in ["one", "bad", "two"] {
        kit.send("in", "k", text).await;
    }
    app.handled("answers", 3).await;
    assert_eq!(committed(&kit, "replies").await, ["re: one", "re: two"]);
    assert_eq!(committed(&kit, "a").await, ["one", "two"]);
    assert_eq!(committed(&kit, "in-dlt").await, ["bad"]);
}

/// A reply that cannot be sent takes the outputs along, and is its record's failure.
#[klamm::test]
async fn a_reply_that_is_refused_aborts_what_was_sent_before(kit: TestKit) {
    use klamm::client::NewTopic;
    kit.create_topic("in", 1).await;
    let small = NewTopic::new("replies").partitions(1).replication(1).config("max.message.bytes", "300");
    kit.client().admin().create_topics(&[small]).await.unwrap();
    let listener = Listener::on("in").group("g").transactional().send_to("replies");
    let listener = listener.on_failure(FailurePolicy::new()).handle(answers);
    let app = kit.app().listener(listener).start().await;
    for text in ["one", &"x".repeat(1_000), "two"] {
        kit.send("in", "k", text).await;
    }
    app.handled("answers", 3).await;
    assert_eq!(committed(&kit, "replies").await, ["re: one", "re: two"]);
    assert_eq!(committed(&kit, "a").await, ["one", "two"]);
    let letters = kit.topic("in-dlt").records().await;
    assert_eq!(letters.len(), 1);
    assert!(app.listener("answers").unwrap().troubles().is_empty());
}

/// By the numbers in it; those under ten fail while they are seen for the first time.
async fn in_batches(
    batch: Batch<Value<String>>,
    tx: Tx,
    State(seen): State<Seen>,
) -> Result<BatchOutcome, BoxError> {
    let texts: Vec<String> = batch.into_iter().map(|Value(text)| text).collect();
    seen.add(texts.join(","));
    let mut outcome = BatchOutcome::ok();
    for (index, text) in texts.iter().enumerate() {
        tx.send("a", "k", &**text).await?;
        if text.starts_with("bad") || (text.starts_with("weak") && seen.all().len() == 1) {
            outcome.fail(index, "no good");
        }
    }
    if texts.iter().any(|text| text == "all") && seen.all().len() == 1 {
        return Err("all of it".into());
    }
    Ok(outcome)
}

async fn batches(kit: &TestKit, texts: &[&str]) -> (klamm::testing::RunningTestApp, Seen) {
    kit.create_topic("in", 1).await;
    for text in texts {
        kit.send("in", "k", *text).await;
    }
    let seen = Seen::default();
    let policy = FailurePolicy::new().retry_in_place(Backoff::fixed(MINUTE).attempts(2));
    let listener = Listener::on("in").group("g").transactional().on_failure(policy);
    let listener = listener.batch(100, Duration::ZERO).handle(in_batches);
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    app.handled("in_batches", texts.len() as u64).await;
    assert_eq!(kit.committed("g", "in", 0).await, Some(texts.len() as i64));
    (app, seen)
}

#[klamm::test]
async fn a_batch_is_one_transaction(kit: TestKit) {
    let (_app, seen) = batches(&kit, &["0", "1", "2"]).await;
    assert_eq!(seen.all(), ["0,1,2"]);
    assert_eq!(committed(&kit, "a").await, ["0", "1", "2"]);
}

/// Nobody knows which outputs come of which record: all are aborted, and what failed is tried again apart.
#[klamm::test]
async fn records_that_fail_in_a_batch_are_taken_out_of_it(kit: TestKit) {
    let (_app, seen) = batches(&kit, &["0", "1", "weak", "2", "bad", "bad", "3"]).await;
    let expected = ["0,1,weak,2,bad,bad,3", "0,1", "weak", "2", "bad,bad", "3"];
    assert_eq!(seen.all(), expected);
    assert_eq!(committed(&kit, "a").await, ["0", "1", "weak", "2", "3"]);
    assert_eq!(committed(&kit, "in-dlt").await, ["bad", "bad"]);
}

#[klamm::test]
async fn a_batch_that_fails_as_a_whole_comes_again_as_a_whole(kit: TestKit) {
    let (_app, seen) = batches(&kit, &["0", "all", "1"]).await;
    assert_eq!(seen.all(), ["0,all,1"; 2]);
    assert_eq!(committed(&kit, "a").await, ["0", "all", "1"]);
}

async fn numbers(batch: Batch<Value<i64>>, tx: Tx, State(seen): State<Seen>) -> Result<(), BoxError> {
    for Value(number) in batch {
        seen.add(number.to_string());
        tx.send("a", "k", number.to_string()).await?;
    }
    Ok(())
}

/// What does not decode never got to the handler: the others need not come again.
#[klamm::test]
async fn records_that_do_not_decode_keep_no_batch_from_its_commit(kit: TestKit) {
    kit.create_topic("in", 1).await;
    for number in 0..3_i64 {
        kit.send("in", "k", number).await;
        kit.send("in", "k", "no number").await;
    }
    let seen = Seen::default();
    let listener = Listener::on("in").group("g").transactional().batch(100, Duration::ZERO).handle(numbers);
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    app.handled("numbers", 6).await;
    assert_eq!(seen.all(), ["0", "1", "2"]);
    assert_eq!(committed(&kit, "a").await, ["0", "1", "2"]);
    assert_eq!(committed(&kit, "in-dlt").await.len(), 3);
    assert_eq!(kit.committed("g", "in", 0).await, Some(6));
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
    seen.add(format!("{text} sent"));
    Ok(())
}

fn gating() -> Listener {
    Listener::on("in").group("g").transactional().on_failure(FailurePolicy::new()).handle(gated)
}

#[klamm::test]
async fn a_drain_finishes_the_transaction_that_is_open(kit: TestKit) {
    kit.create_topic("in", 1).await;
    let (seen, gate) = (Seen::default(), Gate::default());
    let app = kit.app().state(seen.clone()).state(gate.clone()).listener(gating()).start().await;
    for text in ["one", "two"] {
        kit.send("in", "k", text).await;
    }
    until(|| seen.count("one") == 1).await;
    let opener = async {
        sleep(Duration::from_secs(2)).await;
        gate.let_through(1);
    };
    let (report, ()) = tokio::join!(app.stop(), opener);
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(committed(&kit, "b").await, ["one"]);
    assert_eq!(kit.committed("g", "in", 0).await, Some(1));
}

/// What was cut off is not to be seen, and whoever comes next waits for no timeout.
#[klamm::test]
async fn a_drain_aborts_what_does_not_end_in_time(kit: TestKit) {
    kit.create_topic("in", 1).await;
    let (seen, gate) = (Seen::default(), Gate::default());
    let app = || kit.app().state(seen.clone()).state(gate.clone()).listener(gating());
    let first = app().start().await;
    kit.send("in", "k", "one").await;
    until(|| seen.count("one") == 1).await;
    let report = first.shutdown(Duration::from_secs(2)).await;
    assert_eq!(report.unfinished.len(), 1);
    gate.let_through(1);
    let started = tokio::time::Instant::now();
    let second = app().start().await;
    second.handled("gated", 1).await;
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    for topic in ["a", "b"] {
        assert_eq!(committed(&kit, topic).await, ["one"]);
    }
    assert_eq!(written(&kit, "a").await, 2, "one of them was aborted");
}

#[klamm::test]
async fn the_next_owner_of_a_partition_ends_at_once_what_the_last_one_left_open(kit: TestKit) {
    takes_over(kit, false).await;
}

#[klamm::test]
async fn so_does_one_that_begins_at_the_end(kit: TestKit) {
    takes_over(kit, true).await;
}

/// After an instance that is gone without a word, with a transaction open.
async fn takes_over(kit: TestKit, latest: bool) {
    kit.create_topic("in", 1).await;
    let (seen, gate) = (Seen::default(), Gate::default());
    let group = kit.client().consumer().group("g").topics(["in"]).start().await.unwrap();
    let metadata = || group.handle().group_metadata().unwrap();
    while group.handle().assignment().is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    kit.send("in", "k", "one").await;
    let producer = kit.client().producer().transactional_id("g/in/0");
    let mut producer = producer.transaction_timeout(10 * MINUTE).build().unwrap();
    let dead = producer.begin().await.unwrap();
    dead.send(Record::to("a").partition(0).value("of the dead")).await.unwrap();
    dead.send_offsets([(("in", 0), 1)], &metadata()).await.unwrap();
    group.close().await.unwrap();
    gate.let_through(1);
    let started = tokio::time::Instant::now();
    let listener = || Listener::on("in").group("g").transactional().on_failure(FailurePolicy::new());
    let listener = match latest {
        // It asks for committed offsets before it begins.
        true => listener().offset_reset(klamm::client::OffsetReset::Latest).handle(gated),
        false => listener().handle(gated),
    };
    let app = kit.app().state(seen.clone()).state(gate.clone()).listener(listener).start().await;
    if latest {
        kit.send("in", "k", "one").await;
    }
    app.handled("gated", 1).await;
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert_eq!(committed(&kit, "a").await, ["one"]);
    assert_eq!(kit.committed("g", "in", 0).await, Some(if latest { 2 } else { 1 }));
    assert!(dead.commit().await.is_err());
}

/// The one's output is the other's input: it ends in markers, and nobody stands before them for ever.
#[klamm::test]
async fn what_is_committed_is_another_listeners_input(kit: TestKit) {
    for topic in ["in", "a"] {
        kit.create_topic(topic, 1).await;
    }
    let on_failure =
        || FailurePolicy::new().retry_in_place(Backoff::fixed(Duration::from_secs(1)).attempts(3));
    let next = Listener::on("a").group("next").id("next").transactional().on_failure(on_failure());
    let next = next.handle(|Value(text): Value<String>, tx: Tx| async move { tx.send("c", "k", text).await });
    let app = kit.app().state(Seen::default()).listener(copying()).listener(next).start().await;
    for text in ["0", "weak", "bad", "1"] {
        kit.send("in", "k", text).await;
    }
    app.handled("copies", 4).await;
    app.handled("next", 3).await;
    assert_eq!(committed(&kit, "c").await, ["0", "weak", "1"]);
    sleep(Duration::from_secs(5)).await;
    let consumer = kit.client().consumer().assign([("a", 0)]).start().await.unwrap();
    let end = consumer.handle().end_offsets(&[("a", 0).into()]).await.unwrap();
    assert_eq!(kit.committed("next", "a", 0).await, end.into_values().next());
    assert_eq!(app.listener("next").unwrap().lag(), Some(0));
}

async fn keeps(tx: Tx, State(kept): State<Kept>) {
    kept.0.lock().unwrap().push(tx);
}

#[derive(Clone, Default)]
struct Kept(std::sync::Arc<std::sync::Mutex<Vec<Tx>>>);

#[klamm::test]
async fn a_tx_that_is_kept_is_of_no_use_after_the_handler(kit: TestKit) {
    kit.create_topic("in", 1).await;
    kit.send("in", "k", "v").await;
    let kept = Kept::default();
    let listener = Listener::on("in").group("g").transactional().handle(keeps);
    let app = kit.app().state(kept.clone()).listener(listener).start().await;
    app.handled("keeps", 1).await;
    let tx = kept.0.lock().unwrap().pop().unwrap();
    assert!(tx.send("a", "k", "late").await.is_err());
    assert!(committed(&kit, "a").await.is_empty());
}

async fn wrong(tx: Tx) {
    drop(tx);
}

#[klamm::test]
async fn what_cannot_be_transactional_is_refused_at_the_start(kit: TestKit) {
    let on = || Listener::on("in").group("g");
    let listeners = [
        (on().handle(wrong), "call `transactional()`"),
        (on().transactional().dispatch(Dispatch::by_key()).handle(wrong), "not by partition"),
        (on().transactional().dispatch(Dispatch::unordered()).handle(wrong), "not by partition"),
        (on().transactional().ack(AckPolicy::Record).handle(wrong), "leave `ack` out"),
        (on().transactional().isolation(IsolationLevel::ReadUncommitted).handle(wrong), "reads uncommitted"),
        (on().transactional().transaction_timeout(Duration::ZERO).handle(wrong), "every transaction at once"),
        (on().transaction_timeout(MINUTE).handle(|| async {}), "not transactional"),
    ];
    for (listener, said) in listeners {
        let error = kit.app().listener(listener).try_start().await.unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[kafka_listener(topics = "in", group = "g", transactional, transaction_timeout = "30s")]
async fn annotated(Value(text): Value<String>, tx: Tx) -> Result<(), Error> {
    tx.send("a", "k", text).await?;
    Ok(())
}

#[klamm::test]
async fn the_attribute_says_the_same(kit: TestKit) {
    kit.create_topic("in", 1).await;
    let app = kit.app().listener(annotated).start().await;
    kit.send("in", "k", "v").await;
    app.handled("annotated", 1).await;
    assert_eq!(committed(&kit, "a").await, ["v"]);
}

/// A start that moves is committed in a transaction, too.
#[klamm::test]
async fn a_group_that_begins_at_the_end_remembers_where(kit: TestKit) {
    kit.create_topic("in", 1).await;
    kit.send("in", "k", "before").await;
    let latest = || {
        let listener = Listener::on("in").group("g").transactional();
        listener.offset_reset(klamm::client::OffsetReset::Latest).handle(copies)
    };
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(latest()).start().await;
    assert_eq!(kit.committed("g", "in", 0).await, Some(1));
    assert!(app.stop().await.is_clean());
    kit.send("in", "k", "between").await;
    let app = kit.app().state(seen.clone()).listener(latest()).start().await;
    app.handled("copies", 1).await;
    assert_eq!(committed(&kit, "a").await, ["between"]);
}
