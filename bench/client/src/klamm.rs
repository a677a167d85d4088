//! The work on Klamm's client.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use klamm_client::{Client, Compression, NewTopic, ProducerBuilder, Record};

use crate::Result;
use crate::case::{BATCH_BYTES, Case, Delays, LINGER, Measured, Stopwatch, send_paced, until_received};

/// As the context of rdkafka's producer has it: one for all records, so that none brings a reference to count.
static ACKNOWLEDGED: AtomicUsize = AtomicUsize::new(0);

pub async fn create_topic(bootstrap: &str, topic: &str, partitions: i32) -> Result<()> {
    let client = Client::connect(bootstrap).await?;
    for (_, result) in client.admin().create_topics(&[NewTopic::new(topic).partitions(partitions)]).await? {
        result?;
    }
    Ok(())
}

fn producer(client: &Client, case: Case) -> ProducerBuilder {
    let codec = if case.lz4 { Compression::Lz4 } else { Compression::None };
    client.producer().linger(LINGER).batch_bytes(BATCH_BYTES).compression(codec)
}

pub async fn produce(bootstrap: &str, topic: &str, case: Case) -> Result<Measured> {
    let client = Client::connect(bootstrap).await?;
    let producer = producer(&client, case).build()?;
    let (values, topic): (Bytes, Arc<str>) = (case.values().into(), topic.into());
    let watch = Stopwatch::start();
    for number in 0..case.records {
        let at = Case::at(number);
        let record = Record::to(Arc::clone(&topic)).value(values.slice(at..at + case.size));
        let note = |result: std::result::Result<_, _>| {
            ACKNOWLEDGED.fetch_add(usize::from(result.is_ok()), Ordering::Relaxed);
        };
        producer.send_with(record, note).await?;
    }
    producer.flush().await?;
    let measured = watch.stop(case.records);
    match ACKNOWLEDGED.load(Ordering::Relaxed) == case.records {
        true => Ok(measured),
        false => Err("records failed".into()),
    }
}

pub async fn consume(bootstrap: &str, topic: &str, case: Case) -> Result<Measured> {
    let client = Client::connect(bootstrap).await?;
    let group = format!("bench-{}", std::process::id());
    let mut consumer = client.consumer().group(group).topics([topic]).from_beginning().start().await?;
    let (mut seen, mut bytes, mut watch) = (0, 0, Stopwatch::start());
    while seen < case.records {
        let batch = consumer.next_batch().await.ok_or("the consumer ended")??;
        if seen == 0 {
            watch = Stopwatch::start();
        }
        bytes +=
            batch.records.iter().map(|record| record.value.as_ref().map_or(0, Bytes::len)).sum::<usize>();
        seen += batch.records.len();
    }
    let measured = watch.stop(seen);
    match bytes == seen * case.size {
        true => Ok(measured),
        false => Err("wrong sizes".into()),
    }
}

pub async fn latency(bootstrap: &str, topic: &str, case: Case) -> Result<Measured> {
    let client = Client::connect(bootstrap).await?;
    let group = format!("bench-{}", std::process::id());
    let mut consumer = client.consumer().group(group).topics([topic]).start().await?;
    let producer = producer(&client, case).linger(Duration::ZERO).build()?;
    let send =
        send_paced(case, async |value| Ok(drop(producer.enqueue(Record::to(topic).value(value)).await?)));
    let receive = async {
        let mut delays = Delays::default();
        while delays.count() < case.records {
            let record = consumer.next().await.ok_or("the consumer ended")??;
            delays.note(record.value.as_deref());
        }
        Ok(delays)
    };
    until_received(send, receive).await
}
