//! Asynchronous steps in trouble: calls that never end, panics, transactions that are aborted while calls fly, a close
//! that does not wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use klamm::client::testing::Answer;
use klamm::client::{ApiKey, ErrorCode};
use klamm::streams::{AsyncCalls, ErrorPolicy, StreamsBuilder, Topology};
use klamm::testing::TestKit;

use crate::pipeline::{Pipeline, caught_up, text, until};

/// Counts what calls give; those of records whose number is divisible by 50 never end.
fn stuck(timeout: Duration, after: usize) -> Topology {
    let mut streams = StreamsBuilder::new();
    let calls = AsyncCalls::new().max_in_flight(20).timeout(timeout);
    let called = streams
        .stream::<String, String>("in")
        .map_values_async_with(calls, move |_, value: String| async move {
            let number: usize = value.parse()?;
            if number.is_multiple_of(50) && number >= after {
                std::future::pending::<()>().await;
            }
            Ok::<_, std::num::ParseIntError>(value)
        })
        .on_error(ErrorPolicy::skip());
    called.to("echo");
    called.group_by_key().count("counts").to_stream().to("totals");
    streams.build().unwrap()
}

/// What is left of a closed application does not stand in the way of the next one.
#[klamm::test]
async fn an_application_that_was_not_closed_in_time_can_begin_again(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    for exactly_once in [false, true] {
        let config = || match exactly_once {
            true => pipeline.config(1).exactly_once(),
            false => pipeline.config(1),
        };
        let (config, again) = (config(), config());
        let app = stuck(Duration::from_secs(3_600), 0).start(config).await.unwrap();
        pipeline.feed(60).await;
        until(|| app.metrics().processed > 20).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        app.close_within(Duration::from_secs(1)).await.unwrap_err();
        let started = stuck(Duration::from_secs(3_600), usize::MAX).start(again);
        let started = tokio::time::timeout(Duration::from_secs(60), started).await;
        let app = started.expect("it starts").unwrap();
        caught_up(&app).await;
        pipeline.counts_are_right(&[&app]).await;
        app.close().await.unwrap();
    }
}

/// A rebalance waits for calls, and both instances go on.
#[klamm::test]
async fn a_second_instance_comes_while_calls_take_all_their_time(kit: TestKit) {
    for exactly_once in [false, true] {
        let mut pipeline = Pipeline::new(&kit).await;
        let config = |pipeline: &Pipeline, instance| match exactly_once {
            true => pipeline.config(instance).exactly_once(),
            false => pipeline.config(instance),
        };
        let slow = || stuck(Duration::from_millis(1_500), 1);
        let first = slow().start(config(&pipeline, 1)).await.unwrap();
        pipeline.feed(200).await;
        until(|| first.metrics().processed > 20).await;
        let second = slow().start(config(&pipeline, 2)).await.unwrap();
        pipeline.feed(200).await;
        caught_up(&first).await;
        caught_up(&second).await;
        let mut echoes: Vec<usize> = Vec::new();
        for record in pipeline.read("echo").await {
            echoes.push(text(&record.value.unwrap()).parse().unwrap());
        }
        echoes.sort_unstable();
        if !exactly_once {
            echoes.dedup();
        }
        let expected: Vec<usize> = (0..400).filter(|number| number % 50 != 0 || *number == 0).collect();
        assert_eq!(echoes, expected, "exactly once: {exactly_once}");
        first.close().await.unwrap();
        second.close().await.unwrap();
        for topic in ["in", "echo", "totals", crate::pipeline::CHANGELOG] {
            kit.client().admin().delete_topics(&[topic]).await.unwrap();
        }
        kit.client().admin().delete_groups(&[crate::pipeline::APPLICATION]).await.unwrap();
    }
}

/// Every third transaction is aborted while calls are under way, and some calls panic at first.
#[klamm::test]
async fn aborted_transactions_and_panics_count_each_call_once(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let calls = Arc::new(AtomicUsize::new(0));
    let mut streams = StreamsBuilder::new();
    let counted = Arc::clone(&calls);
    let called = streams
        .stream::<String, String>("in")
        .map_values_async_with(AsyncCalls::new().max_in_flight(30), move |_, value: String| {
            let number = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                tokio::time::sleep(Duration::from_micros((number * 7_919 % 3_000) as u64)).await;
                assert!(number % 7 != 3, "it is the seventh");
                Ok::<_, std::io::Error>(value)
            }
        })
        .on_error(ErrorPolicy::fail().retry(20, Duration::from_millis(1)));
    called.to("echo");
    called.group_by_key().count("counts").to_stream().to("totals");
    let app = streams.build().unwrap().start(pipeline.config(1).exactly_once().threads(2)).await.unwrap();
    for round in 0..8 {
        pipeline.feed(60).await;
        tokio::time::sleep(Duration::from_millis(120)).await;
        let api = [ApiKey::TxnOffsetCommit, ApiKey::Produce, ApiKey::EndTxn][round % 3];
        let code = [ErrorCode::UnknownMemberId, ErrorCode::CorruptMessage, ErrorCode::UnknownServerError];
        kit.faults().next(api, 1, Answer::Error(code[round % 3]));
    }
    caught_up(&app).await;
    pipeline.is_exact(&[&app]).await;
    app.close().await.unwrap();
}
