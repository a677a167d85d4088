//! Retry topics under people and brokers that are not kind: topics that go away, policies that change, services that
//! read one another's patterns, answers that get lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use klamm::broker::Broker;
use klamm::client::testing::{Answer, FakeBroker};
use klamm::client::{ApiKey, Client, ErrorCode, NewTopic, OffsetReset, Record as OutRecord, TopicPartition};
use klamm::listener::SeekTo;
use klamm::prelude::*;
use klamm::testing::TestKit;
use klamm_runtime::{MemoryNet, TokioClock};
use tokio::time::{sleep, timeout};

use crate::seen::{Seen, until_at_last};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// Fails up to the delivery that the value says: "name:3" fails three times. Says where it met a record, and when.
async fn shaky(Value(text): Value<String>, meta: RecordMeta, State(seen): State<Seen>) -> Result<(), String> {
    seen.add(format!("{text} {} {}", meta.topic, meta.attempt));
    let (name, fails) = text.split_once(':').unwrap_or((&text, "0"));
    if meta.attempt <= fails.parse().unwrap() { Err(format!("{name} is not well")) } else { Ok(()) }
}

fn on(topic: &'static str, group: &'static str, delays: &[Duration]) -> Listener {
    let policy = FailurePolicy::new().retry_topics(delays.iter().copied());
    Listener::on(topic).group(group).on_failure(policy).handle(shaky)
}

async fn topics(client: &Client) -> Vec<String> {
    let mut all: Vec<String> =
        client.admin().list_topics().await.unwrap().into_iter().map(|topic| topic.name.to_string()).collect();
    all.sort();
    all.retain(|name| !name.starts_with("__"));
    all
}

/// Two services listen on one pattern, and know nothing of each other: each read the other's retry topics as topics of
/// its own, and made retry topics of those.
#[klamm::test]
async fn services_with_patterns_leave_one_anothers_retry_topics_alone(kit: TestKit) {
    let (one, other) = (Seen::default(), Seen::default());
    let of = |group: &'static str, seen: &Seen| {
        let policy = FailurePolicy::new().retry_topics([SECOND, 2 * SECOND]);
        let listener = Listener::on_pattern("orders.*").group(group).on_failure(policy).handle(shaky);
        kit.app().state(seen.clone()).listener(listener)
    };
    kit.create_topic("orders", 1).await;
    let first = of("g", &one).start().await;
    let second = of("audit", &other).start().await;
    kit.send("orders", "k", "ill:9").await;
    first.handled("shaky", 3).await;
    second.handled("shaky", 3).await;
    sleep(20 * MINUTE).await;
    let expected = |group: &str| {
        let of = |topic: &str, attempt: u32| format!("ill:9 {topic} {attempt}");
        let (late, later) = (format!("orders-retry-1s-{group}"), format!("orders-retry-2s-{group}"));
        vec![of("orders", 1), of(&late, 2), of(&later, 3)]
    };
    assert_eq!(
        (one.all(), other.all()),
        (expected("g"), expected("audit")),
        "{:?}",
        topics(kit.client()).await
    );
}

/// Brokers that make no topics by themselves; there is "t".
async fn without_auto_create() -> (Broker, Client) {
    let (net, clock) = (Arc::new(MemoryNet::new()), Arc::new(TokioClock::starting_at(1_000_000_000_000)));
    let builder = Broker::builder().ephemeral().listen("127.0.0.1:0").net(net.clone()).clock(clock.clone());
    let broker = builder.set("auto.create.topics.enable", false).start().await.unwrap();
    let client = Client::builder().bootstrap(broker.bootstrap().to_owned()).net(net).clock(clock);
    let client = client.build().await.unwrap();
    client.admin().create_topics(&[NewTopic::new("t").partitions(1)]).await.unwrap();
    (broker, client)
}

