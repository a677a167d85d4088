//! Load on a broker, Klamm's or Apache Kafka's, by Klamm's client or by bare frames; prints one line of figures.
//!
//! ```text
//! broker-load transactions BOOTSTRAP COUNT            transactions of 100 records of 100 bytes, one after the other
//! broker-load latency BOOTSTRAP SIZE RATE SECONDS     RATE records a second to 4 partitions, after a second to warm up
//! broker-load producers BOOTSTRAP N PARTITIONS SECONDS   N connections, each with one record of 100 bytes in flight
//! broker-load fill BOOTSTRAP TOPIC MEGABYTES          records of 1 KiB, to be read cold
//! broker-load drain BOOTSTRAP TOPIC                   all of them
//! broker-load tail BOOTSTRAP CONSUMERS RATE SECONDS   consumers at the end of one partition, each sees every record
//! ```

#![allow(clippy::print_stdout)] // What it is for.
#![allow(clippy::disallowed_methods)] // Its tasks end with it.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use klamm_client::{Client, NewTopic, Record, TopicPartition};
use klamm_protocol::Records;
use klamm_protocol::frame::{decode_response, encode_request};
use klamm_protocol::messages::ProduceRequest;
use klamm_protocol::messages::produce::{PartitionProduceData, TopicProduceData};
use klamm_protocol::records::{BatchBuilder, BatchOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// The newest that names topics by name.
const PRODUCE_VERSION: i16 = 12;
const RECORDS_PER_TRANSACTION: usize = 100;
const SMALL: [u8; 100] = [b'x'; 100];
const LARGE: [u8; 1_024] = [b'x'; 1_024];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["transactions", bootstrap, count] => transactions(bootstrap, count.parse()?).await,
        ["latency", bootstrap, size, rate, seconds] => {
            let lasting = Duration::from_secs(seconds.parse()?);
            latency(bootstrap, size.parse()?, rate.parse()?, lasting).await
        }
        ["producers", bootstrap, producers, partitions, seconds] => {
            let lasting = Duration::from_secs(seconds.parse()?);
            small_records(bootstrap, producers.parse()?, partitions.parse()?, lasting).await
        }
        ["fill", bootstrap, topic, megabytes] => fill(bootstrap, topic, megabytes.parse()?).await,
        ["drain", bootstrap, topic] => drain(bootstrap, topic).await,
        ["tail", bootstrap, consumers, rate, seconds] => {
            tail(bootstrap, consumers.parse()?, rate.parse()?, Duration::from_secs(seconds.parse()?)).await
        }
        _ => Err("usage: broker-load transactions|producers|fill|drain|tail BOOTSTRAP ...".into()),
    }
}

async fn topic(
    client: &Client,
    prefix: &str,
    partitions: i32,
) -> Result<String, Box<dyn Error + Send + Sync>> {
    let name = format!("{prefix}-{}", std::process::id());
    let made = client.admin().create_topics(&[NewTopic::new(name.as_str()).partitions(partitions)]).await?;
    if let Some(Err(error)) = made.values().next() {
        return Err(error.to_string().into());
    }
    Ok(name)
}

async fn transactions(bootstrap: &str, count: usize) -> Outcome {
    let client = Client::connect(bootstrap).await?;
    let topic = topic(&client, "transactions", 4).await?;
    let mut producer = client.producer().transactional_id(topic.as_str()).build()?;
    let mut took = Vec::new();
    // The first makes the topic of the coordinator.
    for number in 0..=count {
        let begun = Instant::now();
        let transaction = producer.begin().await?;
        let mut sent = Vec::new();
        for _ in 0..RECORDS_PER_TRANSACTION {
            sent.push(transaction.enqueue(Record::to(topic.as_str()).value(&SMALL[..])).await?);
        }
        for delivery in sent {
            delivery.await?;
        }
        transaction.commit().await?;
        if number > 0 {
            took.push(begun.elapsed());
        }
    }
    let all: Duration = took.iter().sum();
    let rate = count as f64 / all.as_secs_f64();
    println!(
        "transactions/s={rate:.1} p50-ms={:.2} p99-ms={:.2}",
        percentile(&mut took, 50.0),
        percentile(&mut took, 99.0)
    );
    Ok(())
}

