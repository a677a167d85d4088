//! `klamm streams reset`: an application without instances begins again.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use clap::Args;
use klamm_client::{Admin, ErrorCode, OffsetAndMetadata, TopicPartition};
use serde_json::{Value, json};

use super::internal::role;
use crate::connect::ClientArgs;
use crate::error::CliError;
use crate::group::{Planned, SomeOfTopic, Target, bounds, of_topics, plan, some_of_topic};
use crate::output::{self, OutputFormat, Table};
use crate::start::{datetime, duration};

#[derive(Debug, Args)]
pub(crate) struct ResetArgs {
    /// The application's id; none of its instances may run
    #[arg(value_name = "APPLICATION")]
    application: String,
    /// A topic that the application reads, or some of its partitions as TOPIC:0,1; may be repeated
    #[arg(long, value_name = "TOPIC", value_parser = some_of_topic)]
    input_topic: Vec<SomeOfTopic>,
    /// The application's own topics to delete, instead of all that its id shows; may be repeated
    #[arg(long, value_name = "TOPIC")]
    internal_topic: Vec<String>,
    #[command(flatten)]
    to: To,
    /// Shows what would be done, and does nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// Where to: the oldest record, unless said.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct To {
    /// To the oldest record: the default
    #[arg(long)]
    to_earliest: bool,
    /// After the newest record
    #[arg(long)]
    to_latest: bool,
    /// To this offset
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// So many records on, or back if negative, from what is committed
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    shift_by: Option<i64>,
    /// To the first record of this time or later: milliseconds since 1970, or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = datetime)]
    to_datetime: Option<i64>,
    /// To the first record that is not older: 30s, 15m, 2h, 1d, or PT1H30M
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    by_duration: Option<Duration>,
}

/// What is to be done.
struct Reset {
    offsets: BTreeMap<TopicPartition, Planned>,
    deleted: Vec<String>,
}

pub(crate) async fn run(args: ResetArgs) -> Result<(), CliError> {
    let application = &args.application;
    let session = args.client.connect().await?;
    let admin = session.client.admin();
    refuse_while_it_runs(&admin, application).await?;
    let committed = admin.committed_offsets(application).await?;
    let target = args.to.target(session.client.clock().now_ms());
    let offsets = plan_inputs(&admin, &args.input_topic, target, &committed).await?;
    let deleted = internal_topics(&admin, application, &args.internal_topic).await?;
    if offsets.is_empty() && deleted.is_empty() {
        return Err(CliError::failed(format!(
            "there is nothing to reset: application {application} has no topics of its own, and --input-topic names \
             none"
        )));
    }
    let reset = Reset { offsets, deleted };
    match args.client.output {
        OutputFormat::Json => output::json(&as_json(&reset, args.dry_run))?,
        OutputFormat::Table => table(&reset).print()?,
    }
    if args.dry_run {
        output::note("nothing is done; without --dry-run it is");
        return Ok(());
    }
    let failed = execute(&admin, application, &reset, &committed).await?;
    output::note(&format!(
        "stores on the instances' disks are as they were: remove <state_dir>/{application} of each before it starts"
    ));
    match failed {
        0 => Ok(()),
        failed => Err(CliError::Some { failed, of: reset.offsets.len() + reset.deleted.len() }),
    }
}

impl To {
    fn target(&self, now_ms: i64) -> Target {
        if self.to_latest {
            return Target::Latest;
        }
        let at = self.to_offset.map(Target::Offset).or(self.shift_by.map(Target::Shift));
        let ago = self.by_duration.map(|ago| {
            let ago_ms = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
            now_ms.saturating_sub(ago_ms).max(0)
        });
        at.or(self.to_datetime.or(ago).map(Target::Time)).unwrap_or(Target::Earliest)
    }
}

/// The names of all groups.
pub(super) async fn group_names(admin: &Admin) -> Result<Vec<String>, CliError> {
    Ok(admin.list_groups().await?.into_iter().map(|group| group.group.to_string()).collect())
}

async fn refuse_while_it_runs(admin: &Admin, application: &str) -> Result<(), CliError> {
    match admin.describe_groups(&[application]).await?.remove(application) {
        Some(Ok(group)) if !group.members.is_empty() => Err(CliError::failed(format!(
            "application {application} has {} members: stop all its instances first, and wait for the session timeout \
             of those that were killed; nothing is done",
            group.members.len()
        ))),
        Some(Err(error)) if error.code() != Some(ErrorCode::GroupIdNotFound) => {
            Err(CliError::about("group", application, &error))
        }
        _ => Ok(()),
    }
}

