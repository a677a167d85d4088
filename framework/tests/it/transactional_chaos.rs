//! Transactional listeners while members come, go and vanish, handlers fail, panic and hang, and the broker crashes:
//! from outside, each record is once in every output or once in the dead letters, and never in both.
//! `scripts/soak transactional` runs it with one seed after another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use klamm::client::runtime::{Rng, SeededRng};
use klamm::listener::{BoxError, Delivery, FromRecord};
use klamm::prelude::*;
use klamm::testing::{RunningTestApp, TestKit};
use tokio::time::{sleep, timeout};

use crate::transactional::committed;

const PARTITIONS: i32 = 3;
const RECORDS: usize = 150;
const ROUNDS: usize = 12;

/// The chances of a run.
#[derive(Clone)]
struct Luck(Arc<SeededRng>);

impl Luck {
    async fn pause(&self, longest_ms: u64) {
        sleep(Duration::from_millis(self.0.below(longest_ms))).await;
    }

    /// What happens to handlers: most go on, some fail, panic or take long.
    async fn strike(&self) -> Result<(), BoxError> {
        match self.0.below(20) {
            0 => Err("bad luck".into()),
            1 => panic!("very bad luck"),
            2 => {
                self.pause(5_000).await;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Text that does not end in a seven.
struct Text(String);

impl FromRecord for Text {
    type Rejection = Rejection;

    fn from_record(delivery: &Delivery<'_>) -> Result<Self, Rejection> {
        let Value(text) = Value::<String>::from_record(delivery)?;
        if text.ends_with('7') { Err(Rejection::other("it has a seven")) } else { Ok(Self(text)) }
    }
}

/// Of ten, one fails always, and one does not decode.
async fn single(Text(text): Text, tx: Tx, State(luck): State<Luck>) -> Result<(), BoxError> {
    tx.send("a", &*text, &*text).await?;
    luck.strike().await?;
    tx.send("b", &*text, &*text).await?;
    match text.ends_with('3') {
        true => Err("it has a three".into()),
        false => Ok(()),
    }
}

async fn batched(batch: Batch<Text>, tx: Tx, State(luck): State<Luck>) -> Result<BatchOutcome, BoxError> {
    let mut outcome = BatchOutcome::ok();
    for (index, Text(text)) in batch.iter().enumerate() {
        tx.send("a", &**text, &**text).await?;
        luck.strike().await?;
        tx.send("b", &**text, &**text).await?;
        if text.ends_with('3') {
            outcome.fail(index, "it has a three");
        }
    }
    Ok(outcome)
}

/// What the listener takes into one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    OneByOne,
    Batches,
    Shared,
}

fn listener(taken: Taken, retry_topics: bool) -> Listener {
    // Bad luck alone gives nothing up.
    let policy = FailurePolicy::new()
        .fatal_if(|failure| failure.to_string().contains("three"))
        .retry_in_place(Backoff::fixed(Duration::from_millis(300)).forever());
    let policy = match retry_topics {
        // What fails for good takes its steps first.
        true => {
            let luck = |failure: &klamm::listener::Failure| failure.to_string().contains("luck");
            FailurePolicy::new()
                .retry_topics([Duration::from_secs(2), Duration::from_secs(4)])
                .retry_in_place(Backoff::fixed(Duration::from_millis(300)).attempts(2))
                .fatal_if(move |failure| !luck(failure))
        }
        false => policy,
    };
    let listener = Listener::on("in").group("g").transactional().revoke_deadline(Duration::from_secs(2));
    let listener = listener.on_failure(policy);
    match taken {
        Taken::Batches => listener.batch(7, Duration::from_millis(20)).handle(batched),
        Taken::Shared => listener.shared_transactions(7, Duration::from_secs(2)).handle(single),
        Taken::OneByOne => listener.handle(single),
    }
}

async fn chaos(kit: &TestKit, luck: Luck, taken: Taken, retry_topics: bool) {
    kit.create_topic("in", PARTITIONS).await;
    for topic in ["a", "b", "in-dlt"] {
        kit.create_topic(topic, 2).await;
    }
    let app = || kit.app().state(luck.clone()).listener(listener(taken, retry_topics));
    let write = async {
        for n in 0..RECORDS {
            let partition = n as i32 % PARTITIONS;
            kit.send_to("in", partition, "k", format!("{n}")).await;
            luck.pause(200).await;
        }
    };
    let fate = async {
        let mut running: Vec<RunningTestApp> = Vec::new();
        for _ in 0..ROUNDS {
            match luck.0.below(6) {
                0 | 1 if running.len() < 3 => running.extend(app().try_start().await.ok()),
                2 if !running.is_empty() => {
                    let app = running.swap_remove(luck.0.below(running.len() as u64) as usize);
                    app.shutdown(Duration::from_millis(luck.0.below(3_000))).await;
                }
                // It vanishes: nobody says that it is gone.
                3 if !running.is_empty() => {
                    drop(running.swap_remove(luck.0.below(running.len() as u64) as usize));
                }
                4 => kit.crash_broker().await,
                5 => kit.restart_broker().await,
                _ => {}
            }
            luck.pause(8_000).await;
        }
        running.extend(app().try_start().await.ok());
        running
    };
    let ((), mut running) = tokio::join!(write, fate);
    while running.is_empty() {
        running.extend(app().try_start().await.ok());
    }
    let all = async {
        while outcome(kit).await.is_err() {
            assert!(running.iter().all(is_running));
            sleep(Duration::from_secs(10)).await;
        }
    };
    let ended = timeout(Duration::from_secs(3_000), all).await;
    let outcome = outcome(kit).await;
    assert!(ended.is_ok() && outcome.is_ok(), "{outcome:?}");
    for app in running {
        app.stop().await;
    }
}

fn is_running(app: &RunningTestApp) -> bool {
    app.listeners().all(|listener| listener.is_running())
}

/// What is missing still. Panics at what can never become right.
async fn outcome(kit: &TestKit) -> Result<(), String> {
    let (a, b) = (counted(committed(kit, "a").await), counted(committed(kit, "b").await));
    let letters = counted(committed(kit, "in-dlt").await);
    let mut missing = 0;
    for number in 0..RECORDS {
        let text = number.to_string();
        let count = |of: &BTreeMap<String, usize>| of.get(&text).copied().unwrap_or(0);
        match (count(&a), count(&b), count(&letters)) {
            (1, 1, 0) if !text.ends_with(['3', '7']) => {}
            // Bad luck may use up the steps, too.
            (0, 0, 1) => {}
            // The topics are read one after the other, and their markers come one after the other.
            (0 | 1, 0 | 1, 0) if !text.ends_with(['3', '7']) => missing += 1,
            (0, 0, 0) => missing += 1,
            found => panic!("{text} is in a, b and the dead letters {found:?} times"),
        }
    }
    if missing > 0 { Err(format!("{missing} are missing")) } else { Ok(()) }
}

fn counted(texts: Vec<String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    texts.into_iter().for_each(|text| *counts.entry(text).or_default() += 1);
    counts
}

fn seed() -> u64 {
    std::env::var("KLAMM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_123)
}

fn luck(salt: u64) -> Luck {
    Luck(Arc::new(SeededRng::new(seed().wrapping_mul(31).wrapping_add(salt))))
}

#[klamm::test(needs_paused_clock, deadline = "100000s")]
async fn records_one_by_one_come_out_exactly_once(kit: TestKit) {
    chaos(&kit, luck(1), Taken::OneByOne, false).await;
}

#[klamm::test(needs_paused_clock, deadline = "100000s")]
async fn batches_come_out_exactly_once(kit: TestKit) {
    chaos(&kit, luck(2), Taken::Batches, false).await;
}

#[klamm::test(needs_paused_clock, deadline = "100000s")]
async fn records_that_take_retry_topics_come_out_exactly_once(kit: TestKit) {
    chaos(&kit, luck(3), Taken::OneByOne, true).await;
}

#[klamm::test(needs_paused_clock, deadline = "100000s")]
async fn records_that_share_transactions_come_out_exactly_once(kit: TestKit) {
    chaos(&kit, luck(4), Taken::Shared, false).await;
}

#[klamm::test(needs_paused_clock, deadline = "100000s")]
async fn records_that_share_transactions_and_take_retry_topics_come_out_exactly_once(kit: TestKit) {
    chaos(&kit, luck(5), Taken::Shared, true).await;
}
