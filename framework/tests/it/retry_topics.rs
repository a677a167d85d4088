//! Retry topics: what waits there keeps nobody waiting, comes when it is due, and survives whoever reads it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use klamm::app::StartError;
use klamm::client::OffsetReset;
use klamm::client::Record as OutRecord;
use klamm::listener::{Delivery, FromRecord, Rejection};
use klamm::prelude::*;
use klamm::testing::TestKit;
use tokio::time::Instant;

use crate::seen::{Seen, until};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const FIRST: &str = "t-retry-10s-g";
const LAST: &str = "t-retry-1m-g";

/// Fails up to the delivery that the value says: "name:3" fails three times. Says where it met a record, and when.
async fn shaky(Value(text): Value<String>, meta: RecordMeta, State(seen): State<Seen>) -> Result<(), String> {
    seen.add(format!("{text} {} {}", meta.topic, meta.attempt));
    let (name, fails) = text.split_once(':').unwrap_or((&text, "0"));
    if meta.attempt <= fails.parse().unwrap() { Err(format!("{name} is not well")) } else { Ok(()) }
}

fn steps() -> FailurePolicy {
    FailurePolicy::new().retry_in_place(Backoff::immediate().attempts(2)).retry_topics([10 * SECOND, MINUTE])
}

fn listener(policy: FailurePolicy) -> Listener {
    Listener::on("t").group("g").on_failure(policy).handle(shaky)
}

async fn partitions(kit: &TestKit, topic: &str) -> usize {
    let described = kit.client().admin().describe_topics(&[topic]).await.unwrap();
    described[topic].as_ref().unwrap().partitions.len()
}

#[klamm::test]
async fn a_record_takes_its_steps_while_others_go_on_and_dies_in_the_end(kit: TestKit) {
    kit.create_topic("t", 2).await;
    kit.create_topic("t-dlt", 2).await;
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(listener(steps())).start().await;
    let started = Instant::now();
    kit.send_to("t", 1, "k", "ill:9").await;
    kit.send_to("t", 1, "k", "behind").await;
    app.handled("shaky", 2).await;
    assert!(started.elapsed() < SECOND, "nothing waits for what is in a retry topic");
    assert_eq!(seen.all(), ["ill:9 t 1", "ill:9 t 2", "behind t 1"]);
    assert_eq!(kit.committed("g", "t", 1).await, Some(2));

    app.handled("shaky", 3).await;
    let waited = started.elapsed();
    assert!(waited >= 10 * SECOND && waited < 12 * SECOND, "{waited:?}");
    app.handled("shaky", 4).await;
    let waited = started.elapsed();
    assert!(waited >= 70 * SECOND && waited < 75 * SECOND, "{waited:?}");
    let steps = [
        format!("ill:9 {FIRST} 3"),
        format!("ill:9 {FIRST} 4"),
        format!("ill:9 {LAST} 5"),
        format!("ill:9 {LAST} 6"),
    ];
    assert_eq!(seen.all()[3..], steps);
    assert_eq!(kit.committed("g", FIRST, 1).await, Some(1), "in the partition of its number");
    assert_eq!(kit.committed("g", LAST, 1).await, Some(1));

    let [letter] = &kit.topic("t-dlt").records().await[..] else {
        panic!("one dead letter, of the first topic")
    };
    let header = |name: &str| letter.headers.last(name).flatten().unwrap_or_else(|| panic!("no {name}"));
    assert_eq!((letter.partition, header("kafka_dlt-original-topic")), (1, &b"t"[..]));
    assert_eq!(header("kafka_dlt-original-offset"), 0_i64.to_be_bytes());
    assert_eq!(header("kafka_dlt-exception-message"), b"ill is not well");
    assert_eq!(letter.headers.all("kafka_dlt-exception-message").count(), 1, "headers do not grow");
}

#[klamm::test]
async fn what_gets_well_on_the_way_is_done(kit: TestKit) {
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(listener(steps())).start().await;
    kit.send("t", "k", "ill:2").await;
    app.handled("shaky", 2).await;
    assert_eq!(seen.all(), ["ill:2 t 1", "ill:2 t 2", &format!("ill:2 {FIRST} 3")]);
    kit.topic(LAST).stays_empty().await;
    kit.topic("t-dlt").stays_empty().await;
}

