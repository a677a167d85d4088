//! The listeners of a running app are started, stopped, added, resized and taken out.

use std::time::Duration;

use klamm::app::{ListenerState, RegistryError, StartError};
use klamm::prelude::*;
use klamm::testing::TestKit;

use crate::seen::{Gate, Seen, note, until};

const SECOND: Duration = Duration::from_secs(1);

fn noting(id: &str) -> Listener {
    Listener::on("t").group(id).id(id).handle(note)
}

#[klamm::test]
async fn a_listener_that_does_not_start_with_the_app_is_started_and_stopped(kit: TestKit) {
    let seen = Seen::default();
    let late = Listener::on("t").group("late").id("late").auto_start(false).handle(note);
    let app = kit.app().state(seen.clone()).listener(late).start().await;
    let registry = app.registry();
    assert!(app.listener("late").is_none() && app.listeners().next().is_none());
    let health = app.health();
    assert!(matches!(health.listeners[0].state, ListenerState::Off), "{health}");
    assert!(health.is_live() && health.is_ready(), "somebody wants it so");

    kit.send("t", "k", "one").await;
    let handle = registry.start("late").await.unwrap();
    assert_eq!(handle.assignment().len(), 1, "its group has answered");
    app.handled("late", 1).await;
    assert_eq!(registry.start("late").await.unwrap().handled(), 1, "one that runs goes on");

    assert!(registry.stop("late", SECOND).await.unwrap().is_clean());
    assert!(!handle.is_running() && app.health().to_string().starts_with("late (late): off, 0 partitions"));
    assert!(registry.stop("late", SECOND).await.unwrap().is_clean(), "it does not run");
    kit.send("t", "k", "two").await;
    registry.start("late").await.unwrap();
    app.handled("late", 1).await;
    assert_eq!(seen.all(), ["one", "two"], "it goes on where it stopped");
    let handle = app.listener("late").unwrap();
    assert!(app.stop().await.is_clean());
    assert!(!handle.is_running());
    assert!(matches!(registry.start("late").await, Err(RegistryError::Ended)));
    assert!(!registry.health().is_ready(), "nothing is off because somebody wants it to be");
}

#[klamm::test]
async fn listeners_come_and_go_while_others_run(kit: TestKit) {
    let seen = Seen::default();
    let app =
        kit.app().state(seen.clone()).property("group", "second").listener(noting("first")).start().await;
    let registry = app.registry();
    kit.send("t", "k", "one").await;
    registry.add(Listener::on("t").group("${group}").id("second").handle(note)).await.unwrap();
    app.handled("second", 1).await;
    assert_eq!((kit.committed("second", "t", 0).await, registry.ids().len()), (Some(1), 2));
    let twice = registry.add(noting("second")).await.unwrap_err();
    assert!(matches!(twice, RegistryError::Start(StartError::DuplicateId { .. })), "{twice}");
    async fn of_nobody(_: State<Vec<u8>>) {}
    let stateless = Listener::on("t").group("g").handle(of_nobody);
    let error = registry.add(stateless).await.unwrap_err();
    assert!(matches!(error, RegistryError::Start(StartError::MissingState { .. })), "{error}");

    assert!(registry.remove("second", SECOND).await.unwrap().is_clean());
    assert_eq!(registry.ids().len(), 1);
    let unknown = registry.start("second").await.unwrap_err();
    assert!(unknown.to_string().contains("has no listener `second`; it has [\"first\"]"), "{unknown}");
    registry.add(noting("second")).await.unwrap();
    kit.send("t", "k", "two").await;
    app.handled("second", 1).await;
    app.handled("first", 2).await;
    assert_eq!((seen.count("one"), seen.count("two")), (2, 2), "its group had not forgotten");
    drop(app);
    assert!(matches!(registry.add(noting("third")).await, Err(RegistryError::Ended)));
}

/// One that comes later belongs to the app as the others do: a pattern leaves its dead letters out.
#[klamm::test]
async fn dead_letters_of_a_listener_that_came_later_are_left_out_of_patterns(kit: TestKit) {
    async fn refuse(Value(_text): Value<String>) -> Result<(), String> {
        Err("never".to_owned())
    }
    let seen = Seen::default();
    let all = Listener::on_pattern(".*").group("all").id("all").handle(note);
    let app = kit.app().state(seen.clone()).listener(all).start().await;
    let refusing = Listener::on("t").group("g").on_failure(FailurePolicy::new().dead_letter()).handle(refuse);
    app.registry().add(refusing).await.unwrap();
    kit.send("t", "k", "v").await;
    app.handled("refuse", 1).await;
    kit.topic("t-dlt").next().await;
    // Longer than metadata is kept.
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(seen.all(), ["v"]);
}

