//! What an application goes on after: answers out of the blue, damage that turns up late, topics that grow.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use klamm::client::admin::NewPartitions;
use klamm::client::testing::Answer;
use klamm::client::{ApiKey, ErrorCode, NewTopic, Record};
use klamm::store::{Batch, StateStore, StoreMemory, TaskDatabase};
use klamm::streams::{Consumed, Materialized, StreamsApp, StreamsBuilder, StreamsConfig, Topology};
use klamm::testing::TestKit;

use crate::pipeline::{APPLICATION, Pipeline, SESSION, caught_up, on_real_time, topology, until};

/// A coordinator that says so once and counts the member in as before: the tasks waited for another generation of the
/// group, which never came.
#[klamm::test]
async fn a_member_that_is_unknown_for_one_commit_only_goes_on(kit: TestKit) {
    for code in [ErrorCode::UnknownMemberId, ErrorCode::IllegalGeneration] {
        let mut pipeline = Pipeline::new(&kit).await;
        let app = topology().start(pipeline.config(1)).await.unwrap();
        pipeline.feed(50).await;
        caught_up(&app).await;
        kit.faults().next(ApiKey::OffsetCommit, 1, Answer::Error(code));
        pipeline.feed(50).await;
        let caught_up = tokio::time::timeout(Duration::from_secs(30), app.caught_up()).await;
        caught_up.unwrap_or_else(|_| panic!("stuck after one {code}: {app:?}")).unwrap();
        app.close().await.unwrap();
        for topic in ["in", "echo", "totals", crate::pipeline::CHANGELOG] {
            kit.client().admin().delete_topics(&[topic]).await.unwrap();
        }
        kit.client().admin().delete_groups(&[APPLICATION]).await.unwrap();
    }
}

fn config(kit: &TestKit, directory: &Path) -> StreamsConfig {
    let config = StreamsConfig::new("blows", kit.bootstrap()).client(kit.client().clone());
    config.state_dir(directory).commit_interval(Duration::from_millis(100)).session_timeout(SESSION)
}

fn rows(kept: Materialized<String>) -> Topology {
    let mut streams = StreamsBuilder::new();
    streams.table_with::<String, String>("rows", Consumed::default(), kept);
    streams.build().unwrap()
}

async fn all(app: &StreamsApp) -> BTreeMap<String, String> {
    app.store::<String, String>("kept").unwrap().all().await.unwrap().into_iter().collect()
}

fn map(rows: &[(&str, &str)]) -> BTreeMap<String, String> {
    rows.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A text that cannot be compressed.
fn noise(seed: u64) -> String {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + ((state >> 57) % 90) as u8)
    };
    (0..200).map(next).collect()
}

/// A restore that has to look at what is there finds that it cannot be read: that ended the application, and the next
/// start, too.
#[klamm::test]
async fn damage_that_a_restore_finds_is_put_aside(kit: TestKit) {
    on_real_time(&kit);
    kit.create_topic("rows", 1).await;
    let versioned = || rows(Materialized::named("kept").versioned(Duration::from_secs(3_600)));
    let root = tempfile::tempdir().unwrap();
    let (here, there) = (root.path().join("here"), root.path().join("there"));
    for (directory, value) in [(&here, "1"), (&there, "2")] {
        let app = versioned().start(config(&kit, directory)).await.unwrap();
        for key in 0..400 {
            let text = format!("{value}{}", noise(key));
            kit.send("rows", format!("k{key}").as_str(), text.as_str()).await;
        }
        caught_up(&app).await;
        app.close().await.unwrap();
    }
    // Not where the position lies, which is read when the store is opened.
    let mut damaged = 0;
    for file in std::fs::read_dir(here.join("blows").join("0_0")).unwrap() {
        let file = file.unwrap().path();
        if file.extension().is_some_and(|extension| extension == "sst") {
            let mut content = std::fs::read(&file).unwrap();
            let rows = content.len() / 10..content.len() * 6 / 10;
            damaged += rows.len();
            content[rows].iter_mut().for_each(|byte| *byte ^= 0x55);
            std::fs::write(file, content).unwrap();
        }
    }
    assert!(damaged > 30_000, "{damaged}");
    let app = versioned().start(config(&kit, &here)).await.unwrap();
    caught_up(&app).await;
    let store = app.store::<String, String>("kept").unwrap();
    for key in 0..400 {
        let row = store.get(format!("k{key}")).await.unwrap();
        assert_eq!(row, Some(format!("2{}", noise(key))));
    }
    app.close().await.unwrap();
}

