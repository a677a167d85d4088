//! Real processes and real files: brokers that are killed at random moments, and files that were damaged between two
//! runs. What was acknowledged is there once, in order, or the broker says clearly what is wrong with it.
//!
//! ```text
//! kills.rs    one producer, one partition, kill after kill
//! busy.rs     rolls, retention, groups, topics that come and go, kill after kill, starts that are killed too
//! clients.rs  who keeps that broker busy, and what they were told
//! ledger.rs   what clients were told, and what that makes of what they are told later   (pure)
//! damage.rs   files that were damaged between two runs
//! exactly_once.rs  a copier that works in transactions, kill after kill
//! transactional.rs  processes with a transactional listener, kill after kill
//! cluster.rs  a broker to be killed, ours or Apache Kafka
//! streams.rs  instances of a streams application, killed, paused and without their disks
//! replays.rs  a replay of dead letters, kill after kill
//! ```

mod busy;
mod clients;
mod cluster;
mod damage;
mod exactly_once;
mod kills;
mod ledger;
mod replays;
mod streams;
mod transactional;

use std::time::Duration;

use klamm_client::Client;
use tokio::time::{Instant, timeout};

const TOPIC: &str = "numbers";

/// Every record of partition 0 as (offset, number), up to its end.
async fn read_all(address: &str, topic: &str) -> Vec<(i64, u64)> {
    let read = async {
        let client = Client::connect(address).await.unwrap();
        let partition = klamm_client::TopicPartition::new(topic, 0);
        let mut consumer =
            client.consumer().assign([partition.clone()]).from_beginning().start().await.unwrap();
        let end = consumer.handle().end_offsets(std::slice::from_ref(&partition)).await.unwrap()[&partition];
        let mut found = Vec::new();
        while found.last().is_none_or(|(offset, _)| offset + 1 < end) && end > 0 {
            let record = consumer.next().await.expect("an assigned consumer goes on").unwrap();
            let key = String::from_utf8(record.key.expect("a key").to_vec()).unwrap();
            found.push((record.offset, key.parse().unwrap()));
        }
        consumer.close().await.unwrap();
        found
    };
    timeout(Duration::from_secs(180), read).await.expect("reading to the end")
}

async fn wait_until(deadline: Duration, holds: impl Fn() -> bool) {
    let until = Instant::now() + deadline;
    while !holds() {
        assert!(Instant::now() < until, "nothing happened for {deadline:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