/// It was made once, and thought to be there for ever: the partition stood still until the process was restarted.
#[tokio::test(start_paused = true)]
async fn a_retry_topic_that_was_deleted_is_made_again() {
    let (_broker, client) = without_auto_create().await;
    client.admin().create_topics(&[NewTopic::new("t-dlt").partitions(1)]).await.unwrap();
    let seen = Seen::default();
    let app = App::with_client(client.clone()).state(seen.clone()).listener(on("t", "g", &[10 * SECOND]));
    let app = app.start().await.unwrap();
    let producer = client.producer().build().unwrap();
    producer.send(OutRecord::to("t").key("k").value("one:1")).await.unwrap();
    let handle = app.listener("shaky").unwrap();
    handle.wait_handled(2).await.unwrap();
    client.admin().delete_topics(&["t-retry-10s-g"]).await.unwrap();
    sleep(10 * MINUTE).await;
    producer.send(OutRecord::to("t").key("k").value("two:1")).await.unwrap();
    let done = timeout(HOUR, handle.wait_handled(4)).await;
    assert!(done.is_ok(), "{:?} {:?}", seen.all(), handle.troubles());
    assert_eq!(seen.count("two:1 t-retry-10s-g 2"), 1);
    assert!(handle.troubles().is_empty(), "{:?}", handle.troubles());
}

/// What waits there was sent by this very group: an offset that is not there any more must not lead past it.
#[klamm::test(deadline = "100000s")]
async fn retention_takes_only_what_it_takes_of_a_group_that_begins_at_the_end(kit: TestKit) {
    let seen = Seen::default();
    let start = || {
        let policy = FailurePolicy::new().retry_topics([HOUR]);
        let listener = Listener::on("t").group("g").offset_reset(OffsetReset::Latest).on_failure(policy);
        kit.app().state(seen.clone()).listener(listener.handle(shaky))
    };
    kit.create_topic("t", 1).await;
    let app = start().start().await;
    app.listener("shaky").unwrap().wait_assigned().await.unwrap();
    for n in 0..10 {
        kit.send("t", "k", format!("{n}:1")).await;
    }
    app.handled("shaky", 10).await;
    app.stop().await;
    let place = TopicPartition::new("t-retry-1h-g", 0);
    kit.client().admin().delete_records(&[(place, 5)].into()).await.unwrap();
    let app = start().start().await;
    let done = timeout(2 * HOUR, app.handled("shaky", 5)).await;
    assert!(done.is_ok(), "{:?}", seen.all());
    assert_eq!((5..10).filter(|n| seen.count(&format!("{n}:1 t-retry-1h-g 2")) == 1).count(), 5);
}

/// Nowhere to begin is an error of the topic that is named, and not of retry topics that were just made.
#[klamm::test]
async fn a_listener_that_begins_only_where_it_was_begins_its_retry_topics(kit: TestKit) {
    kit.create_topic("t", 1).await;
    let seen = Seen::default();
    let first = kit.app().state(seen.clone()).listener(Listener::on("t").group("g").handle(shaky));
    let first = first.start().await;
    kit.send("t", "k", "well").await;
    first.handled("shaky", 1).await;
    first.stop().await;
    let policy = FailurePolicy::new().retry_topics([SECOND]);
    let listener = Listener::on("t").group("g").offset_reset(OffsetReset::None).on_failure(policy);
    let app = kit.app().state(seen.clone()).listener(listener.handle(shaky)).start().await;
    kit.send("t", "k", "ill:1").await;
    let handle = app.listener("shaky").unwrap();
    let done = timeout(HOUR, handle.wait_handled(2)).await;
    assert!(matches!(done, Ok(Ok(()))), "{:?} {:?}", seen.all(), handle.failure().await);
}