/// Its files go while an application works: what a commit writes was not taken for what it is.
#[klamm::test]
async fn a_state_directory_that_vanishes_is_built_anew(kit: TestKit) {
    on_real_time(&kit);
    kit.create_topic("rows", 1).await;
    let root = tempfile::tempdir().unwrap();
    let config = config(&kit, root.path()).store_memory(StoreMemory::new(3 << 20)).cache_bytes(1 << 20);
    let app = rows(Materialized::named("kept")).start(config).await.unwrap();
    kit.send("rows", "first", "1").await;
    caught_up(&app).await;
    std::fs::remove_dir_all(root.path().join("blows").join("0_0")).unwrap();
    let producer = kit.client().producer().build().unwrap();
    let value = "x".repeat(10_000);
    for number in 0..1_000 {
        let record = Record::to("rows").key(format!("k{number}")).value(value.clone());
        drop(producer.enqueue(record).await.unwrap());
    }
    producer.close().await.unwrap();
    caught_up(&app).await;
    assert_eq!(all(&app).await.len(), 1_001);
    app.close().await.unwrap();
}

/// A crash while the first commit of a store is written leaves rows without a position. Rows that others deleted since,
/// and of which the log tells nothing any more, came back.
#[klamm::test]
async fn rows_of_a_first_commit_that_was_cut_off_do_not_come_back(kit: TestKit) {
    on_real_time(&kit);
    kit.create_topic("rows", 1).await;
    let root = tempfile::tempdir().unwrap();
    let (here, there) = (root.path().join("here"), root.path().join("there"));
    let app = rows(Materialized::named("kept")).start(config(&kit, &here)).await.unwrap();
    caught_up(&app).await;
    app.close().await.unwrap();
    {
        let path = here.join("blows").join("0_0");
        let database = TaskDatabase::open_when_free(&path, &["kept"], &StoreMemory::shared()).unwrap();
        let store = database.store("kept").unwrap();
        let mut batch = Batch::new();
        for key in ["a", "b"] {
            batch.put(key, [&1_i64.to_be_bytes()[..], b"old"].concat());
        }
        store.apply(&batch).unwrap();
        store.flush().unwrap();
    }
    // Another instance has the rest: `a` is deleted, and compaction has taken its tombstone.
    let app = rows(Materialized::named("kept")).start(config(&kit, &there)).await.unwrap();
    kit.send("rows", "b", "new").await;
    caught_up(&app).await;
    app.close().await.unwrap();
    let app = rows(Materialized::named("kept")).start(config(&kit, &here)).await.unwrap();
    caught_up(&app).await;
    assert_eq!(all(&app).await, map(&[("b", "new")]));
    app.close().await.unwrap();
}

