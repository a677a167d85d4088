//! Starting, rebalancing, draining.

use std::time::Duration;

use klamm::app::StartError;
use klamm::prelude::*;
use klamm::testing::TestKit;
use tokio::time::{Instant, sleep};

use crate::seen::{Gate, Seen, note, until};

async fn gated(Value(text): Value<String>, State(seen): State<Seen>, State(gate): State<Gate>) {
    seen.add(format!("begin {text}"));
    gate.pass().await;
    seen.add(format!("end {text}"));
}

fn listener() -> Listener {
    Listener::on("t").group("g").concurrency(4).handle(gated)
}

#[klamm::test]
async fn a_drain_finishes_what_was_begun_and_begins_nothing(kit: TestKit) {
    let (seen, gate) = (Seen::default(), Gate::default());
    for text in ["a", "b", "c"] {
        kit.send("t", "k", text).await;
    }
    let app = kit.app().state(seen.clone()).state(gate.clone()).listener(listener()).start().await;
    until(|| seen.count("begin a") == 1).await;
    let opener = async {
        sleep(Duration::from_secs(5)).await;
        gate.let_through(100);
    };
    let (report, ()) = tokio::join!(app.shutdown(Duration::from_secs(60)), opener);
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(seen.all(), ["begin a", "end a"]);
    assert_eq!(kit.committed("g", "t", 0).await, Some(1));
}

#[klamm::test]
async fn a_drain_ends_at_its_deadline_and_tells_what_is_unfinished(kit: TestKit) {
    let (seen, gate) = (Seen::default(), Gate::default());
    kit.create_topic("t", 2).await;
    kit.send_to("t", 0, "k", "a").await;
    kit.send_to("t", 0, "k", "b").await;
    kit.send_to("t", 0, "k", "c").await;
    kit.send_to("t", 1, "k", "d").await;
    let app = kit.app().state(seen.clone()).state(gate.clone()).listener(listener()).start().await;
    until(|| seen.count("begin a") + seen.count("begin d") == 2).await;
    let started = Instant::now();
    let report = app.shutdown(Duration::from_secs(3)).await;
    assert!(started.elapsed() >= Duration::from_secs(3) && started.elapsed() < Duration::from_secs(6));
    let mut unfinished: Vec<_> =
        report.unfinished.iter().map(|record| (record.partition, record.offset)).collect();
    unfinished.sort_unstable();
    assert_eq!(unfinished, [(0, 0), (1, 0)], "what was never begun is not in the report");
    assert_eq!(report.unfinished[0].to_string().split(':').next(), Some("gated"));

    // All of it is delivered again.
    gate.let_through(100);
    let app = kit.app().state(seen.clone()).state(gate.clone()).listener(listener()).start().await;
    app.handled("gated", 4).await;
    assert_eq!(seen.count("end a") + seen.count("end d"), 2);
}

#[klamm::test]
async fn a_retry_delay_does_not_hold_up_a_drain(kit: TestKit) {
    async fn fails() -> Result<(), &'static str> {
        Err("always")
    }
    let policy = FailurePolicy::new().retry_in_place(Backoff::fixed(Duration::from_secs(600)).forever());
    let app = kit.app().listener(Listener::on("t").group("g").on_failure(policy).handle(fails)).start().await;
    kit.send("t", "k", "v").await;
    let handle = app.listener("fails").unwrap();
    until(|| handle.in_retry() == 1).await;
    let started = Instant::now();
    let report = app.shutdown(Duration::from_secs(60)).await;
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!(report.unfinished.len(), 1);
}

#[klamm::test]
async fn a_second_shutdown_shortens_the_first(kit: TestKit) {
    let (seen, gate) = (Seen::default(), Gate::default());
    let app = kit.app().state(seen.clone()).state(gate.clone()).listener(listener()).start().await;
    kit.send("t", "k", "a").await;
    until(|| seen.count("begin a") == 1).await;
    let started = Instant::now();
    let impatient = async {
        sleep(Duration::from_secs(1)).await;
        app.shutdown(Duration::ZERO).await
    };
    let (patient, _) = tokio::join!(app.shutdown(Duration::from_secs(600)), impatient);
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(patient.unfinished.len(), 1);
}

