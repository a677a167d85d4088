//! Exactly once, whatever happens: broker restarts and crashes, cut connections, expelled members, instances that
//! vanish, come and go.

use std::time::Duration;

use klamm::client::testing::Answer;
use klamm::client::{ApiKey, NewTopic, Record, TopicPartition};
use klamm::streams::{StreamsApp, StreamsError};
use klamm::testing::TestKit;

use crate::pipeline::{APPLICATION, CHANGELOG, PARTITIONS, Pipeline, caught_up, topology, until};

async fn start(pipeline: &Pipeline, instance: usize) -> StreamsApp {
    topology().start(pipeline.config(instance).exactly_once().threads(2)).await.unwrap()
}

#[klamm::test]
async fn every_effect_is_there_once(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let app = start(&pipeline, 1).await;
    for _ in 0..3 {
        pipeline.feed(500).await;
        caught_up(&app).await;
        pipeline.is_exact(&[&app]).await;
    }
    assert_eq!(app.metrics().restored, 0);
    app.close().await.unwrap();
}

#[klamm::test]
async fn a_restart_goes_on_where_the_last_transaction_ended(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    for _ in 0..3 {
        pipeline.feed(300).await;
        let app = start(&pipeline, 1).await;
        caught_up(&app).await;
        pipeline.is_exact(&[&app]).await;
        assert_eq!(app.metrics().restored, 0, "what is on disk is what was committed");
        app.close().await.unwrap();
    }
}

/// Something happens again and again while records are processed.
async fn under(kit: &TestKit, trouble: impl AsyncFn(&Pipeline, usize)) {
    let mut pipeline = Pipeline::new(kit).await;
    let app = start(&pipeline, 1).await;
    pipeline.feed(100).await;
    caught_up(&app).await;
    for round in 0..4 {
        pipeline.feed(300).await;
        trouble(&pipeline, round).await;
        pipeline.feed(300).await;
        tokio::time::sleep(Duration::from_millis(40 * round as u64)).await;
    }
    caught_up(&app).await;
    pipeline.is_exact(&[&app]).await;
    app.close().await.unwrap();
    // And so it is for the next one.
    let next = start(&pipeline, 1).await;
    caught_up(&next).await;
    pipeline.is_exact(&[&next]).await;
    next.close().await.unwrap();
}

#[klamm::test]
async fn once_although_the_broker_restarts(kit: TestKit) {
    under(&kit, async |pipeline: &Pipeline, _| pipeline.kit.restart_broker().await).await;
}

#[klamm::test]
async fn once_although_the_broker_crashes(kit: TestKit) {
    under(&kit, async |pipeline: &Pipeline, _| pipeline.kit.crash_broker().await).await;
}

#[klamm::test]
async fn once_although_connections_are_cut(kit: TestKit) {
    under(&kit, async |pipeline: &Pipeline, _| {
        pipeline.kit.faults().disconnect();
    })
    .await;
}

#[klamm::test]
async fn once_although_the_member_is_expelled(kit: TestKit) {
    under(&kit, async |pipeline: &Pipeline, _| pipeline.kit.expel(APPLICATION).await).await;
}

/// The transaction was still open when the next incarnation of the tasks began, and was committed with what that did.
#[klamm::test]
async fn what_a_member_wrote_before_it_was_expelled_is_not_committed_by_its_next_life(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let config = pipeline.config(1).exactly_once().commit_interval(Duration::from_secs(100_000));
    let app = topology().start(config).await.unwrap();
    for round in 1..4 {
        let before = app.metrics().processed;
        pipeline.feed(100).await;
        until(|| app.metrics().processed >= before + 100).await;
        kit.expel(APPLICATION).await;
        // They are processed again, by the same process.
        until(|| app.metrics().processed >= before + 200).await;
        caught_up(&app).await;
        assert_eq!(pipeline.counts().values().sum::<i64>(), 100 * round);
        pipeline.is_exact(&[&app]).await;
    }
    app.close().await.unwrap();
}

/// Whether a commit was done is not known, and is found out.
#[klamm::test]
async fn once_although_answers_to_commits_get_lost(kit: TestKit) {
    under(&kit, async |pipeline: &Pipeline, round| {
        let answer = if round % 2 == 0 { Answer::DisconnectAfter } else { Answer::DisconnectBefore };
        pipeline.kit.faults().next(ApiKey::EndTxn, 2, answer.clone());
        pipeline.kit.faults().next(ApiKey::TxnOffsetCommit, 2, answer);
    })
    .await;
}

/// The coordinator gives up a transaction that is open for too long; its producer is fenced, and goes on with another.
#[klamm::test]
async fn once_although_the_coordinator_gave_a_transaction_up(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let app = start(&pipeline, 1).await;
    pipeline.feed(100).await;
    caught_up(&app).await;
    kit.faults().next(ApiKey::EndTxn, 2, Answer::Hang);
    pipeline.feed(300).await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    kit.faults().disconnect();
    pipeline.feed(300).await;
    caught_up(&app).await;
    pipeline.is_exact(&[&app]).await;
    app.close().await.unwrap();
}

