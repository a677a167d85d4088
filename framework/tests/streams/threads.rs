//! Threads that come and go while records are processed: tasks move with their stores, nothing is lost or doubled, and
//! the group hears nothing of it.

use std::collections::BTreeMap;
use std::time::Duration;

use klamm::client::runtime::{Rng, SeededRng};
use klamm::streams::{
    AppState, KStream, Materialized, StreamsApp, StreamsBuilder, StreamsConfig, StreamsError, Topology,
};
use klamm::testing::TestKit;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

use crate::pipeline::{APPLICATION, Pipeline, caught_up, topology, until};

/// This one, unless another is asked for: `KLAMM_SEED=7 cargo test`.
fn seeded(seed: u64) -> u64 {
    std::env::var("KLAMM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(seed)
}

/// How many tasks each thread has.
fn loads(app: &StreamsApp) -> Vec<usize> {
    let mut loads = BTreeMap::new();
    app.tasks().iter().for_each(|task| *loads.entry(task.thread).or_insert(0) += 1);
    loads.into_values().collect()
}

/// Since this was asked last.
fn rebalances(snapshotter: &Snapshotter) -> u64 {
    let told = snapshotter.snapshot().into_vec().into_iter();
    let of = |(key, _, _, value): (metrics_util::CompositeKey, _, _, DebugValue)| match value {
        DebugValue::Counter(count) if key.key().name() == "klamm_client_consumer_rebalances_total" => count,
        _ => 0,
    };
    told.map(of).sum()
}

#[klamm::test]
async fn threads_take_over_tasks_with_their_stores(kit: TestKit) {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recorded = metrics::set_default_local_recorder(&recorder);
    let mut pipeline = Pipeline::new(&kit).await;
    let app = topology().start(pipeline.config(1)).await.unwrap();
    pipeline.feed(300).await;
    caught_up(&app).await;
    let rebalances = rebalances(&snapshotter);
    assert!(rebalances > 0);
    for (threads, expected) in [(2, vec![2, 2]), (3, vec![1, 1, 2]), (4, vec![1; 4]), (5, vec![1; 4])] {
        assert_eq!(app.add_thread().await.unwrap(), threads);
        pipeline.feed(100).await;
        caught_up(&app).await;
        let mut loads = loads(&app);
        loads.sort_unstable();
        assert_eq!((loads, app.threads()), (expected, threads));
        pipeline.is_exact(&[&app]).await;
    }
    for (threads, most) in [(4, 1), (3, 2), (2, 2), (1, 4)] {
        assert_eq!(app.remove_thread().await.unwrap(), threads);
        pipeline.feed(100).await;
        caught_up(&app).await;
        assert_eq!((loads(&app).into_iter().max(), app.threads()), (Some(most), threads));
        pipeline.is_exact(&[&app]).await;
    }
    let refused = app.remove_thread().await.unwrap_err();
    assert!(matches!(&*refused, StreamsError::LastThread), "{refused}");
    assert_eq!(app.metrics().restored, 0, "stores move as they are");
    assert_eq!(self::rebalances(&snapshotter), 0, "the group has heard nothing");
    app.close().await.unwrap();
    let next = topology().start(pipeline.config(1)).await.unwrap();
    caught_up(&next).await;
    assert_eq!(next.metrics().restored, 0, "nor is anything after a clean end");
    pipeline.is_exact(&[&next]).await;
    next.close().await.unwrap();
}

fn in_memory() -> Topology {
    let mut streams = StreamsBuilder::new();
    let input: KStream<String, String> = streams.stream("in");
    input.to("echo");
    input.group_by_key().count(Materialized::named("counts").in_memory()).to_stream().to("totals");
    streams.build().unwrap()
}

#[klamm::test]
async fn stores_in_memory_move_too(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let app = in_memory().start(pipeline.config(1)).await.unwrap();
    for threads in [2, 3, 4] {
        pipeline.feed(200).await;
        assert_eq!(app.add_thread().await.unwrap(), threads);
    }
    caught_up(&app).await;
    assert_eq!(app.metrics().restored, 0);
    pipeline.is_exact(&[&app]).await;
    app.close().await.unwrap();
}

/// Threads come and go at random while records come all the time.
async fn churned(
    kit: &TestKit,
    seed: u64,
    topology: fn() -> Topology,
    with: impl Fn(StreamsConfig) -> StreamsConfig,
) {
    let mut pipeline = Pipeline::new(kit).await;
    let config = with(pipeline.config(1).threads(2));
    let app = topology().start(config).await.unwrap();
    pipeline.feed(100).await;
    let seed = seeded(seed);
    let rng = SeededRng::new(seed);
    for _ in 0..24 {
        let (records, adds) = (50 + rng.below(400) as usize, rng.below(2) == 0 && app.threads() < 5);
        let change = async { if adds { app.add_thread().await } else { app.remove_thread().await } };
        let ((), changed) = futures::join!(pipeline.feed(records), change);
        match changed {
            Ok(threads) => assert_eq!(threads, app.threads(), "seed {seed}"),
            Err(error) => assert!(matches!(&*error, StreamsError::LastThread), "seed {seed}: {error}"),
        }
        if rng.below(4) == 0 {
            caught_up(&app).await;
        }
    }
    caught_up(&app).await;
    pipeline.is_exact(&[&app]).await;
    assert_eq!(app.metrics().restored, 0, "seed {seed}");
    let loads = loads(&app);
    assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1, "seed {seed}: {loads:?}");
    app.close().await.unwrap();
}

