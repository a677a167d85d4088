//! `klamm group`: lists consumer groups, describes who is in them and how far they are, sets where they go on, deletes
//! them.
//!
//! ```text
//! reset.rs         the verb reset-offsets
//! scope.rs         which partitions it is about, where they begin and end
//! plan.rs          where a group goes on after it   (pure)
//! offsets_file.rs  offsets as lines of text         (pure)
//! ```

mod offsets_file;
mod plan;
mod reset;
mod scope;

pub(crate) use plan::{Planned, Target, plan};
pub(crate) use scope::{SomeOfTopic, bounds, of_topics, some_of_topic};

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use clap::{Args, Subcommand};
use klamm_client::admin::{GroupDescription, OffsetSpec};
use klamm_client::{Admin, TopicPartition};
use serde_json::{Value, json};

use crate::connect::ClientArgs;
use crate::error::CliError;
use crate::output::{self, OutputFormat, Table};
use crate::report::{self, Subject};

/// The state that a coordinator gives to a group it does not know.
const DEAD: &str = "Dead";
/// The state of a group without members.
const EMPTY: &str = "Empty";

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Lists groups
    List(ListArgs),
    /// Describes groups: state, members, committed offsets, lag
    Describe(DescribeArgs),
    /// Sets where groups without members go on; without --execute it only shows what it would set
    ResetOffsets(Box<reset::ResetArgs>),
    /// Deletes groups without members, and their committed offsets
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DescribeArgs {
    /// Names of the groups
    #[arg(required = true, value_name = "GROUP")]
    groups: Vec<String>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Names of the groups
    #[arg(required = true, value_name = "GROUP")]
    groups: Vec<String>,
    #[command(flatten)]
    client: ClientArgs,
}

pub(crate) async fn run(command: GroupCommand) -> Result<(), CliError> {
    match command {
        GroupCommand::List(args) => list(args).await,
        GroupCommand::Describe(args) => describe(args).await,
        GroupCommand::ResetOffsets(args) => reset::run(*args).await,
        GroupCommand::Delete(args) => delete(args).await,
    }
}

async fn list(args: ListArgs) -> Result<(), CliError> {
    let session = args.client.connect().await?;
    let groups = session.client.admin().list_groups().await?;
    match args.client.output {
        OutputFormat::Json => {
            let list = groups.iter().map(|group| {
                json!({ "group": &*group.group, "state": &*group.state, "protocol_type": &*group.protocol_type })
            });
            output::json(&list.collect())
        }
        OutputFormat::Table => {
            let mut table = Table::new(["GROUP", "STATE", "TYPE"]);
            for group in &groups {
                let cell = |text: &Arc<str>| if text.is_empty() { "-".to_owned() } else { text.to_string() };
                table.row([cell(&group.group), cell(&group.state), cell(&group.protocol_type)]);
            }
            table.print()
        }
    }
}

async fn describe(args: DescribeArgs) -> Result<(), CliError> {
    let session = args.client.connect().await?;
    let admin = session.client.admin();
    let mut found = admin.describe_groups(&args.groups).await?;
    let mut reports = Vec::new();
    let mut failed = 0;
    for group in &args.groups {
        let description = match found.remove(group.as_str()) {
            None => continue, // Named twice.
            Some(Ok(description)) => description,
            Some(Err(error)) => {
                failed += 1;
                let error = CliError::about("group", group, &error);
                output::note(&format!("{error}; `klamm group list` shows what there is"));
                continue;
            }
        };
        let committed = admin.committed_offsets(group).await?;
        if &*description.state == DEAD && committed.is_empty() {
            failed += 1;
            output::note(&format!("group {group} does not exist; `klamm group list` shows what there is"));
            continue;
        }
        reports.push(Report::of(&admin, description, &committed).await?);
    }
    match args.client.output {
        OutputFormat::Json => output::json(&reports.iter().map(Report::as_json).collect())?,
        OutputFormat::Table => print_tables(&reports)?,
    }
    match failed {
        0 => Ok(()),
        failed => Err(CliError::Some { failed, of: args.groups.len() }),
    }
}

async fn delete(args: DeleteArgs) -> Result<(), CliError> {
    let session = args.client.connect().await?;
    let results = session.client.admin().delete_groups(&args.groups).await?;
    let subjects: Vec<Subject<Arc<str>>> = args
        .groups
        .iter()
        .map(|group| Subject { key: group.as_str().into(), kind: "group", name: group.clone() })
        .collect();
    report::per_item("deleted", results, &subjects, args.client.output)
}

/// A group with how far it is.
#[derive(Debug)]
struct Report {
    description: GroupDescription,
    partitions: BTreeMap<TopicPartition, Progress>,
}