/// A crash leaves files as they were at some moment, and a transaction open; no state is wiped for that.
#[klamm::test]
async fn an_instance_that_vanishes_leaves_nothing_half_done(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    for round in 0..4 {
        let app = start(&pipeline, 1).await;
        pipeline.feed(400).await;
        let some = 100 * round;
        until(|| app.metrics().processed > some).await;
        drop(app);
    }
    let app = start(&pipeline, 1).await;
    caught_up(&app).await;
    pipeline.is_exact(&[&app]).await;
    app.close().await.unwrap();
}

#[klamm::test]
async fn once_although_instances_come_and_go(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let first = start(&pipeline, 1).await;
    pipeline.feed(500).await;
    let second = start(&pipeline, 2).await;
    pipeline.feed(500).await;
    caught_up(&first).await;
    let third = start(&pipeline, 3).await;
    pipeline.feed(500).await;
    drop(second); // Vanishes; the others hear of it after a session.
    pipeline.feed(500).await;
    caught_up(&third).await;
    first.close().await.unwrap();
    pipeline.feed(500).await;
    caught_up(&third).await;
    until(|| third.metrics().tasks == 4).await;
    caught_up(&third).await;
    pipeline.is_exact(&[&third]).await;
    third.close().await.unwrap();
}

#[klamm::test]
async fn an_instance_with_another_guarantee_is_refused(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let exact = start(&pipeline, 1).await;
    pipeline.feed(50).await;
    caught_up(&exact).await;
    let other = topology().start(pipeline.config(2)).await.unwrap();
    let refused = other.ended().await.unwrap_err();
    assert!(matches!(*refused, StreamsError::MixedGuarantees { .. }), "{refused}");
    pipeline.feed(50).await;
    caught_up(&exact).await;
    pipeline.is_exact(&[&exact]).await;
    exact.close().await.unwrap();
}

/// A broker answers a commit before all its markers are written: whoever feeds in a transaction and then waits until
/// all is processed was told so before the records could be read.
#[klamm::test]
async fn records_of_an_open_transaction_are_left_to_process(kit: TestKit) {
    let pipeline = Pipeline::new(&kit).await;
    let app = start(&pipeline, 1).await;
    caught_up(&app).await;
    let mut producer = kit.client().producer().transactional_id("feeder").build().unwrap();
    let transaction = producer.begin().await.unwrap();
    transaction.send(Record::to("in").key("a").value("v")).await.unwrap();
    assert_eq!(app.lag().await.unwrap(), 1);
    transaction.commit().await.unwrap();
    caught_up(&app).await;
    app.close().await.unwrap();
}

/// What the last owner of a task was about to commit belongs to it, however late that is decided: who asked where the
/// changelog ends before that restored less than the offsets say.
#[klamm::test]
async fn what_the_last_owner_commits_while_its_task_is_taken_over_is_restored(kit: TestKit) {
    let pipeline = Pipeline::new(&kit).await;
    let changelog = NewTopic::new(CHANGELOG).partitions(PARTITIONS).config("cleanup.policy", "compact");
    kit.client().admin().create_topics(&[changelog]).await.unwrap();
    kit.send_to("in", 0, "a", "1").await;
    kit.send_to("in", 0, "a", "2").await;
    // Both are processed by a member whose first transaction is still open when the next owner begins.
    let mut last_owner = kit.client().producer().transactional_id("last-owner").build().unwrap();
    let transaction = last_owner.begin().await.unwrap();
    let input = TopicPartition::new("in", 0);
    let reader = kit.client().consumer().group(APPLICATION).assign([input.clone()]).start().await.unwrap();
    let member = reader.handle().group_metadata().unwrap();
    transaction.send_offsets([(input, 2)], &member).await.unwrap();
    reader.close().await.unwrap();
    let asked = || kit.faults().seen(ApiKey::OffsetFetch).len();
    let before = asked();
    let app = start(&pipeline, 1).await;
    // Whoever asks for them is told that they are not decided, and asks again.
    until(|| asked() >= before + 6).await;
    for count in [1_i64, 2] {
        let change = Record::to(CHANGELOG).partition(0).key("a").value(count.to_be_bytes().to_vec());
        transaction.send(change).await.unwrap();
    }
    transaction.commit().await.unwrap();
    kit.send_to("in", 0, "a", "3").await;
    caught_up(&app).await;
    let counts = app.store::<String, i64>("counts").unwrap();
    assert_eq!(counts.get("a").await.unwrap(), Some(3));
    app.close().await.unwrap();
}
