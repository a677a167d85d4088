//! What happens to listeners, as streams of events.

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use klamm::client::TopicPartition;
use klamm::client::testing::FakeBroker;
use klamm::listener::{Event, Events, ListenerEvent, PauseReason};
use klamm::prelude::*;
use klamm::testing::TestKit;
use tokio::time::{Instant, advance, sleep, timeout};

use crate::seen::{Gate, Seen, note, until};

const HOUR: Duration = Duration::from_secs(3_600);

/// The events that are there, each in a word.
fn words(events: &mut Events) -> Vec<String> {
    std::iter::from_fn(|| events.next().now_or_never().flatten()).map(|event| word(&event)).collect()
}

fn word(Event { what, .. }: &Event) -> String {
    match what {
        ListenerEvent::Assigned { partitions } => format!("assigned {}", partitions.len()),
        ListenerEvent::Revoked { partitions } => format!("revoked {}", partitions.len()),
        ListenerEvent::Lost { partitions } => format!("lost {}", partitions.len()),
        ListenerEvent::Paused { partition, reason } => format!("paused {partition:?} {reason:?}"),
        ListenerEvent::Resumed { partition, reason } => format!("resumed {partition:?} {reason:?}"),
        ListenerEvent::Idle { lasting } => format!("idle {}", lasting.as_secs()),
        ListenerEvent::Trouble(_) => "trouble".to_owned(),
        ListenerEvent::TroubleOver(_) => "trouble over".to_owned(),
        ListenerEvent::HandlerSlow { partition, offset, running } => {
            format!("slow {partition} {offset} {}", running.as_secs())
        }
        ListenerEvent::Stopped { report } => format!("stopped, clean: {}", report.is_clean()),
        ListenerEvent::Failed { failure, .. } => format!("failed: {failure}"),
        other => format!("{other:?}"),
    }
}

#[klamm::test]
async fn a_life_in_events(kit: TestKit) {
    kit.create_topic("t", 2).await;
    let seen = Seen::default();
    let listener = Listener::on("t").group("g").handle(note);
    let app = kit.app().state(seen.clone()).listener(listener);
    let mut events = app.events();
    let app = app.start().await;
    let handle = app.listener("note").unwrap();
    let mut own = handle.events();
    assert_eq!(words(&mut events), ["Started", "assigned 2"]);
    handle.pause().await.unwrap();
    handle.resume().await.unwrap();
    let place = TopicPartition::new("t", 1);
    handle.pause_partition(place.clone()).await.unwrap();
    handle.resume_partition(place).await.unwrap();
    let asked = ["paused None Asked", "resumed None Asked"];
    let of_one = [PauseReason::Asked; 1].map(|reason| {
        let place = Some(TopicPartition::new("t", 1));
        [format!("paused {place:?} {reason:?}"), format!("resumed {place:?} {reason:?}")]
    });
    assert_eq!(words(&mut events), [&asked.map(str::to_owned)[..], &of_one[0]].concat());
    let other = kit.app().state(seen).listener(Listener::on("t").group("g").handle(note)).start().await;
    until(|| handle.assignment().len() == 1).await;
    assert_eq!(words(&mut events)[0], "revoked 1");
    other.stop().await;
    app.shutdown(Duration::from_secs(5)).await;
    let last: Vec<String> = timeout(HOUR, events.map(|event| word(&event)).collect()).await.unwrap();
    assert!(
        last.ends_with(&["Stopping".into(), "revoked 2".into(), "stopped, clean: true".into()]),
        "{last:?}"
    );
    let own: Vec<String> = timeout(HOUR, own.by_ref().map(|event| word(&event)).collect()).await.unwrap();
    assert!(
        own.starts_with(&["paused None Asked".into()]) && own.ends_with(&last[last.len() - 1..]),
        "{own:?}"
    );
    assert!(
        handle.events().next().await.is_none() && app.events().next().await.is_none(),
        "nothing more comes"
    );
}

