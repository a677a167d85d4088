//! `klamm group reset-offsets`: where a group goes on is set anew, or only shown.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use clap::Args;
use klamm_client::admin::GroupDescription;
use klamm_client::{Admin, Client, OffsetAndMetadata, TopicPartition};
use serde_json::{Value, json};

use super::offsets_file::{self, Listed};
use super::plan::{Planned, Target, plan};
use super::scope::{SomeOfTopic, bounds, of_topics, some_of_topic};
use super::{DEAD, EMPTY};
use crate::connect::ClientArgs;
use crate::error::CliError;
use crate::output::{self, OutputFormat, Table};
use crate::properties;
use crate::start::{datetime, duration};

#[derive(Debug, Args)]
pub(crate) struct ResetArgs {
    /// Names of the groups; none of them may have members
    #[arg(required = true, value_name = "GROUP")]
    groups: Vec<String>,
    /// A topic, or some of its partitions as TOPIC:0,1; may be repeated
    #[arg(long, value_name = "TOPIC", value_parser = some_of_topic, conflicts_with_all = ["all_topics", "from_file"])]
    topic: Vec<SomeOfTopic>,
    /// All partitions that the group has offsets of
    #[arg(long, conflicts_with = "from_file")]
    all_topics: bool,
    #[command(flatten)]
    to: To,
    /// Sets the offsets; without it they are only shown
    #[arg(long)]
    execute: bool,
    /// Writes the offsets as lines of `topic,partition,offset`, which --from-file takes, and sets none
    #[arg(long, conflicts_with_all = ["execute", "output"])]
    export: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// Where to.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct To {
    /// To the oldest record
    #[arg(long)]
    to_earliest: bool,
    /// After the newest record
    #[arg(long)]
    to_latest: bool,
    /// To what is committed now; where nothing is, after the newest record
    #[arg(long)]
    to_current: bool,
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
    /// To the offsets in a file of lines `topic,partition,offset`, or `group,topic,partition,offset` for several groups
    #[arg(long, value_name = "FILE")]
    from_file: Option<std::path::PathBuf>,
}

/// What is to become of one group.
struct Reset {
    group: String,
    planned: BTreeMap<TopicPartition, Result<Planned, String>>,
}

pub(crate) async fn run(args: ResetArgs) -> Result<(), CliError> {
    if args.topic.is_empty() && !args.all_topics && args.to.from_file.is_none() {
        return Err(CliError::usage("--topic or --all-topics says of which partitions offsets are reset"));
    }
    let listed = match &args.to.from_file {
        Some(path) => offsets_file::parse(&properties::read_lines("--from-file", path).await?)
            .map_err(|error| CliError::usage(format!("--from-file {}: {error}", path.display())))?,
        None => Vec::new(),
    };
    offsets_file::check_groups(&listed, &args.groups)?;
    let session = args.client.connect().await?;
    let admin = session.client.admin();
    let inactive = inactive(&admin, &args.groups).await?;
    let target = args.to.target(session.client.clock().now_ms());
    let mut resets = Vec::new();
    for group in &args.groups {
        let planned = plan_group(&session.client, group, &args, target, &listed).await?;
        resets.push(Reset { group: group.clone(), planned });
    }
    let mut refused: usize = tell_refused(&resets);
    if args.export {
        export(&resets)?;
    } else {
        show(&resets, args.client.output)?;
    }
    if args.execute {
        // All or nothing, as far as this can see.
        if refused > 0 {
            return Err(CliError::failed("nothing is set: see above"));
        }
        if let Some((group, state)) = inactive.iter().find(|(_, state)| !may_be_reset(state)) {
            return Err(CliError::failed(format!(
                "group {group} is {state}: offsets can be reset only while it has no members; nothing is set"
            )));
        }
        for reset in &resets {
            refused += execute(&admin, reset).await?;
        }
    } else if !args.export {
        output::note("nothing is set; --execute sets these offsets");
    }
    let of = resets.iter().map(|reset| reset.planned.len()).sum();
    match refused {
        0 => Ok(()),
        failed => Err(CliError::Some { failed, of }),
    }
}

