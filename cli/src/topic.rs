//! `klamm topic`: creates, lists, describes, alters and deletes topics.

use std::collections::HashMap;
use std::sync::Arc;

use clap::{Args, Subcommand};
use klamm_client::admin::{
    ConfigChange, ConfigResource, NewPartitions, OffsetSpec, PartitionDescription, TopicDescription,
};
use klamm_client::{AdminError, Client, ErrorCode, NewTopic, TopicPartition};
use serde_json::{Value, json};

use crate::connect::ClientArgs;
use crate::error::CliError;
use crate::output::{self, OutputFormat, Table};
use crate::properties;
use crate::report::{self, Subject};

#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Creates a topic
    Create(CreateArgs),
    /// Lists topics
    List(ListArgs),
    /// Describes topics: partitions, leaders, replicas, offsets
    Describe(NamedArgs),
    /// Adds partitions to a topic, changes its settings
    Alter(AlterArgs),
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

#[derive(Debug, Args)]
pub(crate) struct AlterArgs {
    /// Name of the topic
    topic: String,
    #[command(flatten)]
    changes: Changes,
    #[command(flatten)]
    client: ClientArgs,
}

/// What to change.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Changes {
    /// How many partitions it is to have in all; records with keys go to other partitions from then on
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Sets a setting under Kafka's name; may be repeated
    #[arg(long, value_name = "key=value", value_parser = properties::key_value)]
    config: Vec<(String, String)>,
    /// Puts a setting back to its default; may be repeated
    #[arg(long, value_name = "KEY")]
    delete_config: Vec<String>,
}

impl Changes {
    fn is_partitions_only(&self) -> bool {
        self.config.is_empty() && self.delete_config.is_empty()
    }
}

pub(crate) async fn run(command: TopicCommand) -> Result<(), CliError> {
    match command {
        TopicCommand::Create(args) => create(args).await,
        TopicCommand::List(args) => list(args).await,
        TopicCommand::Describe(args) => describe(args).await,
        TopicCommand::Alter(args) => alter(args).await,
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
    report::per_item("created", results, &subjects(&[args.topic]), args.client.output)
}

async fn delete(args: NamedArgs) -> Result<(), CliError> {
    let session = args.client.connect().await?;
    let results = session.client.admin().delete_topics(&args.topics).await?;
    report::per_item("deleted", results, &subjects(&args.topics), args.client.output)
}

async fn alter(args: AlterArgs) -> Result<(), CliError> {
    let session = args.client.connect().await?;
    let admin = session.client.admin();
    let AlterArgs { topic, changes, client } = args;
    let set = changes.config.iter().map(|(key, value)| ConfigChange::set(key.as_str(), value.as_str()));
    let reset = changes.delete_config.iter().map(|key| ConfigChange::reset(key.as_str()));
    let settings: Vec<ConfigChange> = set.chain(reset).collect();
    // One that fails says why the other was not tried: a topic that is altered by half is told as such.
    let mut result = Ok(());
    if !settings.is_empty() {
        let resource = ConfigResource::topic(topic.as_str());
        let changed = admin.alter_configs(&HashMap::from([(resource.clone(), settings)])).await?;
        result = changed.into_values().next().unwrap_or(Ok(()));
    }
    if let (Some(total), Ok(())) = (changes.partitions, &result) {
        let wanted = HashMap::from([(Arc::from(topic.as_str()), NewPartitions::total(total))]);
        let added = admin.create_partitions(&wanted).await?;
        result = added.into_values().next().unwrap_or(Ok(()));
        if result.is_err() && !changes.is_partitions_only() {
            output::note(&format!("the settings of topic {topic} are changed, its partitions are not"));
        }
    }
    report::per_item(
        "altered",
        HashMap::from([(Arc::from(topic.as_str()), result)]),
        &subjects(&[topic]),
        client.output,
    )
}

/// The topics of a command, as they are told of.
fn subjects(topics: &[String]) -> Vec<Subject<Arc<str>>> {
    topics
        .iter()
        .map(|topic| Subject { key: topic.as_str().into(), kind: "topic", name: topic.clone() })
        .collect()
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
