//! What lost, doubled or silenced records once, seen from outside: starts that move, patterns that match dead letters,
//! user code that panics where no handler runs, listeners of one name.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use klamm::app::StartError;
use klamm::client::{NewTopic, OffsetReset};
use klamm::prelude::*;
use klamm::testing::TestKit;
use tokio::time::timeout;

use crate::seen::{Seen, note, until};

const TEN_MINUTES: Duration = Duration::from_secs(600);

/// Fails on what begins with "ill" until it is healed.
async fn weak(
    Value(text): Value<String>,
    State(seen): State<Seen>,
    State(healed): State<Arc<AtomicBool>>,
) -> Result<(), String> {
    seen.add(&text);
    let is_ill = text.starts_with("ill") && !healed.load(Ordering::SeqCst);
    if is_ill { Err(format!("{text} is not well")) } else { Ok(()) }
}

fn patient() -> FailurePolicy {
    FailurePolicy::new().retry_in_place(Backoff::fixed(TEN_MINUTES).forever())
}

/// The end of a log moves: a start that is found anew would lie behind what was in retry.
#[klamm::test]
async fn a_record_in_retry_is_delivered_again_though_the_group_began_at_the_end(kit: TestKit) {
    let (seen, healed) = (Seen::default(), Arc::new(AtomicBool::new(false)));
    let app = || {
        let listener =
            Listener::on("t").group("g").offset_reset(OffsetReset::Latest).on_failure(patient()).handle(weak);
        kit.app().state(seen.clone()).state(healed.clone()).listener(listener)
    };
    kit.create_topic("t", 1).await;
    kit.send("t", "k", "before the first start").await;
    let first = app().start().await;
    let handle = first.listener("weak").unwrap();
    until(|| handle.assignment().len() == 1).await;
    kit.send("t", "k", "ill").await;
    until(|| handle.in_retry() == 1).await;
    first.stop().await;
    assert_eq!(kit.committed("g", "t", 0).await, Some(1), "where the group began");

    healed.store(true, Ordering::SeqCst);
    let second = app().start().await;
    second.handled("weak", 1).await;
    assert_eq!(seen.all(), ["ill", "ill"]);
}

/// Nothing is committed yet, and the partitions come back while their first records are in retry.
#[klamm::test]
async fn first_records_in_retry_survive_that_a_member_comes_and_goes(kit: TestKit) {
    let (seen, healed) = (Seen::default(), Arc::new(AtomicBool::new(false)));
    let app = || {
        let listener = Listener::on("t")
            .group("g")
            .concurrency(4)
            .dispatch(Dispatch::by_key())
            .on_failure(patient())
            .handle(weak);
        kit.app().state(seen.clone()).state(healed.clone()).listener(listener)
    };
    kit.create_topic("t", 2).await;
    for partition in 0..2 {
        kit.send_to("t", partition, "a", format!("ill {partition}")).await;
        for number in 0..3 {
            kit.send_to("t", partition, format!("b{number}"), format!("well {partition} {number}")).await;
        }
    }
    let first = app().start().await;
    let handle = first.listener("weak").unwrap();
    until(|| handle.handled() == 6 && handle.in_retry() == 2).await;
    let second = app().start().await;
    let other = second.listener("weak").unwrap();
    until(|| other.assignment().len() == 1 && other.in_retry() == 1).await;
    second.stop().await;
    until(|| handle.assignment().len() == 2 && handle.in_retry() == 2).await;
    healed.store(true, Ordering::SeqCst);
    let before = [seen.count("ill 0"), seen.count("ill 1")];
    until(|| seen.count("ill 0") > before[0] && seen.count("ill 1") > before[1]).await;
    until(|| handle.in_retry() == 0).await;
    first.stop().await;
    for partition in 0..2 {
        assert_eq!(kit.committed("g", "t", partition).await, Some(4));
    }
}

