//! `klamm config`: settings of topics, brokers, groups and metrics subscriptions, described and changed.

use std::collections::{BTreeMap, HashMap};

use clap::{Args, Subcommand};
use klamm_client::admin::{ConfigChange, ConfigEntry, ConfigResource, ConfigResourceType, ConfigSource};
use serde_json::{Value, json};

use crate::connect::ClientArgs;
use crate::error::CliError;
use crate::output::{self, OutputFormat, Table};
use crate::properties;
use crate::report::{self, Subject};

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Describes settings that are not at their defaults
    Describe(DescribeArgs),
    /// Changes settings; those that are not named stay
    Alter(AlterArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DescribeArgs {
    #[command(flatten)]
    resources: Resources,
    /// Also settings at their defaults
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AlterArgs {
    #[command(flatten)]
    resources: Resources,
    #[command(flatten)]
    changes: Changes,
    /// Checks whether the settings could be changed so, and changes none
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// Whose settings. Each may be repeated.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Resources {
    /// Settings of a topic; may be repeated
    #[arg(long, value_name = "TOPIC")]
    topic: Vec<String>,
    /// Settings of the broker with this id; may be repeated
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i32).range(0..))]
    broker: Vec<i32>,
    /// What is set for all brokers alike
    #[arg(long)]
    all_brokers: bool,
    /// Log levels of the broker with this id; may be repeated
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i32).range(0..))]
    broker_logger: Vec<i32>,
    /// Settings of a group; may be repeated
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    /// A subscription to clients' metrics (KIP-714); may be repeated
    #[arg(long, value_name = "NAME")]
    client_metrics: Vec<String>,
}

/// What to change.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Changes {
    /// Sets a value; may be repeated
    #[arg(long, value_name = "key=value", value_parser = properties::key_value)]
    set: Vec<(String, String)>,
    /// Goes back to the default; may be repeated
    #[arg(long, value_name = "KEY")]
    delete: Vec<String>,
    /// Adds values, separated by commas, to a list; may be repeated
    #[arg(long, value_name = "key=values", value_parser = properties::key_value)]
    append: Vec<(String, String)>,
    /// Takes values, separated by commas, out of a list; may be repeated
    #[arg(long, value_name = "key=values", value_parser = properties::key_value)]
    subtract: Vec<(String, String)>,
}

pub(crate) async fn run(command: ConfigCommand) -> Result<(), CliError> {
    match command {
        ConfigCommand::Describe(args) => describe(args).await,
        ConfigCommand::Alter(args) => alter(args).await,
    }
}

async fn describe(args: DescribeArgs) -> Result<(), CliError> {
    let session = args.client.connect().await?;
    let subjects = args.resources.subjects();
    let resources: Vec<ConfigResource> = subjects.iter().map(|subject| subject.key.clone()).collect();
    let mut found = session.client.admin().describe_configs(&resources).await?;
    let mut described = Vec::new();
    let mut failed = 0;
    for subject in &subjects {
        match found.remove(&subject.key) {
            None => {} // Named twice.
            Some(Ok(entries)) => described.push((subject, shown(entries, args.all))),
            Some(Err(error)) => {
                failed += 1;
                output::note(&CliError::about(subject.kind, &subject.name, &error).to_string());
            }
        }
    }
    match args.client.output {
        OutputFormat::Json => {
            output::json(&described.iter().map(|(subject, entries)| as_json(subject, entries)).collect())?;
        }
        OutputFormat::Table => table(&described).print()?,
    }
    match failed {
        0 => Ok(()),
        failed => Err(CliError::Some { failed, of: subjects.len() }),
    }
}

async fn alter(args: AlterArgs) -> Result<(), CliError> {
    let session = args.client.connect().await?;
    let (subjects, changes) = (args.resources.subjects(), args.changes.list());
    let wanted: HashMap<ConfigResource, Vec<ConfigChange>> =
        subjects.iter().map(|subject| (subject.key.clone(), changes.clone())).collect();
    let admin = session.client.admin();
    if args.dry_run {
        return report::per_item(
            "checked",
            admin.validate_configs(&wanted).await?,
            &subjects,
            args.client.output,
        );
    }
    report::per_item("changed", admin.alter_configs(&wanted).await?, &subjects, args.client.output)
}