impl To {
    fn target(&self, now_ms: i64) -> Target {
        if self.to_earliest {
            return Target::Earliest;
        }
        if self.to_latest {
            return Target::Latest;
        }
        if let Some(offset) = self.to_offset {
            return Target::Offset(offset);
        }
        if let Some(by) = self.shift_by {
            return Target::Shift(by);
        }
        if let Some(at_ms) = self.to_datetime {
            return Target::Time(at_ms);
        }
        if let Some(ago) = self.by_duration {
            let ago_ms = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
            return Target::Time(now_ms.saturating_sub(ago_ms).max(0));
        }
        // What stands in a file is a target of its own for each partition.
        Target::Current
    }
}

/// The state of each group.
async fn inactive(admin: &Admin, groups: &[String]) -> Result<Vec<(String, String)>, CliError> {
    let mut described = admin.describe_groups(groups).await?;
    let mut states = Vec::new();
    for group in groups {
        match described.remove(group.as_str()) {
            None => {} // Named twice.
            Some(Ok(GroupDescription { state, .. })) => states.push((group.clone(), state.to_string())),
            // One that does not exist comes to be with its offsets.
            Some(Err(error)) if error.code() == Some(klamm_client::ErrorCode::GroupIdNotFound) => {
                states.push((group.clone(), DEAD.to_owned()));
            }
            Some(Err(error)) => return Err(CliError::about("group", group, &error)),
        }
    }
    Ok(states)
}

fn may_be_reset(state: &str) -> bool {
    [EMPTY, DEAD].contains(&state)
}

async fn plan_group(
    client: &Client,
    group: &str,
    args: &ResetArgs,
    target: Target,
    listed: &[Listed],
) -> Result<BTreeMap<TopicPartition, Result<Planned, String>>, CliError> {
    let admin = client.admin();
    let committed = admin.committed_offsets(group).await?;
    let own = listed.iter().filter(|one| one.group.as_deref().is_none_or(|of| of == group));
    let mut targets: BTreeMap<TopicPartition, Target> =
        own.map(|one| (one.partition.clone(), Target::Offset(one.offset))).collect();
    if args.all_topics {
        targets.extend(committed.keys().map(|partition| (partition.clone(), target)));
    }
    for partition in of_topics(&admin, &args.topic).await? {
        targets.insert(partition, target);
    }
    if targets.is_empty() {
        return Err(CliError::failed(format!(
            "group {group} has no offsets to reset; --topic names a topic"
        )));
    }
    let bounds = bounds(&admin, &targets, &committed).await?;
    let planned = targets.into_iter().map(|(partition, target)| {
        let planned = match bounds.get(&partition) {
            Some(Ok(bounds)) => plan(target, bounds),
            Some(Err(error)) => Err(error.clone()),
            None => Err("no broker tells where it begins and ends".to_owned()),
        };
        (partition, planned)
    });
    Ok(planned.collect())
}

/// Tells of partitions for which there is no plan, or another than was asked for. Gives how many have none.
fn tell_refused(resets: &[Reset]) -> usize {
    let mut refused = 0;
    for Reset { group, planned } in resets {
        for (partition, planned) in planned {
            match planned {
                Ok(Planned { instead_of: Some(asked), offset, .. }) => {
                    output::note(&format!(
                        "{group} {partition}: {asked} is out of range; it is {offset} then"
                    ));
                }
                Ok(_) => {}
                Err(error) => {
                    refused += 1;
                    output::note(&format!("{group} {partition}: {error}"));
                }
            }
        }
    }
    refused
}

fn show(resets: &[Reset], format: OutputFormat) -> Result<(), CliError> {
    match format {
        OutputFormat::Json => output::json(&resets.iter().flat_map(as_json).collect::<Value>()),
        OutputFormat::Table => table(resets).print(),
    }
}

fn table(resets: &[Reset]) -> Table {
    let mut table = Table::new(["GROUP", "TOPIC", "PARTITION", "COMMITTED", "NEW"]);
    for Reset { group, planned } in resets {
        for (at, planned) in planned {
            let Ok(planned) = planned else { continue };
            let committed = planned.committed.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
            table.row([
                group.clone(),
                at.topic.to_string(),
                at.partition.to_string(),
                committed,
                planned.offset.to_string(),
            ]);
        }
    }
    table
}

