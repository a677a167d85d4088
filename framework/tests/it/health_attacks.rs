//! What an app says of its health: never "fine" while nothing moves, never "ill" while all is well, and at once.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm::broker::Broker;
use klamm::client::testing::{Answer, FakeBroker};
use klamm::client::{ApiKey, Client, NewTopic, Record};
use klamm::listener::{AckError, SeekTo};
use klamm::prelude::*;
use klamm::testing::TestKit;
use klamm_runtime::{MemoryNet, TokioClock};
use tokio::time::{sleep, timeout};

use crate::picky::{listening, send};
use crate::seen::{Seen, note, until};

const MINUTE: Duration = Duration::from_secs(60);

/// The brokers are gone: nobody reads, and it says that it does.
#[tokio::test(start_paused = true)]
async fn without_brokers_it_is_not_ready_and_ready_again_when_they_are_back() {
    let (net, clock) = (Arc::new(MemoryNet::new()), Arc::new(TokioClock::starting_at(1_000_000_000_000)));
    let disk = klamm::broker::disk::MemoryDisk::new();
    let start = async |address: String| {
        let builder = Broker::builder()
            .disk(Arc::new(disk.clone()))
            .listen(address)
            .net(net.clone())
            .clock(clock.clone());
        builder.set("group.initial.rebalance.delay.ms", 0).start().await.unwrap()
    };
    let broker = start("127.0.0.1:0".to_owned()).await;
    let address = broker.bootstrap().to_owned();
    let client = Client::builder().bootstrap(address.clone()).net(net.clone()).clock(clock.clone());
    let client = client.build().await.unwrap();
    client
        .admin()
        .create_topics(&["t", "t-dlt"].map(|name| NewTopic::new(name).partitions(1)))
        .await
        .unwrap();
    let seen = Seen::default();
    let listener = Listener::on("t").group("g").on_failure(FailurePolicy::new()).handle(note);
    let app = App::with_client(client.clone()).state(seen.clone()).listener(listener).start().await.unwrap();
    let producer = client.producer().build().unwrap();
    producer.send(Record::to("t").key("k").value("one")).await.unwrap();
    app.listener("note").unwrap().wait_handled(1).await.unwrap();
    sleep(MINUTE).await;
    assert!(app.health().is_ready(), "{}", app.health());
    broker.shutdown().await.unwrap();
    drop(broker);
    sleep(10 * MINUTE).await;
    let health = app.health();
    assert!(health.is_live(), "a new process would not help: {health}");
    assert!(!health.is_ready(), "{health}");
    let _broker = start(address).await;
    sleep(10 * MINUTE).await;
    assert!(app.health().is_ready(), "{}", app.health());
    producer.send(Record::to("t").key("k").value("two")).await.unwrap();
    timeout(MINUTE, until(|| seen.count("two") == 1)).await.unwrap();
}

/// The brokers take requests and never answer, one kind after the other.
#[tokio::test(start_paused = true)]
async fn a_broker_that_hangs_is_told_of_and_holds_nobody_who_asks() {
    for api in [None, Some(ApiKey::Fetch), Some(ApiKey::OffsetCommit)] {
        let (broker, seen) = (FakeBroker::start_in_memory().await.unwrap(), Seen::default());
        broker.topic("t", 1).topic("t-dlt", 1);
        let (app, handle) = listening(&broker, &seen).await;
        let producer = broker.client().await.unwrap().producer().build().unwrap();
        send(&broker, &["one"]).await;
        producer.send(Record::to("t").partition(0).value("one more")).await.unwrap();
        handle.wait_handled(2).await.unwrap();
        let all = [
            ApiKey::Fetch,
            ApiKey::OffsetCommit,
            ApiKey::Heartbeat,
            ApiKey::Metadata,
            ApiKey::FindCoordinator,
            ApiKey::JoinGroup,
            ApiKey::SyncGroup,
            ApiKey::ListOffsets,
            ApiKey::OffsetFetch,
        ];
        let hangs = all.into_iter().filter(|hangs| api.is_none_or(|api| api == *hangs));
        for api in hangs {
            broker.always(api, Answer::Hang);
        }
        producer.send(Record::to("t").partition(0).value("two")).await.unwrap();
        sleep(10 * MINUTE).await;
        let (health, asked) = (app.health(), tokio::time::Instant::now());
        assert_eq!(asked.elapsed(), Duration::ZERO);
        assert!(!health.is_ready(), "{api:?}: {health}");
        assert!(health.is_live(), "{api:?}: {health}");
        broker.behave();
        sleep(10 * MINUTE).await;
        assert!(app.health().is_ready(), "{api:?}: {}", app.health());
        assert_eq!((seen.count("two") >= 1, handle.lag()), (true, Some(0)), "{api:?}");
    }
}

#[derive(Clone, Default)]
struct Later(Arc<Mutex<Vec<Ack>>>);

async fn keeps(ack: Ack, State(later): State<Later>) {
    later.0.lock().unwrap().push(ack);
}

/// It counts for nothing, and must not say that it is committed.
#[klamm::test]
async fn an_acknowledgement_of_before_a_seek_is_told_that_it_is_void(kit: TestKit) {
    let later = Later::default();
    kit.send("t", "k", "v").await;
    let listener = Listener::on("t").group("g").ack(AckPolicy::Manual).handle(keeps);
    let app = kit.app().state(later.clone()).listener(listener).start().await;
    let held = || later.0.lock().unwrap().len();
    until(|| held() == 1).await;
    app.listener("keeps").unwrap().seek(("t", 0), SeekTo::Beginning).await.unwrap();
    until(|| held() == 2).await;
    let old = later.0.lock().unwrap().remove(0);
    let told = old.now().await;
    assert!(matches!(told, Err(AckError::Void)), "{told:?}");
    assert_eq!(kit.committed("g", "t", 0).await, None);
    let new = later.0.lock().unwrap().remove(0);
    new.now().await.unwrap();
    assert_eq!(kit.committed("g", "t", 0).await, Some(1));
}