#[klamm::test]
async fn a_rebalance_waits_for_what_is_in_work_and_loses_and_repeats_nothing(kit: TestKit) {
    kit.create_topic("t", 4).await;
    let (seen, gate) = (Seen::default(), Gate::default());
    let app = || kit.app().state(seen.clone()).state(gate.clone()).listener(listener());
    let first = app().start().await;
    let handle = first.listener("gated").unwrap();
    until(|| handle.assignment().len() == 4).await;
    for partition in 0..4 {
        kit.send_to("t", partition, "k", format!("{partition}")).await;
    }
    until(|| seen.all().len() == 4).await;

    // Four handlers are in work when the second member comes.
    let second = app().start().await;
    sleep(Duration::from_secs(5)).await;
    gate.let_through(1_000);
    let other = second.listener("gated").unwrap();
    until(|| handle.assignment().len() == 2 && other.assignment().len() == 2).await;

    for round in 1..=10 {
        for partition in 0..4 {
            kit.send_to("t", partition, "k", format!("{partition} round {round}")).await;
        }
    }
    until(|| handle.handled() + other.handled() == 44).await;
    assert!(handle.handled() > 4 && other.handled() > 0);
    for partition in 0..4 {
        assert_eq!(seen.count(&format!("begin {partition}")), 1, "finished before its partition moved");
    }

    assert!(first.stop().await.is_clean());
    until(|| other.assignment().len() == 4).await;
    kit.send_to("t", 0, "k", "last").await;
    until(|| seen.count("end last") == 1).await;
    assert!(second.stop().await.is_clean());
    assert_eq!(seen.all().iter().filter(|text| text.starts_with("begin")).count(), 45);
    for partition in 0..4 {
        let records = if partition == 0 { 12 } else { 11 };
        assert_eq!(kit.committed("g", "t", partition).await, Some(records));
    }
}

#[kafka_listener(topics = "t", group = "g", ack = manual, concurrency = 4)]
async fn acknowledges(ack: Ack, State(seen): State<Seen>, State(gate): State<Gate>) {
    seen.add("begin");
    gate.pass().await;
    seen.add(format!("{:?}", ack.now().await));
}

#[klamm::test]
async fn what_is_in_work_can_be_acknowledged_and_committed_while_its_partition_leaves(kit: TestKit) {
    kit.create_topic("t", 2).await;
    let (seen, gate) = (Seen::default(), Gate::default());
    let app = || kit.app().state(seen.clone()).state(gate.clone()).listener(acknowledges);
    let first = app().start().await;
    kit.send_to("t", 0, "k", "a").await;
    kit.send_to("t", 1, "k", "b").await;
    until(|| seen.count("begin") == 2).await;
    let second = app().start().await;
    sleep(Duration::from_secs(5)).await;
    gate.let_through(2);
    let (one, other) = (first.listener("acknowledges").unwrap(), second.listener("acknowledges").unwrap());
    until(|| one.assignment().len() == 1 && other.assignment().len() == 1).await;
    assert_eq!(seen.all(), ["begin", "begin", "Ok(())", "Ok(())"]);
    for partition in 0..2 {
        assert_eq!(kit.committed("g", "t", partition).await, Some(1));
    }
}

#[klamm::test]
async fn a_handler_that_does_not_end_cannot_hold_a_rebalance_up(kit: TestKit) {
    kit.create_topic("t", 2).await;
    let (seen, gate) = (Seen::default(), Gate::default());
    let listener =
        || Listener::on("t").group("g").concurrency(4).revoke_deadline(Duration::from_secs(2)).handle(gated);
    let app = || kit.app().state(seen.clone()).state(gate.clone()).listener(listener());
    let first = app().start().await;
    kit.send_to("t", 0, "k", "a").await;
    kit.send_to("t", 1, "k", "b").await;
    until(|| seen.all().len() == 2).await;
    let second = app().start().await;
    let other = second.listener("gated").unwrap();
    until(|| other.assignment().len() == 1).await;
    // The moved record is delivered again; its first delivery, which ends now, counts for nothing.
    until(|| seen.all().len() == 3).await;
    gate.let_through(100);
    second.handled("gated", 1).await;
    first.handled("gated", 1).await;
    for partition in 0..2 {
        assert_eq!(kit.committed("g", "t", partition).await, Some(1));
    }
}

