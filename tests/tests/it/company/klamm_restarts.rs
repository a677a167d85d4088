//! Klamm's own broker, ended politely and by kill -9 on the same folder, under writers and a group.

use std::time::Duration;

use klamm_tests::BrokerProcess;

use super::load::{Load, Topic};

const ROUNDS: usize = 4;
const SETTINGS: [&str; 1] = ["group.min.session.timeout.ms=1000"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_of_the_broker_under_load_break_no_promise() {
    let data = tempfile::tempdir().unwrap();
    let mut broker = BrokerProcess::start_with(data.path(), "127.0.0.1:0", &SETTINGS).await;
    let address = broker.bootstrap().to_owned();
    let load = Load::start_with_group(&address, "kept", 4).await;
    for round in 0..ROUNDS {
        if round % 2 == 0 {
            broker.kill().await;
        } else {
            broker.stop(Duration::from_secs(20)).await;
        }
        broker = BrokerProcess::start_with(data.path(), &address, &SETTINGS).await;
        load.progress().await;
    }
    load.finish(Topic::Kept).await;
    broker.stop(Duration::from_secs(20)).await;
}