fn as_json(reset: &Reset) -> Vec<Value> {
    let planned = reset.planned.iter().map(|(at, planned)| match planned {
        Ok(planned) => json!({
            "group": reset.group, "topic": &*at.topic, "partition": at.partition,
            "committed_offset": planned.committed, "new_offset": planned.offset,
        }),
        Err(error) => json!({
            "group": reset.group, "topic": &*at.topic, "partition": at.partition, "error": error,
        }),
    });
    planned.collect()
}

fn export(resets: &[Reset]) -> Result<(), CliError> {
    let several = resets.len() > 1;
    for Reset { group, planned } in resets {
        for (partition, planned) in planned {
            let Ok(planned) = planned else { continue };
            let group = several.then_some(group.as_str());
            output::line(&offsets_file::line(group, partition, planned.offset))?;
        }
    }
    Ok(())
}

/// Sets a group's offsets. Gives how many were refused.
async fn execute(admin: &Admin, reset: &Reset) -> Result<usize, CliError> {
    let offsets = reset.planned.iter().filter_map(|(partition, planned)| {
        let planned = planned.as_ref().ok()?;
        Some((partition.clone(), OffsetAndMetadata::new(planned.offset)))
    });
    let offsets: HashMap<TopicPartition, OffsetAndMetadata> = offsets.collect();
    let results: BTreeMap<_, _> =
        admin.alter_group_offsets(&reset.group, &offsets).await?.into_iter().collect();
    let mut refused = 0;
    for (partition, result) in &results {
        if let Err(error) = result {
            refused += 1;
            output::note(&CliError::about(&reset.group, &partition.to_string(), error).to_string());
        }
    }
    output::note(&format!("{} offsets of group {} are set", results.len() - refused, reset.group));
    Ok(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_back_from_now() {
        let to = |by_duration| To {
            to_earliest: false,
            to_latest: false,
            to_current: false,
            to_offset: None,
            shift_by: None,
            to_datetime: None,
            by_duration,
            from_file: None,
        };
        let target = |ms| to(Some(Duration::from_millis(ms))).target(1_000);
        assert_eq!(target(400), Target::Time(600));
        assert_eq!(target(u64::MAX), Target::Time(0));
        assert_eq!(to(None).target(5), Target::Current);
        assert_eq!(To { to_earliest: true, ..to(None) }.target(5), Target::Earliest);
        assert_eq!(To { to_latest: true, ..to(None) }.target(5), Target::Latest);
        assert_eq!(To { to_offset: Some(3), ..to(None) }.target(5), Target::Offset(3));
        assert_eq!(To { shift_by: Some(-3), ..to(None) }.target(5), Target::Shift(-3));
        assert_eq!(To { to_datetime: Some(7), ..to(None) }.target(5), Target::Time(7));
    }

    #[test]
    fn what_is_planned_as_a_table_and_as_json() {
        let planned = |committed, offset| Ok(Planned { committed, offset, instead_of: None });
        let resets = [Reset {
            group: "g".to_owned(),
            planned: BTreeMap::from([
                (TopicPartition::new("t", 0), planned(Some(12), 3)),
                (TopicPartition::new("t", 1), planned(None, 0)),
                (TopicPartition::new("u", 0), Err("no".to_owned())),
            ]),
        }];
        let golden = "GROUP  TOPIC  PARTITION  COMMITTED  NEW\n\
            g      t              0         12    3\n\
            g      t              1          -    0\n";
        assert_eq!(table(&resets).render(), golden);
        let documents = as_json(&resets[0]);
        assert_eq!(documents[0]["new_offset"], 3);
        assert_eq!(documents[1]["committed_offset"], Value::Null);
        assert_eq!(documents[2]["error"], "no");
        assert_eq!(tell_refused(&resets), 1);
    }

    #[test]
    fn only_groups_without_members_are_reset() {
        assert!(may_be_reset("Empty") && may_be_reset("Dead"));
        assert!(!may_be_reset("Stable") && !may_be_reset("PreparingRebalance") && !may_be_reset(""));
    }
}
