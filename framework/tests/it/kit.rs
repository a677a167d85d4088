//! The test kit itself: it is fast, it notices tests that hang, and time on it is exact.

use std::time::Duration;

use klamm::prelude::*;
use klamm::testing::TestKit;
use tokio::time::{Instant, sleep};

use crate::seen::{Seen, note};

async fn one_listener_test(kit: TestKit) {
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(Listener::on("t").group("g").handle(note)).start().await;
    kit.send("t", "k", "v").await;
    app.handled("note", 1).await;
    assert_eq!(kit.committed("g", "t", 0).await, Some(1));
    kit.topic("t-dlt").stays_empty().await;
}

#[test]
#[allow(clippy::disallowed_methods)] // Real time is what is measured.
fn a_full_listener_test_takes_less_than_a_tenth_of_a_second() {
    let took = (0..5).map(|_| {
        let started = std::time::Instant::now();
        let settings =
            klamm::testing::__TestSettings { name: "timed", deadline_ms: None, needs_paused_clock: false };
        klamm::testing::__run(settings, one_listener_test);
        started.elapsed()
    });
    // The best of five: other tests run beside this one.
    let best = took.min().unwrap();
    assert!(best < Duration::from_millis(100), "{best:?}");
}

#[klamm::test(deadline = "10s")]
#[should_panic(expected = "did not end within 10s of its own time")]
async fn a_test_that_waits_for_nothing_ends(kit: TestKit) {
    let app =
        kit.app().state(Seen::default()).listener(Listener::on("t").group("g").handle(note)).start().await;
    app.handled("note", 1).await;
}

#[klamm::test]
#[should_panic(expected = "the app has no listener `nobody`; it has [\"note\"]")]
async fn a_wrong_name_is_told(kit: TestKit) {
    let app =
        kit.app().state(Seen::default()).listener(Listener::on("t").group("g").handle(note)).start().await;
    app.handled("nobody", 1).await;
}

#[klamm::test]
#[should_panic(expected = "t should stay empty")]
async fn a_topic_that_does_not_stay_empty_is_told(kit: TestKit) {
    kit.send("t", "k", "v").await;
    kit.topic("t").stays_empty().await;
}

#[klamm::test(needs_paused_clock)]
async fn hours_pass_in_no_time_and_timestamps_follow(kit: TestKit) -> Result<(), Error> {
    let before = kit.send("t", "k", "v").await.timestamp_ms;
    let started = Instant::now();
    sleep(Duration::from_secs(1_800)).await;
    assert!(started.elapsed() < Duration::from_secs(1_801));
    let after = kit.send("t", "k", "v").await.timestamp_ms;
    assert!((1_800_000..1_801_000).contains(&(after - before)), "{before} {after}");
    assert_eq!(kit.topic("t").values::<String>().await, ["v", "v"]);
    Ok(())
}

#[klamm::test]
async fn a_test_without_the_kit_has_its_clock_and_deadline_too() {
    sleep(Duration::from_secs(60)).await;
}
