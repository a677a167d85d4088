//! `klamm perf`: how many records a second go in or out, and how long one takes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand};
use klamm_client::{ErrorCode, NewTopic, ProduceError, Record, TopicPartition};
use klamm_runtime::{Rng, SeededRng};
use serde_json::json;
use tokio::time::Instant;

use crate::connect::{AcksArg, ClientArgs, CompressionArg};
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

pub(crate) async fn run(command: PerfCommand) -> Result<(), CliError> {
    match command {
        PerfCommand::Produce(args) => produce(args).await,
        PerfCommand::Consume(args) => consume(args).await,
    }
}

async fn produce(args: ProduceArgs) -> Result<(), CliError> {
    let session = args.client.connect().await?;
    let new_topic = NewTopic::new(args.topic.as_str()).partitions(args.partitions);
    #[expect(clippy::iter_over_hash_type, reason = "there is one topic")]
    for (topic, result) in session.client.admin().create_topics(&[new_topic]).await? {
        match result {
            Err(error) if error.code() != Some(ErrorCode::TopicAlreadyExists) => {
                return Err(CliError::about("topic", &topic, &error));
            }
            _ => {}
        }
    }
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

async fn consume(args: ConsumeArgs) -> Result<(), CliError> {
    let session = args.client.connect().await?;
    let described =
        session.client.admin().describe_topics(&[args.topic.as_str()]).await?.remove(args.topic.as_str());
    let description = match described {
        Some(Ok(description)) => description,
        Some(Err(error)) => return Err(CliError::about("topic", &args.topic, &error)),
        None => {
            return Err(CliError::failed(format!("topic {}: the broker does not tell about it", args.topic)));
        }
    };
    let partitions: Vec<TopicPartition> = description
        .partitions
        .iter()
        .map(|partition| TopicPartition::new(args.topic.as_str(), partition.partition))
        .collect();
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
