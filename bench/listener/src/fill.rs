//! The records: always the same ones, in four partitions.

use std::time::Duration;

use klamm::client::{Client, NewTopic, Record};

use crate::Result;
use crate::meter::now_us;
use crate::mode::Mode;

const PARTITIONS: i32 = 4;
const KEYS: u64 = 1_000;
const BATCH_BYTES: usize = 64 * 1024;

/// Every topic that is not there yet.
pub async fn all(bootstrap: &str) -> Result<()> {
    let client = Client::connect(bootstrap).await?;
    let there = client.admin().list_topics().await?;
    for mode in [Mode::Text, Mode::Json, Mode::Key, Mode::AckRecord] {
        let topic = mode.topic();
        if there.iter().any(|known| *known.name == *topic) {
            continue;
        }
        client.admin().create_topics(&[NewTopic::new(topic).partitions(PARTITIONS)]).await?;
        let producer = client.producer().batch_bytes(BATCH_BYTES).linger(Duration::from_millis(5)).build()?;
        for number in 0..mode.records() {
            let value = match mode {
                Mode::Json => order(number),
                _ => format!("{number:010}{}", "abcdefghi ".repeat(9)),
            };
            let record = Record::to(topic).value(value);
            let record = match mode {
                Mode::Key => record.key(format!("key-{:06}", number.wrapping_mul(7_919) % KEYS)),
                _ => record.partition(i32::try_from(number / 500 % PARTITIONS as u64)?),
            };
            drop(producer.enqueue(record).await?);
        }
        producer.flush().await?;
        producer.close().await?;
    }
    Ok(())
}

fn order(number: u64) -> String {
    format!(
        r#"{{"id":{number},"user":"user-{:06}","amount":{}.25,"city":"Amsterdam","note":"a small order, paid"}}"#,
        number.wrapping_mul(7_919) % KEYS,
        number % 1_000
    )
}

/// A thousand records a second, each with the microsecond at which it was due.
pub async fn at_a_pace(bootstrap: &str, topic: &str) -> Result<()> {
    let client = Client::connect(bootstrap).await?;
    client.admin().create_topics(&[NewTopic::new(topic).partitions(PARTITIONS)]).await?;
    let producer = client.producer().linger(Duration::ZERO).build()?;
    // The readers have joined by then, or the first records are late.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let begun_us = now_us();
    for number in 0..Mode::Latency.records() {
        let due_us = begun_us + number * 1_000;
        // A timer ends at the next whole millisecond, even one of nothing.
        if let Some(early_us) = due_us.checked_sub(now_us()).filter(|early_us| *early_us > 0) {
            tokio::time::sleep(Duration::from_micros(early_us)).await;
        }
        let partition = i32::try_from(number % PARTITIONS as u64)?;
        drop(
            producer.enqueue(Record::to(topic).partition(partition).value(format!("{due_us} paced"))).await?,
        );
    }
    producer.flush().await?;
    producer.close().await?;
    Ok(())
}
