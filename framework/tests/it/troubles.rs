//! Troubles are over when nothing is in trouble any more, whatever ended it.

use std::time::Duration;

use klamm::client::testing::FakeBroker;
use klamm::listener::{ListenerHandle, SeekTo};
use klamm::prelude::*;
use tokio::time::{sleep, timeout};

use crate::picky::send;
use crate::seen::{Seen, note, until};

const TEN_MINUTES: Duration = Duration::from_secs(600);

async fn listening(broker: &FakeBroker, seen: &Seen) -> (AppHandle, ListenerHandle) {
    let listener = Listener::on("t").group("g").handle(note);
    let app = App::with_client(broker.client().await.unwrap()).state(seen.clone()).listener(listener);
    let app = app.start().await.unwrap();
    let handle = app.listener("note").unwrap();
    (app, handle)
}

async fn with_a_corrupt_batch() -> FakeBroker {
    let broker = FakeBroker::start_in_memory().await.unwrap();
    broker.topic("t", 1).topic("u", 1);
    send(&broker, &["a", "damaged"]).await;
    let mut damaged = broker.batches("t", 0)[1].bytes().to_vec();
    let in_the_value = damaged.len() - 2;
    damaged[in_the_value] ^= 1;
    assert!(broker.replace_batch("t", 0, 1, damaged));
    broker
}

#[tokio::test(start_paused = true)]
async fn a_seek_past_a_corrupt_batch_ends_the_trouble() {
    let (broker, seen) = (with_a_corrupt_batch().await, Seen::default());
    let (_app, handle) = listening(&broker, &seen).await;
    until(|| handle.troubles().len() == 1).await;
    handle.seek(("t", 0), SeekTo::End).await.unwrap();
    sleep(TEN_MINUTES).await;
    assert!(handle.troubles().is_empty(), "{:?}", handle.troubles());
}

#[tokio::test(start_paused = true)]
async fn the_troubles_of_a_partition_go_with_it() {
    let (broker, seen) = (with_a_corrupt_batch().await, Seen::default());
    let (_app, handle) = listening(&broker, &seen).await;
    until(|| handle.troubles().len() == 1).await;
    handle.add_topics("u").await.unwrap();
    until(|| handle.assignment().len() == 2).await;
    handle.remove_topics("t").await.unwrap();
    until(|| handle.assignment().len() == 1).await;
    sleep(TEN_MINUTES).await;
    assert!(handle.troubles().is_empty(), "{:?}", handle.troubles());
}

/// The troubles of a topic that is not listened on any more are no troubles.
#[tokio::test(start_paused = true)]
async fn the_troubles_of_a_topic_go_with_it() {
    let (broker, seen) = (FakeBroker::start_in_memory().await.unwrap(), Seen::default());
    broker.topic("t", 1);
    let (_app, handle) = listening(&broker, &seen).await;
    handle.add_topics("mispelt").await.unwrap();
    timeout(TEN_MINUTES, until(|| handle.troubles().len() == 1)).await.unwrap();
    handle.remove_topics("mispelt").await.unwrap();
    sleep(TEN_MINUTES).await;
    assert!(handle.troubles().is_empty(), "{:?}", handle.troubles());
}
