//! `klamm txn`: lists and describes transactions, and aborts those that hang.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use klamm_client::admin::{
    HangingTransaction, ProducerDescription, TransactionDescription, TransactionFilter, TransactionListing,
};
use klamm_client::{Admin, ErrorCode, TopicPartition};
use serde_json::{Value, json};

use crate::connect::ClientArgs;
use crate::error::CliError;
use crate::output::{self, OutputFormat, Table};
use crate::report::{self, Subject};
use crate::start::duration;

#[derive(Debug, Subcommand)]
pub(crate) enum TxnCommand {
    /// Lists transactional ids and the state of each
    List(ListArgs),
    /// Describes transactions: state, producer, since when, where
    Describe(DescribeArgs),
    /// Aborts the open transactions of transactional ids, or one that hangs in a partition
    Abort(AbortArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only those in this state, such as Ongoing; may be repeated
    #[arg(long, value_name = "STATE")]
    state: Vec<String>,
    /// Only those of this producer; may be repeated
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(0..))]
    producer_id: Vec<i64>,
    /// Only those open for longer: 500ms, 30s, 15m, 2h, 1d, or PT1H30M
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    open_longer_than: Option<Duration>,
    /// Only those whose id matches a regular expression (brokers from Kafka 4.1 on)
    #[arg(long, value_name = "REGEX")]
    id_pattern: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DescribeArgs {
    /// Transactional ids
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AbortArgs {
    /// Transactional ids: their producers are fenced, which aborts what they have open
    #[arg(value_name = "ID", required_unless_present = "topic", conflicts_with = "topic")]
    ids: Vec<String>,
    /// Topic in which a transaction hangs that its coordinator has forgotten
    #[arg(long, value_name = "TOPIC", requires = "partition", requires = "start_offset")]
    topic: Option<String>,
    /// Its partition
    #[arg(long, value_name = "P", requires = "topic", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// The offset at which the transaction starts there: the partition's last stable offset, if it holds readers up
    #[arg(long, value_name = "OFFSET", requires = "topic", value_parser = clap::value_parser!(i64).range(0..))]
    start_offset: Option<i64>,
    #[command(flatten)]
    client: ClientArgs,
}

pub(crate) async fn run(command: TxnCommand) -> Result<(), CliError> {
    match command {
        TxnCommand::List(args) => list(args).await,
        TxnCommand::Describe(args) => describe(args).await,
        TxnCommand::Abort(args) => abort(args).await,
    }
}

async fn list(args: ListArgs) -> Result<(), CliError> {
    let session = args.client.connect().await?;
    let mut filter = TransactionFilter::new();
    filter.states = args.state;
    filter.producer_ids = args.producer_id;
    filter.open_longer_than = args.open_longer_than;
    filter.id_pattern = args.id_pattern;
    let listed = session.client.admin().list_transactions(&filter).await?;
    match args.client.output {
        OutputFormat::Json => output::json(&listed.iter().map(listing_json).collect()),
        OutputFormat::Table => listing_table(&listed).print(),
    }
}

fn listing_json(listed: &TransactionListing) -> Value {
    json!({
        "transactional_id": &*listed.transactional_id, "producer_id": listed.producer_id, "state": &*listed.state,
    })
}

fn listing_table(listed: &[TransactionListing]) -> Table {
    let mut table = Table::new(["ID", "PRODUCER", "STATE"]);
    for one in listed {
        table.row([one.transactional_id.to_string(), one.producer_id.to_string(), one.state.to_string()]);
    }
    table
}

async fn describe(args: DescribeArgs) -> Result<(), CliError> {
    let session = args.client.connect().await?;
    let mut found = session.client.admin().describe_transactions(&args.ids).await?;
    let mut described = Vec::new();
    let mut failed = 0;
    for id in &args.ids {
        match found.remove(id.as_str()) {
            None => {} // Named twice.
            Some(Ok(description)) => described.push((id.as_str(), description)),
            Some(Err(error)) => {
                failed += 1;
                let hint = match error.code() {
                    Some(ErrorCode::TransactionalIdNotFound) => "; `klamm txn list` shows what there is",
                    _ => "",
                };
                output::note(&format!("{}{hint}", CliError::about("transactional id", id, &error)));
            }
        }
    }
    match args.client.output {
        OutputFormat::Json => {
            output::json(&described.iter().map(|(id, one)| description_json(id, one)).collect())?;
        }
        OutputFormat::Table => description_table(&described).print()?,
    }
    match failed {
        0 => Ok(()),
        failed => Err(CliError::Some { failed, of: args.ids.len() }),
    }
}

fn description_json(id: &str, one: &TransactionDescription) -> Value {
    json!({
        "transactional_id": id, "state": &*one.state, "producer_id": one.producer_id,
        "producer_epoch": one.producer_epoch, "timeout_ms": millis(one.timeout), "started_ms": one.started_ms,
        "partitions": one.partitions.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn description_table(described: &[(&str, TransactionDescription)]) -> Table {
    let mut table =
        Table::new(["ID", "STATE", "PRODUCER", "EPOCH", "TIMEOUT_MS", "STARTED_MS", "PARTITIONS"]);
    for (id, one) in described {
        let partitions: Vec<String> = one.partitions.iter().map(ToString::to_string).collect();
        let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        table.row([
            (*id).to_owned(),
            one.state.to_string(),
            one.producer_id.to_string(),
            one.producer_epoch.to_string(),
            millis(one.timeout).to_string(),
            or_dash(one.started_ms.map(|at| at.to_string()).unwrap_or_default()),
            or_dash(partitions.join(",")),
        ]);
    }
    table
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

async fn abort(args: AbortArgs) -> Result<(), CliError> {
    let session = args.client.connect().await?;
    let admin = session.client.admin();
    if let (Some(topic), Some(partition), Some(start)) = (&args.topic, args.partition, args.start_offset) {
        let partition = TopicPartition::new(topic.as_str(), partition);
        let aborted = abort_hanging(&admin, &partition, start).await?;
        return match args.client.output {
            OutputFormat::Json => output::json(&json!({
                "topic": topic, "partition": partition.partition, "producer_id": aborted, "aborted": true,
            })),
            OutputFormat::Table => {
                output::note(&format!("aborted the transaction of producer {aborted} in {partition}"));
                Ok(())
            }
        };
    }
    // To fence an id that nobody uses would begin it: a slip of the keyboard must not.
    let mut results = HashMap::new();
    let mut used = Vec::new();
    for (id, described) in BTreeMap::from_iter(admin.describe_transactions(&args.ids).await?) {
        match described {
            Ok(_) => used.push(id),
            Err(error) => drop(results.insert(id, Err(error))),
        }
    }
    if !used.is_empty() {
        let fenced = admin.fence_producers(&used).await?;
        results.extend(fenced.into_iter().map(|(id, result)| (id, result.map(drop))));
    }
    let subjects = args.ids.iter().map(|id| Subject {
        key: Arc::<str>::from(id.as_str()),
        kind: "transactional id",
        name: id.clone(),
    });
    report::per_item("aborted", results, &subjects.collect::<Vec<_>>(), args.client.output)
}

/// Aborts the transaction that starts at that offset of a partition. Gives its producer's id.
async fn abort_hanging(admin: &Admin, partition: &TopicPartition, start: i64) -> Result<i64, CliError> {
    let mut found = admin.describe_producers(std::slice::from_ref(partition)).await?;
    let producers = match found.remove(partition) {
        Some(Ok(producers)) => producers,
        Some(Err(error)) => return Err(CliError::about("partition", &partition.to_string(), &error)),
        None => Vec::new(),
    };
    let hanging = hanging(partition, &producers, start).map_err(CliError::failed)?;
    admin.abort_transaction(&hanging).await?;
    Ok(hanging.producer_id)
}

/// The transaction that starts at that offset, as the partition's leader tells of it.
fn hanging(
    partition: &TopicPartition,
    producers: &[ProducerDescription],
    start: i64,
) -> Result<HangingTransaction, String> {
    let Some(producer) = producers.iter().find(|producer| producer.transaction_start == Some(start)) else {
        let mut open: Vec<i64> = producers.iter().filter_map(|producer| producer.transaction_start).collect();
        open.sort_unstable();
        let open: Vec<String> = open.iter().map(ToString::to_string).collect();
        let there = if open.is_empty() {
            "none is open".to_owned()
        } else {
            format!("open from {}", open.join(", "))
        };
        return Err(format!("{partition}: no open transaction starts at {start}; {there}"));
    };
    let producer_epoch = i16::try_from(producer.producer_epoch)
        .map_err(|_| format!("{partition}: the broker tells of an epoch of {}", producer.producer_epoch))?;
    Ok(HangingTransaction {
        partition: partition.clone(),
        producer_id: producer.producer_id,
        producer_epoch,
        coordinator_epoch: producer.coordinator_epoch.unwrap_or(0),
    })
}