async fn gated(Value(text): Value<String>, State(seen): State<Seen>, State(gate): State<Gate>) {
    seen.add(text);
    gate.pass().await;
}

#[klamm::test]
async fn a_listener_is_resized_while_it_runs(kit: TestKit) {
    let (seen, gate) = (Seen::default(), Gate::default());
    let listener = Listener::on("t").group("g").concurrency(1).dispatch(Dispatch::unordered()).handle(gated);
    let app = kit.app().state(seen.clone()).state(gate.clone()).listener(listener).start().await;
    let registry = app.registry();
    let at_work = |finished: usize| seen.all().len() - finished;
    for n in 0..20 {
        kit.send("t", "k", format!("{n}")).await;
    }
    until(|| at_work(0) == 1).await;
    registry.resize("gated", 4).await.unwrap();
    until(|| at_work(0) == 4).await;
    registry.resize("gated", 2).await.unwrap();
    gate.let_through(4);
    app.handled("gated", 4).await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(at_work(4), 2, "those beyond have ended");
    assert!(matches!(registry.resize("gated", 0).await, Err(RegistryError::NoConcurrency)));

    registry.stop("gated", Duration::ZERO).await.unwrap();
    registry.resize("gated", 3).await.unwrap();
    let before = seen.all().len();
    registry.start("gated").await.unwrap();
    until(|| at_work(before) == 3).await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(at_work(before), 3, "what was said while it did not run");
    gate.let_through(100);
    app.handled("gated", 16).await;
}

#[klamm::test]
async fn container_groups_start_and_stop_together(kit: TestKit) {
    let member = |id: &str, group: &str| {
        Listener::on("t").group(id).id(id).container_group(group).auto_start(false).handle(note)
    };
    let app = kit.app().state(Seen::default());
    let app =
        app.listener(member("a", "x")).listener(member("b", "x")).listener(member("c", "y")).start().await;
    let registry = app.registry();
    let running = || {
        let ids = registry.ids().into_iter();
        ids.filter(|id| registry.get(id).is_some_and(|handle| handle.is_running()))
            .collect::<Vec<_>>()
            .join("")
    };
    registry.start_group("x").await.unwrap();
    assert_eq!(running(), "ab");
    registry.start_group("y").await.unwrap();
    assert!(registry.stop_group("x", SECOND).await.unwrap().is_clean());
    assert_eq!(running(), "c");
    let unknown = registry.start_group("z").await;
    assert!(matches!(unknown, Err(RegistryError::UnknownGroup { .. })), "{unknown:?}");
}

#[klamm::test]
async fn groups_run_one_after_the_other_has_been_idle(kit: TestKit) {
    let seen = Seen::default();
    for n in 0..3 {
        kit.send("tables", "k", format!("table {n}")).await;
    }
    kit.send("work", "k", "work").await;
    let reading = Listener::on("tables").group("g1").id("reading").container_group("first").handle(note);
    let working = Listener::on("work").group("g2").id("working").container_group("second").handle(note);
    let app = kit.app().state(seen.clone()).listener(working).listener(reading);
    let app = app.sequence(Duration::from_secs(30), ["first", "second"]).start().await;
    app.handled("reading", 3).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    kit.send("tables", "k", "table 3").await;
    app.handled("reading", 4).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(app.listener("working").is_none(), "it was not idle for long enough");
    until(|| app.listener("working").is_some()).await;
    app.handled("working", 1).await;
    assert_eq!(seen.all(), ["table 0", "table 1", "table 2", "table 3", "work"]);
    assert!(!app.listener("reading").unwrap().is_running());
    let health = app.health();
    assert!(health.is_ready(), "{health}");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(app.listener("working").unwrap().is_running(), "the last one goes on");
}

#[klamm::test]
async fn a_sequence_of_groups_that_nobody_is_in_does_not_start(kit: TestKit) {
    let member = || Listener::on("t").group("g").container_group("a").handle(note);
    let app = || kit.app().state(Seen::default()).listener(member());
    let error = app().sequence(SECOND, ["a", "b"]).try_start().await.unwrap_err();
    assert!(matches!(error, StartError::NoContainerGroup { .. }), "{error}");
    let error = app().sequence(SECOND, ["a", "a"]).try_start().await.unwrap_err();
    assert!(matches!(error, StartError::ContainerGroupTwice { .. }), "{error}");
}
