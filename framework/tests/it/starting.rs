//! `start` resolves when there is something to start with, or says why not.

use std::time::Duration;

use klamm::app::StartError;
use klamm::client::testing::{Answer, FakeBroker};
use klamm::client::{ApiKey, ErrorCode, OffsetReset};
use klamm::prelude::*;
use klamm::testing::TestKit;
use tokio::time::Instant;

use crate::seen::{Seen, note, until};

/// What was sent right after the start was missed by a listener that begins at the end.
#[klamm::test]
async fn what_is_sent_after_the_start_is_seen(kit: TestKit) {
    kit.create_topic("t", 3).await;
    let seen = Seen::default();
    let listener = Listener::on("t").group("g").offset_reset(OffsetReset::Latest).handle(note);
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    assert_eq!(app.listener("note").unwrap().assignment().len(), 3);
    for partition in 0..3 {
        kit.send_to("t", partition, "k", "v").await;
    }
    app.handled("note", 3).await;
}

#[klamm::test]
async fn a_member_without_a_partition_has_started(kit: TestKit) {
    kit.create_topic("t", 1).await;
    let app = || kit.app().state(Seen::default()).listener(Listener::on("t").group("g").handle(note));
    let first = app().start().await;
    let second = app().start().await;
    let assigned = |app: &klamm::testing::RunningTestApp| app.listener("note").unwrap().assignment().len();
    until(|| assigned(&first) + assigned(&second) == 1).await;
}

async fn started(broker: &FakeBroker, deadline: Duration) -> (Result<AppHandle, StartError>, Duration) {
    let started = Instant::now();
    let app =
        App::with_client(broker.client().await.unwrap()).state(Seen::default()).start_deadline(deadline);
    let app = app.listener(Listener::on("t").group("g").handle(note)).start().await;
    (app, started.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_group_that_refuses_the_listener_is_told() {
    let broker = FakeBroker::start_in_memory().await.unwrap();
    broker.topic("t", 1);
    broker.always(ApiKey::JoinGroup, Answer::Error(ErrorCode::GroupAuthorizationFailed));
    let (refused, took) = started(&broker, Duration::from_secs(600)).await;
    let error = refused.unwrap_err();
    assert!(matches!(error, StartError::Stopped { .. }), "{error}");
    assert!(error.to_string().starts_with("listener `note` does not start: group g: "), "{error}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_may_not_be_read_is_told() {
    let broker = FakeBroker::start_in_memory().await.unwrap();
    broker.topic("t", 1);
    broker.always_for("t", ApiKey::Metadata, Answer::Error(ErrorCode::TopicAuthorizationFailed));
    let (refused, _) = started(&broker, Duration::from_secs(30)).await;
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("topic t") && error.contains("allow this user to read it"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_group_that_takes_too_long_is_told() {
    let broker = FakeBroker::start_in_memory().await.unwrap();
    broker.topic("t", 1);
    broker.always(ApiKey::JoinGroup, Answer::Hang);
    let (refused, took) = started(&broker, Duration::from_secs(20)).await;
    let error = refused.unwrap_err();
    assert!(matches!(error, StartError::NotAssigned { .. }), "{error}");
    assert!(error.to_string().contains("within 20s"), "{error}");
    assert!((Duration::from_secs(20)..Duration::from_secs(60)).contains(&took), "{took:?}");
}

/// It may be made later, so that this alone keeps no app from starting; but it is not silent.
#[tokio::test(start_paused = true)]
async fn a_topic_that_does_not_exist_is_waited_for() {
    let broker = FakeBroker::start_in_memory().await.unwrap();
    broker.without(ApiKey::CreateTopics).always_for(
        "t",
        ApiKey::Metadata,
        Answer::Error(ErrorCode::UnknownTopicOrPartition),
    );
    let (started, _) = started(&broker, Duration::from_secs(60)).await;
    let trouble = match started {
        Ok(app) => {
            let handle = app.listener("note").unwrap();
            until(|| !handle.troubles().is_empty()).await;
            handle.troubles().remove(0).to_string()
        }
        Err(error) => error.to_string(),
    };
    assert!(trouble.contains("topic t: ") && trouble.contains("auto.create.topics.enable"), "{trouble}");
}