/// Equal delays share a topic, and are told apart.
#[klamm::test]
async fn equal_steps_are_counted(kit: TestKit) {
    let seen = Seen::default();
    let policy = FailurePolicy::new().retry_topics([10 * SECOND; 3]).skip();
    let app = kit.app().state(seen.clone()).listener(listener(policy)).start().await;
    kit.send("t", "k", "ill:9").await;
    let started = Instant::now();
    app.handled("shaky", 4).await;
    assert!(started.elapsed() >= 30 * SECOND);
    assert_eq!(seen.all().last().unwrap(), &format!("ill:9 {FIRST} 4"));
    tokio::time::sleep(100 * SECOND).await;
    assert_eq!(seen.all().len(), 4);
}

/// A step that has begun to wait goes on waiting, and its count goes on, whoever reads it.
#[klamm::test]
async fn what_waits_survives_restarts_and_is_not_earlier(kit: TestKit) {
    let seen = Seen::default();
    let app = || kit.app().state(seen.clone()).listener(listener(steps()));
    let first = app().start().await;
    let sent = Instant::now();
    kit.send("t", "k", "ill:3").await;
    first.handled("shaky", 1).await;
    tokio::time::sleep(4 * SECOND).await;
    first.stop().await;
    assert_eq!(kit.committed("g", FIRST, 0).await, None, "nothing was begun there");
    let second = app().start().await;
    second.handled("shaky", 1).await;
    let waited = sent.elapsed();
    assert!(waited >= 10 * SECOND && waited < 12 * SECOND, "{waited:?}");
    let all = ["ill:3 t 1", "ill:3 t 2", &format!("ill:3 {FIRST} 3"), &format!("ill:3 {FIRST} 4")];
    assert_eq!(seen.all(), all);
}

/// Who begins at the end of topics would pass over what was sent to its retry topic before it read there.
#[klamm::test]
async fn a_group_that_begins_at_the_end_begins_its_retry_topics_at_their_beginning(kit: TestKit) {
    let (seen, healed) = (Seen::default(), Arc::new(AtomicBool::new(false)));
    let handle = async |Value(text): Value<String>,
                        State(seen): State<Seen>,
                        State(healed): State<Arc<AtomicBool>>| {
        seen.add(text);
        if healed.load(Ordering::SeqCst) { Ok(()) } else { Err("not yet") }
    };
    let listener = Listener::on_pattern("t[0-9]")
        .group("g")
        .id("numbered")
        .offset_reset(OffsetReset::Latest)
        .on_failure(FailurePolicy::new().retry_topics([MINUTE]))
        .handle(handle);
    kit.create_topic("t1", 1).await;
    let app = kit.app().state(seen.clone()).state(healed.clone()).listener(listener).start().await;
    kit.send("t1", "k", "ill").await;
    app.handled("numbered", 1).await;
    healed.store(true, Ordering::SeqCst);
    app.handled("numbered", 2).await;
    assert_eq!(seen.all(), ["ill", "ill"]);
}

#[klamm::test]
async fn by_key_and_unordered_wait_as_well(kit: TestKit) {
    for (topic, dispatch) in [("keys", Dispatch::by_key()), ("loose", Dispatch::unordered())] {
        let seen = Seen::default();
        let policy = FailurePolicy::new().retry_topics([10 * SECOND]);
        let listener =
            Listener::on(topic).group("g").id(topic).dispatch(dispatch).on_failure(policy).handle(shaky);
        let app = kit.app().state(seen.clone()).listener(listener).start().await;
        let started = Instant::now();
        for n in 0..20 {
            kit.send(topic, format!("k{}", n % 3), format!("{n}:1")).await;
        }
        app.handled(topic, 20).await;
        assert!(started.elapsed() < SECOND);
        app.handled(topic, 40).await;
        assert!(started.elapsed() >= 10 * SECOND);
        for n in 0..20 {
            assert_eq!(seen.count(&format!("{n}:1 {topic} 1")), 1);
            assert_eq!(seen.count(&format!("{n}:1 {topic}-retry-10s-g 2")), 1);
        }
        app.stop().await;
    }
}

