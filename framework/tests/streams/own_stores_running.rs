//! Applications whose stores are in engines of the user's: restarts, crashes, restores, standbys, and engines that
//! fail.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use klamm::client::Record;
use klamm::client::admin::{ConfigChange, ConfigResource};
use klamm::store::StoreEngine;
use klamm::streams::{
    AfterFailure, Consumed, Materialized, StreamsApp, StreamsBuilder, StreamsConfig, Topology,
};
use klamm::testing::TestKit;
use klamm_runtime::SeededRng;

use crate::journal::Journals;
use crate::own_stores::{Fault, faulty};
use crate::pipeline::{APPLICATION, CHANGELOG, Pipeline, active, caught_up, until};
use crate::restoring::Rig;

fn counting(kept: Materialized<i64>) -> Topology {
    let mut streams = StreamsBuilder::new();
    let input = streams.stream::<String, String>("in");
    input.to("echo");
    input.group_by_key().count(kept).to_stream().to("totals");
    streams.build().unwrap()
}

fn topology(engine: impl StoreEngine) -> Topology {
    counting(Materialized::named("counts").stored_in(engine))
}

fn config(pipeline: &Pipeline, instance: usize, exactly_once: bool) -> StreamsConfig {
    match exactly_once {
        true => pipeline.config(instance).exactly_once(),
        false => pipeline.config(instance),
    }
}

/// What is closed restores nothing; what crashed lost what it had not flushed, and has it from the changelog.
async fn comes_back(kit: &TestKit, exactly_once: bool) {
    let (mut pipeline, journals) = (Pipeline::new(kit).await, Journals::new());
    let start = async |pipeline: &Pipeline| {
        topology(journals.engine()).start(config(pipeline, 1, exactly_once)).await.unwrap()
    };
    let app = start(&pipeline).await;
    pipeline.feed(200).await;
    caught_up(&app).await;
    app.close().await.unwrap();
    let app = start(&pipeline).await;
    pipeline.feed(100).await;
    caught_up(&app).await;
    assert_eq!(app.metrics().restored, 0);
    drop(app);
    let app = start(&pipeline).await;
    pipeline.feed(100).await;
    caught_up(&app).await;
    assert!(app.metrics().restored > 0, "a crash takes what is not flushed");
    match exactly_once {
        true => pipeline.is_exact(&[&app]).await,
        false => pipeline.counts_are_right(&[&app]).await,
    }
    assert!(journals.opened.load(Ordering::Relaxed) >= 12, "each task has its own");
    app.close().await.unwrap();
}

#[klamm::test]
async fn an_engine_of_ones_own_comes_back(kit: TestKit) {
    comes_back(&kit, false).await;
}

#[klamm::test]
async fn an_engine_of_ones_own_comes_back_exactly_once(kit: TestKit) {
    comes_back(&kit, true).await;
}

fn restart(config: StreamsConfig) -> StreamsConfig {
    config.on_task_failure(|_| AfterFailure::RestartTask(Duration::from_millis(50)))
}

/// Batches fail, or come half through, at any moment: while a store is restored, written, emptied. Half of a batch is
/// on disk then with all of its position.
async fn survives_faults(kit: &TestKit, exactly_once: bool) {
    let (mut pipeline, journals) = (Pipeline::new(kit).await, Journals::new());
    let settings = restart(config(&pipeline, 1, exactly_once));
    let mut app = topology(journals.engine()).start(settings.clone()).await.unwrap();
    for round in 0..12 {
        let faults = if round % 2 == 0 { &journals.panics_after } else { &journals.fails_after };
        faults.store(round * 3 % 7, Ordering::Release);
        while faults.load(Ordering::Acquire) >= 0 {
            pipeline.feed(40).await;
            caught_up(&app).await;
        }
        if round % 5 == 4 {
            drop(app);
            app = topology(journals.engine()).start(settings.clone()).await.unwrap();
        }
        caught_up(&app).await;
        match exactly_once {
            true => pipeline.is_exact(&[&app]).await,
            false => {
                let store = app.store::<String, i64>("counts").unwrap();
                for (key, count) in pipeline.counts() {
                    let found = store.get(key.clone()).await.unwrap();
                    assert!(found >= Some(count), "{key}: {found:?} of {count}");
                }
            }
        }
    }
    app.close().await.unwrap();
}

#[klamm::test]
async fn an_engine_that_fails_loses_nothing(kit: TestKit) {
    survives_faults(&kit, false).await;
}

#[klamm::test]
async fn an_engine_that_fails_counts_everything_once(kit: TestKit) {
    survives_faults(&kit, true).await;
}

/// Many rows at a time, broken off some times.
#[klamm::test]
async fn an_engine_of_ones_own_is_restored_in_pieces(kit: TestKit) {
    let (mut rig, rng, journals) = (Rig::new(&kit).await, SeededRng::new(21), Journals::new());
    let start = async |rig: &Rig| {
        let mut streams = StreamsBuilder::new();
        let rows = Materialized::named("rows").stored_in(journals.engine());
        streams.table_with::<String, String>("in", Consumed::default(), rows);
        streams.build().unwrap().start(rig.config(1)).await.unwrap()
    };
    let app = rig.restored_in_pieces(&kit, &rng, &start).await;
    app.close().await.unwrap();
    let app = start(&rig).await;
    kit.send_record(Record::to("in").partition(1).key("key-000000007").value("new")).await;
    rig.model.insert("key-000000007".to_owned(), "new".to_owned());
    caught_up(&app).await;
    assert_eq!(app.metrics().restored, 0);
    rig.is_right(&[&app]).await;
    app.close().await.unwrap();
}

