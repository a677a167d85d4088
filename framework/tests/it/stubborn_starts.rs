//! What an app cannot keep is found when it starts, or said until somebody sees to it: replies that nobody would send,
//! dead letters that could go nowhere.

use std::sync::Arc;
use std::time::Duration;

use klamm::broker::Broker;
use klamm::client::testing::{Answer, FakeBroker};
use klamm::client::{ApiKey, Client, ErrorCode, NewTopic};
use klamm::listener::AckPolicy;
use klamm::prelude::*;
use klamm::testing::TestKit;
use klamm_runtime::{MemoryNet, TokioClock};
use tokio::time::{sleep, timeout};

use crate::seen::until;

const LONG: Duration = Duration::from_secs(600);

async fn refused(kit: &TestKit, listener: Listener) -> String {
    kit.app().listener(listener).try_start().await.unwrap_err().to_string()
}

#[kafka_listener(topics = "t", group = "g", send_to = "out")]
async fn silent(_: Value<String>) {}

#[klamm::test]
async fn replies_that_nobody_would_send_are_refused(kit: TestKit) {
    let on = || Listener::on("t").group("g");
    let by_hand = on().ack(AckPolicy::Manual);
    let by_hand = refused(&kit, by_hand.handle(|_: Ack| async { Reply::new("v".to_owned()) })).await;
    assert!(by_hand.contains("returns a `Reply`, but its ack policy is manual"), "{by_hand}");
    let batch = on().send_to("out").handle(|_: Batch<Value<String>>| async {});
    let batch = refused(&kit, batch).await;
    assert!(batch.contains("it has `send_to`, but its handler returns no `Reply`"), "{batch}");
    let macros = kit.app().listener(silent).try_start().await.unwrap_err().to_string();
    assert!(macros.contains("`silent`: it has `send_to`"), "{macros}");
}

#[klamm::test]
async fn topics_that_cannot_be_are_refused(kit: TestKit) {
    let on = || Listener::on("t").group("g");
    let policy = FailurePolicy::new().dead_letter_to("a/b");
    let letters = refused(&kit, on().on_failure(policy).handle(|_: Value<String>| async {})).await;
    assert!(letters.contains("no topic can be called \"a/b\""), "{letters}");
    let replies = on().send_to("a b").handle(|_: Value<String>| async { Reply::new(1_i64) });
    let replies = refused(&kit, replies).await;
    assert!(replies.contains("no topic can be called \"a b\""), "{replies}");
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

/// What dies in a retry topic goes to the dead-letter topic of its own topic; nobody misses another one.
#[tokio::test(start_paused = true)]
async fn retry_topics_need_no_dead_letter_topics_of_their_own() {
    let (_broker, client) = without_auto_create().await;
    client.admin().create_topics(&[NewTopic::new("t-dlt").partitions(1)]).await.unwrap();
    let policy = FailurePolicy::new().retry_topics([Duration::from_secs(30)]);
    let refuse = async |_: Value<String>| Err::<(), _>("never");
    let listener = Listener::on_pattern("t").group("g").id("refuse").on_failure(policy).handle(refuse);
    let app = App::with_client(client.clone()).listener(listener).start().await.unwrap();
    app.template::<String, String>("t").send("k", "v".to_owned()).await.unwrap();
    let refuse = app.listener("refuse").unwrap();
    timeout(LONG, refuse.wait_handled(2)).await.expect("it takes its step and dies").unwrap();
    assert_eq!(refuse.assignment().len(), 2);
    sleep(Duration::from_secs(200)).await;
    assert!(refuse.troubles().is_empty(), "{:?}", refuse.troubles());
    app.shutdown(Duration::from_secs(5)).await;
}

/// The brokers make no topics: a listener whose dead letters have nowhere to go says so long before the first one.
#[tokio::test(start_paused = true)]
async fn a_dead_letter_topic_that_nobody_makes_is_told() {
    let (_broker, client) = without_auto_create().await;
    let listener = Listener::on("t").group("g").handle(silent_one);
    let app = App::with_client(client.clone()).listener(listener).start().await.unwrap();
    let listener = app.listeners().next().unwrap();
    let told = until(|| !listener.troubles().is_empty());
    timeout(Duration::from_secs(40), told).await.expect("it is told");
    let said = listener.troubles()[0].to_string();
    assert!(said.contains("topic t-dlt, which does not exist") && said.contains("App::topic"), "{said}");
    app.shutdown(Duration::from_secs(5)).await;
}

async fn silent_one(_: Value<String>) {}

/// One that may not be looked at; and it is over when it may.
#[tokio::test(start_paused = true)]
async fn a_dead_letter_topic_that_is_forbidden_is_told_until_it_is_allowed() {
    let broker = FakeBroker::start_in_memory().await.unwrap();
    broker.topic("t", 1).topic("t-dlt", 1);
    let forbidden = || Answer::Error(ErrorCode::TopicAuthorizationFailed);
    broker.always_for("t-dlt", ApiKey::Metadata, forbidden());
    broker.always_for("t-dlt", ApiKey::DescribeTopicPartitions, forbidden());
    let listener = Listener::on("t").group("g").handle(silent_one);
    let app = App::with_client(broker.client().await.unwrap()).listener(listener).start().await.unwrap();
    let listener = app.listeners().next().unwrap();
    timeout(LONG, until(|| !listener.troubles().is_empty())).await.expect("it is told");
    let said = listener.troubles()[0].to_string();
    assert!(said.contains("t-dlt, which this user may not describe"), "{said}");
    broker.behave();
    timeout(LONG, until(|| listener.troubles().is_empty())).await.expect("it is over");
    sleep(Duration::from_secs(200)).await;
    assert!(listener.troubles().is_empty());
}