/// Of several listeners each has its own; the app has those of all, and ends with the last.
#[klamm::test]
async fn a_failure_is_an_event_and_the_others_go_on(kit: TestKit) {
    async fn refuse(Value(_text): Value<String>) -> Result<(), String> {
        Err("never".to_owned())
    }
    let app = kit
        .app()
        .state(Seen::default())
        .listener(Listener::on("bad").group("g").on_failure(FailurePolicy::new().stop()).handle(refuse))
        .listener(Listener::on("t").group("g2").handle(note))
        .start()
        .await;
    let (mut all, failing) = (app.events(), app.listener("refuse").unwrap().events());
    kit.send("bad", "k", "v").await;
    let failing: Vec<String> = timeout(HOUR, failing.map(|event| word(&event)).collect()).await.unwrap();
    assert_eq!(failing.last().map(String::as_str), Some("failed: bad-0, offset 0: never"), "{failing:?}");
    let seen = words(&mut all);
    assert!(seen.contains(&"failed: bad-0, offset 0: never".to_owned()), "{seen:?}");
    app.stop().await;
    let rest: Vec<Event> = timeout(HOUR, all.collect()).await.unwrap();
    assert!(rest.iter().all(|event| *event.listener == *"note"), "{rest:?}");
}

/// Dropping the app ends its streams, too, although nobody stopped it in good order.
#[klamm::test]
async fn streams_end_when_the_app_is_dropped(kit: TestKit) {
    let app =
        kit.app().state(Seen::default()).listener(Listener::on("t").group("g").handle(note)).start().await;
    let (mut all, handle) = (app.events(), app.listener("note").unwrap());
    let mut own = handle.events();
    drop(app);
    timeout(HOUR, async { while all.next().await.is_some() {} }).await.unwrap();
    timeout(HOUR, async { while own.next().await.is_some() {} }).await.unwrap();
}

