//! What a consumer costs that has nothing to do: how often its process wakes up, and what it holds.

use std::fs;
use std::future::Future;
use std::time::Duration;

use klamm_client::Client;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::Result;

/// The group has formed, the first fetches are done.
const SETTLING: Duration = Duration::from_secs(5);
const WATCHED: Duration = Duration::from_secs(20);

/// Joins a group, reads what there is, and prints what waiting for more takes. A heartbeat goes out every 3 s and a
/// fetch comes back empty every 0.5 s with Klamm and rdkafka: these wake-ups are in the figure.
pub fn run(client: &str, bootstrap: &str, topic: &str) -> Result<()> {
    let group = format!("idle-{}", std::process::id());
    let before_kib = resident_kib();
    match client {
        "klamm" => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let client = Client::connect(bootstrap).await?;
                let mut consumer =
                    client.consumer().group(group).topics([topic]).from_beginning().start().await?;
                let reading = async {
                    while let Some(record) = consumer.next().await {
                        record?;
                    }
                    Ok(())
                };
                // Watched from another thread: looking is not to wake the one that is looked at.
                watched(before_kib, reading).await
            })
        }
        "rdkafka" => {
            let mut config = ClientConfig::new();
            config
                .set("bootstrap.servers", bootstrap)
                .set("group.id", group)
                .set("auto.offset.reset", "earliest");
            let consumer: BaseConsumer = config.create()?;
            consumer.subscribe(&[topic])?;
            let watching = std::thread::spawn(move || watch("rdkafka", before_kib));
            while !watching.is_finished() {
                consumer.poll(Duration::from_secs(1));
            }
            Ok(())
        }
        other => Err(format!("no client {other}").into()),
    }
}

async fn watched(before_kib: u64, reading: impl Future<Output = Result<()>>) -> Result<()> {
    let (done, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        watch("klamm", before_kib);
        let _ = done.send(());
    });
    tokio::select! {
        result = reading => result,
        _ = told => Ok(()),
    }
}

fn watch(client: &str, before_kib: u64) {
    std::thread::sleep(SETTLING);
    let before = wake_ups();
    std::thread::sleep(WATCHED);
    let per_second = wake_ups().saturating_sub(before) as f64 / WATCHED.as_secs_f64();
    let held_kib = resident_kib().saturating_sub(before_kib);
    println!("idle {client}: {per_second:.1} wake-ups/s, {held_kib} KiB more than before it was there");
}

/// How often threads of this process went to sleep and were woken.
fn wake_ups() -> u64 {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    threads
        .map(|thread| {
            number(&fs::read_to_string(thread.path().join("status")).unwrap_or_default(), "voluntary_")
        })
        .sum()
}

fn resident_kib() -> u64 {
    number(&fs::read_to_string("/proc/self/status").unwrap_or_default(), "VmRSS")
}

fn number(status: &str, field: &str) -> u64 {
    let line = status.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}