/// The commit of where the group begins is refused for a moment, when copies wait already.
#[tokio::test(start_paused = true)]
async fn a_commit_that_fails_at_the_start_passes_no_copy_over() {
    let broker = FakeBroker::start_in_memory().await.unwrap();
    broker.topic("t", 1).topic("t-retry-1m-g", 1);
    let seen = Seen::default();
    let app = async || {
        let policy = FailurePolicy::new().retry_topics([MINUTE]);
        let listener = Listener::on("t").group("g").offset_reset(OffsetReset::Latest).on_failure(policy);
        let app = App::with_client(broker.client().await.unwrap()).state(seen.clone());
        app.listener(listener.handle(shaky)).start().await.unwrap()
    };
    // A copy is there already; the group has committed nothing of it.
    let producer = broker.client().await.unwrap().producer().build().unwrap();
    producer.send(OutRecord::to("t-retry-1m-g").partition(0).value("waits")).await.unwrap();
    broker.next(ApiKey::OffsetCommit, 2, Answer::Error(ErrorCode::GroupAuthorizationFailed));
    let app = app().await;
    let handle = app.listener("shaky").unwrap();
    let done = timeout(10 * MINUTE, handle.wait_handled(1)).await;
    assert!(matches!(done, Ok(Ok(()))), "{:?} {done:?}", seen.all());
    app.shutdown(SECOND).await;
}

/// Which no fetch is answered with.
fn is_of_groups(code: ErrorCode) -> bool {
    use ErrorCode::{CoordinatorLoadInProgress, IllegalGeneration, NotCoordinator, RebalanceInProgress};
    let of_groups = [CoordinatorLoadInProgress, IllegalGeneration, NotCoordinator, RebalanceInProgress];
    code == ErrorCode::UnknownMemberId || of_groups.contains(&code)
}

/// Every answer on the way of a copy is lost, late or an error, in turn: nothing is lost, nobody is stuck, and the
/// deliveries are counted right.
#[tokio::test(start_paused = true)]
async fn whatever_is_lost_between_copy_and_commit_the_record_comes_again() {
    let answers = [
        Answer::DisconnectBefore,
        Answer::DisconnectAfter,
        Answer::Never,
        Answer::Hang,
        Answer::Error(ErrorCode::NotLeaderOrFollower),
        Answer::Error(ErrorCode::UnknownServerError),
        Answer::Error(ErrorCode::UnknownTopicOrPartition),
        Answer::Error(ErrorCode::NotCoordinator),
        Answer::Error(ErrorCode::UnknownMemberId),
        Answer::Error(ErrorCode::RebalanceInProgress),
    ];
    for api in [ApiKey::Produce, ApiKey::OffsetCommit, ApiKey::Heartbeat, ApiKey::Fetch] {
        for answer in &answers {
            if api == ApiKey::Fetch && matches!(answer, Answer::Error(code) if is_of_groups(*code)) {
                continue;
            }
            let broker = FakeBroker::start_in_memory().await.unwrap();
            broker.topic("t", 1).topic("t-retry-10s-g", 1).topic("t-retry-20s-g", 1).topic("t-dlt", 1);
            let producer = broker.client().await.unwrap().producer().build().unwrap();
            let seen = Seen::default();
            let app = App::with_client(broker.client().await.unwrap()).state(seen.clone());
            let app = app.listener(on("t", "g", &[10 * SECOND, 20 * SECOND])).start().await.unwrap();
            let handle = app.listener("shaky").unwrap();
            producer.send(OutRecord::to("t").partition(0).key("k").value("first")).await.unwrap();
            handle.wait_handled(1).await.unwrap();
            for n in 0..3 {
                match api {
                    ApiKey::Produce => broker.next_for("t-retry-10s-g", api, 1, answer.clone()),
                    api => broker.next(api, 1, answer.clone()),
                };
                let record = OutRecord::to("t").partition(0).key("k").value(format!("{n}:2"));
                let sent = timeout(HOUR, producer.send(record)).await.expect("an answer");
                sent.unwrap_or_else(|error| panic!("{api:?} {answer:?}: {error}"));
                sleep(3 * SECOND).await;
            }
            let all = || (0..3).all(|n| seen.count(&format!("{n}:2 t-retry-20s-g 3")) >= 1);
            let done = timeout(HOUR, until_at_last(all)).await;
            assert!(done.is_ok(), "{api:?} {answer:?}: {:?} {:?}", seen.all(), handle.troubles());
            let well = async {
                let end = |topic| i64::try_from(broker.values(topic, 0).len()).unwrap();
                let is_committed = |topic| broker.committed("g", (topic, 0)) == Some(end(topic));
                let all = ["t", "t-retry-10s-g", "t-retry-20s-g"];
                while !app.health().is_ready()
                    || handle.lag() != Some(0)
                    || !all.iter().all(|t| is_committed(t))
                {
                    sleep(SECOND).await;
                }
            };
            assert!(timeout(HOUR, well).await.is_ok(), "{api:?} {answer:?}: {}", app.health());
            sleep(10 * SECOND).await;
            let wrong = seen.all().into_iter().find(|seen| {
                ["t 1", "t-retry-10s-g 2", "t-retry-20s-g 3"].iter().all(|right| !seen.ends_with(right))
            });
            assert_eq!(wrong, None, "{api:?} {answer:?}");
            assert!(broker.values("t-dlt", 0).is_empty(), "{api:?} {answer:?}");
            app.shutdown(SECOND).await;
        }
    }
}

