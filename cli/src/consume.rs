//! `klamm consume`: records of a topic on standard output.

use std::collections::HashMap;
use std::io::{BufWriter, Stdout, Write};
use std::time::Duration;

use clap::Args;
use klamm_client::admin::OffsetSpec;
use klamm_client::{Client, Consumer, ConsumerHandle, ConsumerRecords, OffsetReset, TopicPartition};
use tokio::signal::unix::{SignalKind, signal};

use crate::connect::{ClientArgs, IsolationArg, Session};
use crate::error::CliError;
use crate::format::Format;
use crate::output::{self, OutputFormat};
use crate::start::Start;

/// How often a consumer in a group commits what it has written, and how soon the end is noticed.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
const END_CHECK_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
pub(crate) struct ConsumeArgs {
    /// Topics to read
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Group to join: members share the partitions, and the group remembers what was read
    #[arg(long, value_name = "G")]
    group: Option<String>,
    /// Where to begin: beginning, end, an offset, or @TIME (milliseconds, RFC 3339, or -15m for 15 minutes ago). With
    /// --group: beginning or end, for partitions where the group has no offset yet
    #[arg(long, value_name = "WHERE", default_value = "end")]
    from: Start,
    /// Read only this partition of each topic
    #[arg(long, value_name = "P", conflicts_with = "group", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Stop after this many records
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    /// Stop at what is the end of the topic now
    #[arg(long)]
    until_end: bool,
    /// What to write of each record: text with %k key, %v value, %o offset, %p partition, %t timestamp, %h
    /// headers, %T topic; or json [default: %v]
    #[arg(long, value_name = "F")]
    format: Option<Format>,
    /// Which records of transactions are seen [default: read_uncommitted]
    #[arg(long, value_name = "I", value_enum)]
    isolation: Option<IsolationArg>,
    #[command(flatten)]
    client: ClientArgs,
}

