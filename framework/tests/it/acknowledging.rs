//! Acknowledging by hand, and the ack policies.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm::prelude::*;
use klamm::testing::{RunningTestApp, TestKit};
use tokio::time::sleep;

use crate::seen::{Gate, Seen, note, until};

#[kafka_listener(topics = "t", group = "g", ack = manual)]
async fn careful(Value(text): Value<String>, ack: Ack, State(seen): State<Seen>) -> Result<(), Error> {
    seen.add(text);
    Ok(ack.now().await?)
}

#[klamm::test]
async fn now_commits_now(kit: TestKit) {
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(careful).start().await;
    kit.send("t", "k", "a").await;
    app.handled("careful", 1).await;
    assert_eq!(kit.committed("g", "t", 0).await, Some(1));
}

/// Acknowledgements that handlers left for later.
#[derive(Clone, Default)]
struct Later(Arc<Mutex<Vec<Ack>>>);

impl Later {
    fn take(&self, index: usize) -> Ack {
        self.0.lock().unwrap().remove(index)
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

#[kafka_listener(topics = "t", group = "g", ack = manual, on_failure = FailurePolicy::new())]
async fn later(ack: Ack, State(later): State<Later>) {
    later.0.lock().unwrap().push(ack);
}

#[klamm::test]
async fn acknowledgements_may_come_later_and_in_any_order(kit: TestKit) {
    let acks = Later::default();
    let app = kit.app().state(acks.clone()).listener(later).start().await;
    for n in 0..4 {
        kit.send("t", "k", format!("{n}")).await;
    }
    until(|| acks.len() == 4).await;
    acks.take(2).now().await.unwrap();
    acks.take(1).now().await.unwrap();
    assert_eq!(kit.committed("g", "t", 0).await, None, "offset 0 is not acknowledged");
    acks.take(0).now().await.unwrap();
    assert_eq!(kit.committed("g", "t", 0).await, Some(3));
    assert_eq!(app.listener("later").unwrap().unfinished(), 1);
    acks.take(0).mark();
    app.handled("later", 4).await;
    assert_eq!(kit.committed("g", "t", 0).await, Some(4));
}

#[klamm::test]
async fn an_acknowledgement_dropped_later_is_a_failure(kit: TestKit) {
    let acks = Later::default();
    let app = kit.app().state(acks.clone()).listener(later).start().await;
    kit.send("t", "k", "forgotten").await;
    until(|| acks.len() == 1).await;
    drop(acks.take(0));
    app.handled("later", 1).await;
    let letter = kit.topic("t-dlt").next().await;
    let message = letter.headers.last("kafka_dlt-exception-message").flatten().unwrap();
    assert_eq!(String::from_utf8_lossy(message), "the handler dropped its `Ack` without using it");
}

#[kafka_listener(topics = "t", group = "g", ack = manual)]
async fn forgetful(meta: RecordMeta, ack: Ack, State(seen): State<Seen>) {
    seen.add("call");
    if meta.attempt == 3 {
        ack.mark();
    }
}

#[klamm::test]
async fn an_unused_acknowledgement_is_a_failure_that_is_retried(kit: TestKit) {
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(forgetful).start().await;
    kit.send("t", "k", "v").await;
    app.handled("forgetful", 1).await;
    assert_eq!(seen.all().len(), 3);
    kit.topic("t-dlt").stays_empty().await;
}

#[kafka_listener(topics = "t", group = "g", ack = manual)]
async fn acknowledges_then_fails(ack: Ack, State(seen): State<Seen>) -> Result<(), String> {
    seen.add("call");
    ack.mark();
    Err("too late".to_owned())
}

#[klamm::test]
async fn what_is_acknowledged_is_done_whatever_comes_after(kit: TestKit) {
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(acknowledges_then_fails).start().await;
    kit.send("t", "k", "v").await;
    app.handled("acknowledges_then_fails", 1).await;
    kit.topic("t-dlt").stays_empty().await;
    assert_eq!(seen.all(), ["call"]);
}

#[kafka_listener(topics = "t", group = "g", batch, ack = manual)]
async fn manual_batch(batch: Batch<Value<String>>, ack: Ack, State(seen): State<Seen>) -> Result<(), Error> {
    batch.iter().for_each(|text| seen.add(&text.0));
    Ok(ack.now().await?)
}

#[klamm::test]
async fn a_batch_has_one_acknowledgement(kit: TestKit) {
    let seen = Seen::default();
    for n in 0..10 {
        kit.send("t", "k", format!("{n}")).await;
    }
    let app = kit.app().state(seen.clone()).listener(manual_batch).start().await;
    app.handled("manual_batch", 10).await;
    assert_eq!(kit.committed("g", "t", 0).await, Some(10));
    assert_eq!(seen.all().len(), 10);
}

async fn gated(Value(text): Value<String>, State(seen): State<Seen>, State(gate): State<Gate>) {
    seen.add(text);
    gate.pass().await;
}

#[klamm::test]
async fn record_commits_before_the_next_record(kit: TestKit) {
    let (seen, gate) = (Seen::default(), Gate::default());
    for n in 0..3 {
        kit.send("t", "k", format!("{n}")).await;
    }
    let listener = Listener::on("t").group("g").ack(AckPolicy::Record).handle(gated);
    let app = kit.app().state(seen.clone()).state(gate.clone()).listener(listener).start().await;
    for n in 1..=3 {
        until(|| seen.all().len() == n).await;
        let before = (n > 1).then_some(n as i64 - 1);
        assert_eq!(kit.committed("g", "t", 0).await, before, "while record {n} is in work");
        gate.let_through(1);
    }
    app.handled("gated", 3).await;
}

#[klamm::test]
async fn batch_commits_every_second_at_the_latest(kit: TestKit) {
    let (seen, gate) = (Seen::default(), Gate::default());
    for n in 0..3 {
        kit.send("t", "k", format!("{n}")).await;
    }
    let listener = Listener::on("t").group("g").handle(gated);
    let _app = kit.app().state(seen.clone()).state(gate.clone()).listener(listener).start().await;
    until(|| seen.all().len() == 1).await;
    gate.let_through(1);
    until(|| seen.all().len() == 2).await;
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(kit.committed("g", "t", 0).await, Some(1));
}

#[klamm::test]
async fn a_group_goes_on_where_it_committed(kit: TestKit) {
    let seen = Seen::default();
    let listener = || Listener::on("t").group("g").handle(note);
    for round in 1..=3_u64 {
        kit.send("t", "k", format!("{round}")).await;
        let app = kit.app().state(seen.clone()).listener(listener()).start().await;
        app.handled("note", 1).await;
        assert!(app.stop().await.is_clean());
    }
    assert_eq!(seen.all(), ["1", "2", "3"]);
}

/// A listener with this policy.
async fn by(kit: &TestKit, policy: AckPolicy) -> (RunningTestApp, Seen) {
    let seen = Seen::default();
    let listener = Listener::on("t").group("g").ack(policy).handle(note);
    (kit.app().state(seen.clone()).listener(listener).start().await, seen)
}

/// So many more records go through it; what it commits by then is committed.
async fn through(kit: &TestKit, seen: &Seen, records: usize) -> Option<i64> {
    for _ in 0..records {
        let before = seen.all().len();
        kit.send("t", "k", "v").await;
        until(|| seen.all().len() > before).await;
    }
    sleep(Duration::from_millis(50)).await;
    kit.committed("g", "t", 0).await
}

#[klamm::test]
async fn time_commits_in_its_interval_and_at_the_end(kit: TestKit) {
    let (app, seen) = by(&kit, AckPolicy::Time(Duration::from_secs(60))).await;
    assert_eq!(through(&kit, &seen, 3).await, None);
    sleep(Duration::from_secs(50)).await;
    assert_eq!(kit.committed("g", "t", 0).await, None);
    sleep(Duration::from_secs(12)).await;
    assert_eq!(kit.committed("g", "t", 0).await, Some(3));
    assert_eq!(through(&kit, &seen, 1).await, Some(3));
    assert!(app.stop().await.is_clean());
    assert_eq!(kit.committed("g", "t", 0).await, Some(4));
}

#[klamm::test]
async fn count_commits_when_so_many_are_finished_and_what_is_left_over_in_a_quiet_moment(kit: TestKit) {
    let (_app, seen) = by(&kit, AckPolicy::Count(3)).await;
    let mut committed = Vec::new();
    for _ in 0..4 {
        committed.push(through(&kit, &seen, 1).await);
    }
    assert_eq!(committed, [None, None, Some(3), Some(3)]);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(kit.committed("g", "t", 0).await, Some(4));
}

#[klamm::test]
async fn count_and_time_commit_by_whichever_is_first(kit: TestKit) {
    let (_app, seen) = by(&kit, AckPolicy::CountTime(3, Duration::from_secs(60))).await;
    sleep(Duration::from_secs(30)).await;
    assert_eq!(through(&kit, &seen, 3).await, Some(3));
    assert_eq!(through(&kit, &seen, 1).await, Some(3));
    sleep(Duration::from_secs(50)).await;
    assert_eq!(kit.committed("g", "t", 0).await, Some(3));
    sleep(Duration::from_secs(12)).await;
    assert_eq!(kit.committed("g", "t", 0).await, Some(4));
}

#[kafka_listener(topics = "t", group = "g", ack = AckPolicy::Count(2))]
async fn by_twos(Value(text): Value<String>, State(seen): State<Seen>) {
    seen.add(text);
}

#[klamm::test]
async fn the_macro_takes_any_policy_and_one_that_means_nothing_is_refused(kit: TestKit) {
    let seen = Seen::default();
    let _app = kit.app().state(seen.clone()).listener(by_twos).start().await;
    assert_eq!(through(&kit, &seen, 1).await, None);
    assert_eq!(through(&kit, &seen, 1).await, Some(2));
    for (policy, reason) in [
        (AckPolicy::Count(0), "a commit after 0 records is none"),
        (AckPolicy::Time(Duration::ZERO), "an interval of nothing"),
        (AckPolicy::CountTime(1, Duration::ZERO), "an interval of nothing"),
    ] {
        let listener = Listener::on("u").group("g").ack(policy).handle(note);
        let refused = kit.app().state(Seen::default()).listener(listener).try_start().await;
        let error = refused.err().unwrap().to_string();
        assert!(error.contains(reason), "{error}");
    }
}