#[klamm::test]
async fn at_least_once_nothing_is_lost_or_doubled_while_threads_come_and_go(kit: TestKit) {
    churned(&kit, 1, topology, |config| config).await;
}

#[klamm::test]
async fn exactly_once_nothing_is_lost_or_doubled_while_threads_come_and_go(kit: TestKit) {
    churned(&kit, 2, topology, StreamsConfig::exactly_once).await;
}

#[klamm::test]
async fn exactly_once_in_memory_while_threads_come_and_go(kit: TestKit) {
    churned(&kit, 3, in_memory, StreamsConfig::exactly_once).await;
}

/// Whatever else happens meanwhile.
#[klamm::test]
async fn threads_come_and_go_through_faults_and_rebalances(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let app = topology().start(pipeline.config(1).exactly_once().threads(2)).await.unwrap();
    app.wait_for(AppState::Running).await.unwrap();
    let seed = seeded(4);
    let rng = SeededRng::new(seed);
    let mut other: Option<StreamsApp> = None;
    for round in 0..16 {
        pipeline.feed(100 + rng.below(100) as usize).await;
        match rng.below(5) {
            0 => {
                kit.faults().disconnect();
            }
            1 => kit.expel(APPLICATION).await,
            2 => match other.take() {
                Some(other) => other.close().await.unwrap(),
                None => {
                    let config = pipeline.config(2 + round).exactly_once();
                    other = Some(topology().start(config).await.unwrap());
                }
            },
            _ => {}
        }
        let changed = if rng.below(2) == 0 && app.threads() < 4 {
            app.add_thread().await
        } else {
            app.remove_thread().await
        };
        if let Err(error) = changed {
            assert!(matches!(&*error, StreamsError::LastThread), "seed {seed}: {error}");
        }
    }
    let apps: Vec<&StreamsApp> = std::iter::once(&app).chain(&other).collect();
    // Instances that have just come or gone move tasks once more.
    let all_run = || {
        let tasks: usize = apps.iter().map(|app| app.metrics().tasks).sum();
        tasks == 4 && apps.iter().all(|app| app.state() == AppState::Running)
    };
    until(all_run).await;
    for app in &apps {
        caught_up(app).await;
    }
    until(all_run).await;
    pipeline.is_exact(&apps).await;
    if let Some(other) = other {
        other.close().await.unwrap();
    }
    app.close().await.unwrap();
}

/// A thread that is half gone is gone all the same, and a close comes before it.
#[klamm::test]
async fn nobody_has_to_wait_for_a_change(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let app = topology().start(pipeline.config(1).exactly_once().threads(3)).await.unwrap();
    pipeline.feed(300).await;
    app.wait_for(AppState::Running).await.unwrap();
    drop(tokio::time::timeout(Duration::from_micros(10), app.remove_thread()).await);
    until(|| app.threads() == 2).await;
    caught_up(&app).await;
    pipeline.is_exact(&[&app]).await;
    let (changed, closed) = {
        let mut changing = Box::pin(app.add_thread());
        let first = futures::poll!(&mut changing);
        drop(changing);
        (first.is_ready(), app.close().await)
    };
    assert!(!changed);
    closed.unwrap();
    let next = topology().start(pipeline.config(1).exactly_once()).await.unwrap();
    caught_up(&next).await;
    pipeline.is_exact(&[&next]).await;
    next.close().await.unwrap();
}