/// Rows of partitions that come later were never seen.
#[klamm::test]
async fn a_global_table_has_the_rows_of_partitions_that_come_later(kit: TestKit) {
    on_real_time(&kit);
    for topic in ["users", "in", "out"] {
        kit.create_topic(topic, 1).await;
    }
    let mut streams = StreamsBuilder::new();
    let users = streams.global_table::<String, String>("users");
    let asked = streams.stream::<String, String>("in");
    asked
        .left_join_global(
            &users,
            |_, value| Some(value.clone()),
            |value, row| format!("{value}: {}", row.map_or("nobody", String::as_str)),
        )
        .to("out");
    let root = tempfile::tempdir().unwrap();
    kit.send_to("users", 0, "a", "Ann").await;
    let app = streams.build().unwrap().start(config(&kit, root.path())).await.unwrap();
    caught_up(&app).await;
    let added =
        kit.client().admin().create_partitions(&[("users".into(), NewPartitions::total(3))].into()).await;
    assert!(added.is_ok());
    until_partitions(&kit, "users", 3).await;
    kit.send_to("users", 2, "c", "Cid").await;
    let store = app.store::<String, String>("users-global").unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while store.get("c".to_owned()).await.unwrap().is_none() {
        assert!(tokio::time::Instant::now() < deadline, "the row of the new partition never comes");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    app.close().await.unwrap();
}

async fn until_partitions(kit: &TestKit, topic: &str, count: i32) {
    for _ in 0..500 {
        if kit.client().partition_count(topic).await.unwrap() == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("`{topic}` never has {count} partitions");
}

/// Until it was taken up as another topic, nothing of it may be taken for processed.
#[klamm::test]
async fn a_topic_of_a_pattern_that_goes_and_comes_with_other_partitions_is_read(kit: TestKit) {
    on_real_time(&kit);
    kit.create_topic("orders-eu", 3).await;
    kit.create_topic("out", 1).await;
    let matching = || {
        let mut streams = StreamsBuilder::new();
        streams.stream_matching::<String, String>("orders-[a-z]+").to("out");
        streams.build().unwrap()
    };
    let root = tempfile::tempdir().unwrap();
    let app = matching().start(config(&kit, &root.path().join("1"))).await.unwrap();
    let second = matching().start(config(&kit, &root.path().join("2"))).await.unwrap();
    let mut sent = 0;
    let pipeline_out = kit.topic("out");
    for partitions in [3, 1, 4] {
        for number in 0..10 {
            kit.send_to("orders-eu", number % partitions, "k", format!("{sent}").as_str()).await;
            sent += 1;
        }
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            let mut found: Vec<i32> =
                pipeline_out.values::<String>().await.iter().map(|value| value.parse().unwrap()).collect();
            found.sort_unstable();
            found.dedup();
            if found.len() == sent as usize {
                break;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "{partitions}: {found:?} of {sent}, {app:?} {second:?}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let next = if partitions == 3 { 1 } else { 4 };
        let next = [NewTopic::new("orders-eu").partitions(next)];
        // A producer that still knows it makes it anew.
        loop {
            kit.client().admin().delete_topics(&["orders-eu"]).await.unwrap();
            if kit.client().admin().create_topics(&next).await.unwrap().values().all(Result::is_ok) {
                break;
            }
        }
    }
    app.close().await.unwrap();
    second.close().await.unwrap();
}

/// At least once: the rows of a commit are in the log, the list of when they expire is not, and the instance is gone.
/// The rows lived for ever.
#[klamm::test]
async fn rows_expire_though_a_crash_took_the_list_of_when(kit: TestKit) {
    on_real_time(&kit);
    kit.create_topic("rows", 1).await;
    let expiring = || rows(Materialized::named("kept").time_to_live(Duration::from_secs(10)));
    let root = tempfile::tempdir().unwrap();
    let app = expiring().start(config(&kit, &root.path().join("1"))).await.unwrap();
    let send = async |key: &str, at_ms: i64| {
        kit.send_record(Record {
            timestamp_ms: Some(at_ms),
            ..Record::to("rows").key(key.to_owned()).value("v")
        })
        .await;
    };
    send("first", 1_000).await;
    caught_up(&app).await;
    kit.faults().always_for(
        "blows-kept-expiry-changelog",
        ApiKey::Produce,
        Answer::Error(ErrorCode::NotLeaderOrFollower),
    );
    send("a", 2_000).await;
    until(|| app.metrics().processed == 2).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(app);
    kit.faults().behave();
    let app = expiring().start(config(&kit, &root.path().join("2"))).await.unwrap();
    send("b", 30_000).await;
    caught_up(&app).await;
    assert_eq!(all(&app).await, map(&[("b", "v")]));
    app.close().await.unwrap();
}

/// The cluster's own topics are none of a user's, whatever his pattern says.
#[klamm::test]
async fn a_pattern_for_all_topics_does_not_read_the_clusters_own(kit: TestKit) {
    on_real_time(&kit);
    kit.create_topic("in", 1).await;
    kit.create_topic("out", 1).await;
    let mut streams = StreamsBuilder::new();
    streams.stream_matching::<String, String>("[^o].*").to("out");
    let root = tempfile::tempdir().unwrap();
    let config = config(&kit, root.path()).exactly_once();
    let app = streams.build().unwrap().start(config).await.unwrap();
    for number in 0..5 {
        kit.send("in", "k", number.to_string().as_str()).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    caught_up(&app).await;
    assert_eq!(kit.topic("out").values::<String>().await, ["0", "1", "2", "3", "4"]);
    app.close().await.unwrap();
}
