//! The records: always the same ones, a millisecond apart, in four partitions.

use std::time::Duration;

use klamm_client::{Client, NewTopic, Producer, Record};
use klamm_runtime::{Rng, SeededRng};

use crate::Result;

pub(crate) const PARTITIONS: i32 = 4;
const BATCH_BYTES: usize = 64 * 1024;
const FIRST_MS: i64 = 1_700_000_000_000;
const TEXT: &str =
    "abcdefghi abcdefghi abcdefghi abcdefghi abcdefghi abcdefghi abcdefghi abcdefghi abcdefghi ";

/// A topic's records: how many, and key and value of each.
type Rows = (u64, fn(&SeededRng, u64) -> (Option<String>, String));

const TOPICS: [(&str, Rows); 8] = [
    ("keyed", (2_000_000, |rng, number| keyed(rng.below(100_000), number))),
    ("million", (2_000_000, |rng, number| keyed(rng.below(1_000_000), number))),
    ("few-keys", (2_000_000, |rng, number| keyed(rng.below(1_000), number))),
    ("left", (1_000_000, |_, number| keyed(number * 7_919 % 100_000, number))),
    ("right", (1_000_000, |_, number| keyed(number * 7_919 % 100_000, number))),
    (
        "orders",
        (300_000, |rng, number| {
            (Some(format!("order-{number:07}")), format!("{:06} {TEXT}", rng.below(30_000)))
        }),
    ),
    ("customers", (30_000, |_, number| (Some(format!("{number:06}")), format!("customer {number}")))),
    ("lines", (300_000, |rng, _| (None, line(rng)))),
];

/// Every topic that is not there yet.
pub(crate) async fn all(bootstrap: &str) -> Result<()> {
    let client = Client::connect(bootstrap).await?;
    let there = client.admin().list_topics().await?;
    for (topic, rows) in TOPICS {
        if there.iter().any(|known| *known.name == *topic) {
            continue;
        }
        // The records are as old as their timestamps: a broker deletes them within a quarter of an hour otherwise.
        let kept = NewTopic::new(topic).partitions(PARTITIONS).config("retention.ms", "-1");
        client.admin().create_topics(&[kept]).await?;
        let producer = client.producer().batch_bytes(BATCH_BYTES).linger(Duration::from_millis(5)).build()?;
        fill(&producer, topic, rows).await?;
        producer.flush().await?;
        producer.close().await?;
    }
    Ok(())
}

async fn fill(producer: &Producer, topic: &str, (records, row): Rows) -> Result<()> {
    let rng = SeededRng::new(1);
    for number in 0..records {
        let (key, value) = row(&rng, number);
        let record = Record::to(topic).value(value).timestamp_ms(FIRST_MS + i64::try_from(number)?);
        let record = match key {
            Some(key) => record.key(key),
            None => record.partition(i32::try_from(number / 500 % PARTITIONS as u64)?),
        };
        drop(producer.enqueue(record).await?);
    }
    Ok(())
}

fn keyed(key: u64, number: u64) -> (Option<String>, String) {
    (Some(format!("key-{key:06}")), format!("{number:010}{TEXT}"))
}

/// Ten words of ten thousand.
fn line(rng: &SeededRng) -> String {
    let words: Vec<String> = (0..10).map(|_| format!("word{}", rng.below(10_000))).collect();
    words.join(" ")
}
