//! What becomes of records that fail: retries, dead letters, skips, stops, panics.

use std::time::Duration;

use klamm::client::Record as OutRecord;
use klamm::prelude::*;
use klamm::testing::TestKit;
use tokio::time::Instant;

use crate::seen::{Seen, until};

/// Fails as often as the value says: "name:3" fails three times.
async fn shaky(Value(text): Value<String>, meta: RecordMeta, State(seen): State<Seen>) -> Result<(), String> {
    seen.add(&text);
    let (name, fails) = text.split_once(':').unwrap_or((&text, "0"));
    if meta.attempt <= fails.parse().unwrap() { Err(format!("{name} is not well")) } else { Ok(()) }
}

fn retrying(delay: Duration, attempts: u32) -> FailurePolicy {
    FailurePolicy::new().retry_in_place(Backoff::fixed(delay).attempts(attempts))
}

#[klamm::test]
async fn a_retry_delay_keeps_other_partitions_flowing(kit: TestKit) {
    kit.create_topic("t", 2).await;
    let seen = Seen::default();
    let minute = Duration::from_secs(60);
    let listener = Listener::on("t").group("g").on_failure(retrying(minute, 9)).handle(shaky);
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    let started = Instant::now();
    kit.send_to("t", 0, "k", "ill:3").await;
    kit.send_to("t", 0, "k", "behind").await;
    for n in 0..20 {
        kit.send_to("t", 1, "k", format!("well {n}")).await;
    }
    app.handled("shaky", 20).await;
    assert!(started.elapsed() < minute, "the others did not wait for the retry");
    assert_eq!(seen.count("behind"), 0, "order within the partition");
    assert_eq!((kit.committed("g", "t", 0).await, kit.committed("g", "t", 1).await), (None, Some(20)));
    assert_eq!(app.listener("shaky").unwrap().in_retry(), 1);

    app.handled("shaky", 22).await;
    assert!(started.elapsed() >= 3 * minute);
    assert_eq!(seen.count("ill:3"), 4);
    assert_eq!(kit.committed("g", "t", 0).await, Some(2));
    kit.topic("t-dlt").stays_empty().await;
}

#[klamm::test]
async fn by_key_only_the_failing_key_waits(kit: TestKit) {
    let seen = Seen::default();
    let listener = Listener::on("t")
        .group("g")
        .dispatch(Dispatch::by_key())
        .on_failure(retrying(Duration::from_secs(60), 9))
        .handle(shaky);
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    kit.send("t", "a", "first a:1").await;
    kit.send("t", "a", "second a").await;
    kit.send("t", "b", "b").await;
    app.handled("shaky", 1).await;
    assert_eq!(seen.all(), ["first a:1", "b"]);
    assert_eq!(kit.committed("g", "t", 0).await, None, "offset 0 is not finished");
    app.handled("shaky", 3).await;
    assert_eq!(seen.all(), ["first a:1", "b", "first a:1", "second a"]);
    assert_eq!(kit.committed("g", "t", 0).await, Some(3));
}

#[klamm::test]
async fn what_is_given_up_goes_to_the_dead_letter_topic_with_its_story(kit: TestKit) {
    kit.create_topic("t", 3).await;
    kit.create_topic("t-dlt", 3).await;
    let seen = Seen::default();
    let listener = Listener::on("t").group("billing").on_failure(retrying(Duration::ZERO, 3)).handle(shaky);
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    kit.send_to("t", 2, "k", "fine").await;
    let sent =
        OutRecord::to("t").partition(2).key("k").value("ill:99").header("trace", "7f").timestamp_ms(1_234);
    kit.send_record(sent).await;
    app.handled("shaky", 2).await;

    assert_eq!(seen.count("ill:99"), 3, "exactly as many deliveries as attempts");
    assert_eq!(kit.committed("billing", "t", 2).await, Some(2));
    let [letter] = &kit.topic("t-dlt").records().await[..] else { panic!("one dead letter") };
    assert_eq!(letter.partition, 2);
    assert_eq!((letter.key.as_deref(), letter.value.as_deref()), (Some(&b"k"[..]), Some(&b"ill:99"[..])));
    let header = |name: &str| letter.headers.last(name).flatten().unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(header("trace"), b"7f");
    assert_eq!(header("kafka_dlt-original-topic"), b"t");
    assert_eq!(header("kafka_dlt-original-partition"), 2_i32.to_be_bytes());
    assert_eq!(header("kafka_dlt-original-offset"), 1_i64.to_be_bytes());
    assert_eq!(header("kafka_dlt-original-timestamp"), 1_234_i64.to_be_bytes());
    assert_eq!(header("kafka_dlt-original-timestamp-type"), b"CreateTime");
    assert_eq!(header("kafka_dlt-original-consumer-group"), b"billing");
    assert_eq!(header("kafka_dlt-exception-message"), b"ill is not well");
    assert_eq!(header("kafka_dlt-exception-fqcn"), b"alloc::string::String");
}

#[klamm::test]
async fn a_dead_letter_topic_with_fewer_partitions_will_do(kit: TestKit) {
    kit.create_topic("t", 3).await;
    kit.create_topic("t-dlt", 1).await;
    let listener = Listener::on("t").group("g").on_failure(FailurePolicy::new()).handle(shaky);
    let app = kit.app().state(Seen::default()).listener(listener).start().await;
    kit.send_to("t", 2, "k", "ill:99").await;
    app.handled("shaky", 1).await;
    assert_eq!(kit.topic("t-dlt").values::<String>().await, ["ill:99"]);
}