/// The failed records of a batch, each for itself; a batch of what waits holds only what is due.
#[klamm::test]
async fn batches_are_of_what_is_due(kit: TestKit) {
    async fn batches(batch: Batch<(Value<String>, RecordMeta)>, State(seen): State<Seen>) -> BatchOutcome {
        let texts: Vec<String> =
            batch.iter().map(|(text, meta)| format!("{}/{}", **text, meta.attempt)).collect();
        seen.add(texts.join(" "));
        let mut outcome = BatchOutcome::ok();
        for (index, (text, meta)) in batch.into_iter().enumerate() {
            if text.starts_with("ill") && meta.attempt == 1 {
                outcome.fail(index, "not well");
            }
        }
        outcome
    }
    let seen = Seen::default();
    let policy = FailurePolicy::new().retry_topics([10 * SECOND]);
    let listener = Listener::on("t").group("g").on_failure(policy).handle(batches);
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    kit.send("t", "k", "ill 1").await;
    app.handled("batches", 1).await;
    tokio::time::sleep(5 * SECOND).await;
    kit.send("t", "k", "ill 2").await;
    kit.send("t", "k", "well").await;
    app.handled("batches", 5).await;
    let retried: Vec<String> = seen.all().into_iter().filter(|batch| batch.contains("/2")).collect();
    assert_eq!(retried, ["ill 1/2", "ill 2/2"]);
}

/// Serdes that go by the topic see the topic that the listener names.
#[klamm::test]
async fn a_record_is_read_as_one_of_its_own_topic(kit: TestKit) {
    struct Topic(String);
    impl FromRecord for Topic {
        type Rejection = Rejection;
        fn from_record(delivery: &Delivery<'_>) -> Result<Self, Rejection> {
            Ok(Self(format!("{} {}", delivery.source_topic(), delivery.attempt())))
        }
    }
    async fn topics(Topic(topic): Topic, State(seen): State<Seen>) -> Result<(), String> {
        seen.add(topic);
        if seen.all().len() < 2 { Err("again".into()) } else { Ok(()) }
    }
    let seen = Seen::default();
    let policy = FailurePolicy::new().retry_topics([SECOND]);
    let listener = Listener::on("t").group("g").on_failure(policy).handle(topics);
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    kit.send("t", "k", "x").await;
    app.handled("topics", 2).await;
    assert_eq!(seen.all(), ["t 1", "t 2"]);
}

/// Two groups on one topic do not read what failed in the other.
#[klamm::test]
async fn groups_have_retry_topics_of_their_own(kit: TestKit) {
    let (one, other) = (Seen::default(), Seen::default());
    let policy = || FailurePolicy::new().retry_topics([SECOND]);
    let of = |group: &str, seen: &Seen| {
        let listener = Listener::on("t").group(group).on_failure(policy()).handle(shaky);
        kit.app().state(seen.clone()).listener(listener)
    };
    let (first, second) = (of("g", &one).start().await, of("eu-g", &other).start().await);
    kit.send("t", "k", "ill:1").await;
    first.handled("shaky", 2).await;
    second.handled("shaky", 2).await;
    assert_eq!(one.all(), ["ill:1 t 1", "ill:1 t-retry-1s-g 2"]);
    assert_eq!(other.all(), ["ill:1 t 1", "ill:1 t-retry-1s-eu-g 2"]);
}

#[klamm::test]
async fn retry_topics_have_as_many_partitions_and_added_topics_have_theirs(kit: TestKit) {
    kit.create_topic("t", 3).await;
    kit.create_topic("later", 2).await;
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(listener(steps())).start().await;
    assert_eq!(partitions(&kit, FIRST).await, 3);
    let handle = app.listener("shaky").unwrap();
    handle.add_topics(["later"]).await.unwrap();
    until(|| handle.assignment().iter().any(|place| &*place.topic == "later")).await;
    kit.send_to("later", 1, "k", "ill:2").await;
    app.handled("shaky", 2).await;
    assert_eq!(seen.all().last().unwrap(), "ill:2 later-retry-10s-g 3");
    assert_eq!(partitions(&kit, "later-retry-10s-g").await, 2);
}

/// Headers that somebody else wrote, or that a broken clock wrote, keep a record no longer than its topic says.
#[klamm::test]
async fn strange_headers_hold_nothing_up(kit: TestKit) {
    kit.create_topic("t", 1).await;
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(listener(steps())).start().await;
    let started = Instant::now();
    let strange: [&[u8]; 4] = [&i64::MAX.to_be_bytes(), &i64::MIN.to_be_bytes(), b"", b"a very long header"];
    for value in strange {
        let record = OutRecord::to(FIRST).key("k").value("fine");
        let record = record.header("retry_topic-backoff-timestamp", value.to_vec());
        kit.send_record(
            record.header("retry_topic-attempts", value.to_vec()).header("klamm_retry-steps", value.to_vec()),
        )
        .await;
    }
    app.handled("shaky", 4).await;
    assert!(started.elapsed() < 11 * SECOND, "{:?}", started.elapsed());
    assert_eq!(kit.committed("g", FIRST, 0).await, Some(4));
}

