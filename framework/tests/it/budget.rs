//! How much a listener has in hand, whatever happens: one budget, fair over partitions.

use std::sync::{Arc, Mutex};

use klamm::client::Record as OutRecord;
use klamm::prelude::*;
use klamm::testing::TestKit;
use tokio::time::{Duration, sleep};

use crate::seen::{Gate, Seen, until};

/// What begins with "stuck" waits at the gate.
async fn may_get_stuck(Value(text): Value<String>, State(seen): State<Seen>, State(gate): State<Gate>) {
    if text.starts_with("stuck") {
        gate.pass().await;
    }
    seen.add(text);
}

/// Without a bound on what is finished above a stuck record, 20,000 came again at `max_in_flight(100)`.
#[klamm::test]
async fn what_is_finished_above_a_stuck_record_counts(kit: TestKit) {
    let (seen, gate) = (Seen::default(), Gate::default());
    kit.send("t", "stuck", "stuck").await;
    for n in 0..1_000 {
        kit.send("t", format!("{}", n % 7), format!("{n}")).await;
    }
    let listener = || {
        let listener = Listener::on("t").group("g").max_in_flight(100);
        listener.concurrency(4).dispatch(Dispatch::by_key()).handle(may_get_stuck)
    };
    let app = || kit.app().state(seen.clone()).state(gate.clone()).listener(listener());
    let first = app().start().await;
    let handle = first.listener("may_get_stuck").unwrap();
    until(|| handle.handled() == 99).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!((handle.handled(), handle.in_flight(), handle.unfinished()), (99, 100, 1));
    drop(first);

    // No more than the budget comes again.
    gate.let_through(1_000);
    let second = app().start().await;
    second.handled("may_get_stuck", 1_001).await;
    assert_eq!(seen.all().len(), 99 + 1_001);
    assert_eq!(kit.committed("g", "t", 0).await, Some(1_001));
}

/// One blocked handler over many partitions held 101,772 records.
#[klamm::test]
async fn many_partitions_share_it(kit: TestKit) {
    const PARTITIONS: i32 = 20;
    kit.create_topic("t", PARTITIONS).await;
    let (seen, gate) = (Seen::default(), Gate::default());
    for n in 0..40 {
        for partition in 0..PARTITIONS {
            let text = if partition < PARTITIONS / 2 { "stuck" } else { "free" };
            kit.send_to("t", partition, "k", format!("{text} {n}")).await;
        }
    }
    let listener = Listener::on("t").group("g").max_in_flight(100).concurrency(20).handle(may_get_stuck);
    let app = kit.app().state(seen.clone()).state(gate.clone()).listener(listener).start().await;
    let handle = app.listener("may_get_stuck").unwrap();
    let mut most = 0;
    until(|| {
        most = most.max(handle.in_flight());
        handle.handled() == 400
    })
    .await;
    sleep(Duration::from_secs(60)).await;
    // Ten stuck partitions have five records each, and no more.
    assert!(most <= 100, "{most}");
    assert_eq!((handle.in_flight(), handle.handled()), (50, 400));
    gate.let_through(400);
    app.handled("may_get_stuck", 800).await;
}

#[klamm::test]
async fn bytes_count_too(kit: TestKit) {
    let (seen, gate) = (Seen::default(), Gate::default());
    for _ in 0..50 {
        kit.send("t", "k", format!("stuck {}", "x".repeat(10_000))).await;
    }
    let listener = Listener::on("t").group("g").max_in_flight_bytes(100_000).handle(may_get_stuck);
    let app = kit.app().state(seen.clone()).state(gate.clone()).listener(listener).start().await;
    let handle = app.listener("may_get_stuck").unwrap();
    until(|| handle.unfinished() > 0).await;
    sleep(Duration::from_secs(60)).await;
    assert!((9..=10).contains(&handle.in_flight()), "{}", handle.in_flight());
    gate.let_through(50);
    app.handled("may_get_stuck", 50).await;
}

/// A record that is larger than the share comes alone.
#[klamm::test]
async fn a_record_larger_than_the_budget_is_handled(kit: TestKit) {
    let seen = Seen::default();
    let listener = Listener::on("t").group("g").max_in_flight_bytes(1).handle(crate::seen::note);
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    for text in ["a", "b", "c"] {
        kit.send("t", "k", text).await;
    }
    app.handled("note", 3).await;
    assert_eq!(seen.all(), ["a", "b", "c"]);
}

#[derive(Clone, Default)]
struct Later(Arc<Mutex<Vec<Ack>>>);

async fn keeps(ack: Ack, State(later): State<Later>) {
    later.0.lock().unwrap().push(ack);
}

#[klamm::test]
async fn acknowledgements_that_somebody_holds_count(kit: TestKit) {
    let later = Later::default();
    for n in 0..100 {
        kit.send_record(OutRecord::to("t").value(format!("{n}"))).await;
    }
    let listener = Listener::on("t").group("g").ack(AckPolicy::Manual).max_in_flight(10).handle(keeps);
    let app = kit.app().state(later.clone()).listener(listener).start().await;
    let held = || later.0.lock().unwrap().len();
    until(|| held() == 10).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(held(), 10);
    for round in 0..50 {
        let acks: Vec<_> = later.0.lock().unwrap().drain(..).collect();
        acks.into_iter().for_each(Ack::mark);
        sleep(Duration::from_millis(100)).await;
        assert!(held() <= 10, "round {round}");
    }
    app.handled("keeps", 100).await;
    assert_eq!(kit.committed("g", "t", 0).await, Some(100));
}

/// A batch that can become no fuller does not wait for its time.
#[klamm::test]
async fn a_batch_does_not_wait_for_what_there_is_no_room_for(kit: TestKit) {
    async fn sizes(batch: Batch<Value<String>>, State(seen): State<Seen>) {
        seen.add(batch.len().to_string());
    }
    kit.create_topic("t", 10).await;
    for n in 0..20 {
        kit.send_to("t", 0, "k", format!("{n}")).await;
    }
    let seen = Seen::default();
    let listener =
        Listener::on("t").group("g").max_in_flight(100).batch(100, Duration::from_secs(600)).handle(sizes);
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    let started = tokio::time::Instant::now();
    app.handled("sizes", 20).await;
    assert!(started.elapsed() < Duration::from_secs(60), "its share is ten records");
    assert_eq!(seen.all(), ["10", "10"]);
}
