//! Handlers that do their worst, and logs that end in what is no record.

use std::fmt;
use std::panic::panic_any;
use std::time::Duration;

use klamm::client::{IsolationLevel, TopicPartition};
use klamm::listener::{CommandError, ListenerBuilder, SeekTo, WantsHandler};
use klamm::prelude::*;
use klamm::template::{SendError, Transactions};
use klamm::testing::TestKit;
use tokio::time::{sleep, timeout};

use crate::seen::{Gate, Seen, note, own_names, until};

const TEN_MINUTES: Duration = Duration::from_secs(600);

/// What panics when it is dropped.
#[derive(Debug)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("a bomb");
        }
    }
}

impl fmt::Display for Bomb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a bomb")
    }
}

impl std::error::Error for Bomb {}

async fn panics_with(Value(text): Value<String>, State(seen): State<Seen>) {
    seen.add(&text);
    if text == "bad" {
        panic_any(Bomb);
    }
}

async fn fails_with(Value(text): Value<String>, State(seen): State<Seen>) -> Result<(), Bomb> {
    seen.add(&text);
    if text == "bad" { Err(Bomb) } else { Ok(()) }
}

/// The lane goes on behind a record of which nothing can be dropped.
async fn goes_on(kit: TestKit, handle: impl FnOnce(ListenerBuilder<WantsHandler>) -> Listener) {
    let (t, g) = own_names();
    let seen = Seen::default();
    let policy = FailurePolicy::new().retry_in_place(Backoff::immediate().attempts(2));
    let listener = handle(Listener::on(&*t).group(&*g).id("evil").on_failure(policy));
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    for text in ["bad", "good"] {
        kit.send(&t, "k", text).await;
    }
    timeout(TEN_MINUTES, app.handled("evil", 2)).await.expect("the lane goes on");
    assert_eq!(seen.all(), ["bad", "bad", "good"]);
}

/// It ended the listener, as a defect of klamm.
#[klamm::test]
async fn a_panic_with_what_panics_when_it_is_dropped_is_of_its_record_alone(kit: TestKit) {
    goes_on(kit, |listener| listener.handle(panics_with)).await;
}

#[klamm::test]
async fn an_error_that_panics_when_it_is_dropped_is_of_its_record_alone(kit: TestKit) {
    goes_on(kit, |listener| listener.handle(fails_with)).await;
}

async fn end_of(kit: &TestKit, topic: &str) -> i64 {
    let place = TopicPartition::new(topic, 0);
    let consumer = kit.client().consumer().assign([place.clone()]).start().await.unwrap();
    consumer.handle().end_offsets(std::slice::from_ref(&place)).await.unwrap()[&place]
}

/// Sees records before their marker is there.
fn uncommitted(topic: &str, group: &str) -> Listener {
    Listener::on(topic).group(group).isolation(IsolationLevel::ReadUncommitted).handle(note)
}

/// A group that had handled everything showed a lag for ever.
#[klamm::test]
async fn a_log_that_ends_in_a_marker_is_committed_to_its_end(kit: TestKit) {
    let (t, g) = own_names();
    let seen = Seen::default();
    let app = || kit.app().state(seen.clone()).listener(uncommitted(&t, &g));
    let first = app().start().await;
    let transactions = Transactions::new(kit.client(), format!("x-{t}"));
    let sent = transactions.run(|tx| {
        let (seen, t) = (seen.clone(), t.clone());
        async move {
            tx.send(&*t, "k", "in a transaction").await?;
            // It is handled and committed before the marker is written.
            until(|| seen.all().len() == 1).await;
            sleep(Duration::from_secs(5)).await;
            Ok::<_, SendError>(())
        }
    });
    sent.await.unwrap();
    sleep(Duration::from_secs(30)).await;
    let end = end_of(&kit, &t).await;
    assert_eq!((end, kit.committed(&g, &t, 0).await), (2, Some(2)), "while it runs");
    assert!(first.stop().await.is_clean());
}

