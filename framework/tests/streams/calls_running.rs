//! Asynchronous steps in applications: what is committed while calls are under way, and what becomes of them.

use std::sync::Arc;
use std::time::Duration;

use klamm::streams::{AsyncCalls, StreamsBuilder, Topology};
use klamm::testing::TestKit;
use tokio::sync::watch;

use crate::pipeline::{APPLICATION, Pipeline, caught_up, text, until};

type Gate = watch::Sender<bool>;

/// Echoes values; the call of `0` waits until the gate is open.
fn gated(gate: &Arc<Gate>) -> Topology {
    let mut streams = StreamsBuilder::new();
    let gate = Arc::clone(gate);
    let called = streams.stream::<String, String>("in").map_values_async_with(
        AsyncCalls::new().max_in_flight(20),
        move |_, value: String| {
            let mut gate = gate.subscribe();
            async move {
                if value == "0" {
                    gate.wait_for(|open| *open).await.map_err(std::io::Error::other)?;
                }
                Ok::<_, std::io::Error>(value)
            }
        },
    );
    called.to("echo");
    streams.build().unwrap()
}

async fn echoes(pipeline: &Pipeline) -> Vec<usize> {
    let read = pipeline.read("echo").await.into_iter();
    let mut echoes: Vec<usize> = read.map(|record| text(&record.value.unwrap()).parse().unwrap()).collect();
    echoes.sort_unstable();
    echoes
}

async fn committed(kit: &TestKit) -> i64 {
    let mut all = 0;
    for partition in 0..4 {
        all += kit.committed(APPLICATION, "in", partition).await.unwrap_or(0);
    }
    all
}

/// The rest goes on; the record whose call has not ended, and those behind it in its partition, are not committed.
#[klamm::test]
async fn c6_a_commit_leaves_out_what_is_under_way(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    pipeline.feed(40).await;
    let gate = Arc::new(Gate::new(false));
    let app = gated(&gate).start(pipeline.config(1)).await.unwrap();
    // Those of its key wait for it.
    pipeline.holds("echo", 34).await;
    app.commit().await;
    let partition_of_0 = {
        let read = pipeline.read("in").await;
        read.iter().find(|record| record.value.as_deref() == Some(b"0")).unwrap().partition
    };
    assert_eq!(kit.committed(APPLICATION, "in", partition_of_0).await.unwrap_or(0), 0);
    gate.send_replace(true);
    caught_up(&app).await;
    assert_eq!((committed(&kit).await, echoes(&pipeline).await), (40, (0..40).collect()));
    app.close().await.unwrap();
}

/// Neither lost nor doubled: what had ended was committed, what had not is called again by the next instance.
#[klamm::test]
async fn c6_calls_under_way_when_an_instance_vanishes_are_made_again(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    pipeline.feed(40).await;
    let gate = Arc::new(Gate::new(false));
    let app = gated(&gate).start(pipeline.config(1)).await.unwrap();
    pipeline.holds("echo", 34).await;
    drop(app);
    gate.send_replace(true);
    let app = gated(&gate).start(pipeline.config(2)).await.unwrap();
    caught_up(&app).await;
    let mut echoes = echoes(&pipeline).await;
    echoes.dedup();
    assert_eq!((committed(&kit).await, echoes), (40, (0..40).collect()));
    app.close().await.unwrap();
}

#[klamm::test]
async fn a_close_waits_for_calls_and_commits_them(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    pipeline.feed(40).await;
    let gate = Arc::new(Gate::new(false));
    let app = gated(&gate).start(pipeline.config(1)).await.unwrap();
    pipeline.holds("echo", 34).await;
    let opened = async {
        tokio::task::yield_now().await;
        gate.send_replace(true);
    };
    let (closed, ()) = tokio::join!(app.close(), opened);
    closed.unwrap();
    assert_eq!(
        committed(&kit).await as usize,
        echoes(&pipeline).await.len(),
        "no record is called twice for it"
    );
}

/// Counts what an asynchronous step gives, with a step that is now slow and now not.
fn counting() -> Topology {
    let mut streams = StreamsBuilder::new();
    let called = streams.stream::<String, String>("in").map_values_async(|_, value| async move {
        let number: u64 = value.parse()?;
        tokio::time::sleep(Duration::from_micros(number * 7_919 % 1_500)).await;
        Ok::<_, std::num::ParseIntError>(value)
    });
    called.to("echo");
    called.group_by_key().count("counts").to_stream().to("totals");
    streams.build().unwrap()
}

#[klamm::test]
async fn c6_exactly_once_counts_each_call_once_through_crashes_and_rebalances(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let config = |pipeline: &Pipeline, instance| pipeline.config(instance).exactly_once().threads(2);
    let mut app = counting().start(config(&pipeline, 1)).await.unwrap();
    for round in 0..3 {
        pipeline.feed(150).await;
        until(|| app.metrics().commits > 0).await;
        match round {
            0 => drop(app),
            1 => app.close().await.unwrap(),
            _ => {
                let second = counting().start(config(&pipeline, 5)).await.unwrap();
                pipeline.feed(150).await;
                caught_up(&app).await;
                caught_up(&second).await;
                pipeline.is_exact(&[&app, &second]).await;
                app.close().await.unwrap();
                caught_up(&second).await;
                app = second;
                break;
            }
        }
        app = counting().start(config(&pipeline, 1 + round % 2)).await.unwrap();
    }
    pipeline.feed(50).await;
    caught_up(&app).await;
    pipeline.is_exact(&[&app]).await;
    app.close().await.unwrap();
}

#[klamm::test]
async fn a_call_that_fails_for_good_ends_the_application_and_says_where(kit: TestKit) {
    let pipeline = Pipeline::new(&kit).await;
    let app = counting().start(pipeline.config(1)).await.unwrap();
    kit.send("in", "k", "no number").await;
    let error = app.ended().await.unwrap_err().to_string();
    assert!(error.contains("`in.map_values_async` failed at the record at in-"), "{error}");
    assert_eq!(committed(&kit).await, 0);
}
