//! What is on disk and what is in the changelogs, when they come together again.

use std::path::Path;
use std::time::Duration;

use klamm::client::admin::{ConfigChange, ConfigResource};
use klamm::client::testing::Answer;
use klamm::client::{ApiKey, Record, TopicPartition};
use klamm::streams::{StreamsApp, StreamsBuilder, StreamsConfig, StreamsError, Topology};
use klamm::testing::TestKit;

use crate::pipeline::{CHANGELOG, Pipeline, SESSION, caught_up, on_real_time, topology, until};

/// What an earlier restore still had under way was applied to the next incarnation of its task, and its end ended the
/// next one's.
#[klamm::test]
async fn scaling_out_during_a_restore_leaves_no_key_behind(kit: TestKit) {
    for exactly_once in [false, true] {
        restore_while_scaling_out(&kit, exactly_once).await;
        for topic in ["in", "echo", "totals", CHANGELOG] {
            kit.client().admin().delete_topics(&[topic]).await.unwrap();
        }
        kit.client().admin().delete_groups(&[crate::pipeline::APPLICATION]).await.unwrap();
    }
}

async fn restore_while_scaling_out(kit: &TestKit, exactly_once: bool) {
    let mut pipeline = Pipeline::new(kit).await;
    let config = |instance: usize| match exactly_once {
        true => pipeline_config(&pipeline, instance).exactly_once(),
        false => pipeline_config(&pipeline, instance),
    };
    let first = topology().start(config(1)).await.unwrap();
    let configs = [config(2), config(3), config(4)];
    for _ in 0..10 {
        pipeline.feed(100).await;
        caught_up(&first).await;
    }
    first.close().await.unwrap();
    // Of every changelog a little at a time, and slowly.
    kit.faults().next(ApiKey::Fetch, 60, Answer::Delayed(Duration::from_millis(700)));
    let mut apps: Vec<StreamsApp> = Vec::new();
    for config in configs {
        apps.push(topology().start(config).await.unwrap());
        pipeline.feed(50).await;
        tokio::time::sleep(Duration::from_millis(1_500)).await;
    }
    for app in &apps {
        caught_up(app).await;
    }
    pipeline.is_exact(&apps.iter().collect::<Vec<_>>()).await;
    for app in apps {
        app.close().await.unwrap();
    }
}

fn pipeline_config(pipeline: &Pipeline, instance: usize) -> StreamsConfig {
    pipeline.config(instance)
}

fn users() -> Topology {
    let mut streams = StreamsBuilder::new();
    streams.table::<String, String>("users");
    streams.build().unwrap()
}

const USERS_CHANGELOG: &str = "people-users-table-changelog";

fn people(kit: &TestKit, directory: &Path) -> StreamsConfig {
    let config = StreamsConfig::new("people", kit.bootstrap()).client(kit.client().clone());
    config.state_dir(directory).commit_interval(Duration::from_millis(100)).session_timeout(SESSION)
}

async fn all(app: &StreamsApp) -> Vec<(String, String)> {
    app.store::<String, String>("users-table").unwrap().all().await.unwrap()
}

/// An instance has `a` and `b`; another one deletes `a`, of which nothing is left in the changelog; the first is back.
async fn back_after_a_deletion(kit: &TestKit, forget: impl AsyncFn(&TestKit)) {
    on_real_time(kit);
    kit.create_topic("users", 1).await;
    let root = tempfile::tempdir().unwrap();
    let (here, there) = (root.path().join("here"), root.path().join("there"));
    let app = users().start(people(kit, &here)).await.unwrap();
    kit.send("users", "a", "1").await;
    kit.send("users", "b", "1").await;
    caught_up(&app).await;
    app.close().await.unwrap();

    let app = users().start(people(kit, &there)).await.unwrap();
    kit.send_record(Record { key: Some("a".into()), ..Record::to("users") }).await;
    kit.send("users", "b", "2").await;
    caught_up(&app).await;
    assert_eq!(all(&app).await, [("b".to_owned(), "2".to_owned())]);
    app.close().await.unwrap();
    forget(kit).await;

    let app = users().start(people(kit, &here)).await.unwrap();
    caught_up(&app).await;
    assert_eq!(all(&app).await, [("b".to_owned(), "2".to_owned())], "`a` is not back");
    app.close().await.unwrap();
}

#[klamm::test]
async fn rows_whose_deletion_is_not_in_the_log_any_more_do_not_come_back(kit: TestKit) {
    back_after_a_deletion(&kit, async |kit: &TestKit| {
        let changes =
            [(ConfigResource::topic(USERS_CHANGELOG), vec![ConfigChange::set("cleanup.policy", "delete")])];
        let changed = kit.client().admin().alter_configs(&changes.into()).await.unwrap();
        assert!(changed.values().all(Result::is_ok), "{changed:?}");
        let before = [(TopicPartition::new(USERS_CHANGELOG, 0), 3)].into();
        let deleted = kit.client().admin().delete_records(&before).await.unwrap();
        assert!(deleted.values().all(Result::is_ok), "{deleted:?}");
    })
    .await;
}