#[klamm::test]
async fn markers_alone_are_committed_after_a_restart(kit: TestKit) {
    let (t, g) = own_names();
    let seen = Seen::default();
    let app = || kit.app().state(seen.clone()).listener(uncommitted(&t, &g));
    let first = app().start().await;
    let transactions = Transactions::new(kit.client(), format!("x-{t}"));
    let sent = transactions.run(|tx| {
        let (seen, t) = (seen.clone(), t.clone());
        async move {
            tx.send(&*t, "k", "in a transaction").await?;
            until(|| seen.all().len() == 1).await;
            assert!(first.stop().await.is_clean());
            Ok::<_, SendError>(())
        }
    });
    sent.await.unwrap();
    assert_eq!(kit.committed(&g, &t, 0).await, Some(1));
    let second = app().start().await;
    sleep(Duration::from_secs(30)).await;
    assert_eq!(kit.committed(&g, &t, 0).await, Some(2));
    assert!(second.stop().await.is_clean());
    assert_eq!(seen.all(), ["in a transaction"]);
}

/// Nothing came at the new place before the listener stopped, and the next start delivered what had been left.
#[klamm::test]
async fn a_seek_to_the_end_outlasts_the_listener(kit: TestKit) {
    let (t, g) = own_names();
    async fn fails(State(seen): State<Seen>) -> Result<(), &'static str> {
        seen.add("called");
        Err("always")
    }
    let seen = Seen::default();
    let app = || {
        let policy = FailurePolicy::new().retry_in_place(Backoff::fixed(Duration::from_secs(60)).forever());
        let listener = Listener::on(&*t).group(&*g).on_failure(policy).handle(fails);
        kit.app().state(seen.clone()).listener(listener)
    };
    kit.send(&t, "k", "poison").await;
    let first = app().start().await;
    let handle = first.listener("fails").unwrap();
    until(|| handle.in_retry() == 1).await;
    handle.seek((&*t, 0), SeekTo::End).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    first.stop().await;
    let before = seen.all().len();
    let _second = app().start().await;
    sleep(TEN_MINUTES).await;
    assert_eq!((seen.all().len(), kit.committed(&g, &t, 0).await), (before, Some(1)));
}

/// What begins with "stuck" waits at the gate.
async fn may_get_stuck(Value(text): Value<String>, State(seen): State<Seen>, State(gate): State<Gate>) {
    if text.starts_with("stuck") {
        gate.pass().await;
    }
    seen.add(text);
}

/// A partition that had its share when it was small stood still, although its share had grown.
#[klamm::test]
async fn a_share_that_grows_is_used(kit: TestKit) {
    let (t, g) = own_names();
    let (u, _) = own_names();
    let (seen, gate) = (Seen::default(), Gate::default());
    kit.create_topic(&t, 1).await;
    kit.create_topic(&u, 9).await;
    kit.send(&t, "stuck", "stuck").await;
    for n in 0..50 {
        kit.send(&t, format!("{n}"), format!("{n}")).await;
    }
    let listener = Listener::on([&*t, &*u]).group(&*g).max_in_flight(100).concurrency(4);
    let listener = listener.dispatch(Dispatch::by_key()).handle(may_get_stuck);
    let app = kit.app().state(seen.clone()).state(gate.clone()).listener(listener).start().await;
    let handle = app.listener("may_get_stuck").unwrap();
    until(|| handle.handled() == 9).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(handle.handled(), 9, "its share is ten");
    handle.remove_topics(&*u).await.unwrap();
    until(|| handle.assignment().len() == 1).await;
    timeout(TEN_MINUTES, app.handled("may_get_stuck", 50)).await.expect("its share is a hundred");
    gate.let_through(1);
    app.handled("may_get_stuck", 51).await;
}

/// What is refused at the start came in by the back door.
#[klamm::test]
async fn topics_that_its_own_output_goes_to_cannot_be_added(kit: TestKit) {
    let (t, g) = own_names();
    for topic in ["t", "graveyard", "answers"] {
        kit.create_topic(topic, 1).await;
    }
    async fn answers(Value(text): Value<String>) -> Reply<String> {
        Reply::new(text)
    }
    let policy = FailurePolicy::new().dead_letter_to("graveyard");
    let buries = Listener::on(&*t).group(&*g).on_failure(policy).handle(note);
    let replies = Listener::on(&*t).group(format!("{g}-h")).send_to("answers").handle(answers);
    let app = kit.app().state(Seen::default()).listener(buries).listener(replies).start().await;
    let refused: CommandError =
        app.listener("note").unwrap().add_topics("graveyard").await.expect_err("its dead letters go there");
    assert!(refused.to_string().contains("graveyard"), "{refused}");
    let refused = app.listener("answers").unwrap().add_topics("answers").await.expect_err("its replies go");
    assert!(refused.to_string().contains("answers"), "{refused}");
}