async fn plan_inputs(
    admin: &Admin,
    topics: &[SomeOfTopic],
    target: Target,
    committed: &HashMap<TopicPartition, i64>,
) -> Result<BTreeMap<TopicPartition, Planned>, CliError> {
    let targets: BTreeMap<_, _> =
        of_topics(admin, topics).await?.into_iter().map(|partition| (partition, target)).collect();
    let mut bounds = bounds(admin, &targets, committed).await?;
    let mut planned = BTreeMap::new();
    for (partition, target) in targets {
        let known = bounds.remove(&partition).unwrap_or_else(|| Err("no broker tells of it".to_owned()));
        let offset = known.and_then(|bounds| plan(target, &bounds));
        // All or nothing: half of the inputs from the beginning would be another program.
        let offset =
            offset.map_err(|error| CliError::failed(format!("{partition}: {error}; nothing is done")))?;
        planned.insert(partition, offset);
    }
    Ok(planned)
}

/// The topics to delete: those that were named, or all of the application's own.
async fn internal_topics(
    admin: &Admin,
    application: &str,
    named: &[String],
) -> Result<Vec<String>, CliError> {
    let groups = group_names(admin).await?;
    let topics = admin.list_topics().await?;
    let own = topics.iter().filter(|topic| role(&topic.name, application, &groups).is_some());
    let own: Vec<String> = own.map(|topic| topic.name.to_string()).collect();
    if let Some(foreign) = named.iter().find(|name| !own.contains(name)) {
        return Err(CliError::failed(format!(
            "topic {foreign} is none of application {application}'s own: those begin with `{application}-` and end \
             with -changelog or -repartition; nothing is done"
        )));
    }
    Ok(if named.is_empty() { own } else { named.to_vec() })
}

/// Offsets first: an application that starts in between finds its inputs as they will be. Gives how much failed.
async fn execute(
    admin: &Admin,
    application: &str,
    reset: &Reset,
    committed: &HashMap<TopicPartition, i64>,
) -> Result<usize, CliError> {
    let mut failed = 0;
    let mut tell = |subject: &str, name: &str, error: &klamm_client::AdminError| {
        failed += 1;
        output::note(&CliError::about(subject, name, error).to_string());
    };
    if !reset.offsets.is_empty() {
        let offsets = reset.offsets.iter();
        let offsets =
            offsets.map(|(at, planned)| (at.clone(), OffsetAndMetadata::new(planned.offset))).collect();
        let set = admin.alter_group_offsets(application, &offsets).await?;
        for (partition, result) in BTreeMap::from_iter(set) {
            result.unwrap_or_else(|error| tell("partition", &partition.to_string(), &error));
        }
    }
    if !reset.deleted.is_empty() {
        // Positions in topics that come anew would point behind their end.
        let is_deleted = |at: &&TopicPartition| reset.deleted.iter().any(|topic| **topic == *at.topic);
        let stale: Vec<_> = committed.keys().filter(is_deleted).cloned().collect();
        if !stale.is_empty() {
            for (partition, result) in
                BTreeMap::from_iter(admin.delete_group_offsets(application, &stale).await?)
            {
                result.unwrap_or_else(|error| tell("partition", &partition.to_string(), &error));
            }
        }
        for (topic, result) in BTreeMap::from_iter(admin.delete_topics(&reset.deleted).await?) {
            result.unwrap_or_else(|error| tell("topic", &topic, &error));
        }
    }
    Ok(failed)
}

fn table(reset: &Reset) -> Table {
    let mut table = Table::new(["TOPIC", "PARTITION", "COMMITTED", "NEW"]);
    for (at, planned) in &reset.offsets {
        let committed = planned.committed.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
        table.row([at.topic.to_string(), at.partition.to_string(), committed, planned.offset.to_string()]);
    }
    for topic in &reset.deleted {
        table.row([topic.clone(), "all".to_owned(), "-".to_owned(), "deleted".to_owned()]);
    }
    table
}

fn as_json(reset: &Reset, dry_run: bool) -> Value {
    let offsets = reset.offsets.iter().map(|(at, planned)| {
        json!({
            "topic": &*at.topic, "partition": at.partition, "committed_offset": planned.committed,
            "new_offset": planned.offset,
        })
    });
    json!({ "dry_run": dry_run, "offsets": offsets.collect::<Vec<_>>(), "deleted_topics": reset.deleted })
}
