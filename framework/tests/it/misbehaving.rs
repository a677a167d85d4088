//! Brokers that refuse for good: dead letters that can never be sent, commits that are never taken, batches that
//! cannot be read. Nothing is lost, nothing is silent, and other partitions go on.

use std::time::Duration;

use klamm::client::testing::{Answer, FakeBroker};
use klamm::client::{ApiKey, Client, ErrorCode, Record as OutRecord};
use klamm::listener::{ListenerFailure, ListenerHandle, Unreadable, Unsendable};
use klamm::prelude::*;
use tokio::time::{Instant, sleep, timeout};

use crate::seen::{Seen, until};

const MINUTES: Duration = Duration::from_secs(600);

async fn picky(Value(text): Value<String>, State(seen): State<Seen>) -> Result<(), String> {
    seen.add(&text);
    if text.starts_with("bad") { Err(text) } else { Ok(()) }
}

struct World {
    broker: FakeBroker,
    client: Client,
    seen: Seen,
}

impl World {
    async fn new() -> Self {
        let broker = FakeBroker::start_in_memory().await.unwrap();
        broker.topic("t", 2).topic("t-dlt", 2).topic("lot", 2);
        let client = broker.client().await.unwrap();
        Self { broker, client, seen: Seen::default() }
    }

    async fn send(&self, partition: i32, values: &[&str]) {
        let producer = self.client.producer().build().unwrap();
        for value in values {
            let record = OutRecord::to("t").partition(partition).key("k").value(value.to_string());
            producer.send(record).await.unwrap();
        }
    }

    async fn app(&self, policy: FailurePolicy) -> (AppHandle, ListenerHandle) {
        let listener = Listener::on("t").group("g").on_failure(policy).handle(picky);
        let app = App::with_client(self.client.clone()).state(self.seen.clone()).listener(listener);
        let app = app.start().await.unwrap();
        let handle = app.listener("picky").unwrap();
        (app, handle)
    }

    fn refuse_dead_letters(&self, code: ErrorCode) {
        self.broker.always_for("t-dlt", ApiKey::Produce, Answer::Error(code));
    }

    fn committed(&self, partition: i32) -> Option<i64> {
        self.broker.committed("g", ("t", partition))
    }
}