/// Who may not write the retry topic any more keeps what failed, says so, and goes on when it may.
#[tokio::test(start_paused = true)]
async fn a_permission_that_is_taken_away_and_given_back_loses_nothing() {
    for api in [ApiKey::Produce, ApiKey::Fetch, ApiKey::Metadata, ApiKey::ListOffsets, ApiKey::OffsetFetch] {
        let broker = FakeBroker::start_in_memory().await.unwrap();
        broker.topic("t", 1).topic("t-retry-10s-g", 1).topic("t-dlt", 1);
        let producer = broker.client().await.unwrap().producer().build().unwrap();
        let refused = Answer::Error(ErrorCode::TopicAuthorizationFailed);
        if matches!(api, ApiKey::ListOffsets | ApiKey::OffsetFetch) {
            broker.always_for("t-retry-10s-g", api, refused.clone());
        }
        let seen = Seen::default();
        let app = App::with_client(broker.client().await.unwrap()).state(seen.clone());
        let app = app.listener(on("t", "g", &[10 * SECOND])).start().await.unwrap();
        let handle = app.listener("shaky").unwrap();
        if !matches!(api, ApiKey::ListOffsets | ApiKey::OffsetFetch) {
            producer.send(OutRecord::to("t").partition(0).key("k").value("first:1")).await.unwrap();
            handle.wait_handled(2).await.unwrap();
            broker.always_for("t-retry-10s-g", api, refused);
        }
        let before = handle.handled();
        producer.send(OutRecord::to("t").partition(0).key("k").value("second:1")).await.unwrap();
        sleep(10 * MINUTE).await;
        let running = handle.is_running();
        let health = app.health();
        assert!(running, "{api:?}: {health}");
        let stands_still = handle.handled() < before + 2;
        assert!(!stands_still || !health.is_ready(), "{api:?}: says it is well, and is not: {health}");
        broker.behave();
        let done = timeout(HOUR, handle.wait_handled(before + 2)).await;
        assert!(matches!(done, Ok(Ok(()))), "{api:?}: {:?} {}", seen.all(), app.health());
        sleep(10 * MINUTE).await;
        assert!(app.health().is_ready(), "{api:?}: {}", app.health());
        app.shutdown(SECOND).await;
    }
}