/// From the call that takes a record until its acknowledgement, of one record in 64. Every millisecond as many records
/// as are due by then, so that a broker that stands still makes them late instead of fewer.
async fn latency(bootstrap: &str, size: usize, rate: u64, lasting: Duration) -> Outcome {
    const WARM_UP: Duration = Duration::from_secs(1);
    const SAMPLED: u64 = 64;
    let client = Client::connect(bootstrap).await?;
    let topic: Arc<str> = topic(&client, "latency", 4).await?.into();
    let producer = client.producer().linger(Duration::from_millis(1)).build()?;
    let value = Bytes::from(vec![b'x'; size]);
    let took = Arc::new(Mutex::new(Vec::new()));
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    let (begun, mut sent) = (Instant::now(), 0_u64);
    while begun.elapsed() < WARM_UP + lasting {
        ticks.tick().await;
        let due = (begun.elapsed().as_secs_f64() * rate as f64) as u64;
        while sent < due {
            let at = Instant::now();
            let delivery = producer.enqueue(Record::to(topic.clone()).value(value.clone())).await?;
            sent += 1;
            if sent.is_multiple_of(SAMPLED) && begun.elapsed() > WARM_UP {
                let took = took.clone();
                tokio::spawn(async move {
                    if delivery.await.is_ok() {
                        took.lock().unwrap_or_else(PoisonError::into_inner).push(at.elapsed());
                    }
                });
            }
        }
    }
    let rate = sent as f64 / begun.elapsed().as_secs_f64();
    producer.close().await?;
    let mut took = std::mem::take(&mut *took.lock().unwrap_or_else(PoisonError::into_inner));
    println!(
        "rec/s={rate:.0} p50-ms={:.2} p99-ms={:.2} p99.9-ms={:.2} samples={}",
        percentile(&mut took, 50.0),
        percentile(&mut took, 99.0),
        percentile(&mut took, 99.9),
        took.len()
    );
    Ok(())
}

/// Each producer is a connection that sends the same bytes again whenever it was answered: what a client does for a
/// record takes more of the machine than what the broker does.
async fn small_records(bootstrap: &str, producers: usize, partitions: i32, lasting: Duration) -> Outcome {
    let client = Client::connect(bootstrap).await?;
    let topic = topic(&client, "small", partitions).await?;
    let end = Instant::now() + lasting;
    let mut running = Vec::new();
    for number in 0..producers {
        let frame = produce_frame(&topic, (number % partitions.unsigned_abs() as usize) as i32)?;
        let mut stream = TcpStream::connect(bootstrap).await?;
        stream.set_nodelay(true)?;
        running.push(tokio::spawn(async move {
            let mut took = Vec::new();
            let mut answer = Vec::new();
            while Instant::now() < end {
                let begun = Instant::now();
                stream.write_all(&frame).await?;
                answer.resize(usize::try_from(stream.read_i32().await?)?, 0);
                stream.read_exact(&mut answer).await?;
                took.push(begun.elapsed());
            }
            let (_, answer) = decode_response::<ProduceRequest>(Bytes::from(answer), PRODUCE_VERSION)?;
            let answers = answer.responses.iter().flat_map(|topic| &topic.partition_responses);
            match answers.map(|answer| answer.error_code).collect::<Vec<_>>()[..] {
                [0] => Ok::<_, Box<dyn Error + Send + Sync>>(took),
                ref errors => Err(format!("refused: {errors:?}").into()),
            }
        }));
    }
    let mut took = Vec::new();
    for one in running {
        took.extend(one.await??);
    }
    let rate = took.len() as f64 / lasting.as_secs_f64();
    println!(
        "rec/s={rate:.0} p50-ms={:.2} p99-ms={:.2}",
        percentile(&mut took, 50.0),
        percentile(&mut took, 99.0)
    );
    Ok(())
}