pub(crate) async fn run(args: ConsumeArgs) -> Result<(), CliError> {
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|error| CliError::failed(error.to_string()))?;
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(|error| CliError::failed(error.to_string()))?;
    let session = args.client.connect().await?;
    let partitions = partitions(&session.client, &args.topics, args.partition).await?;
    let (mut consumer, starts) = start(&session, &args, &partitions).await?;
    let handle = consumer.handle();

    let mut run = Run {
        in_group: args.group.is_some(),
        ends: if args.until_end { Some(handle.end_offsets(&partitions).await?) } else { None },
        reached: starts,
        uncommitted: HashMap::new(),
        left: args.max.unwrap_or(u64::MAX),
        format: args.format.clone().unwrap_or(match args.client.output {
            OutputFormat::Table => Format::default(),
            OutputFormat::Json => Format::Json,
        }),
        out: BufWriter::with_capacity(64 * 1024, std::io::stdout()),
        handle,
    };

    let mut commit_tick = tokio::time::interval(COMMIT_INTERVAL);
    let mut end_tick = tokio::time::interval(END_CHECK_INTERVAL);
    let mut result = Ok(());
    while run.left > 0 && !run.is_at_end().await? {
        tokio::select! {
            batch = consumer.next_batch() => match batch {
                Some(Ok(batch)) => {
                    result = run.write(&batch);
                    if result.is_err() {
                        break;
                    }
                }
                Some(Err(error)) if error.is_retriable() => output::note(&format!("warning: {error}; going on")),
                Some(Err(error)) => {
                    result = Err(error.into());
                    break;
                }
                None => break,
            },
            _ = commit_tick.tick() => run.commit_in_background(),
            _ = end_tick.tick() => {}
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    // What was written counts as read, also when the next write failed.
    let committed = run.commit().await;
    let closed = consumer.close().await;
    result?;
    committed?;
    Ok(closed?)
}

/// The state of one run.
struct Run {
    in_group: bool,
    /// Where to stop, with `--until-end`.
    ends: Option<HashMap<TopicPartition, i64>>,
    /// The next offset to be read of each partition, as far as it is known here.
    reached: HashMap<TopicPartition, i64>,
    uncommitted: HashMap<TopicPartition, i64>,
    left: u64,
    format: Format,
    out: BufWriter<Stdout>,
    handle: ConsumerHandle,
}

impl Run {
    /// Writes records, as many as are still wanted, and lets them out.
    fn write(&mut self, batch: &ConsumerRecords) -> Result<(), CliError> {
        let partition = batch.topic_partition();
        let mut next_offset = batch.next_offset;
        for record in &batch.records {
            if self.left == 0 {
                next_offset = record.offset;
                break;
            }
            self.format.write(&mut self.out, record)?;
            self.left -= 1;
        }
        self.out.flush()?;
        if self.in_group {
            self.uncommitted.insert(partition.clone(), next_offset);
        }
        self.reached.insert(partition, next_offset);
        Ok(())
    }

    /// Whether everything up to `ends` was read: here, or, in a group, by another member.
    async fn is_at_end(&mut self) -> Result<bool, CliError> {
        let Some(ends) = &self.ends else { return Ok(false) };
        let mut missing = Vec::new();
        #[expect(clippy::iter_over_hash_type, reason = "it is a set that is made")]
        for (partition, end) in ends {
            // The consumer's position also passes what is not handed out, such as the markers of transactions.
            let position =
                self.handle.position(partition).into_iter().chain(self.reached.get(partition).copied()).max();
            if position.unwrap_or(0) < *end {
                missing.push(partition.clone());
            }
        }
        if !missing.is_empty()
            && self.in_group
            && self.handle.assignment().iter().all(|mine| !missing.contains(mine))
        {
            let committed = self.handle.committed(&missing).await?;
            missing.retain(|partition| {
                committed.get(partition).map_or(0, |committed| committed.offset) < ends[partition]
            });
        }
        Ok(missing.is_empty())
    }

    fn commit_in_background(&mut self) {
        if !self.uncommitted.is_empty() {
            self.handle.commit_async(std::mem::take(&mut self.uncommitted));
        }
    }

    async fn commit(&mut self) -> Result<(), CliError> {
        if !self.in_group || self.reached.is_empty() {
            return Ok(());
        }
        // Everything, because a commit in the background may have failed; but only what is still ours.
        let mine = self.handle.assignment();
        let offsets: HashMap<_, _> =
            self.reached.drain().filter(|(partition, _)| mine.contains(partition)).collect();
        match offsets.is_empty() {
            true => Ok(()),
            false => Ok(self.handle.commit(offsets).await?),
        }
    }
}

/// The topics' partitions, or the one of each that was asked for.
async fn partitions(
    client: &Client,
    topics: &[String],
    only: Option<i32>,
) -> Result<Vec<TopicPartition>, CliError> {
    let mut described = client.admin().describe_topics(topics).await?;
    let mut wanted = Vec::new();
    for topic in topics {
        let description = match described.remove(topic.as_str()) {
            Some(Ok(description)) => description,
            Some(Err(error)) => return Err(CliError::about("topic", topic, &error)),
            None => {
                return Err(CliError::failed(format!("topic {topic}: the broker does not tell about it")));
            }
        };
        let before = wanted.len();
        let numbers = description.partitions.iter().map(|partition| partition.partition);
        let numbers = numbers.filter(|partition| only.is_none_or(|only| only == *partition));
        wanted.extend(numbers.map(|partition| TopicPartition::new(topic.as_str(), partition)));
        if let Some(only) = only
            && wanted.len() == before
        {
            let count = description.partitions.len();
            return Err(CliError::usage(format!(
                "topic {topic} has {count} partitions and no partition {only}"
            )));
        }
    }
    Ok(wanted)
}

/// A started consumer; without a group also where it begins in each partition.
async fn start(
    session: &Session,
    args: &ConsumeArgs,
    partitions: &[TopicPartition],
) -> Result<(Consumer, HashMap<TopicPartition, i64>), CliError> {
    let mut builder = session.consumer();
    if let Some(isolation) = args.isolation {
        builder = builder.isolation(isolation.into());
    }
    if let Some(group) = &args.group {
        let reset = match args.from {
            Start::Beginning => OffsetReset::Earliest,
            Start::End => OffsetReset::Latest,
            Start::Offset(_) | Start::Time(_) => {
                return Err(CliError::usage(
                    "--from OFFSET and --from @TIME do not go with --group: the group's committed offsets say where to \
                     begin",
                ));
            }
        };
        let consumer = builder
            .group(group.as_str())
            .topics(args.topics.iter().map(String::as_str))
            .auto_offset_reset(reset)
            .start()
            .await?;
        return Ok((consumer, HashMap::new()));
    }
    let starts = starts(&session.client, args.from, partitions).await?;
    let consumer = builder.assign(partitions.to_vec()).from_beginning().start().await?;
    let handle = consumer.handle();
    #[expect(clippy::iter_over_hash_type, reason = "each partition is moved by itself")]
    for (partition, offset) in &starts {
        handle.seek(partition, *offset)?;
    }
    Ok((consumer, starts))
}

async fn starts(
    client: &Client,
    from: Start,
    partitions: &[TopicPartition],
) -> Result<HashMap<TopicPartition, i64>, CliError> {
    let begin = offsets(client, partitions, OffsetSpec::Earliest).await?;
    let end = offsets(client, partitions, OffsetSpec::Latest).await?;
    let wanted: HashMap<TopicPartition, Option<i64>> = match from {
        Start::Beginning => begin.clone(),
        Start::End => end.clone(),
        Start::Offset(offset) => {
            partitions.iter().map(|partition| (partition.clone(), Some(offset))).collect()
        }
        Start::Time(time) => {
            offsets(client, partitions, OffsetSpec::Timestamp(time.resolve(client.clock().now_ms()))).await?
        }
    };
    let mut starts = HashMap::new();
    for partition in partitions {
        let find = |found: &HashMap<_, Option<i64>>| found.get(partition).copied().flatten();
        let (begin, end) = (find(&begin).unwrap_or(0), find(&end).unwrap_or(0));
        // No record of that time or later: what comes next is the first.
        let offset = find(&wanted).unwrap_or(end);
        if !(begin..=end).contains(&offset) {
            output::note(&format!(
                "{partition} holds offsets {begin} to {end}: beginning at the nearest to {offset}"
            ));
        }
        starts.insert(partition.clone(), offset.clamp(begin, end.max(begin)));
    }
    Ok(starts)
}

async fn offsets(
    client: &Client,
    partitions: &[TopicPartition],
    spec: OffsetSpec,
) -> Result<HashMap<TopicPartition, Option<i64>>, CliError> {
    let specs = partitions.iter().map(|partition| (partition.clone(), spec)).collect();
    let found = client.admin().offsets(&specs).await?;
    let found = found.into_iter().map(|(partition, result)| match result {
        Ok(at) => Ok((partition, at.offset)),
        Err(error) => Err(CliError::about("partition", &partition.to_string(), &error)),
    });
    found.collect()
}