/// How far a group is in one partition.
#[derive(Debug, Default, PartialEq, Eq)]
struct Progress {
    committed: Option<i64>,
    end: Option<i64>,
    /// Id of the member that owns the partition.
    member: Option<Arc<str>>,
}

impl Progress {
    /// Records from the committed offset to the end; unknown while nothing is committed.
    fn lag(&self) -> Option<i64> {
        Some((self.end? - self.committed?).max(0))
    }
}

impl Report {
    async fn of(
        admin: &Admin,
        description: GroupDescription,
        committed: &HashMap<TopicPartition, i64>,
    ) -> Result<Self, CliError> {
        let begun = |offset: &i64| Progress { committed: Some(*offset), ..Progress::default() };
        let mut partitions: BTreeMap<TopicPartition, Progress> =
            committed.iter().map(|(partition, offset)| (partition.clone(), begun(offset))).collect();
        for member in &description.members {
            for partition in &member.assignment {
                partitions.entry(partition.clone()).or_default().member = Some(Arc::clone(&member.member_id));
            }
        }
        if !partitions.is_empty() {
            let ask = partitions.keys().map(|partition| (partition.clone(), OffsetSpec::Latest)).collect();
            let ends = admin.offsets(&ask).await?;
            for (partition, progress) in &mut partitions {
                // The topic may be gone while its committed offsets are not.
                if let Some(Ok(at)) = ends.get(partition) {
                    progress.end = at.offset;
                }
            }
        }
        Ok(Self { description, partitions })
    }

    fn as_json(&self) -> Value {
        let group = &self.description;
        let members = group.members.iter().map(|member| {
            json!({
                "member_id": &*member.member_id, "group_instance_id": member.group_instance_id.as_deref(),
                "client_id": &*member.client_id, "client_host": &*member.client_host,
                "assignment": member.assignment.iter().map(ToString::to_string).collect::<Vec<_>>(),
            })
        });
        let partitions = self.partitions.iter().map(|(at, progress)| {
            json!({
                "topic": &*at.topic, "partition": at.partition, "committed_offset": progress.committed,
                "end_offset": progress.end, "lag": progress.lag(), "member_id": progress.member.as_deref(),
            })
        });
        json!({
            "group": &*group.group, "state": &*group.state, "protocol_type": &*group.protocol_type,
            "assignor": &*group.assignor, "coordinator": group.coordinator,
            "members": members.collect::<Value>(), "partitions": partitions.collect::<Value>(),
        })
    }
}

/// Three tables: the groups, their partitions, their members.
fn print_tables(reports: &[Report]) -> Result<(), CliError> {
    let mut groups = Table::new(["GROUP", "STATE", "ASSIGNOR", "COORDINATOR", "MEMBERS", "LAG"]);
    let mut partitions = Table::new(["GROUP", "TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "MEMBER"]);
    let mut members = Table::new(["GROUP", "MEMBER", "INSTANCE", "CLIENT", "HOST", "PARTITIONS"]);
    let number = |value: Option<i64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    let text = |value: &str| if value.is_empty() { "-".to_owned() } else { value.to_owned() };
    for report in reports {
        let group = &report.description;
        let name = group.group.to_string();
        let lag = report.partitions.values().filter_map(Progress::lag).sum();
        groups.row([
            name.clone(),
            text(&group.state),
            text(&group.assignor),
            group.coordinator.to_string(),
            group.members.len().to_string(),
            number(Some(lag)),
        ]);
        for (at, progress) in &report.partitions {
            partitions.row([
                name.clone(),
                at.topic.to_string(),
                at.partition.to_string(),
                number(progress.committed),
                number(progress.end),
                number(progress.lag()),
                text(progress.member.as_deref().unwrap_or_default()),
            ]);
        }
        for member in &group.members {
            members.row([
                name.clone(),
                member.member_id.to_string(),
                text(member.group_instance_id.as_deref().unwrap_or_default()),
                text(&member.client_id),
                text(&member.client_host),
                member.assignment.len().to_string(),
            ]);
        }
    }
    groups.print()?;
    if reports.iter().any(|report| !report.partitions.is_empty()) {
        output::line("")?;
        partitions.print()?;
    }
    if reports.iter().any(|report| !report.description.members.is_empty()) {
        output::line("")?;
        members.print()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_needs_both_offsets_and_is_never_negative() {
        let progress = |committed, end| Progress { committed, end, member: None };
        assert_eq!(progress(Some(3), Some(10)).lag(), Some(7));
        assert_eq!(progress(Some(10), Some(3)).lag(), Some(0));
        assert_eq!(progress(None, Some(3)).lag(), None);
        assert_eq!(progress(Some(3), None).lag(), None);
    }
}