/// One record for a partition, to be acknowledged by all replicas.
fn produce_frame(topic: &str, partition: i32) -> Result<Bytes, Box<dyn Error + Send + Sync>> {
    let mut batch = BatchBuilder::new(BatchOptions::default());
    let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
    batch.append(i64::try_from(now_ms)?, None, Some(&SMALL), [])?;
    let partition = PartitionProduceData {
        index: partition,
        records: Some(Records::Bytes(batch.build()?)),
        ..PartitionProduceData::default()
    };
    let topic = TopicProduceData {
        name: topic.into(),
        partition_data: vec![partition],
        ..TopicProduceData::default()
    };
    let request =
        ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..ProduceRequest::default() };
    Ok(encode_request(&request, PRODUCE_VERSION, 1, Some("broker-load"))?)
}

async fn fill(bootstrap: &str, topic: &str, megabytes: usize) -> Outcome {
    let client = Client::connect(bootstrap).await?;
    client.admin().create_topics(&[NewTopic::new(topic).partitions(1)]).await?;
    let producer = client.producer().linger(Duration::from_millis(5)).build()?;
    let mut last = None;
    for _ in 0..megabytes * 1_000 {
        last = Some(producer.enqueue(Record::to(topic).partition(0).value(&LARGE[..])).await?);
    }
    if let Some(last) = last {
        last.await?;
    }
    Ok(producer.close().await?)
}

async fn drain(bootstrap: &str, topic: &str) -> Outcome {
    let client = Client::connect(bootstrap).await?;
    let partition = TopicPartition::new(topic, 0);
    let mut consumer = client.consumer().assign([partition.clone()]).from_beginning().start().await?;
    let end = consumer.handle().end_offsets(std::slice::from_ref(&partition)).await?[&partition];
    let begun = Instant::now();
    let (mut records, mut bytes) = (0_i64, 0);
    while records < end {
        let Some(record) = consumer.next().await else { break };
        bytes += record?.value.map_or(0, |value| value.len());
        records += 1;
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("rec/s={:.0} MB/s={:.0}", records as f64 / seconds, bytes as f64 / 1e6 / seconds);
    Ok(())
}

async fn tail(bootstrap: &str, consumers: usize, rate: u64, lasting: Duration) -> Outcome {
    let client = Client::connect(bootstrap).await?;
    let topic = topic(&client, "tail", 1).await?;
    let seen = Arc::new(AtomicU64::new(0));
    for _ in 0..consumers {
        let client = Client::connect(bootstrap).await?;
        let consumer = client.consumer().assign([(topic.as_str(), 0)]);
        let mut consumer = consumer.start().await?;
        let seen = seen.clone();
        tokio::spawn(async move {
            while let Some(Ok(_)) = consumer.next().await {
                seen.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let producer = client.producer().build()?;
    let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / rate.max(1)));
    let begun = Instant::now();
    let mut sent = 0_u64;
    while begun.elapsed() < lasting {
        ticks.tick().await;
        producer.send(Record::to(topic.as_str()).partition(0).value(&SMALL[..])).await?;
        sent += 1;
    }
    let expected = sent * consumers as u64;
    while seen.load(Ordering::Relaxed) < expected && begun.elapsed() < lasting * 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let seen = seen.load(Ordering::Relaxed);
    println!(
        "sent/s={:.0} seen/s={:.0} missing={}",
        sent as f64 / seconds,
        seen as f64 / seconds,
        expected - seen
    );
    Ok(())
}

fn percentile(took: &mut [Duration], percent: f64) -> f64 {
    took.sort_unstable();
    let at = ((took.len() as f64 * percent / 100.0) as usize).min(took.len().saturating_sub(1));
    took.get(at).map_or(0.0, |duration| duration.as_secs_f64() * 1e3)
}
