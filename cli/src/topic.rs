//! `klamm topic`: creates, lists, describes and deletes topics.

use std::collections::HashMap;
use std::sync::Arc;

use clap::{Args, Subcommand};
use klamm_client::admin::{OffsetSpec, PartitionDescription, TopicDescription};
use klamm_client::{AdminError, Client, ErrorCode, NewTopic, TopicPartition};
use serde_json::{Value, json};

use crate::connect::ClientArgs;
use crate::error::CliError;
use crate::output::{self, OutputFormat, Table};
use crate::properties;

#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Creates a topic
    Create(CreateArgs),
    /// Lists topics
    List(ListArgs),
    /// Describes topics: partitions, leaders, replicas, offsets
    Describe(NamedArgs),
    /// Deletes topics with all their records
    Delete(NamedArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Name of the topic
    topic: String,
    /// How many partitions [default: the broker's num.partitions]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// How many copies of each partition [default: the broker's default.replication.factor]
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,
    /// Setting of the topic under Kafka's name; may be repeated
    #[arg(long, value_name = "key=value", value_parser = properties::key_value)]
    config: Vec<(String, String)>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Also the topics that brokers keep for themselves
    #[arg(long)]
    internal: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct NamedArgs {
    /// Names of the topics
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    #[command(flatten)]
    client: ClientArgs,
}

pub(crate) async fn run(command: TopicCommand) -> Result<(), CliError> {
    match command {
        TopicCommand::Create(args) => create(args).await,
        TopicCommand::List(args) => list(args).await,
        TopicCommand::Describe(args) => describe(args).await,
        TopicCommand::Delete(args) => delete(args).await,
    }
}

async fn create(args: CreateArgs) -> Result<(), CliError> {
    let session = args.client.connect().await?;
    let mut topic = NewTopic::new(args.topic.as_str());
    topic =
        topic.partitions(args.partitions.unwrap_or(-1)).replication(args.replication_factor.unwrap_or(-1));
    for (key, value) in args.config {
        topic = topic.config(key, value);
    }
    let results = session.client.admin().create_topics(&[topic]).await?;
    report("created", results, &[args.topic], args.client.output)
}

async fn delete(args: NamedArgs) -> Result<(), CliError> {
    let session = args.client.connect().await?;
    let results = session.client.admin().delete_topics(&args.topics).await?;
    report("deleted", results, &args.topics, args.client.output)
}

/// Tells what became of each topic, in the order they were named.
fn report(
    done: &str,
    mut results: HashMap<Arc<str>, Result<(), AdminError>>,
    topics: &[String],
    format: OutputFormat,
) -> Result<(), CliError> {
    let mut documents = Vec::new();
    let mut failed = 0;
    for topic in topics {
        match results.remove(topic.as_str()) {
            None => {} // Named twice: told already.
            Some(Ok(())) => match format {
                OutputFormat::Table => output::note(&format!("{done} {topic}")),
                OutputFormat::Json => documents.push(json!({ "topic": topic, done: true })),
            },
            Some(Err(error)) => {
                failed += 1;
                output::note(&CliError::about("topic", topic, &error).to_string());
                documents.push(json!({ "topic": topic, done: false, "error": error.to_string() }));
            }
        }
    }
    if format == OutputFormat::Json {
        output::json(&Value::Array(documents))?;
    }
    match failed {
        0 => Ok(()),
        failed => Err(CliError::Some { failed, of: topics.len() }),
    }
}

async fn list(args: ListArgs) -> Result<(), CliError> {
    let session = args.client.connect().await?;
    let mut topics = session.client.admin().list_topics().await?;
    topics.retain(|topic| args.internal || !topic.internal);
    match args.client.output {
        OutputFormat::Json => {
            let list = topics.iter().map(|topic| {
                json!({
                    "topic": &*topic.name, "id": topic.id.to_string(), "partitions": topic.partitions.len(),
                    "internal": topic.internal,
                })
            });
            output::json(&list.collect())
        }
        OutputFormat::Table => {
            let mut table = Table::new(["TOPIC", "PARTITIONS"]);
            for topic in &topics {
                table.row([topic.name.to_string(), topic.partitions.len().to_string()]);
            }
            table.print()
        }
    }
}

async fn describe(args: NamedArgs) -> Result<(), CliError> {
    let session = args.client.connect().await?;
    let mut found = session.client.admin().describe_topics(&args.topics).await?;
    let mut topics = Vec::new();
    let mut failed = 0;
    for topic in &args.topics {
        match found.remove(topic.as_str()) {
            None => {} // Named twice.
            Some(Ok(description)) => topics.push(description),
            Some(Err(error)) => {
                failed += 1;
                let hint = match error.code() {
                    Some(ErrorCode::UnknownTopicOrPartition) => "; `klamm topic list` shows what there is",
                    _ => "",
                };
                output::note(&format!("{}{hint}", CliError::about("topic", topic, &error)));
            }
        }
    }
    let ranges = ranges(&session.client, &topics).await?;
    match args.client.output {
        OutputFormat::Json => output::json(&topics.iter().map(|topic| as_json(topic, &ranges)).collect())?,
        OutputFormat::Table => {
            let mut table =
                Table::new(["TOPIC", "PARTITION", "LEADER", "EPOCH", "REPLICAS", "IN-SYNC", "FIRST", "END"]);
            for topic in &topics {
                for partition in &topic.partitions {
                    let range = range_of(&ranges, topic, partition);
                    table.row([
                        topic.name.to_string(),
                        partition.partition.to_string(),
                        or_dash(partition.leader),
                        partition.leader_epoch.to_string(),
                        joined(&partition.replicas),
                        joined(&partition.in_sync),
                        or_dash(range.0),
                        or_dash(range.1),
                    ]);
                }
            }
            table.print()?;
        }
    }
    match failed {
        0 => Ok(()),
        failed => Err(CliError::Some { failed, of: args.topics.len() }),
    }
}

/// First offset and end offset, where they are known.
type Range = (Option<i64>, Option<i64>);

async fn ranges(
    client: &Client,
    topics: &[TopicDescription],
) -> Result<HashMap<TopicPartition, Range>, CliError> {
    let mut ranges: HashMap<TopicPartition, Range> = HashMap::new();
    // A partition without a leader has nobody to ask.
    let led = topics.iter().flat_map(|topic| {
        let led = topic.partitions.iter().filter(|partition| partition.leader.is_some());
        led.map(|partition| TopicPartition::new(Arc::clone(&topic.name), partition.partition))
    });
    let led: Vec<_> = led.collect();
    if led.is_empty() {
        return Ok(ranges);
    }
    let ask = |spec| led.iter().map(move |partition| (partition.clone(), spec)).collect::<HashMap<_, _>>();
    let admin = client.admin();
    let first = admin.offsets(&ask(OffsetSpec::Earliest)).await?;
    let end = admin.offsets(&ask(OffsetSpec::Latest)).await?;
    for partition in led {
        let offset = |found: &HashMap<TopicPartition, Result<klamm_client::admin::OffsetAt, AdminError>>| {
            found.get(&partition).and_then(|result| result.as_ref().ok()).and_then(|at| at.offset)
        };
        let range = (offset(&first), offset(&end));
        ranges.insert(partition, range);
    }
    Ok(ranges)
}

fn range_of(
    ranges: &HashMap<TopicPartition, Range>,
    topic: &TopicDescription,
    partition: &PartitionDescription,
) -> Range {
    let at = TopicPartition::new(Arc::clone(&topic.name), partition.partition);
    ranges.get(&at).copied().unwrap_or_default()
}

fn as_json(topic: &TopicDescription, ranges: &HashMap<TopicPartition, Range>) -> Value {
    let partitions = topic.partitions.iter().map(|partition| {
        let (first, end) = range_of(ranges, topic, partition);
        json!({
            "partition": partition.partition, "leader": partition.leader, "leader_epoch": partition.leader_epoch,
            "replicas": partition.replicas, "in_sync": partition.in_sync, "first_offset": first, "end_offset": end,
        })
    });
    json!({
        "topic": &*topic.name, "id": topic.id.to_string(), "internal": topic.internal,
        "partitions": partitions.collect::<Value>(),
    })
}

fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn joined(nodes: &[i32]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
