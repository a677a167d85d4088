//! `klamm streams describe`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use klamm::streams::TopologyDescription;
use klamm_client::{Admin, ErrorCode};
use serde_json::{Value, json};

use super::internal::{Role, role};
use crate::connect::ClientArgs;
use crate::error::CliError;
use crate::output::{self, OutputFormat, Table};

#[derive(Debug, Args)]
pub(crate) struct DescribeArgs {
    /// The application's id
    #[arg(required_unless_present = "file", value_name = "APPLICATION")]
    application: Option<String>,
    /// A document that the application wrote, of `Topology::describe().to_json()`; no broker is asked
    #[arg(long, value_name = "FILE", conflicts_with = "application")]
    file: Option<PathBuf>,
    /// Draws the topology of --file, as SVG
    // What is in conflict is not required, so that the conflict has to be said again.
    #[arg(long, requires = "file", conflicts_with = "application")]
    svg: bool,
    #[command(flatten)]
    client: ClientArgs,
}

pub(crate) async fn run(args: DescribeArgs) -> Result<(), CliError> {
    match (&args.file, &args.application) {
        (Some(file), _) => describe_file(file, &args).await,
        (None, Some(application)) => describe_application(application, &args.client).await,
        (None, None) => Err(CliError::usage("name an application, or a --file")),
    }
}

async fn describe_file(file: &Path, args: &DescribeArgs) -> Result<(), CliError> {
    let wrong = |error: String| CliError::failed(format!("--file {}: {error}", file.display()));
    let text = klamm_runtime::read_text_file(file).await.map_err(|error| wrong(error.to_string()))?;
    let document: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let description = TopologyDescription::from_json(&document).map_err(|error| wrong(error.to_string()))?;
    match args.client.output {
        _ if args.svg => output::line(description.to_svg().trim_end()),
        OutputFormat::Json => output::json(&description.to_json()),
        OutputFormat::Table => output::line(description.to_string().trim_end()),
    }
}

/// What a cluster shows of an application.
struct Shown {
    state: String,
    members: usize,
    /// Topics of its own, with their partitions.
    internal: BTreeMap<String, (Role, usize)>,
    /// Committed offsets, by topic: of how many partitions, and the records behind them that are not processed.
    inputs: BTreeMap<String, (usize, i64)>,
}

async fn describe_application(application: &str, client: &ClientArgs) -> Result<(), CliError> {
    let session = client.connect().await?;
    let shown = look(&session.client.admin(), application).await?;
    if shown.internal.is_empty() && shown.inputs.is_empty() && shown.members == 0 {
        return Err(CliError::failed(format!(
            "the cluster shows nothing of an application {application}: no members, offsets or topics"
        )));
    }
    match client.output {
        OutputFormat::Json => output::json(&as_json(application, &shown)),
        OutputFormat::Table => {
            let Shown { state, members, .. } = &shown;
            output::note(&format!("{application} is {state}, with {members} members"));
            table(&shown).print()
        }
    }
}

async fn look(admin: &Admin, application: &str) -> Result<Shown, CliError> {
    let (state, members) = match admin.describe_groups(&[application]).await?.remove(application) {
        Some(Ok(group)) => (group.state.to_string(), group.members.len()),
        Some(Err(error)) if error.code() != Some(ErrorCode::GroupIdNotFound) => {
            return Err(CliError::about("group", application, &error));
        }
        _ => ("Dead".to_owned(), 0),
    };
    let committed = admin.committed_offsets(application).await?;
    let asked = committed.keys().map(|at| (at.clone(), klamm_client::admin::OffsetSpec::Latest)).collect();
    let ends = admin.offsets(&asked).await?;
    let mut inputs: BTreeMap<String, (usize, i64)> = BTreeMap::new();
    for (partition, offset) in BTreeMap::from_iter(&committed) {
        let end = ends.get(partition).and_then(|end| end.as_ref().ok()?.offset);
        let (partitions, lag) = inputs.entry(partition.topic.to_string()).or_default();
        *partitions += 1;
        *lag += end.map_or(0, |end| (end - offset).max(0));
    }
    let groups = super::reset::group_names(admin).await?;
    let mut internal = BTreeMap::new();
    for topic in admin.list_topics().await? {
        if let Some(role) = role(&topic.name, application, &groups) {
            internal.insert(topic.name.to_string(), (role, topic.partitions.len()));
        }
    }
    Ok(Shown { state, members, internal, inputs })
}

fn table(shown: &Shown) -> Table {
    let mut table = Table::new(["TOPIC", "ROLE", "PARTITIONS", "LAG"]);
    for (topic, (partitions, lag)) in &shown.inputs {
        let role = shown.internal.get(topic).map_or_else(|| "input".to_owned(), |(role, _)| role.to_string());
        table.row([topic.clone(), role, partitions.to_string(), lag.to_string()]);
    }
    for (topic, (role, partitions)) in &shown.internal {
        if !shown.inputs.contains_key(topic) {
            table.row([topic.clone(), role.to_string(), partitions.to_string(), "-".to_owned()]);
        }
    }
    table
}

fn as_json(application: &str, shown: &Shown) -> Value {
    let inputs = shown.inputs.iter().map(|(topic, (partitions, lag))| {
        json!({ "topic": topic, "partitions_committed": partitions, "lag": lag })
    });
    let internal = shown.internal.iter().map(|(topic, (role, partitions))| {
        json!({ "topic": topic, "role": role.to_string(), "partitions": partitions })
    });
    json!({
        "application": application, "state": shown.state, "members": shown.members,
        "inputs": inputs.collect::<Vec<_>>(), "internal_topics": internal.collect::<Vec<_>>(),
    })
}