/// It was tried again for ever and blocked its partition in silence.
#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_can_never_be_sent_halts_its_partition_and_says_so() {
    let world = World::new().await;
    world.refuse_dead_letters(ErrorCode::TopicAuthorizationFailed);
    let (app, handle) = world.app(FailurePolicy::new()).await;
    world.send(0, &["a", "bad"]).await;
    until(|| handle.troubles().len() == 1).await;
    world.send(0, &["behind"]).await;
    world.send(1, &["b", "c"]).await;
    until(|| world.seen.count("c") == 1).await;
    sleep(MINUTES).await;
    assert_eq!(world.seen.count("behind"), 0, "nothing is begun that would come again");
    assert_eq!((world.committed(0), world.committed(1)), (Some(1), Some(2)));
    let trouble = handle.troubles().remove(0).to_string();
    assert!(trouble.starts_with("t-0, offset 1: a dead letter cannot be sent: t-dlt-0"), "{trouble}");
    assert!(trouble.contains("FailurePolicy::unsendable") && trouble.contains("stands still"), "{trouble}");
    assert!(handle.is_running());

    // Somebody grants the permission: it goes on by itself.
    world.broker.behave();
    timeout(MINUTES, until(|| world.seen.count("behind") == 1)).await.unwrap();
    until(|| world.committed(0) == Some(3)).await;
    assert_eq!(world.broker.values("t-dlt", 0), ["bad"]);
    assert!(handle.troubles().is_empty());
    assert!(app.shutdown(MINUTES).await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn what_becomes_of_it_can_be_said() {
    let world = World::new().await;
    world.refuse_dead_letters(ErrorCode::TopicAuthorizationFailed);
    world.send(0, &["bad 1", "a"]).await;
    let (app, handle) = world.app(FailurePolicy::new().unsendable(Unsendable::Skip)).await;
    handle.wait_handled(2).await.unwrap();
    assert_eq!(world.committed(0), Some(2));
    app.shutdown(MINUTES).await;

    world.send(0, &["bad 2", "b"]).await;
    let (app, handle) = world.app(FailurePolicy::new().unsendable(Unsendable::Park("lot".into()))).await;
    handle.wait_handled(2).await.unwrap();
    assert_eq!((world.committed(0), world.broker.values("lot", 0)), (Some(4), vec!["bad 2".to_owned()]));
    app.shutdown(MINUTES).await;

    world.send(0, &["bad 3", "c"]).await;
    let (_app, handle) = world.app(FailurePolicy::new().unsendable(Unsendable::Stop)).await;
    let failure = handle.failure().await.unwrap();
    assert!(matches!(failure, ListenerFailure::Unsendable { offset: 4, .. }), "{failure}");
    assert_eq!(world.committed(0), Some(4));
}

/// The story of the failure made it too large.
#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_is_too_large_goes_without_its_story() {
    let world = World::new().await;
    world.broker.max_batch_bytes(4_000);
    let (_app, handle) = world.app(FailurePolicy::new()).await;
    // The handler's error quotes the value.
    world.send(0, &[&format!("bad {}", "x".repeat(3_000)), "a"]).await;
    timeout(MINUTES, handle.wait_handled(2)).await.unwrap().unwrap();
    let letters = world.broker.records("t-dlt", 0);
    let headers: Vec<_> =
        letters[0].headers.iter().map(|(name, value)| (name.to_owned(), value.map(<[u8]>::len))).collect();
    let message = headers.iter().find(|(name, _)| name == "kafka_dlt-exception-message").unwrap();
    assert!(message.1.unwrap() <= 256, "{headers:?}");
    assert!(headers.iter().any(|(name, _)| name == "kafka_dlt-original-offset"));
}

/// They went one round trip at a time.
#[tokio::test(start_paused = true)]
async fn dead_letters_of_a_partition_go_side_by_side() {
    const RECORDS: usize = 200;
    let world = World::new().await;
    let values: Vec<String> = (0..RECORDS).map(|n| format!("bad {n}")).collect();
    world.send(0, &values.iter().map(String::as_str).collect::<Vec<_>>()).await;
    world.broker.always_for("t-dlt", ApiKey::Produce, Answer::Delayed(Duration::from_millis(100)));
    let started = Instant::now();
    let (_app, handle) = world.app(FailurePolicy::new()).await;
    handle.wait_handled(RECORDS as u64).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(world.broker.values("t-dlt", 0), values, "in their order");
    assert_eq!(world.committed(0), Some(RECORDS as i64));
}

/// Nothing is committed before the dead letter is acknowledged, also when later records are done.
#[tokio::test(start_paused = true)]
async fn a_record_is_finished_when_its_dead_letter_is_acknowledged() {
    let world = World::new().await;
    world.broker.always_for("t-dlt", ApiKey::Produce, Answer::Error(ErrorCode::NotEnoughReplicas));
    let (app, handle) = world.app(FailurePolicy::new()).await;
    world.send(0, &["a", "bad", "b", "c"]).await;
    until(|| world.seen.count("c") == 1).await;
    sleep(Duration::from_secs(20)).await;
    assert_eq!((world.committed(0), handle.unfinished()), (Some(1), 1));
    world.broker.behave();
    timeout(MINUTES, handle.wait_handled(4)).await.unwrap().unwrap();
    assert_eq!(world.committed(0), Some(4));
    app.shutdown(MINUTES).await;
}

