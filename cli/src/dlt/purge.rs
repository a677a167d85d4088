//! `klamm dlt purge`: letters are deleted for good, after a question.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::Args;
use klamm::dead_letters::PurgePlan;
use serde_json::{Value, json};

use super::topic::TopicArgs;
use crate::connect::ClientArgs;
use crate::error::CliError;
use crate::output::{self, OutputFormat, Table};
use crate::start::{Time, time};

#[derive(Debug, Args)]
pub(crate) struct PurgeArgs {
    #[command(flatten)]
    topic: TopicArgs,
    /// Only of this partition
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// What lies below this offset of --partition, replayed or not
    #[arg(long, value_name = "OFFSET", requires = "partition", value_parser = clap::value_parser!(i64).range(0..))]
    below: Option<i64>,
    /// What was written before that, replayed or not: 2026-01-31, 2026-01-31T12:00:00Z, or -7d
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true, conflicts_with = "below")]
    before: Option<Time>,
    /// Everything that is there now, replayed or not
    #[arg(long, conflicts_with_all = ["below", "before"])]
    all: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    client: ClientArgs,
}

pub(crate) async fn run(args: PurgeArgs) -> Result<(), CliError> {
    let session = args.client.connect().await?;
    let mut purge = args.topic.letters(&session.client).purge();
    if let Some(partition) = args.partition {
        purge = purge.partition(partition);
    }
    if let Some(offset) = args.below {
        purge = purge.below(offset);
    }
    if let Some(before) = args.before {
        purge = purge.before_ms(before.resolve(session.client.clock().now_ms()));
    }
    if args.all {
        purge = purge.everything();
    }
    let plan = purge.plan().await?;
    if plan.offsets() == 0 {
        output::note("there is nothing to delete");
    } else if !args.yes && !agreed(&args.topic.topic, &plan)? {
        return Err(CliError::failed("nothing was deleted"));
    }
    let (document, table) = (plan_json(&plan), plan_table(&plan));
    plan.execute().await?;
    match args.client.output {
        OutputFormat::Json => output::json(&document),
        OutputFormat::Table => table.print(),
    }
}

/// Asks whoever sits there; a script must have said so beforehand.
fn agreed(topic: &str, plan: &PurgePlan) -> Result<bool, CliError> {
    let open = match plan.open() {
        0 => "all of them replayed or parked".to_owned(),
        open => format!("{open} of them neither replayed nor parked"),
    };
    let question = format!("delete {} offsets of {topic}, {open}?", plan.offsets());
    if !io::stdin().is_terminal() {
        return Err(CliError::usage(format!("{question} --yes says so where nobody can be asked")));
    }
    // Standard error may be closed; then nobody agrees.
    let _ = write!(io::stderr(), "{question} [y/N] ");
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| CliError::failed(format!("cannot read an answer: {error}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn plan_json(plan: &PurgePlan) -> Value {
    let partitions = plan.partitions().map(|(at, from, up_to)| {
        json!({ "topic": &*at.topic, "partition": at.partition, "from_offset": from, "below_offset": up_to })
    });
    partitions.collect()
}

fn plan_table(plan: &PurgePlan) -> Table {
    let mut table = Table::new(["TOPIC", "PARTITION", "FROM", "BELOW"]);
    for (at, from, up_to) in plan.partitions() {
        table.row([at.topic.to_string(), at.partition.to_string(), from.to_string(), up_to.to_string()]);
    }
    table
}
