//! Listeners on partitions that they name: where they begin, and what they commit.

use std::time::Duration;

use klamm::app::StartError;
use klamm::listener::{CommandError, Partitions, SeekTo, StartAt};
use klamm::prelude::*;
use klamm::testing::TestKit;
use tokio::time::sleep;

use crate::seen::{Seen, note, until};

const SECOND: Duration = Duration::from_secs(1);

/// Ten records, "0" to "9", in each of two partitions.
async fn filled(kit: &TestKit, topic: &str) {
    kit.create_topic(topic, 2).await;
    for n in 0..10 {
        for partition in 0..2 {
            kit.send_to(topic, partition, "k", format!("{n}")).await;
        }
    }
}

fn on(partitions: Partitions) -> Listener {
    Listener::on_partitions([partitions]).id("named").handle(note)
}

/// The first and the number of records that come of partition 0.
async fn read(kit: &TestKit, start: StartAt) -> (Option<String>, usize) {
    let seen = Seen::default();
    let app =
        kit.app().state(seen.clone()).listener(on(Partitions::of("t", 0).start_at(start))).start().await;
    assert_eq!(app.listener("named").unwrap().assignment().len(), 1);
    sleep(5 * SECOND).await;
    assert!(app.stop().await.is_clean());
    let all = seen.all();
    (all.first().cloned(), all.len())
}

#[klamm::test]
async fn it_begins_where_it_says(kit: TestKit) {
    filled(&kit, "t").await;
    let first = |text: &str, count| (Some(text.to_owned()), count);
    assert_eq!(
        read(&kit, StartAt::Committed).await,
        first("0", 10),
        "there is no group: as offset_reset has it"
    );
    assert_eq!(read(&kit, StartAt::Offset(3)).await, first("3", 7));
    assert_eq!(read(&kit, StartAt::Beginning).await, first("0", 10));
    assert_eq!(read(&kit, StartAt::AfterBeginning(2)).await, first("2", 8));
    assert_eq!(read(&kit, StartAt::AfterBeginning(11)).await, (None, 0));
    assert_eq!(read(&kit, StartAt::End).await, (None, 0));
    assert_eq!(read(&kit, StartAt::BeforeEnd(4)).await, first("6", 4));
    assert_eq!(read(&kit, StartAt::BeforeEnd(40)).await, first("0", 10));
    assert_eq!(read(&kit, StartAt::TimestampMs(0)).await, first("0", 10));
    assert_eq!(read(&kit, StartAt::TimestampMs(i64::MAX)).await, (None, 0));
}

#[klamm::test]
async fn with_a_group_it_commits_and_goes_on(kit: TestKit) {
    filled(&kit, "t").await;
    let seen = Seen::default();
    let listener = |start| {
        let partitions = [Partitions::all("t").start_at(start)];
        Listener::on_partitions(partitions).group("g").handle(note)
    };
    let app = kit.app().state(seen.clone()).listener(listener(StartAt::BeforeEnd(2))).start().await;
    app.handled("note", 4).await;
    assert_eq!((kit.committed("g", "t", 0).await, kit.committed("g", "t", 1).await), (Some(10), Some(10)));
    assert!(app.stop().await.is_clean());

    kit.send_to("t", 1, "k", "10").await;
    let app = kit.app().state(seen.clone()).listener(listener(StartAt::Committed)).start().await;
    app.handled("note", 1).await;
    assert_eq!(seen.all().last().unwrap(), "10");
    assert!(app.stop().await.is_clean());
    assert_eq!(kit.committed("g", "t", 1).await, Some(11));

    // A place that is begun at is committed before anything comes from there.
    let app = kit.app().state(seen.clone()).listener(listener(StartAt::End)).start().await;
    let before = seen.all().len();
    sleep(5 * SECOND).await;
    assert_eq!((kit.committed("g", "t", 0).await, seen.all().len()), (Some(10), before));
    app.stop().await;
}

/// Two instances read the same, and nobody waits for the other.
#[klamm::test]
async fn nothing_is_shared_out(kit: TestKit) {
    filled(&kit, "t").await;
    let start = async |seen: &Seen| {
        let listener = on(Partitions::all("${table:t}"));
        kit.app().state(seen.clone()).listener(listener).start().await
    };
    let (one, two) = (Seen::default(), Seen::default());
    let (first, second) = (start(&one).await, start(&two).await);
    first.handled("named", 20).await;
    second.handled("named", 20).await;
    assert_eq!((one.all().len(), two.all().len()), (20, 20));
}

#[klamm::test]
async fn it_is_controlled_as_others_are(kit: TestKit) {
    filled(&kit, "t").await;
    let seen = Seen::default();
    let policy = FailurePolicy::new().retry_in_place(Backoff::immediate().attempts(2)).dead_letter();
    let weak = async |Value(text): Value<String>, State(seen): State<Seen>| {
        seen.add(&text);
        if text == "7" { Err("it is bad") } else { Ok(()) }
    };
    let partitions = [Partitions::of("t", [1]).start_at(StartAt::Offset(5))];
    let listener = Listener::on_partitions(partitions).id("named").on_failure(policy).handle(weak);
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    app.handled("named", 5).await;
    assert_eq!(seen.all(), ["5", "6", "7", "7", "8", "9"]);
    assert_eq!(kit.topic("t-dlt").next_value::<String>().await, "7");
    let handle = app.listener("named").unwrap();
    assert_eq!((handle.group(), handle.lag()), ("", Some(0)));
    handle.pause().await.unwrap();
    handle.seek(("t", 1), SeekTo::Offset(9)).await.unwrap();
    sleep(5 * SECOND).await;
    handle.resume().await.unwrap();
    until(|| seen.all().len() == 7).await;
    assert!(matches!(handle.add_topics("other").await, Err(CommandError::Partitions)));
    let health = app.health();
    assert!(health.is_ready(), "{health}");
}

#[klamm::test]
async fn what_does_not_go_together_is_an_error_at_the_start(kit: TestKit) {
    kit.create_topic("t", 2).await;
    let refused = async |listener: Listener| {
        let error = kit.app().state(Seen::default()).listener(listener).try_start().await.unwrap_err();
        assert!(matches!(error, StartError::Invalid { .. }), "{error}");
        error.to_string()
    };
    let twice = [Partitions::of("t", 0), Partitions::all("t")];
    assert!(refused(Listener::on_partitions(twice).handle(note)).await.contains("once more"));
    assert!(refused(Listener::on_partitions([]).handle(note)).await.contains("no"));
    let transactional =
        Listener::on_partitions([Partitions::all("t")]).group("g").transactional().handle(note);
    assert!(refused(transactional).await.contains("listen on topics"));
    let waiting = FailurePolicy::new().retry_topics([SECOND]).dead_letter();
    let waiting = Listener::on_partitions([Partitions::all("t")]).group("g").on_failure(waiting).handle(note);
    assert!(refused(waiting).await.contains("retry in place"));
}
