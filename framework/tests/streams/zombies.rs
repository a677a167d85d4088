//! At least once, and never behind: members that their group may have gone on without, and what they do not write.

use std::time::Duration;

use klamm::client::testing::Answer;
use klamm::client::{ApiKey, ErrorCode, TopicPartition};
use klamm::store::StoreError;
use klamm::streams::{AppState, StreamsError};
use klamm::testing::TestKit;

use crate::pipeline::{APPLICATION, CHANGELOG, Pipeline, SESSION, caught_up, topology, until};

const NEVER: Duration = Duration::from_secs(100_000);

/// Where the changelog ends, all partitions together.
async fn changelog_end(kit: &TestKit) -> i64 {
    let partitions: Vec<_> = (0..4).map(|n| TopicPartition::new(CHANGELOG, n)).collect();
    let reader = kit.client().consumer().assign(partitions.clone()).start().await.unwrap();
    reader.handle().end_offsets(&partitions).await.unwrap().values().sum()
}

/// A process that was stopped for longer than its session flushed its cache before its commit was refused, over what
/// the next owner had written.
#[klamm::test]
async fn what_a_member_holds_whose_heartbeats_are_not_answered_is_not_written(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let app = topology().start(pipeline.config(1).commit_interval(NEVER)).await.unwrap();
    pipeline.feed(100).await;
    caught_up(&app).await;
    let before = changelog_end(&kit).await;
    pipeline.feed(100).await;
    until(|| app.metrics().processed == 200).await;
    // What it has in its cache is not to leave it any more.
    kit.faults().always(ApiKey::Heartbeat, Answer::Hang);
    tokio::time::sleep(SESSION * 8 / 10).await;
    app.commit().await;
    assert_eq!(changelog_end(&kit).await, before, "nothing is flushed");
    kit.faults().behave().disconnect();
    caught_up(&app).await;
    pipeline.counts_are_right(&[&app]).await;
    app.close().await.unwrap();
}

/// Cut off from its group, a member went on to answer queries with what others had changed meanwhile.
#[klamm::test]
async fn a_member_that_is_cut_off_answers_no_queries(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let app = topology().start(pipeline.config(1)).await.unwrap();
    pipeline.feed(100).await;
    caught_up(&app).await;
    let store = app.store::<String, i64>("counts").unwrap();
    assert!(store.get("k1").await.unwrap().is_some());
    kit.faults().always(ApiKey::Heartbeat, Answer::Hang).always(ApiKey::JoinGroup, Answer::Hang);
    tokio::time::sleep(SESSION / 3).await;
    assert!(store.get("k1").await.unwrap().is_some(), "the group cannot have gone on yet");
    tokio::time::sleep(SESSION).await;
    let refused = store.get("k1").await.unwrap_err();
    assert!(matches!(refused, StoreError::CutOff { .. } | StoreError::NotHere { .. }), "{refused}");
    kit.faults().behave().disconnect();
    // It is a member again, and has its partitions again.
    while store.get("k1").await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // They come one by one.
    caught_up(&app).await;
    pipeline.counts_are_right(&[&app]).await;
    app.close().await.unwrap();
}

/// Whoever asked for what is stale was refused, too.
#[klamm::test]
async fn a_process_that_stood_still_past_its_session_refuses_unless_what_is_stale_will_do(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let app = topology().start(pipeline.config(1)).await.unwrap();
    pipeline.feed(100).await;
    caught_up(&app).await;
    let store = app.store::<String, i64>("counts").unwrap();
    // The heart of the member beats on this thread.
    std::thread::sleep(SESSION);
    let refused = store.get("k1").await.unwrap_err();
    assert!(matches!(&refused, StoreError::CutOff { session, .. } if *session == SESSION), "{refused}");
    assert_eq!(store.clone().with_standbys().get("k1").await.unwrap(), Some(pipeline.counts()["k1"]));
    while store.get("k1").await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    caught_up(&app).await;
    pipeline.counts_are_right(&[&app]).await;
    app.close().await.unwrap();
}

#[klamm::test]
async fn an_expelled_member_drops_what_it_holds_and_begins_again(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let app = topology().start(pipeline.config(1)).await.unwrap();
    for _ in 0..4 {
        pipeline.feed(200).await;
        kit.expel(APPLICATION).await;
        pipeline.feed(200).await;
        caught_up(&app).await;
    }
    for (key, count) in pipeline.counts() {
        let found = app.store::<String, i64>("counts").unwrap().get(key.clone()).await.unwrap();
        assert!(found >= Some(count), "{key}: {found:?} of {count}");
    }
    app.close().await.unwrap();
}