#[klamm::test]
async fn a_wrong_app_does_not_start_and_says_why(kit: TestKit) {
    #[kafka_listener(topics = "t", group = "g")]
    async fn needs_state(State(_seen): State<Seen>) {}
    async fn needs_ack(ack: Ack) {
        ack.mark();
    }
    async fn plain() {}

    let said = async |app: klamm::testing::TestApp| app.try_start().await.unwrap_err().to_string();
    let on = || Listener::on("t").group("g");
    assert!(said(kit.app()).await.contains("no listeners"));
    assert_eq!(
        said(kit.app().listener(needs_state)).await,
        format!(
            "listener `needs_state` takes `State<{}>`, but the app has no such state; add it with `App::state(...)`",
            std::any::type_name::<Seen>()
        )
    );
    assert!(said(kit.app().listener(on().handle(needs_ack))).await.contains("not manual"));
    assert!(
        said(kit.app().listener(on().ack(AckPolicy::Manual).handle(plain))).await.contains("takes no `Ack`")
    );
    assert!(said(kit.app().listener(on().concurrency(0).handle(plain))).await.contains("concurrency 0"));
    assert!(
        said(kit.app().listener(Listener::on("t").group("").handle(plain))).await.contains("group is empty")
    );
    assert!(said(kit.app().listener(on().batch(5, Duration::ZERO).handle(plain))).await.contains("Batch<T>"));
    let twice = kit.app().listener(on().handle(plain)).listener(on().handle(plain));
    let twice = said(twice).await;
    assert!(twice.starts_with("two listeners have the id `plain`: `it::lifecycle::"), "{twice}");
    assert!(twice.ends_with("::plain`, twice; give one another with `id`"), "{twice}");
    let not_annotated = kit.app().listener(plain).try_start().await.unwrap_err();
    assert!(matches!(not_annotated, StartError::NotAnnotated { .. }), "{not_annotated}");
}

#[klamm::test(needs_paused_clock)]
async fn restarts_and_crashes_of_the_broker_lose_nothing(kit: TestKit) {
    const RECORDS: usize = 400;
    kit.create_topic("t", 2).await;
    let seen = Seen::default();
    let app = || kit.app().state(seen.clone()).listener(Listener::on("t").group("g").handle(note));
    let app = app().start().await;
    let write = async {
        for n in 0..RECORDS {
            kit.send_to("t", (n % 2) as i32, "k", format!("{n}")).await;
            sleep(Duration::from_millis(50)).await;
        }
    };
    let harm = async {
        for round in 0..6 {
            sleep(Duration::from_millis(2_500)).await;
            if round % 2 == 0 { kit.crash_broker().await } else { kit.restart_broker().await }
        }
    };
    tokio::join!(write, harm);
    until(|| (0..RECORDS).all(|n| seen.count(&n.to_string()) > 0)).await;
    for parity in 0..2 {
        let firsts: Vec<usize> = first_sights(&seen).into_iter().filter(|n| n % 2 == parity).collect();
        assert!(firsts.is_sorted(), "in order within a partition: {firsts:?}");
    }
    assert!(app.stop().await.is_clean());
    for partition in 0..2 {
        assert_eq!(kit.committed("g", "t", partition).await, Some(RECORDS as i64 / 2));
    }
}

fn first_sights(seen: &Seen) -> Vec<usize> {
    let mut firsts: Vec<usize> = Vec::new();
    for n in seen.all().iter().map(|n| n.parse().unwrap()) {
        if !firsts.contains(&n) {
            firsts.push(n);
        }
    }
    firsts
}

#[kafka_listener(topics = "discovered-topic", group = "discovered-group")]
async fn discovered(Value(text): Value<String>, State(seen): State<Seen>) {
    seen.add(text);
}

#[klamm::test]
async fn several_listeners_live_in_one_app(kit: TestKit) {
    let seen = Seen::default();
    let app = kit
        .app()
        .state(seen.clone())
        .listener(discovered)
        .listener(Listener::on("a").group("g").id("a").handle(note))
        .listener(Listener::on("b").group("g").id("b").handle(note))
        .start()
        .await;
    for (topic, id) in [("discovered-topic", "discovered"), ("a", "a"), ("b", "b")] {
        kit.send(topic, "k", topic).await;
        app.handled(id, 1).await;
    }
    assert_eq!(seen.all(), ["discovered-topic", "a", "b"]);
    assert_eq!(app.listeners().count(), 3);
}
