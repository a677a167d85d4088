//! The broker of `klamm_client::testing` as these tests want it: in memory, with one topic.

use klamm_client::testing::FakeBroker;

pub(crate) const TOPIC: &str = "t";

pub(crate) async fn start(partitions: usize) -> FakeBroker {
    let broker = FakeBroker::start_in_memory().await.unwrap();
    broker.topic(TOPIC, partitions);
    broker
}