#[klamm::test]
async fn a_listener_tells_when_it_is_idle_and_when_it_is_not(kit: TestKit) {
    let listener = Listener::on("t").group("g").idle_after(Duration::from_secs(60)).handle(held);
    let gate = Gate::default();
    let app = kit.app().state(gate.clone()).listener(listener).start().await;
    let mut events = app.events();
    sleep(Duration::from_secs(59)).await;
    assert_eq!(words(&mut events), [""; 0]);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(words(&mut events), ["idle 60"], "once");
    kit.send("t", "k", "v").await;
    let busy = timeout(Duration::from_millis(900), events.next()).await.unwrap().unwrap();
    assert!(matches!(busy.what, ListenerEvent::NotIdle), "{busy:?}, and at once");
    sleep(Duration::from_secs(25)).await;
    assert_eq!(words(&mut events), [""; 0], "what is in hand is no idleness");
    gate.let_through(1);
    app.handled("held", 1).await;
    let begun = Instant::now();
    let idle = timeout(HOUR, events.next()).await.unwrap().unwrap();
    assert!(matches!(idle.what, ListenerEvent::Idle { .. }), "{idle:?}");
    assert!((59..=61).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}

async fn held(Value(_text): Value<String>, State(gate): State<Gate>) {
    gate.pass().await;
}

#[klamm::test]
async fn a_slow_handler_is_told_of_with_its_record(kit: TestKit) {
    let gate = Gate::default();
    let listener = Listener::on("t").group("g").slow_after(Duration::from_secs(10)).handle(held);
    let app = kit.app().state(gate.clone()).listener(listener).start().await;
    let mut events = app.events();
    gate.let_through(1);
    kit.send("t", "k", "quick").await;
    kit.send("t", "k", "slow").await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(words(&mut events), ["slow t-0 1 10"], "once");
    let oldest = app.health().listeners[0].oldest.as_secs();
    assert!((58..=61).contains(&oldest), "{oldest}");
    gate.let_through(1);
    app.handled("held", 2).await;
    sleep(Duration::from_secs(2)).await;
    assert!(app.health().listeners[0].oldest.is_zero());
}

#[tokio::test(start_paused = true)]
async fn troubles_and_losses_are_events() {
    let broker = FakeBroker::start_in_memory().await.unwrap();
    broker.topic("t", 1);
    let listener = Listener::on("t").group("g").handle(note);
    let app = App::with_client(broker.client().await.unwrap()).state(Seen::default()).listener(listener);
    let app = app.start().await.unwrap();
    let handle = app.listener("note").unwrap();
    let mut events = app.events();
    handle.add_topics("mispelt").await.unwrap();
    timeout(HOUR, until(|| handle.troubles().len() == 1)).await.unwrap();
    assert!(words(&mut events).contains(&"trouble".to_owned()));
    sleep(HOUR).await;
    assert_eq!(words(&mut events), [""; 0], "once, however often it is said");
    handle.remove_topics("mispelt").await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert!(words(&mut events).contains(&"trouble over".to_owned()));
    broker.expel("g");
    let lost = async { while word(&events.next().await.unwrap()) != "lost 1" {} };
    timeout(HOUR, lost).await.unwrap();
}

/// Nobody reads: nothing grows, nobody waits, and who reads on later is told how much there was.
#[klamm::test]
async fn a_stream_that_nobody_reads_holds_up_nothing(kit: TestKit) {
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(Listener::on("t").group("g").handle(note)).start().await;
    let (mut slow, handle) = (app.events(), app.listener("note").unwrap());
    for _ in 0..5_000 {
        handle.pause().await.unwrap();
        handle.resume().await.unwrap();
    }
    kit.send("t", "k", "v").await;
    app.handled("note", 1).await;
    let first = slow.next().await.unwrap();
    assert_eq!(first.missed, 10_000 - 1_024);
    for _ in 1..1_024 {
        assert!(slow.next().await.is_some_and(|event| event.missed == 0));
    }
    assert_eq!(words(&mut slow), [""; 0]);
}

/// The clock goes on while nothing else does, as when a thread is blocked.
#[klamm::test]
async fn a_poll_loop_that_does_not_turn_shows_in_health(kit: TestKit) {
    let app =
        kit.app().state(Seen::default()).listener(Listener::on("t").group("g").handle(note)).start().await;
    let handle = app.listener("note").unwrap();
    for _ in 0..100 {
        sleep(Duration::from_secs(7)).await;
        assert_eq!(handle.unresponsive(), None, "it turns also when nothing comes");
    }
    let mut blocked = std::pin::pin!(advance(Duration::from_secs(45)));
    assert!(blocked.as_mut().now_or_never().is_none());
    let health = app.health();
    assert!(handle.unresponsive().is_some_and(|age| age.as_secs() >= 40) && !health.is_ready(), "{health}");
    assert!(health.to_string().contains("unresponsive for 4") && health.is_live(), "{health}");
    blocked.await;
    sleep(Duration::from_secs(1)).await;
    assert!(app.health().is_ready(), "{}", app.health());
}

/// Who ends has no more to turn for, however long the end takes.
#[klamm::test]
async fn a_listener_that_drains_is_not_unresponsive(kit: TestKit) {
    let gate = Gate::default();
    let listener = Listener::on("t").group("g").idle_after(Duration::MAX).handle(held);
    let app = kit.app().state(gate.clone()).listener(listener).start().await;
    let handle = app.listener("held").unwrap();
    kit.send("t", "k", "v").await;
    until(|| handle.unfinished() == 1).await;
    let watched = async {
        sleep(Duration::from_secs(100)).await;
        let health = app.health();
        gate.let_through(1);
        health
    };
    let (report, health) = tokio::join!(app.shutdown(Duration::from_secs(200)), watched);
    assert!(report.is_clean() && health.to_string().contains("held (g): running"), "{health}");
}
