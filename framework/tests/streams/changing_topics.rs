//! Topics that change under a running application: they get more partitions, are deleted, or were not read from their
//! beginning.

use std::time::Duration;

use klamm::client::admin::NewPartitions;
use klamm::client::testing::Answer;
use klamm::client::{ApiKey, ErrorCode, OffsetReset, Record};
use klamm::streams::{AppState, Consumed, StreamsApp, StreamsBuilder, StreamsError};
use klamm::testing::TestKit;

use crate::pipeline::{APPLICATION, CHANGELOG, Pipeline, caught_up, text, topology, until};

async fn grow(kit: &TestKit, topic: &str, count: i32) {
    let grown =
        kit.client().admin().create_partitions(&[(topic.into(), NewPartitions::total(count))].into()).await;
    let grown = grown.unwrap();
    assert!(grown.values().all(Result::is_ok), "{grown:?}");
}

async fn ended(app: &StreamsApp) -> std::sync::Arc<StreamsError> {
    let ended = tokio::time::timeout(Duration::from_secs(60), app.ended()).await;
    ended.unwrap_or_else(|_| panic!("it goes on: {app:?}")).unwrap_err()
}

/// The tasks of the new partitions waited for their changelogs for ever, in silence, and all others with them.
#[klamm::test]
async fn more_partitions_than_the_changelog_has_end_a_counting_application(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let app = topology().start(pipeline.config(1)).await.unwrap();
    pipeline.feed(50).await;
    caught_up(&app).await;
    grow(&kit, "in", 6).await;
    let failure = ended(&app).await;
    let told = failure.to_string();
    assert!(told.contains("in") && told.contains(CHANGELOG) && told.contains('6'), "{told}");
}

#[klamm::test]
async fn more_partitions_are_read_where_nothing_is_kept(kit: TestKit) {
    let pipeline = Pipeline::new(&kit).await;
    let mut streams = StreamsBuilder::new();
    streams.stream::<String, String>("in").to("echo");
    let app = streams.build().unwrap().start(pipeline.config(1)).await.unwrap();
    app.wait_for(AppState::Running).await.unwrap();
    grow(&kit, "in", 6).await;
    for partition in 0..6 {
        kit.send_record(Record::to("in").partition(partition).key("k").value(partition.to_string())).await;
    }
    until(|| app.metrics().processed == 6).await;
    caught_up(&app).await;
    assert_eq!(pipeline.read("echo").await.len(), 6);
    app.close().await.unwrap();
}

/// Its state went nowhere any more, and the application began again and again.
#[klamm::test]
async fn a_deleted_changelog_ends_the_application(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let app = topology().start(pipeline.config(1)).await.unwrap();
    pipeline.feed(50).await;
    caught_up(&app).await;
    kit.client().admin().delete_topics(&[CHANGELOG]).await.unwrap();
    pipeline.feed(50).await;
    let failure = ended(&app).await;
    // Whoever notices first: who looks at the topics, or a task that begins again with one that was made anew.
    let is_told = match &*failure {
        StreamsError::TopicDeleted { topic, .. } => topic == CHANGELOG,
        other => matches!(other, StreamsError::OtherChangelog { .. }),
    };
    assert!(is_told, "{failure}");
}

/// Records that were read for the first time were behind where the tasks began again, or all of the topic before them.
#[klamm::test]
async fn what_began_at_the_end_begins_there_again(kit: TestKit) {
    for exactly_once in [false, true] {
        let pipeline = Pipeline::new(&kit).await;
        for number in 0..20 {
            kit.send_to("in", 0, "k", format!("old{number}").as_str()).await;
        }
        let mut streams = StreamsBuilder::new();
        let latest = Consumed::<String, String>::default().offset_reset(OffsetReset::Latest);
        streams.stream_with("in", latest).to("echo");
        let config = pipeline.config(1).commit_interval(Duration::from_secs(1));
        let config = if exactly_once { config.exactly_once() } else { config };
        let app = streams.build().unwrap().start(config).await.unwrap();
        app.wait_for(AppState::Running).await.unwrap();
        // The first commit is not made, and the tasks begin again.
        match exactly_once {
            true => {
                let refused = Answer::Error(ErrorCode::UnknownMemberId);
                kit.faults().next(ApiKey::TxnOffsetCommit, 1, refused)
            }
            false => {
                let refused = Answer::Error(ErrorCode::NotLeaderOrFollower);
                kit.faults().always_for("echo", ApiKey::Produce, refused)
            }
        };
        // Until the end of the topic was looked up.
        tokio::time::sleep(Duration::from_secs(1)).await;
        for number in 0..5 {
            kit.send_to("in", 0, "k", format!("new{number}").as_str()).await;
        }
        until(|| app.metrics().processed >= 10).await;
        kit.faults().behave();
        until(|| app.metrics().commits > 0).await;
        app.commit().await;
        let mut echoes: Vec<String> = Vec::new();
        for record in pipeline.read("echo").await {
            echoes.push(text(&record.value.unwrap()));
        }
        echoes.sort();
        echoes.dedup();
        assert_eq!(echoes, ["new0", "new1", "new2", "new3", "new4"]);
        app.close().await.unwrap();
        kit.client().admin().delete_topics(&["in", "echo", "totals"]).await.unwrap();
        kit.client().admin().delete_groups(&[APPLICATION]).await.unwrap();
    }
}

/// A producer that left its transaction open on one topic does not hold up what is read beside it.
#[klamm::test]
async fn an_open_transaction_of_somebody_else_does_not_hold_up_other_topics(kit: TestKit) {
    let pipeline = Pipeline::new(&kit).await;
    for topic in ["L", "R"] {
        kit.create_topic(topic, 1).await;
    }
    let mut streams = StreamsBuilder::new();
    let left = streams.stream::<String, String>("L");
    let right = streams.table::<String, String>("R");
    left.left_join(&right, |l, r| format!("{l}{r:?}")).to("echo");
    let app = streams.build().unwrap().start(pipeline.config(1).exactly_once()).await.unwrap();
    app.wait_for(AppState::Running).await.unwrap();
    let mut producer = kit.client().producer().transactional_id("slow").build().unwrap();
    let transaction = producer.begin().await.unwrap();
    transaction.send(Record::to("R").key("k").value("open")).await.unwrap();
    kit.send("L", "k", "1").await;
    until(|| app.metrics().processed == 1).await;
    transaction.commit().await.unwrap();
    until(|| app.metrics().processed == 2).await;
    caught_up(&app).await;
    app.close().await.unwrap();
}
