//! `klamm perf`: how many records a second go in or out, and how long one takes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand};
use klamm_client::{Consumer, ErrorCode, NewTopic, ProduceError, Producer, Record, TopicPartition};
use klamm_runtime::{Rng, SeededRng};
use serde_json::json;
use tokio::time::Instant;

use crate::connect::{AcksArg, ClientArgs, CompressionArg, Session};
use crate::error::CliError;
use crate::histogram::Histogram;
use crate::output::{self, OutputFormat};

/// Values are cut from a buffer of this size beyond their own: neighbours differ, and making them costs nothing.
const VARIETY_BYTES: usize = 1024 * 1024;
/// How long `perf consume` waits for a record before it gives up.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Subcommand)]
pub(crate) enum PerfCommand {
    /// Writes records as fast as the broker takes them
    Produce(ProduceArgs),
    /// Reads a topic from its beginning as fast as the broker gives it
    Consume(ConsumeArgs),
    /// Measures how long a record takes from a producer to a consumer
    Latency(LatencyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ProduceArgs {
    /// Topic to write to; created if it does not exist
    topic: String,
    /// How many records
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    records: u64,
    /// Bytes of a record's value, of which half are random
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    size: usize,
    /// Partitions of the topic, if it is created
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: i32,
    /// How long a record may wait for company, in milliseconds
    #[arg(long, value_name = "MS")]
    linger: Option<u64>,
    /// Size at which a batch is closed
    #[arg(long, value_name = "BYTES")]
    batch_bytes: Option<usize>,
    /// Unanswered requests at a time
    #[arg(long, value_name = "N")]
    in_flight: Option<usize>,
    /// When a record counts as written [default: all]
    #[arg(long, value_enum)]
    acks: Option<AcksArg>,
    /// How records are compressed [default: none]
    #[arg(long, value_name = "C", value_enum)]
    compression: Option<CompressionArg>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ConsumeArgs {
    /// Topic to read
    topic: String,
    /// How many records [default: all that are there now]
    #[arg(long, value_name = "N")]
    records: Option<u64>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LatencyArgs {
    /// Topic to write to and read from; created if it does not exist
    topic: String,
    /// How many records
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// Records a second, evenly apart
    #[arg(long, value_name = "N", default_value_t = 1_000,
        value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,
    /// Bytes of a record's value, at least 8
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(8..))]
    size: u32,
    /// When a record counts as written [default: all]
    #[arg(long, value_enum)]
    acks: Option<AcksArg>,
    #[command(flatten)]
    client: ClientArgs,
}

pub(crate) async fn run(command: PerfCommand) -> Result<(), CliError> {
    match command {
        PerfCommand::Produce(args) => produce(args).await,
        PerfCommand::Consume(args) => consume(args).await,
        PerfCommand::Latency(args) => latency(args).await,
    }
}

async fn produce(args: ProduceArgs) -> Result<(), CliError> {
    let session = args.client.connect().await?;
    create_topic(&session, &args.topic, args.partitions).await?;
    let mut builder = session.producer();
    if let Some(linger_ms) = args.linger {
        builder = builder.linger(Duration::from_millis(linger_ms));
    }
    if let Some(bytes) = args.batch_bytes {
        builder = builder.batch_bytes(bytes);
    }
    if let Some(requests) = args.in_flight {
        builder = builder.max_in_flight(requests);
    }
    if let Some(acks) = args.acks {
        builder = builder.acks(acks.into());
    }
    if let Some(compression) = args.compression {
        builder = builder.compression(compression.into());
    }
    let producer = builder.build()?;

    let topic: Arc<str> = args.topic.as_str().into();
    let values = half_random(VARIETY_BYTES + args.size);
    let latencies: Arc<Mutex<Histogram>> = Arc::default();
    let failure: Arc<Mutex<Option<ProduceError>>> = Arc::default();
    let progress = output::progress(Some(args.records));
    let started = Instant::now();
    for number in 0..args.records {
        let from = (number as usize).wrapping_mul(131) % VARIETY_BYTES;
        let record = Record::to(Arc::clone(&topic)).value(values.slice(from..from + args.size));
        let (noted, failed) = (Arc::clone(&latencies), Arc::clone(&failure));
        let sent = Instant::now();
        let note = move |result: Result<_, ProduceError>| match result {
            Ok(_) => locked(&noted).record(sent.elapsed()),
            Err(error) => {
                locked(&failed).get_or_insert(error);
            }
        };
        producer.send_with(record, note).await?;
        if number % 1_024 == 0 {
            progress.set_position(number);
            if locked(&failure).is_some() {
                break;
            }
        }
    }
    let closed = producer.close().await;
    let elapsed = started.elapsed();
    progress.finish_and_clear();
    if let Some(error) = locked(&failure).take() {
        return Err(error.into());
    }
    closed?;
    let latencies = locked(&latencies).clone();
    let total = Total { records: args.records, bytes: args.records * args.size as u64, elapsed };
    total.print(args.client.output, "from send to acknowledgement", &latencies)
}

/// Creates a topic unless it is there.
async fn create_topic(session: &Session, topic: &str, partitions: i32) -> Result<(), CliError> {
    let new_topic = NewTopic::new(topic).partitions(partitions);
    match session.client.admin().create_topics(&[new_topic]).await?.remove(topic) {
        Some(Err(error)) if error.code() != Some(ErrorCode::TopicAlreadyExists) => {
            Err(CliError::about("topic", topic, &error))
        }
        _ => Ok(()),
    }
}

/// Where a topic is read: all its partitions.
async fn partitions_of(session: &Session, topic: &str) -> Result<Vec<TopicPartition>, CliError> {
    let description = match session.client.admin().describe_topics(&[topic]).await?.remove(topic) {
        Some(Ok(description)) => description,
        Some(Err(error)) => return Err(CliError::about("topic", topic, &error)),
        None => return Err(CliError::failed(format!("topic {topic}: the broker does not tell about it"))),
    };
    let numbers = description.partitions.iter().map(|partition| partition.partition);
    Ok(numbers.map(|partition| TopicPartition::new(topic, partition)).collect())
}

/// One record at a time would measure an idle system; these go out at a rate, each at its time whether or not earlier
/// ones have arrived. What counts is when a record was due, not when it was sent: a stall delays all behind it.
async fn latency(args: LatencyArgs) -> Result<(), CliError> {
    let session = args.client.connect().await?;
    create_topic(&session, &args.topic, 1).await?;
    let partitions = partitions_of(&session, &args.topic).await?;
    let mut consumer = session.consumer().assign(partitions.clone()).start().await?;
    let handle = consumer.handle();
    #[expect(clippy::iter_over_hash_type, reason = "each partition is moved by itself")]
    for (partition, end) in handle.end_offsets(&partitions).await? {
        handle.seek(&partition, end)?;
    }
    let mut builder = session.producer().linger(Duration::ZERO);
    if let Some(acks) = args.acks {
        builder = builder.acks(acks.into());
    }
    let producer = builder.build()?;
    let failure: Arc<Mutex<Option<ProduceError>>> = Arc::default();
    let started = Instant::now();
    let send = send_at_rate(&args, &producer, &failure, started);
    let receive = receive_all(args.records, &mut consumer, started);
    let (sent, received) = tokio::join!(send, receive);
    let elapsed = started.elapsed();
    let closed = producer.close().await;
    consumer.close().await?;
    if let Some(error) = locked(&failure).take() {
        return Err(error.into());
    }
    sent?;
    closed?;
    let total = Total { records: args.records, bytes: args.records * u64::from(args.size), elapsed };
    total.print(args.client.output, "from due to received", &received?)
}

/// A record's first bytes are when it was due, in nanoseconds since `started`.
async fn send_at_rate(
    args: &LatencyArgs,
    producer: &Producer,
    failure: &Arc<Mutex<Option<ProduceError>>>,
    started: Instant,
) -> Result<(), CliError> {
    let filler = half_random(usize::try_from(args.size).unwrap_or(usize::MAX));
    for number in 0..args.records {
        let due = Duration::from_nanos(number.saturating_mul(1_000_000_000) / args.rate);
        tokio::time::sleep_until(started + due).await;
        let mut value = filler.to_vec();
        let nanos = u64::try_from(due.as_nanos()).unwrap_or(u64::MAX);
        value[..8].copy_from_slice(&nanos.to_be_bytes());
        let failed = Arc::clone(failure);
        let note = move |result: Result<_, ProduceError>| {
            if let Err(error) = result {
                locked(&failed).get_or_insert(error);
            }
        };
        producer.send_with(Record::to(args.topic.as_str()).value(value), note).await?;
    }
    Ok(())
}

async fn receive_all(records: u64, consumer: &mut Consumer, started: Instant) -> Result<Histogram, CliError> {
    let mut latencies = Histogram::default();
    let progress = output::progress(Some(records));
    let mut received = 0;
    while received < records {
        let batch = tokio::time::timeout(PATIENCE, consumer.next_batch()).await;
        let Ok(Some(batch)) = batch else {
            let lost = records - received;
            return Err(CliError::failed(format!("{lost} records did not arrive within {PATIENCE:?}")));
        };
        let elapsed = started.elapsed();
        for record in &batch?.records {
            let stamp = record.value.as_deref().and_then(<[u8]>::first_chunk).copied();
            let due = Duration::from_nanos(stamp.map_or(0, u64::from_be_bytes));
            latencies.record(elapsed.saturating_sub(due));
            received += 1;
        }
        progress.set_position(received);
    }
    progress.finish_and_clear();
    Ok(latencies)
}

async fn consume(args: ConsumeArgs) -> Result<(), CliError> {
    let session = args.client.connect().await?;
    let partitions = partitions_of(&session, &args.topic).await?;
    let started = Instant::now();
    let mut consumer = session.consumer().assign(partitions.clone()).from_beginning().start().await?;
    let handle = consumer.handle();
    let begin = handle.beginning_offsets(&partitions).await?;
    let mut unread: HashMap<TopicPartition, i64> = handle.end_offsets(&partitions).await?;
    unread.retain(|partition, end| begin.get(partition).is_none_or(|begin| begin < end));

    let mut waits = Histogram::default();
    let mut total = Total::default();
    let progress = output::progress(args.records);
    while args.records.map_or(!unread.is_empty(), |wanted| total.records < wanted) {
        let asked = Instant::now();
        let batch = match tokio::time::timeout(PATIENCE, consumer.next_batch()).await {
            Ok(Some(batch)) => batch?,
            Ok(None) => break,
            Err(_) => {
                let read = total.records;
                return Err(CliError::failed(format!(
                    "no record within {PATIENCE:?}; {read} were read before"
                )));
            }
        };
        waits.record(asked.elapsed());
        let wanted = args.records.map_or(u64::MAX, |wanted| wanted - total.records);
        let taken = usize::try_from(wanted).unwrap_or(usize::MAX).min(batch.records.len());
        total.records += taken as u64;
        total.bytes += batch.records[..taken].iter().map(size_of_record).sum::<u64>();
        let partition = batch.topic_partition();
        if unread.get(&partition).is_some_and(|end| batch.next_offset >= *end) {
            unread.remove(&partition);
        }
        progress.set_position(total.records);
    }
    total.elapsed = started.elapsed();
    progress.finish_and_clear();
    consumer.close().await?;
    total.print(args.client.output, "waited for a batch", &waits)
}

fn size_of_record(record: &klamm_client::ConsumerRecord) -> u64 {
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
    length(&record.key) + length(&record.value)
}

/// Random bytes and equal ones by turns, in runs of 16: about what real data is like to a compressor.
fn half_random(length: usize) -> Bytes {
    let rng = SeededRng::new(1);
    let mut bytes = Vec::with_capacity(length + 32);
    while bytes.len() < length {
        bytes.extend_from_slice(&rng.below(u64::MAX).to_le_bytes());
        bytes.extend_from_slice(&rng.below(u64::MAX).to_le_bytes());
        bytes.extend_from_slice(&[b'.'; 16]);
    }
    bytes.truncate(length);
    bytes.into()
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was done, and in which time.
#[derive(Debug, Default)]
struct Total {
    records: u64,
    bytes: u64,
    elapsed: Duration,
}

impl Total {
    fn print(&self, format: OutputFormat, what: &str, latencies: &Histogram) -> Result<(), CliError> {
        let seconds = self.elapsed.as_secs_f64().max(1e-9);
        let (records_per_s, bytes_per_s) = (self.records as f64 / seconds, self.bytes as f64 / seconds);
        match format {
            OutputFormat::Json => output::json(&json!({
                "records": self.records, "bytes": self.bytes, "seconds": seconds,
                "records_per_s": records_per_s, "bytes_per_s": bytes_per_s, "latency_ms": latencies.as_json(),
            })),
            OutputFormat::Table => {
                let (records, mb_per_s) = (self.records, bytes_per_s / 1e6);
                output::line(&format!(
                    "{records} records in {seconds:.3} s: {records_per_s:.0} records/s, {mb_per_s:.1} MB/s"
                ))?;
                output::line(&format!("{what}: {}", latencies.as_text()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_their_length_and_differ() {
        let values = half_random(100);
        assert_eq!(values.len(), 100);
        assert_ne!(values[..16], values[32..48]);
        assert!(half_random(0).is_empty());
    }
}