/// What a reset deletes, another instance fills anew, and more than before: rows of both were mixed.
#[klamm::test]
async fn a_store_of_a_changelog_that_is_another_by_now_is_refused(kit: TestKit) {
    on_real_time(&kit);
    kit.create_topic("users", 1).await;
    let root = tempfile::tempdir().unwrap();
    let (here, there) = (root.path().join("here"), root.path().join("there"));
    let app = users().start(people(&kit, &here)).await.unwrap();
    kit.send("users", "a", "1").await;
    kit.send("users", "b", "1").await;
    caught_up(&app).await;
    app.close().await.unwrap();

    let admin = kit.client().admin();
    for topic in ["users", USERS_CHANGELOG] {
        assert!(admin.delete_topics(&[topic]).await.unwrap().values().all(Result::is_ok));
    }
    assert!(admin.delete_groups(&["people"]).await.unwrap().values().all(Result::is_ok));
    kit.create_topic("users", 1).await;
    let app = users().start(people(&kit, &there)).await.unwrap();
    for turn in 2..6 {
        kit.send("users", "b", turn.to_string().as_str()).await;
        caught_up(&app).await;
    }
    app.close().await.unwrap();

    let app = users().start(people(&kit, &here)).await.unwrap();
    let refused = tokio::time::timeout(SESSION, app.ended()).await.expect("it ends").unwrap_err();
    let StreamsError::OtherChangelog { directory, .. } = &*refused else { panic!("{refused}") };
    assert!(refused.to_string().contains(directory), "{refused}");
    drop(app);
    std::fs::remove_dir_all(directory).unwrap();
    let app = users().start(people(&kit, &here)).await.unwrap();
    caught_up(&app).await;
    assert_eq!(all(&app).await, [("b".to_owned(), "5".to_owned())]);
    app.close().await.unwrap();
}

/// Compaction has taken the tombstone, which is as if it had not been written.
#[klamm::test]
async fn a_store_that_is_older_than_tombstones_is_built_anew(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let first = topology().start(pipeline.config(1)).await.unwrap();
    pipeline.feed(100).await;
    caught_up(&first).await;
    first.close().await.unwrap();
    let other = topology().start(pipeline.config(2)).await.unwrap();
    pipeline.feed(7).await;
    caught_up(&other).await;
    other.close().await.unwrap();
    // Without a doubt, the rest is enough.
    let again = topology().start(pipeline.config(1)).await.unwrap();
    caught_up(&again).await;
    let rest = again.metrics().restored;
    again.close().await.unwrap();
    let other = topology().start(pipeline.config(2)).await.unwrap();
    pipeline.feed(7).await;
    caught_up(&other).await;
    other.close().await.unwrap();
    let changelog = ConfigResource::topic(CHANGELOG);
    let set = ConfigChange::set("delete.retention.ms", "0");
    kit.client().admin().alter_configs(&[(changelog, vec![set])].into()).await.unwrap();
    let anew = topology().start(pipeline.config(1)).await.unwrap();
    caught_up(&anew).await;
    assert!(anew.metrics().restored > rest, "{} of {rest}", anew.metrics().restored);
    pipeline.counts_are_right(&[&anew]).await;
    anew.close().await.unwrap();
}

#[klamm::test]
async fn damaged_state_is_put_aside_and_built_anew(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let app = topology().start(pipeline.config(1)).await.unwrap();
    pipeline.feed(100).await;
    caught_up(&app).await;
    app.close().await.unwrap();
    let directory = pipeline.directory.path().join("1").join(crate::pipeline::APPLICATION);
    let mut damaged = 0;
    for task in std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()) {
        for file in std::fs::read_dir(&task).into_iter().flatten().map(|entry| entry.unwrap().path()) {
            if file.extension().is_some_and(|extension| extension == "sst") {
                std::fs::write(&file, vec![0x55; 3_000]).unwrap();
                damaged += 1;
            }
        }
    }
    assert!(damaged > 0);
    let app = topology().start(pipeline.config(1)).await.unwrap();
    pipeline.feed(100).await;
    caught_up(&app).await;
    pipeline.is_exact(&[&app]).await;
    app.close().await.unwrap();
    let aside = std::fs::read_dir(&directory).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().contains("damaged")
    });
    assert_eq!(aside.count(), 4);
}

/// A crash in the middle of a restore: what was applied counts, and the rest is read again.
#[klamm::test]
async fn a_restore_that_is_interrupted_goes_on(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let first = topology().start(pipeline.config(1)).await.unwrap();
    for _ in 0..10 {
        pipeline.feed(100).await;
        caught_up(&first).await;
    }
    first.close().await.unwrap();
    for _ in 0..3 {
        kit.faults().next(ApiKey::Fetch, 4, Answer::Delayed(Duration::from_millis(700)));
        let app = topology().start(pipeline.config(2)).await.unwrap();
        until(|| app.metrics().tasks > 0).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        drop(app);
    }
    kit.faults().behave();
    let app = topology().start(pipeline.config(2)).await.unwrap();
    caught_up(&app).await;
    pipeline.is_exact(&[&app]).await;
    app.close().await.unwrap();
}
