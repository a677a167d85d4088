//! Listeners that end by themselves and are started again.

use std::time::Duration;

use klamm::app::ListenerState;
use klamm::listener::ListenerEvent;
use klamm::prelude::*;
use klamm::testing::TestKit;
use tokio::time::{Instant, sleep, timeout};

use crate::seen::{Seen, note, until};

const SECOND: Duration = Duration::from_secs(1);

/// Fails so often, and then no more.
async fn weak(Value(text): Value<String>, State(seen): State<Seen>) -> Result<(), String> {
    seen.add(&text);
    let attempts = text.parse().unwrap_or(usize::MAX);
    if seen.count(&text) <= attempts { Err("it is weak".to_owned()) } else { Ok(()) }
}

fn stopping(restart: Backoff) -> Listener {
    Listener::on("t").group("g").on_failure(FailurePolicy::new().stop()).restart(restart).handle(weak)
}

#[klamm::test]
async fn a_listener_that_failed_is_started_again_after_a_while(kit: TestKit) {
    let seen = Seen::default();
    let listener = stopping(Backoff::exponential(10 * SECOND).forever());
    let app = kit.app().state(seen.clone()).listener(listener);
    let mut events = app.events();
    let app = app.start().await;
    let begun = Instant::now();
    kit.send("t", "k", "2").await;
    until(|| seen.all().len() == 1 && !app.listener("weak").unwrap().is_running()).await;
    let health = app.health();
    assert!(health.is_live() && !health.is_ready(), "{health}");
    assert!(health.to_string().starts_with("weak (g): restarting in "), "{health}");
    until(|| seen.all().len() == 3).await;
    app.handled("weak", 1).await;
    assert!((30 * SECOND..50 * SECOND).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    let health = app.health();
    assert!(health.is_ready() && health.listeners[0].restarts == 2, "{health:?}");
    assert_eq!(kit.committed("g", "t", 0).await, Some(1));
    assert!(timeout(600 * SECOND, app.failure()).await.is_err(), "it is no failure of the app");
    app.stop().await;
    let mut told = Vec::new();
    while let Some(event) = events.next().await {
        match event.what {
            ListenerEvent::Started => told.push("started".to_owned()),
            ListenerEvent::Failed { .. } => told.push("failed".to_owned()),
            ListenerEvent::Restarting { after } => told.push(format!("restarting {}", after.as_secs())),
            _ => {}
        }
    }
    let again = |after| ["failed".to_owned(), format!("restarting {after}"), "started".to_owned()];
    assert_eq!(told, [&["started".to_owned()][..], &again(10), &again(20)].concat());
}

#[klamm::test]
async fn after_so_many_starts_the_failure_is_the_apps(kit: TestKit) {
    let seen = Seen::default();
    let app =
        kit.app().state(seen.clone()).listener(stopping(Backoff::fixed(SECOND).attempts(3))).start().await;
    kit.send("t", "k", "always").await;
    let (listener, failure) = app.failure().await;
    assert_eq!((&*listener, seen.all().len()), ("weak", 3), "{failure}");
    let health = app.health();
    assert!(!health.is_live() && matches!(health.listeners[0].state, ListenerState::Failed(_)), "{health}");
    // Somebody has seen to it.
    app.registry().start("weak").await.unwrap();
    assert!(app.health().is_live());
    until(|| seen.all().len() == 6).await;
}

#[klamm::test]
async fn who_waits_for_a_restart_can_be_stopped_and_started(kit: TestKit) {
    let seen = Seen::default();
    let restart = Backoff::fixed(600 * SECOND).forever();
    let app = kit.app().state(seen.clone()).listener(stopping(restart)).start().await;
    let is_restarting = || match app.health().listeners[0].state {
        ListenerState::Restarting { after, .. } => !after.is_zero(),
        _ => false,
    };
    kit.send("t", "k", "3").await;
    until(is_restarting).await;
    app.registry().start("weak").await.unwrap();
    until(|| seen.all().len() == 2).await;
    until(is_restarting).await;
    app.registry().stop("weak", SECOND).await.unwrap();
    sleep(1_800 * SECOND).await;
    assert_eq!(seen.all().len(), 2, "it is off");
    assert!(app.health().is_ready());
}

/// Others go on, and an app that ends meanwhile does not begin it any more.
#[klamm::test]
async fn an_app_that_ends_starts_nothing_again(kit: TestKit) {
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(stopping(Backoff::fixed(10 * SECOND).forever()));
    let app = app.listener(Listener::on("other").group("other").handle(note)).start().await;
    kit.send("t", "k", "always").await;
    until(|| seen.all().len() == 1 && !app.listener("weak").unwrap().is_running()).await;
    kit.send("other", "k", "v").await;
    app.handled("note", 1).await;
    app.stop().await;
    sleep(600 * SECOND).await;
    assert_eq!(seen.all(), ["always", "v"]);
}
