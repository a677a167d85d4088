//! What a running listener can be told: pause, seek, other topics.

use std::time::Duration;

use klamm::client::TopicPartition;
use klamm::listener::{CommandError, SeekTo};
use klamm::prelude::*;
use klamm::testing::TestKit;
use tokio::time::{sleep, timeout};

use crate::seen::{Gate, Seen, note, until};

const TEN_MINUTES: Duration = Duration::from_secs(600);

#[klamm::test]
async fn a_paused_listener_begins_nothing_and_stays_in_its_group(kit: TestKit) {
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(Listener::on("t").group("g").handle(note)).start().await;
    let handle = app.listener("note").unwrap();
    kit.send("t", "k", "before").await;
    app.handled("note", 1).await;
    handle.pause().await.unwrap();
    assert!(handle.is_paused());
    kit.send("t", "k", "meanwhile").await;
    sleep(TEN_MINUTES).await;
    assert_eq!((seen.all().len(), handle.assignment().len()), (1, 1));
    handle.resume().await.unwrap();
    app.handled("note", 2).await;
    assert_eq!(seen.all(), ["before", "meanwhile"]);
}

#[klamm::test]
async fn health_says_what_each_listener_does(kit: TestKit) {
    async fn refuse(Value(_text): Value<String>) -> Result<(), String> {
        Err("never".to_owned())
    }
    kit.create_topic("t", 2).await;
    let (seen, gate) = (Seen::default(), Gate::default());
    let held = async |Value(_text): Value<String>, State(gate): State<Gate>| gate.pass().await;
    let app = kit
        .app()
        .state(seen.clone())
        .state(gate.clone())
        .listener(Listener::on("t").group("held").id("held").handle(held))
        .listener(Listener::on("t").group("g").on_failure(FailurePolicy::new().stop()).handle(refuse))
        .start()
        .await;
    let health = app.health();
    assert!(health.is_live() && health.is_ready(), "{health}");
    for n in 0..5 {
        kit.send_to("t", 0, "k", format!("{n}")).await;
        kit.send_to("t", 1, "k", format!("{n}")).await;
    }
    app.listener("refuse").unwrap().failure().await.unwrap();
    let handle = app.listener("held").unwrap();
    until(|| handle.lag() == Some(10)).await;
    let health = app.health();
    assert!(!health.is_live() && !health.is_ready(), "{health}");
    let text = health.to_string();
    assert!(text.contains("held (held): running, 2 partitions, lag 10, "), "{text}");
    assert!(text.contains("refuse (g): failed (t-"), "{text}");
    gate.let_through(10);
    app.handled("held", 10).await;
    assert_eq!(handle.lag(), Some(0));
    handle.pause().await.unwrap();
    assert!(app.health().to_string().contains("held (held): paused"), "{}", app.health());
}

#[klamm::test]
async fn a_paused_partition_stays_paused_when_it_goes_and_comes(kit: TestKit) {
    kit.create_topic("t", 2).await;
    let seen = Seen::default();
    let app = || kit.app().state(seen.clone()).listener(Listener::on("t").group("g").handle(note));
    let first = app().start().await;
    let handle = first.listener("note").unwrap();
    for partition in 0..2 {
        handle.pause_partition(("t", partition)).await.unwrap();
    }
    let second = app().start().await;
    until(|| handle.assignment().len() == 1).await;
    second.stop().await;
    until(|| handle.assignment().len() == 2).await;
    for partition in 0..2 {
        kit.send_to("t", partition, "k", format!("{partition}")).await;
    }
    sleep(TEN_MINUTES).await;
    assert_eq!(seen.all(), [""; 0]);
    // All partitions and one are paused apart.
    handle.pause().await.unwrap();
    handle.resume_partition(("t", 1)).await.unwrap();
    sleep(TEN_MINUTES).await;
    assert_eq!(seen.all(), [""; 0]);
    handle.resume().await.unwrap();
    first.handled("note", 1).await;
    sleep(TEN_MINUTES).await;
    assert_eq!(seen.all(), ["1"]);
}

async fn gated(Value(text): Value<String>, State(seen): State<Seen>, State(gate): State<Gate>) {
    seen.add(&text);
    if text == "2" {
        gate.pass().await;
    }
}

/// What was in work before a seek says nothing about the same records when they come again.
#[klamm::test]
async fn a_seek_begins_anew(kit: TestKit) {
    let (seen, gate) = (Seen::default(), Gate::default());
    for n in 0..5 {
        kit.send("t", "k", format!("{n}")).await;
    }
    let listener = || Listener::on("t").group("g").handle(gated);
    let app = kit.app().state(seen.clone()).state(gate.clone()).listener(listener()).start().await;
    let handle = app.listener("gated").unwrap();
    until(|| seen.all().len() == 3).await;
    handle.seek(("t", 0), SeekTo::Offset(1)).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(kit.committed("g", "t", 0).await, Some(1), "the new place, and nothing of the old ones");
    assert_eq!(seen.all().len(), 3, "one at a time, also while the old one is in work");
    gate.let_through(1);
    until(|| seen.all().len() == 5).await;
    assert_eq!(seen.all(), ["0", "1", "2", "1", "2"]);
    gate.let_through(1);
    until(|| seen.all().len() == 7).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(kit.committed("g", "t", 0).await, Some(5));

    for (to, first) in [(SeekTo::Beginning, "0"), (SeekTo::TimestampMs(0), "0")] {
        let before = seen.all().len();
        gate.let_through(1);
        handle.seek(("t", 0), to).await.unwrap();
        until(|| seen.all().len() == before + 5).await;
        assert_eq!(seen.all()[before], first);
    }
    handle.seek(("t", 0), SeekTo::End).await.unwrap();
    kit.send("t", "k", "last").await;
    until(|| seen.count("last") == 1).await;
    let elsewhere = handle.seek(("t", 7), SeekTo::Beginning).await;
    assert!(matches!(elsewhere, Err(CommandError::NotAssigned { .. })));
    assert!(app.stop().await.is_clean());
    assert!(matches!(handle.pause().await, Err(CommandError::Ended)));
}

#[klamm::test]
async fn topics_come_and_go(kit: TestKit) {
    let seen = Seen::default();
    for topic in ["a", "b"] {
        kit.create_topic(topic, 1).await;
    }
    let app = kit.app().state(seen.clone()).listener(Listener::on("a").group("g").handle(note)).start().await;
    let handle = app.listener("note").unwrap();
    handle.add_topics("b").await.unwrap();
    until(|| handle.assignment().len() == 2).await;
    kit.send("b", "k", "of b").await;
    app.handled("note", 1).await;
    handle.remove_topics(["a"]).await.unwrap();
    until(|| handle.assignment() == [TopicPartition::new("b", 0)]).await;
    assert!(matches!(handle.remove_topics("b").await, Err(CommandError::NoTopics)));
    let illegal = handle.add_topics("a,b").await.unwrap_err();
    assert!(illegal.to_string().contains("no topic can be called \"a,b\""), "{illegal}");
    kit.send("b", "k", "more").await;
    app.handled("note", 2).await;
    assert_eq!(kit.committed("g", "b", 0).await, Some(2));

    let pattern =
        kit.app().state(seen).listener(Listener::on_pattern("c.*").group("p").handle(note)).start().await;
    let refused = timeout(TEN_MINUTES, pattern.listener("note").unwrap().add_topics("d")).await.unwrap();
    assert!(matches!(refused, Err(CommandError::Pattern)));
}