impl Resources {
    fn subjects(&self) -> Vec<Subject<ConfigResource>> {
        let subject = |key: ConfigResource, kind, name: &str| Subject { key, kind, name: name.to_owned() };
        let mut subjects = Vec::new();
        subjects.extend(
            self.topic.iter().map(|name| subject(ConfigResource::topic(name.as_str()), "topic", name)),
        );
        subjects.extend(
            self.broker.iter().map(|&id| subject(ConfigResource::broker(id), "broker", &id.to_string())),
        );
        subjects.extend(self.all_brokers.then(|| subject(ConfigResource::all_brokers(), "brokers", "all")));
        subjects.extend(self.broker_logger.iter().map(|&id| {
            let logger = ConfigResource::new(ConfigResourceType::BrokerLogger, id.to_string());
            subject(logger, "broker-logger", &id.to_string())
        }));
        subjects.extend(
            self.group.iter().map(|name| subject(ConfigResource::group(name.as_str()), "group", name)),
        );
        subjects.extend(self.client_metrics.iter().map(|name| {
            let metrics = ConfigResource::new(ConfigResourceType::ClientMetrics, name.as_str());
            subject(metrics, "client-metrics", name)
        }));
        subjects
    }
}

impl Changes {
    fn list(&self) -> Vec<ConfigChange> {
        let set = self.set.iter().map(|(key, value)| ConfigChange::set(key.as_str(), value.as_str()));
        let delete = self.delete.iter().map(|key| ConfigChange::reset(key.as_str()));
        let append = self
            .append
            .iter()
            .map(|(key, values)| ConfigChange::Append(key.as_str().into(), values.as_str().into()));
        let subtract = self
            .subtract
            .iter()
            .map(|(key, values)| ConfigChange::Subtract(key.as_str().into(), values.as_str().into()));
        set.chain(delete).chain(append).chain(subtract).collect()
    }
}

/// The settings to show, by name.
fn shown(entries: Vec<ConfigEntry>, all: bool) -> BTreeMap<String, ConfigEntry> {
    let wanted = entries.into_iter().filter(|entry| all || entry.source != ConfigSource::Default);
    wanted.map(|entry| (entry.name.to_string(), entry)).collect()
}

type Described<'a> = (&'a Subject<ConfigResource>, BTreeMap<String, ConfigEntry>);

fn table(described: &[Described<'_>]) -> Table {
    let mut table = Table::new(["OF", "SETTING", "VALUE", "FROM"]);
    for (subject, entries) in described {
        for (name, entry) in entries {
            let value = match (&entry.value, entry.sensitive) {
                (Some(value), _) => value.to_string(),
                (None, true) => "(secret)".to_owned(),
                (None, false) => "-".to_owned(),
            };
            let of = format!("{} {}", subject.kind, subject.name);
            table.row([of, name.clone(), value, source(entry.source).to_owned()]);
        }
    }
    table
}

fn as_json(subject: &Subject<ConfigResource>, entries: &BTreeMap<String, ConfigEntry>) -> Value {
    let configs = entries.iter().map(|(name, entry)| {
        json!({
            "name": name, "value": entry.value.as_deref(), "source": source(entry.source),
            "read_only": entry.read_only, "sensitive": entry.sensitive,
        })
    });
    json!({ "kind": subject.kind, "name": subject.name, "configs": configs.collect::<Value>() })
}

fn source(source: ConfigSource) -> &'static str {
    match source {
        ConfigSource::Topic => "topic",
        ConfigSource::Broker => "broker",
        ConfigSource::AllBrokers => "all-brokers",
        ConfigSource::File => "file",
        ConfigSource::Default => "default",
        ConfigSource::BrokerLogger => "broker-logger",
        ConfigSource::ClientMetrics => "client-metrics",
        ConfigSource::Group => "group",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources() -> Resources {
        Resources {
            topic: vec!["t".to_owned()],
            broker: vec![1],
            all_brokers: true,
            broker_logger: vec![2],
            group: vec!["g".to_owned()],
            client_metrics: vec!["m".to_owned()],
        }
    }

    #[test]
    fn every_kind_of_resource_is_named_as_on_the_command_line() {
        let subjects = resources().subjects();
        let named: Vec<String> =
            subjects.iter().map(|one| format!("{} {} = {}", one.kind, one.name, one.key)).collect();
        let expected = [
            "topic t = Topic t",
            "broker 1 = Broker 1",
            "brokers all = Broker ",
            "broker-logger 2 = BrokerLogger 2",
            "group g = Group g",
            "client-metrics m = ClientMetrics m",
        ];
        assert_eq!(named, expected);
        let none = Resources { all_brokers: false, ..resources() };
        assert_eq!(none.subjects().len(), 5);
    }

    #[test]
    fn changes_are_made_in_the_order_set_delete_append_subtract() {
        let pair = |key: &str, value: &str| vec![(key.to_owned(), value.to_owned())];
        let changes = Changes {
            set: pair("a", "1"),
            delete: vec!["b".to_owned()],
            append: pair("c", "2,3"),
            subtract: pair("d", "4"),
        };
        let expected = [
            ConfigChange::set("a", "1"),
            ConfigChange::reset("b"),
            ConfigChange::Append("c".into(), "2,3".into()),
            ConfigChange::Subtract("d".into(), "4".into()),
        ];
        assert_eq!(changes.list(), expected);
    }
}
