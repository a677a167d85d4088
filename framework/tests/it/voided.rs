//! What is void has no consequences: deliveries before a seek, or of a partition that went to somebody else.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm::client::testing::{Answer, FakeBroker};
use klamm::client::{ApiKey, ErrorCode};
use klamm::listener::SeekTo;
use klamm::prelude::*;
use klamm::testing::TestKit;
use tokio::time::{sleep, timeout};

use crate::picky::{listening, send};
use crate::seen::{Gate, Seen, until};

const TEN_MINUTES: Duration = Duration::from_secs(600);

/// What begins with "bad" fails, when the gate lets it.
async fn gated(
    Value(text): Value<String>,
    State(seen): State<Seen>,
    State(gate): State<Gate>,
) -> Result<(), String> {
    seen.add(&text);
    if text.starts_with("bad") {
        gate.pass().await;
        return Err(text);
    }
    Ok(())
}

/// "bad" is in work, then the partition is moved behind it, then it fails.
async fn fails_after_a_seek(kit: &TestKit, policy: FailurePolicy) -> (klamm::testing::RunningTestApp, Seen) {
    let (seen, gate) = (Seen::default(), Gate::default());
    for text in ["bad", "good"] {
        kit.send("t", "k", text).await;
    }
    let listener = Listener::on("t").group("g").on_failure(policy).handle(gated);
    let app = kit.app().state(seen.clone()).state(gate.clone()).listener(listener).start().await;
    until(|| seen.count("bad") == 1).await;
    app.listener("gated").unwrap().seek(("t", 0), SeekTo::Offset(1)).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    gate.let_through(1);
    (app, seen)
}

/// It was put before what was read at the new place, which waited for its delay.
#[klamm::test]
async fn a_failure_of_before_a_seek_delays_nothing(kit: TestKit) {
    let policy = FailurePolicy::new().retry_in_place(Backoff::fixed(TEN_MINUTES));
    let (app, seen) = fails_after_a_seek(&kit, policy).await;
    timeout(Duration::from_secs(60), app.handled("gated", 1)).await.expect("the new place is read");
    sleep(TEN_MINUTES * 2).await;
    assert_eq!(seen.all(), ["bad", "good"]);
    assert_eq!(kit.committed("g", "t", 0).await, Some(2));
}

#[klamm::test]
async fn a_failure_of_before_a_seek_is_no_dead_letter(kit: TestKit) {
    let (app, seen) = fails_after_a_seek(&kit, FailurePolicy::new()).await;
    app.handled("gated", 1).await;
    sleep(TEN_MINUTES).await;
    assert_eq!(seen.all(), ["bad", "good"]);
    kit.topic("t-dlt").stays_empty().await;
}

#[klamm::test]
async fn a_failure_of_before_a_seek_stops_nobody(kit: TestKit) {
    let (app, _) = fails_after_a_seek(&kit, FailurePolicy::new().stop()).await;
    timeout(TEN_MINUTES, app.handled("gated", 1)).await.expect("the listener goes on");
    assert!(app.listener("gated").unwrap().is_running());
}

#[derive(Clone, Default)]
struct Later(Arc<Mutex<Vec<Ack>>>);

async fn keeps(ack: Ack, State(later): State<Later>) {
    later.0.lock().unwrap().push(ack);
}

#[klamm::test]
async fn an_acknowledgement_of_before_a_seek_may_be_dropped(kit: TestKit) {
    let later = Later::default();
    kit.send("t", "k", "v").await;
    let listener =
        Listener::on("t").group("g").ack(AckPolicy::Manual).on_failure(FailurePolicy::new()).handle(keeps);
    let app = kit.app().state(later.clone()).listener(listener).start().await;
    let held = || later.0.lock().unwrap().len();
    until(|| held() == 1).await;
    app.listener("keeps").unwrap().seek(("t", 0), SeekTo::Beginning).await.unwrap();
    until(|| held() == 2).await;
    let old = later.0.lock().unwrap().remove(0);
    drop(old);
    sleep(TEN_MINUTES).await;
    kit.topic("t-dlt").stays_empty().await;
    later.0.lock().unwrap().remove(0).mark();
    app.handled("keeps", 1).await;
    assert_eq!(kit.committed("g", "t", 0).await, Some(1));
}

/// The other member has the record, and makes a dead letter of it, if it must.
#[klamm::test]
async fn a_failure_in_a_partition_that_went_is_no_dead_letter(kit: TestKit) {
    kit.create_topic("t", 2).await;
    let (seen, gate) = (Seen::default(), Gate::default());
    let app = || {
        let listener = Listener::on("t").group("g").concurrency(4).revoke_deadline(Duration::from_secs(1));
        let listener = listener.on_failure(FailurePolicy::new()).handle(gated);
        kit.app().state(seen.clone()).state(gate.clone()).listener(listener)
    };
    let first = app().start().await;
    for partition in 0..2 {
        kit.send_to("t", partition, "k", format!("bad {partition}")).await;
    }
    until(|| seen.all().len() == 2).await;
    let second = app().start().await;
    // Delivered again to the other one.
    until(|| seen.all().len() == 3).await;
    gate.let_through(100);
    let handled = |app: &klamm::testing::RunningTestApp| app.listener("gated").unwrap().handled();
    until(|| handled(&first) + handled(&second) == 2).await;
    sleep(TEN_MINUTES).await;
    assert_eq!(kit.topic("t-dlt").values::<String>().await.len(), 2, "one letter for each record");
}

/// The partition stood still for a dead letter that nobody wants any more.
#[tokio::test(start_paused = true)]
async fn a_seek_past_a_dead_letter_that_cannot_be_sent_goes_on() {
    let (broker, seen) = (FakeBroker::start_in_memory().await.unwrap(), Seen::default());
    broker.topic("t", 1).topic("t-dlt", 1);
    broker.always_for("t-dlt", ApiKey::Produce, Answer::Error(ErrorCode::TopicAuthorizationFailed));
    let (_app, handle) = listening(&broker, &seen).await;
    send(&broker, &["bad", "good"]).await;
    until(|| handle.troubles().len() == 1).await;
    handle.seek(("t", 0), SeekTo::Offset(1)).await.unwrap();
    timeout(TEN_MINUTES, handle.wait_handled(1)).await.expect("the partition goes on").unwrap();
    assert!(handle.troubles().is_empty(), "{:?}", handle.troubles());
    broker.behave();
    sleep(TEN_MINUTES).await;
    assert!(broker.values("t-dlt", 0).is_empty(), "nobody wants it any more");
    assert_eq!(broker.committed("g", ("t", 0)), Some(2));
}