/// A delay that the policy has no more: what waits there is nobody's, and nobody said so.
#[klamm::test]
async fn what_waits_for_a_delay_that_is_gone_is_not_forgotten(kit: TestKit) {
    let seen = Seen::default();
    kit.create_topic("t", 1).await;
    let app = kit.app().state(seen.clone()).listener(on("t", "g", &[10 * MINUTE, 20 * MINUTE])).start().await;
    kit.send("t", "k", "ill:1").await;
    app.handled("shaky", 1).await;
    app.stop().await;
    let app = kit.app().state(seen.clone()).listener(on("t", "g", &[20 * MINUTE])).start().await;
    let done = timeout(HOUR, app.handled("shaky", 1)).await;
    assert!(done.is_ok(), "{:?} {}", seen.all(), app.health());
    assert_eq!(seen.all(), ["ill:1 t 1", "ill:1 t-retry-10m-g 2"]);
}

/// While copies wait, the listener is paused, moved and given more topics.
#[klamm::test]
async fn commands_while_copies_wait(kit: TestKit) {
    kit.create_topic("t", 1).await;
    kit.create_topic("more", 1).await;
    let seen = Seen::default();
    let app = kit.app().state(seen.clone()).listener(on("t", "g", &[MINUTE])).start().await;
    let handle = app.listener("shaky").unwrap();
    for n in 0..5 {
        kit.send("t", "k", format!("{n}:1")).await;
    }
    app.handled("shaky", 5).await;
    handle.pause().await.unwrap();
    sleep(5 * MINUTE).await;
    assert_eq!(seen.all().len(), 5, "paused");
    handle.add_topics(["more"]).await.unwrap();
    sleep(MINUTE).await;
    handle.resume().await.unwrap();
    timeout(10 * SECOND, app.handled("shaky", 10)).await.expect("they are due for long");
    handle.seek(("t-retry-1m-g", 0), SeekTo::Offset(3)).await.unwrap();
    timeout(10 * SECOND, app.handled("shaky", 12)).await.expect("delivered again, and not later");
    kit.send("more", "k", "5:1").await;
    timeout(2 * MINUTE, app.handled("shaky", 14)).await.expect("the other topic has its own");
    for n in 0..5 {
        assert_eq!(seen.count(&format!("{n}:1 t-retry-1m-g 2")), if n < 3 { 1 } else { 2 });
    }
    assert_eq!(kit.committed("g", "t-retry-1m-g", 0).await, Some(5));
}

/// Delays of hours: the member stays in its group, and what waits is not late.
#[klamm::test(deadline = "1000000s")]
async fn hours_pass(kit: TestKit) {
    let seen = Seen::default();
    kit.create_topic("t", 1).await;
    // The fetches of a day take a minute of the machine's time.
    let delay = 4 * HOUR;
    let app = kit.app().state(seen.clone()).listener(on("t", "g", &[delay])).start().await;
    for n in 0..50 {
        kit.send("t", "k", format!("{n}:1")).await;
    }
    let started = tokio::time::Instant::now();
    app.handled("shaky", 100).await;
    assert!(started.elapsed() >= delay && started.elapsed() < delay + MINUTE, "{:?}", started.elapsed());
    assert_eq!(seen.all().len(), 100, "each once");
}

/// Acknowledged by hand, and dropped, in turn: a step for each drop.
#[klamm::test]
async fn a_dropped_acknowledgement_takes_a_step(kit: TestKit) {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    async fn drops(meta: RecordMeta, ack: Ack, State(seen): State<Seen>) {
        seen.add(format!("{} {}", meta.topic, meta.attempt));
        if CALLS.fetch_add(1, Ordering::SeqCst) == 2 {
            ack.now().await.unwrap();
        }
    }
    let seen = Seen::default();
    let policy = FailurePolicy::new().retry_topics([SECOND, MINUTE]);
    let listener = Listener::on("t").group("g").ack(AckPolicy::Manual).on_failure(policy).handle(drops);
    let app = kit.app().state(seen.clone()).listener(listener).start().await;
    kit.send("t", "k", "v").await;
    app.handled("drops", 3).await;
    assert_eq!(seen.all(), ["t 1", "t-retry-1s-g 2", "t-retry-1m-g 3"]);
    kit.topic("t-dlt").stays_empty().await;
}