/// Rows that are there without a position, and what lies elsewhere than the state directory that is gone: neither
/// says how far it is.
#[klamm::test]
async fn what_nobody_knows_the_place_of_is_begun_anew(kit: TestKit) {
    for fault in [Fault::RowsAlone, Fault::None] {
        let mut pipeline = Pipeline::new(&kit).await;
        let engine: Arc<dyn StoreEngine> = Arc::new(faulty(fault));
        let start = async |pipeline: &Pipeline| -> StreamsApp {
            topology(Shared(Arc::clone(&engine))).start(pipeline.config(1)).await.unwrap()
        };
        let app = start(&pipeline).await;
        pipeline.feed(100).await;
        caught_up(&app).await;
        app.close().await.unwrap();
        // Deleted since: it must not come back.
        let tombstones =
            (0..7).map(|key| Record { key: Some(format!("k{key}").into()), ..Record::to(CHANGELOG) });
        for tombstone in tombstones {
            for partition in 0..4 {
                kit.send_record(Record { partition: Some(partition), ..tombstone.clone() }).await;
            }
        }
        if fault == Fault::None {
            std::fs::remove_dir_all(pipeline.directory.path().join("1")).unwrap();
        }
        let app = start(&pipeline).await;
        caught_up(&app).await;
        assert!(app.metrics().restored >= 28, "all of it");
        assert_eq!(app.store::<String, i64>("counts").unwrap().all().await.unwrap(), []);
        app.close().await.unwrap();
        for topic in ["in", "echo", "totals", CHANGELOG] {
            kit.client().admin().delete_topics(&[topic]).await.unwrap();
        }
        kit.client().admin().delete_groups(&[APPLICATION]).await.unwrap();
    }
}

struct Shared(Arc<dyn StoreEngine>);

impl StoreEngine for Shared {
    fn open(
        &self,
        place: &klamm::store::StorePlace,
    ) -> Result<Arc<dyn klamm::store::StateStore>, klamm::store::StoreError> {
        self.0.open(place)
    }
}

/// When a store was whole is kept beside it, whatever the engine knows.
#[klamm::test]
async fn a_store_that_is_older_than_tombstones_is_begun_anew(kit: TestKit) {
    let (mut pipeline, journals) = (Pipeline::new(&kit).await, Journals::new());
    let start = async |pipeline: &Pipeline, instance| {
        topology(journals.engine()).start(pipeline.config(instance)).await.unwrap()
    };
    for instance in [1, 2] {
        let app = start(&pipeline, instance).await;
        pipeline.feed(100).await;
        caught_up(&app).await;
        app.close().await.unwrap();
    }
    let again = start(&pipeline, 1).await;
    caught_up(&again).await;
    let rest = again.metrics().restored;
    again.close().await.unwrap();
    let other = start(&pipeline, 2).await;
    pipeline.feed(7).await;
    caught_up(&other).await;
    other.close().await.unwrap();
    let set = ConfigChange::set("delete.retention.ms", "0");
    kit.client()
        .admin()
        .alter_configs(&[(ConfigResource::topic(CHANGELOG), vec![set])].into())
        .await
        .unwrap();
    let anew = start(&pipeline, 1).await;
    caught_up(&anew).await;
    assert!(anew.metrics().restored > rest, "{} of {rest}", anew.metrics().restored);
    pipeline.counts_are_right(&[&anew]).await;
    anew.close().await.unwrap();
}

/// A standby has a store of its own, and gives it to the task that it becomes.
#[klamm::test]
async fn standbys_follow_in_engines_of_ones_own(kit: TestKit) {
    let (mut pipeline, journals) = (Pipeline::new(&kit).await, Journals::new());
    let start = async |pipeline: &Pipeline, instance| {
        let config = pipeline.config(instance).exactly_once().standby_replicas(1);
        topology(journals.engine()).start(config).await.unwrap()
    };
    let (first, second) = (start(&pipeline, 1).await, start(&pipeline, 2).await);
    for _ in 0..3 {
        pipeline.feed(200).await;
        until(|| active(&first) == 2 && active(&second) == 2).await;
        caught_up(&first).await;
        caught_up(&second).await;
    }
    let follows = |app: &StreamsApp| {
        let standbys = app.standby_tasks();
        standbys.len() == 2 && standbys.iter().all(|standby| standby.lag == Some(0))
    };
    until(|| follows(&first) && follows(&second)).await;
    let before = second.metrics().restored;
    first.close().await.unwrap();
    until(|| active(&second) == 4).await;
    pipeline.feed(100).await;
    caught_up(&second).await;
    assert_eq!(second.metrics().restored, before, "its standbys had all of it");
    pipeline.is_exact(&[&second]).await;
    second.close().await.unwrap();
}