/// It was a warning every second, for ever.
#[tokio::test(start_paused = true)]
async fn commits_that_are_refused_for_good_end_the_listener() {
    let world = World::new().await;
    world.broker.always(ApiKey::OffsetCommit, Answer::Error(ErrorCode::GroupAuthorizationFailed));
    let (_app, handle) = world.app(FailurePolicy::new()).await;
    world.send(0, &["a"]).await;
    until(|| handle.troubles().len() == 1).await;
    assert!(handle.troubles()[0].reason.contains("the commit was refused"));
    let since = Instant::now();
    let failure = timeout(MINUTES, handle.failure()).await.unwrap().unwrap();
    assert!(matches!(failure, ListenerFailure::Consumer(_)), "{failure}");
    assert!(
        (Duration::from_secs(55)..Duration::from_secs(80)).contains(&since.elapsed()),
        "{:?}",
        since.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn permissions_that_come_back_are_no_trouble_any_more() {
    let world = World::new().await;
    world.broker.always(ApiKey::OffsetCommit, Answer::Error(ErrorCode::GroupAuthorizationFailed));
    let (_app, handle) = world.app(FailurePolicy::new()).await;
    world.send(0, &["a"]).await;
    until(|| handle.troubles().len() == 1).await;
    world.broker.behave();
    until(|| handle.troubles().is_empty()).await;
    sleep(MINUTES).await;
    assert!(handle.is_running());
    assert_eq!(world.committed(0), Some(1));
}

async fn with_a_corrupt_batch() -> World {
    let world = World::new().await;
    world.send(0, &["a", "damaged", "c"]).await;
    world.send(1, &["b"]).await;
    let mut damaged = world.broker.batches("t", 0)[1].bytes().to_vec();
    let in_the_value = damaged.len() - 2;
    damaged[in_the_value] ^= 1;
    assert!(world.broker.replace_batch("t", 0, 1, damaged));
    world
}

/// It ended the listener, and with it the app, again after each restart.
#[tokio::test(start_paused = true)]
async fn a_corrupt_batch_halts_its_partition_alone() {
    let world = with_a_corrupt_batch().await;
    let (app, handle) = world.app(FailurePolicy::new()).await;
    handle.wait_handled(2).await.unwrap();
    until(|| handle.troubles().len() == 1).await;
    sleep(MINUTES).await;
    assert!(handle.is_running());
    let trouble = handle.troubles().remove(0).to_string();
    assert!(trouble.contains("is corrupt") && trouble.contains("FailurePolicy::unreadable"), "{trouble}");
    world.send(1, &["d"]).await;
    handle.wait_handled(3).await.unwrap();
    assert_eq!((world.committed(0), world.committed(1)), (Some(1), Some(2)));
    app.shutdown(MINUTES).await;
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_batch_can_be_skipped_or_end_the_listener() {
    let world = with_a_corrupt_batch().await;
    let (_app, handle) = world.app(FailurePolicy::new().unreadable(Unreadable::Stop)).await;
    let failure = timeout(MINUTES, handle.failure()).await.unwrap().unwrap();
    assert!(failure.to_string().contains("is corrupt"), "{failure}");

    let (_app, handle) = world.app(FailurePolicy::new().unreadable(Unreadable::Skip)).await;
    until(|| world.seen.count("c") == 1).await;
    until(|| world.committed(0) == Some(3)).await;
    assert_eq!(world.seen.count("damaged"), 0);
    assert!(handle.is_running() && handle.troubles().is_empty());
}

/// The consumer waits for it in silence.
#[tokio::test(start_paused = true)]
async fn a_topic_that_does_not_exist_is_said() {
    let world = World::new().await;
    let listener = Listener::on(["t", "mispelt"]).group("g").handle(picky);
    let app = App::with_client(world.client.clone()).state(world.seen.clone()).listener(listener);
    let app = app.start().await.unwrap();
    let handle = app.listener("picky").unwrap();
    timeout(MINUTES, until(|| handle.troubles().len() == 1)).await.unwrap();
    let trouble = handle.troubles().remove(0).to_string();
    assert!(trouble.starts_with("topic mispelt: ") && trouble.contains("auto.create.topics"), "{trouble}");
    world.send(0, &["a"]).await;
    handle.wait_handled(1).await.unwrap();
    world.broker.topic("mispelt", 1);
    timeout(MINUTES, until(|| handle.troubles().is_empty())).await.unwrap();
}
