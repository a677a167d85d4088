//! The work on krafka.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use krafka::consumer::{AutoOffsetReset, ConsumerBuilder};
use krafka::producer::Acks;
use krafka::{Kafka, Record};

use crate::Result;
use crate::case::{
    BATCH_BYTES, Case, Delays, IN_FLIGHT, LINGER, Measured, Stopwatch, send_paced, until_received,
};

fn codec(case: Case) -> krafka::Compression {
    if case.lz4 { krafka::Compression::Lz4 } else { krafka::Compression::None }
}

pub async fn produce(bootstrap: &str, topic: &str, case: Case) -> Result<Measured> {
    let kafka = Kafka::builder(bootstrap).connect().await?;
    let builder = kafka.producer().acks(Acks::All).linger(LINGER).batch_size(BATCH_BYTES);
    let producer = builder.compression(codec(case)).build().await?;
    let values = Bytes::from(case.values());
    let mut acknowledgements = FuturesUnordered::new();
    let watch = Stopwatch::start();
    for number in 0..case.records {
        let at = Case::at(number);
        acknowledgements.push(producer.enqueue(Record::new(topic, values.slice(at..at + case.size))).await?);
        while acknowledgements.len() >= IN_FLIGHT {
            if let Some(acknowledged) = acknowledgements.next().await {
                let _ = acknowledged?;
            }
        }
    }
    while let Some(acknowledged) = acknowledgements.next().await {
        let _ = acknowledged?;
    }
    let measured = watch.stop(case.records);
    producer.close().await?;
    Ok(measured)
}

fn consumer(kafka: &Kafka, reset: AutoOffsetReset) -> ConsumerBuilder {
    let builder = kafka.consumer(format!("bench-{}", std::process::id()));
    builder.auto_offset_reset(reset).enable_auto_commit(false)
}

pub async fn consume(bootstrap: &str, topic: &str, case: Case) -> Result<Measured> {
    let kafka = Kafka::builder(bootstrap).connect().await?;
    let builder =
        consumer(&kafka, AutoOffsetReset::Earliest).max_poll_records(10_000).max_buffered_records(100_000);
    let consumer = builder.build().await?;
    consumer.subscribe([topic]).await?;
    let (mut seen, mut bytes, mut watch) = (0, 0, Stopwatch::start());
    while seen < case.records {
        let records = consumer.poll(Duration::from_secs(1)).await?;
        if seen == 0 && !records.is_empty() {
            watch = Stopwatch::start();
        }
        bytes +=
            records.iter().map(|record| record.value.as_ref().map_or(0, |value| value.len())).sum::<usize>();
        seen += records.len();
    }
    let measured = watch.stop(seen);
    consumer.close().await?;
    match bytes == seen * case.size {
        true => Ok(measured),
        false => Err("wrong sizes".into()),
    }
}

pub async fn latency(bootstrap: &str, topic: &str, case: Case) -> Result<Measured> {
    let kafka = Kafka::builder(bootstrap).connect().await?;
    let consumer = consumer(&kafka, AutoOffsetReset::Latest).build().await?;
    consumer.subscribe([topic]).await?;
    // A second handle, hence a second connection: on a shared one a send waits behind the fetch's long poll.
    let kafka = Kafka::builder(bootstrap).connect().await?;
    let producer = kafka.producer().acks(Acks::All).linger(Duration::ZERO).build().await?;
    let send = send_paced(case, async |value| Ok(drop(producer.enqueue(Record::new(topic, value)).await?)));
    let receive = async {
        let mut delays = Delays::default();
        while delays.count() < case.records {
            for record in consumer.poll(Duration::from_secs(1)).await? {
                delays.note(record.value.as_deref());
            }
        }
        Ok(delays)
    };
    until_received(send, receive).await
}