/// One bad record went from `clicks-a-dlt` to `clicks-a-dlt-dlt`, and on.
#[klamm::test]
async fn a_pattern_does_not_match_the_dead_letters_of_its_own_app(kit: TestKit) {
    async fn bad() -> Result<(), &'static str> {
        Err("bad")
    }
    let (seen, new_topics) = (Seen::default(), [NewTopic::new("clicks-a"), NewTopic::new("clicks-b")]);
    kit.client().admin().create_topics(&new_topics).await.unwrap();
    let clicks = Listener::on_pattern("clicks-.*").group("g").on_failure(FailurePolicy::new()).handle(bad);
    // Meant for dead letters, and for nothing else.
    let letters = Listener::on_pattern(".*-dlt").group("letters").handle(note);
    let app = kit.app().state(seen.clone()).listener(clicks).listener(letters).start().await;
    kit.send("clicks-a", "k", "one").await;
    kit.send("clicks-b", "k", "two").await;
    app.handled("bad", 2).await;
    app.handled("note", 2).await;
    // The listener would have learnt of the new topics by now.
    tokio::time::sleep(TEN_MINUTES).await;
    let mut topics = app.listener("bad").unwrap().assignment();
    topics.sort();
    assert_eq!(topics.iter().map(|place| &*place.topic).collect::<Vec<_>>(), ["clicks-a", "clicks-b"]);
    assert_eq!((app.listener("bad").unwrap().handled(), seen.all().len()), (2, 2));
}

#[klamm::test]
async fn dead_letters_to_a_topic_of_the_listeners_own_are_refused(kit: TestKit) {
    let policy = || FailurePolicy::new().dead_letter_to("t");
    for listener in [
        Listener::on(["a", "t"]).group("g").on_failure(policy()).handle(note),
        Listener::on_pattern("t").group("g").on_failure(policy()).handle(note),
    ] {
        let refused = kit.app().state(Seen::default()).listener(listener).try_start().await.unwrap_err();
        assert!(refused.to_string().contains("come back for ever"), "{refused}");
    }
}

#[klamm::test]
async fn names_that_no_topic_can_have_are_refused_at_the_start(kit: TestKit) {
    let listener = Listener::on("a,b").group("g").handle(note);
    let refused = kit.app().state(Seen::default()).listener(listener).try_start().await.unwrap_err();
    assert!(matches!(refused, StartError::IllegalTopic { .. }));
    assert_eq!(
        refused.to_string(),
        "listener `note`: no topic can be called \"a,b\": 1 to 249 letters, digits, `.`, `_` or `-`; several topics \
         are an array, [\"a\", \"b\"]"
    );
}

/// What user code does where no handler runs ends with its record, not with the lane.
#[klamm::test]
async fn a_panic_outside_of_the_handler_is_of_its_record_alone(kit: TestKit) {
    #[derive(Debug)]
    struct Mute;
    impl fmt::Display for Mute {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("no text");
        }
    }
    impl std::error::Error for Mute {}
    async fn mute(Value(text): Value<String>, State(seen): State<Seen>) -> Result<(), Mute> {
        seen.add(&text);
        if text == "bad" { Err(Mute) } else { Ok(()) }
    }
    let seen = Seen::default();
    let policy = FailurePolicy::new()
        .fatal_if(|_| panic!("a broken rule"))
        .retry_in_place(Backoff::immediate().attempts(2));
    let listener = Listener::on("t").group("g").on_failure(policy).handle(mute);
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    for text in ["bad", "good"] {
        kit.send("t", "k", text).await;
    }
    timeout(TEN_MINUTES, app.handled("mute", 2)).await.expect("the lane goes on");
    assert_eq!(seen.all(), ["bad", "bad", "good"]);
    let letter = kit.topic("t-dlt").next().await;
    let message = letter.headers.last("kafka_dlt-exception-message").flatten().unwrap();
    assert!(String::from_utf8_lossy(message).starts_with("an error whose text panicked"));
}

mod here {
    use klamm::prelude::*;

    #[kafka_listener(topics = "namesakes", group = "namesakes")]
    pub async fn namesake() {}
}

mod there {
    use klamm::prelude::*;

    #[kafka_listener(topics = "namesakes", group = "namesakes")]
    pub async fn namesake() {}
}

/// The second of two functions of one name was dropped without a word.
#[klamm::test]
async fn two_functions_of_one_name_are_two_listeners(kit: TestKit) {
    // Of others that are discovered in this binary, too.
    let app =
        kit.app().property("shop.orders", "o").property("shop.stage", "s").property("shop.graveyard", "d");
    let refused = app.state(Seen::default()).listener(here::namesake).discover().try_start().await;
    let refused = refused.unwrap_err().to_string();
    for part in ["`namesake`", "losses::here::namesake`", "losses::there::namesake`"] {
        assert!(refused.contains(part), "{part} is not in {refused}");
    }
}