#[klamm::test]
async fn a_group_that_no_topic_can_be_called_after_is_refused(kit: TestKit) {
    let listener = Listener::on("t").group("Größe").on_failure(steps()).handle(shaky);
    let refused = kit.app().state(Seen::default()).listener(listener).try_start().await.unwrap_err();
    assert!(matches!(refused, StartError::IllegalRetryTopic { .. }), "{refused:?}");
    assert!(refused.to_string().contains("t-retry-10s-Größe"), "{refused}");
}

/// More waits than the listener may have in hand; those that are well are handled meanwhile.
#[klamm::test]
async fn more_than_fits_in_hand_waits_in_the_topic(kit: TestKit) {
    let seen = Seen::default();
    let policy = FailurePolicy::new().retry_topics([MINUTE]);
    let listener = Listener::on("t").group("g").max_in_flight(20).on_failure(policy).handle(shaky);
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    let started = Instant::now();
    for n in 0..200 {
        kit.send("t", "k", format!("ill {n}:1")).await;
    }
    app.handled("shaky", 200).await;
    tokio::time::sleep(10 * SECOND).await;
    let asked = Instant::now();
    kit.send("t", "k", "well").await;
    app.handled("shaky", 201).await;
    assert!(asked.elapsed() < SECOND, "{:?}", asked.elapsed());
    app.handled("shaky", 401).await;
    assert!(
        started.elapsed() >= MINUTE && started.elapsed() < MINUTE + 10 * SECOND,
        "{:?}",
        started.elapsed()
    );
    for n in 0..200 {
        assert_eq!(seen.count(&format!("ill {n}:1 t-retry-1m-g 2")), 1);
    }
}

/// Members come and go while records wait: each is delivered, none before its time.
#[klamm::test]
async fn what_waits_goes_from_member_to_member(kit: TestKit) {
    kit.create_topic("t", 4).await;
    let seen = Seen::default();
    let policy = || FailurePolicy::new().retry_topics([MINUTE]);
    let member = || kit.app().state(seen.clone()).listener(listener(policy()));
    let first = member().start().await;
    let started = Instant::now();
    for n in 0..40 {
        kit.send_to("t", n % 4, "k", format!("ill {n}:1")).await;
    }
    first.handled("shaky", 40).await;
    for _ in 0..3 {
        let other = member().start().await;
        tokio::time::sleep(5 * SECOND).await;
        other.stop().await;
        tokio::time::sleep(5 * SECOND).await;
    }
    assert_eq!(seen.all().len(), 40, "before its time");
    let last = member().start().await;
    first.stop().await;
    let all_twice = || (0..40).all(|n| seen.count(&format!("ill {n}:1 t-retry-1m-g 2")) == 1);
    until(all_twice).await;
    assert!(started.elapsed() < MINUTE + 10 * SECOND, "{:?}", started.elapsed());
    last.handled("shaky", 40).await;
    for partition in 0..4 {
        assert_eq!(kit.committed("g", "t-retry-1m-g", partition).await.unwrap_or(0), 10);
    }
}

/// The broker goes while records are on their way into a retry topic, and while they wait there.
#[klamm::test]
async fn a_broker_that_restarts_loses_no_step(kit: TestKit) {
    kit.create_topic("t", 1).await;
    let seen = Seen::default();
    let policy = FailurePolicy::new().retry_topics([10 * SECOND, MINUTE]);
    let app = kit.app().state(seen.clone()).listener(listener(policy)).start().await;
    for n in 0..30 {
        kit.send("t", "k", format!("ill {n}:2")).await;
    }
    kit.crash_broker().await;
    tokio::time::sleep(5 * SECOND).await;
    kit.crash_broker().await;
    let done = || (0..30).all(|n| seen.count(&format!("ill {n}:2 {LAST} 3")) >= 1);
    until(done).await;
    app.handled("shaky", 90).await;
    kit.topic("t-dlt").stays_empty().await;
}