#[kafka_listener(topics = "numbers", group = "g")]
async fn numbers(Key(key): Key<String>, Value(number): Value<i64>, State(seen): State<Seen>) {
    seen.add(format!("{key}={number}"));
}

#[klamm::test]
async fn what_does_not_decode_is_a_dead_letter_at_once(kit: TestKit) {
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(numbers).start().await;
    let started = Instant::now();
    kit.send("numbers", "a", 7_i64).await;
    kit.send("numbers", "b", "seven").await;
    kit.send_record(OutRecord::to("numbers").key(vec![0xff]).value(vec![0; 8])).await;
    kit.send_record(OutRecord::to("numbers").value(vec![0; 8])).await;
    kit.send("numbers", "c", 8_i64).await;
    app.handled("numbers", 5).await;
    assert!(started.elapsed() < Duration::from_secs(1), "they were not retried");
    assert_eq!(seen.all(), ["a=7", "c=8"]);
    assert_eq!(kit.committed("g", "numbers", 0).await, Some(5));

    let letters = kit.topic("numbers-dlt").records().await;
    assert_eq!(letters.len(), 3);
    assert_eq!(letters[0].value.as_deref(), Some(&b"seven"[..]), "the bytes as they came");
    let said = |letter: &ConsumerRecord, name: &str| {
        letter.headers.last(name).flatten().map(|value| String::from_utf8_lossy(value).into_owned())
    };
    let message = said(&letters[0], "kafka_dlt-exception-message").unwrap();
    assert_eq!(
        message,
        "the value does not decode: 5 bytes are not a i64 in big-endian: it takes exactly 8 bytes"
    );
    assert!(
        said(&letters[1], "kafka_dlt-key-exception-message").unwrap().starts_with("the key does not decode")
    );
    assert_eq!(said(&letters[2], "kafka_dlt-exception-message").unwrap(), "the record has no key");
}

async fn explosive(Value(text): Value<String>, State(seen): State<Seen>) {
    seen.add(&text);
    assert_ne!(text, "bomb", "it went off");
}

#[klamm::test]
async fn a_panic_is_a_failure_like_any_other(kit: TestKit) {
    let seen = Seen::default();
    let listener = Listener::on("t").group("g").on_failure(retrying(Duration::ZERO, 2)).handle(explosive);
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    kit.send("t", "k", "bomb").await;
    kit.send("t", "k", "flower").await;
    app.handled("explosive", 2).await;
    assert_eq!(seen.all(), ["bomb", "bomb", "flower"]);
    let letter = kit.topic("t-dlt").next().await;
    let message = letter.headers.last("kafka_dlt-exception-message").flatten().unwrap();
    assert!(String::from_utf8_lossy(message).contains("it went off"));
}

#[derive(Debug, thiserror::Error)]
#[error("not valid")]
struct ValidationError;

async fn validating(State(seen): State<Seen>) -> Result<(), ValidationError> {
    seen.add("call");
    Err(ValidationError)
}

#[klamm::test]
async fn fatal_errors_are_not_retried_and_skip_leaves_no_letter(kit: TestKit) {
    let seen = Seen::default();
    let policy = retrying(Duration::from_secs(1), 9).fatal::<ValidationError>().skip();
    let listener = Listener::on("t").group("g").on_failure(policy).handle(validating);
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    kit.send("t", "k", "v").await;
    app.handled("validating", 1).await;
    assert_eq!(seen.all().len(), 1);
    assert_eq!(kit.committed("g", "t", 0).await, Some(1));
    kit.topic("t-dlt").stays_empty().await;
}

#[klamm::test]
async fn stop_keeps_the_record_and_what_comes_after_it(kit: TestKit) {
    let seen = Seen::default();
    let listener = || Listener::on("t").group("g").on_failure(FailurePolicy::new().stop()).handle(shaky);
    for text in ["fine", "ill:1", "after"] {
        kit.send("t", "k", text).await;
    }
    let app = kit.app().state(seen.clone()).listener(listener()).start().await;
    let (id, failure) = app.failure().await;
    assert_eq!(&*id, "shaky");
    assert_eq!(failure.to_string(), "t-0, offset 1: ill is not well");
    assert!(!app.listener("shaky").unwrap().is_running());
    assert_eq!(seen.all(), ["fine", "ill:1"]);
    assert_eq!(kit.committed("g", "t", 0).await, Some(1));

    let app = kit.app().state(seen.clone()).listener(listener()).start().await;
    until(|| seen.count("ill:1") == 2).await;
    assert_eq!(seen.count("fine"), 1);
    app.stop().await;
}

#[klamm::test]
async fn the_default_policy_gives_up_after_ten_deliveries(kit: TestKit) {
    let seen = Seen::default();
    let app =
        kit.app().state(seen.clone()).listener(Listener::on("t").group("g").handle(shaky)).start().await;
    kit.send("t", "k", "ill:99").await;
    app.handled("shaky", 1).await;
    assert_eq!(seen.count("ill:99"), 10);
    assert_eq!(kit.topic("t-dlt").next_value::<String>().await, "ill:99");
}