/// Offsets were begun at what was handed out last, not at what was committed.
#[klamm::test]
async fn partitions_lost_before_the_first_commit_begin_at_their_beginning(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let app = topology().start(pipeline.config(1).commit_interval(NEVER)).await.unwrap();
    pipeline.feed(500).await;
    until(|| app.metrics().processed == 500).await;
    kit.expel(APPLICATION).await;
    tokio::time::sleep(SESSION).await;
    pipeline.feed(500).await;
    caught_up(&app).await;
    pipeline.counts_are_right(&[&app]).await;
    app.close().await.unwrap();
}

#[klamm::test]
async fn a_second_instance_beside_one_that_has_not_committed_takes_all_of_its_share(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let slow = topology().start(pipeline.config(1).commit_interval(NEVER)).await.unwrap();
    pipeline.feed(500).await;
    until(|| slow.metrics().processed > 0).await;
    let second = topology().start(pipeline.config(2).commit_interval(NEVER)).await.unwrap();
    pipeline.feed(500).await;
    until(|| second.metrics().tasks == 2).await;
    tokio::join!(caught_up(&slow), caught_up(&second));
    pipeline.is_exact(&[&slow, &second]).await;
    slow.close().await.unwrap();
    second.close().await.unwrap();
}

#[klamm::test]
async fn offsets_that_may_not_be_committed_end_the_application(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let app = topology().start(pipeline.config(1)).await.unwrap();
    kit.faults().always(ApiKey::OffsetCommit, Answer::Error(ErrorCode::GroupAuthorizationFailed));
    pipeline.feed(10).await;
    let failure = app.ended().await.unwrap_err();
    assert!(matches!(&*failure, StreamsError::Consume(_)), "{failure}");
    assert!(failure.to_string().contains("GROUP_AUTHORIZATION_FAILED"), "{failure}");
}

#[klamm::test]
async fn a_coordinator_that_is_away_for_a_while_is_waited_for(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let app = topology().start(pipeline.config(1)).await.unwrap();
    kit.faults().next(ApiKey::OffsetCommit, 20, Answer::Error(ErrorCode::CoordinatorLoadInProgress));
    pipeline.feed(100).await;
    caught_up(&app).await;
    pipeline.is_exact(&[&app]).await;
    app.close().await.unwrap();
}

#[klamm::test]
async fn nothing_is_committed_whose_effects_are_not_acknowledged(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let app = topology().start(pipeline.config(1)).await.unwrap();
    app.wait_for(AppState::Running).await.unwrap();
    app.pause();
    pipeline.feed(100).await;
    kit.faults().always(ApiKey::Produce, Answer::Hang);
    app.resume();
    until(|| app.metrics().processed == 100).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    for partition in 0..4 {
        assert_eq!(kit.committed(APPLICATION, "in", partition).await, None);
    }
    kit.faults().behave().disconnect();
    caught_up(&app).await;
    pipeline.counts_are_right(&[&app]).await;
    app.close().await.unwrap();
}

/// The group only shares out less, and all was silent.
#[klamm::test]
async fn a_deleted_source_topic_ends_the_application(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let app = topology().start(pipeline.config(1)).await.unwrap();
    pipeline.feed(10).await;
    caught_up(&app).await;
    kit.client().admin().delete_topics(&["in"]).await.unwrap();
    let failure = app.ended().await.unwrap_err();
    assert!(matches!(&*failure, StreamsError::TopicDeleted { topic, .. } if topic == "in"), "{failure}");
}

/// Behind the last record of a partition there may be the marker of a transaction, which no reader is handed.
#[klamm::test]
async fn markers_at_the_end_of_a_topic_do_not_count_as_left_over(kit: TestKit) {
    let pipeline = Pipeline::new(&kit).await;
    let app = topology().start(pipeline.config(1)).await.unwrap();
    let mut producer = kit.client().producer().transactional_id("feeder").build().unwrap();
    for commit in [true, false, true] {
        let transaction = producer.begin().await.unwrap();
        for key in ["a", "b", "c", "d", "e"] {
            let record = klamm::client::Record::to("in").key(key).value("v");
            transaction.send(record).await.unwrap();
        }
        if commit {
            transaction.commit().await.unwrap();
        } else {
            transaction.abort().await.unwrap();
        }
        caught_up(&app).await;
    }
    app.close().await.unwrap();
}
