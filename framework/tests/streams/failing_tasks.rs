//! Tasks that fail while others run, and begin again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use klamm::streams::{
    AfterFailure, AppState, StreamsApp, StreamsBuilder, StreamsConfig, StreamsError, TaskFailure, Topology,
};
use klamm::testing::TestKit;

use crate::pipeline::{APPLICATION, Pipeline, caught_up, until};

/// Where it fails, until it is healed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sore {
    /// At this record.
    Record,
    /// With what was held back until a commit.
    Commit,
}

const POISON: &str = "137";
/// What `POISON` is counted under.
const SORE_KEY: &str = "k4";

fn topology(sore: Sore, healed: &Arc<AtomicBool>) -> Topology {
    let mut streams = StreamsBuilder::new();
    let well = Arc::clone(healed);
    let input = streams.stream::<String, String>("in").try_map_values(move |value| match &**value {
        POISON if sore == Sore::Record && !well.load(Ordering::Acquire) => Err("it is sore"),
        value => Ok(value.to_owned()),
    });
    input.to("echo");
    let well = Arc::clone(healed);
    let counts = input.group_by_key().count("counts").to_stream();
    let told = counts.map_values_with_key(move |key, count| {
        let fails = sore == Sore::Commit && key == SORE_KEY && *count > Some(3);
        assert!(!fails || well.load(Ordering::Acquire), "it is sore");
        *count
    });
    told.to("totals");
    streams.build().unwrap()
}

fn restart(failure: &TaskFailure<'_>) -> AfterFailure {
    assert!(failure.attempts > 0);
    AfterFailure::RestartTask(Duration::from_millis(200))
}

async fn start(
    pipeline: &Pipeline,
    instance: usize,
    sore: (Sore, &Arc<AtomicBool>),
    exactly_once: bool,
) -> StreamsApp {
    let config: StreamsConfig = pipeline.config(instance).on_task_failure(restart);
    let config = if exactly_once { config.exactly_once() } else { config };
    topology(sore.0, sore.1).start(config).await.unwrap()
}

/// How often the failing task has failed.
fn attempts(app: &StreamsApp) -> u32 {
    app.failing_tasks().iter().map(|failing| failing.attempts).max().unwrap_or(0)
}

/// How many partitions of the input are not committed to their end.
async fn behind(kit: &TestKit, pipeline: &Pipeline) -> usize {
    let mut behind = 0;
    let counts = pipeline.read("in").await;
    for partition in 0..4 {
        let end = counts.iter().filter(|record| record.partition == partition).count();
        let committed = kit.committed(APPLICATION, "in", partition).await.unwrap_or(0);
        behind += usize::from(usize::try_from(committed).unwrap() < end);
    }
    behind
}

async fn others_go_on(kit: &TestKit, sore: Sore, exactly_once: bool) {
    let mut pipeline = Pipeline::new(kit).await;
    let healed = Arc::new(AtomicBool::new(false));
    let app = start(&pipeline, 1, (sore, &healed), exactly_once).await;
    pipeline.feed(100).await;
    pipeline.feed(300).await;
    until(|| attempts(&app) > 0).await;
    let (failing, error) = (app.failing_tasks()[0].task, app.failing_tasks()[0].error.clone());
    assert!(error.contains("it is sore"), "{error}");
    while behind(kit, &pipeline).await > 1 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(app.metrics().tasks, 4);
    // What fails from now on costs the others nothing.
    let before = (attempts(&app), pipeline.read("echo").await);
    until(|| attempts(&app) > before.0 + 1).await;
    let of_others = |all: &[klamm::client::ConsumerRecord]| {
        all.iter().filter(|record| record.partition != failing.partition).count()
    };
    assert_eq!(of_others(&pipeline.read("echo").await), of_others(&before.1));
    assert_eq!(behind(kit, &pipeline).await, 1);
    healed.store(true, Ordering::Release);
    caught_up(&app).await;
    assert!(app.failing_tasks().is_empty(), "{:?}", app.failing_tasks());
    if exactly_once {
        pipeline.is_exact(&[&app]).await;
    } else {
        for (key, count) in pipeline.counts() {
            let found = app.store::<String, i64>("counts").unwrap().get(key.clone()).await.unwrap();
            assert!(found >= Some(count), "{key}: {found:?} of {count}");
        }
    }
    app.close().await.unwrap();
}

/// A task that failed took the whole application with it.
#[klamm::test]
async fn a_task_that_fails_at_a_record_begins_again_while_others_run(kit: TestKit) {
    others_go_on(&kit, Sore::Record, false).await;
}

#[klamm::test]
async fn a_task_that_fails_at_a_record_begins_again_while_others_run_exactly_once(kit: TestKit) {
    others_go_on(&kit, Sore::Record, true).await;
}

#[klamm::test]
async fn a_task_that_fails_at_a_commit_begins_again_while_others_run(kit: TestKit) {
    others_go_on(&kit, Sore::Commit, false).await;
}

#[klamm::test]
async fn a_task_that_fails_at_a_commit_begins_again_while_others_run_exactly_once(kit: TestKit) {
    others_go_on(&kit, Sore::Commit, true).await;
}

/// Whoever gets the task while it waits fails with it, too, and goes on where it was left when it is healed.
#[klamm::test]
async fn a_task_that_waits_can_be_given_to_another_instance(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let healed = Arc::new(AtomicBool::new(false));
    let mut app = start(&pipeline, 0, (Sore::Record, &healed), true).await;
    pipeline.feed(400).await;
    until(|| attempts(&app) > 0).await;
    for instance in 1..3 {
        let next = start(&pipeline, instance, (Sore::Record, &healed), true).await;
        app.close().await.unwrap();
        app = next;
        until(|| attempts(&app) > 0).await;
    }
    app.add_thread().await.unwrap();
    until(|| attempts(&app) > 1).await;
    healed.store(true, Ordering::Release);
    caught_up(&app).await;
    assert!(app.failing_tasks().is_empty());
    pipeline.is_exact(&[&app]).await;
    app.close().await.unwrap();
}

#[klamm::test]
async fn an_application_can_give_up_after_some_attempts(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let config = pipeline.config(1).on_task_failure(|failure| match failure.attempts {
        ..3 => AfterFailure::RestartTask(Duration::from_millis(10)),
        _ => AfterFailure::StopInstance,
    });
    let app = topology(Sore::Record, &Arc::default()).start(config).await.unwrap();
    pipeline.feed(400).await;
    let failure = app.ended().await.unwrap_err();
    assert!(matches!(&*failure, StreamsError::Task { .. }), "{failure}");
    assert_eq!((app.state(), attempts(&app)), (AppState::Failed, 3));
}
