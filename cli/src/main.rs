//! The `klamm` command: reads the command line, runs one subcommand and turns its end into an exit code.

mod broker;
mod completions;
mod config;
mod connect;
mod consume;
mod dlt;
mod error;
mod format;
mod group;
mod histogram;
mod input;
mod log;
mod new;
mod output;
mod perf;
mod produce;
mod properties;
mod report;
mod start;
mod streams;
mod timestamp;
mod topic;
mod txn;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use tokio::time::Instant;
use tracing_subscriber::EnvFilter;

use crate::error::CliError;

/// Event streaming: a broker that speaks the Kafka protocol, and the tools around it.
///
/// Data goes to standard output, everything else to standard error. Exit codes: 0 done, 1 failed, 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "klamm", version, max_term_width = 110, subcommand_required = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves a broker until SIGTERM or SIGINT, then drains, flushes and exits.
    Broker(broker::BrokerArgs),
    /// Writes standard input to a topic, one record a line.
    Produce(produce::ProduceArgs),
    /// Reads a topic to standard output.
    Consume(consume::ConsumeArgs),
    /// Creates, lists, describes, alters and deletes topics.
    #[command(subcommand)]
    Topic(topic::TopicCommand),
    /// Lists and describes consumer groups, resets their offsets, deletes them.
    #[command(subcommand)]
    Group(group::GroupCommand),
    /// Describes and changes settings of topics, brokers and groups.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Lists and describes transactions, aborts those that hang.
    #[command(subcommand)]
    Txn(txn::TxnCommand),
    /// Looks into dead-letter topics; replays, parks and purges letters.
    #[command(subcommand)]
    Dlt(dlt::DltCommand),
    /// Describes streams applications, and lets them begin again.
    #[command(subcommand)]
    Streams(streams::StreamsCommand),
    /// Looks into a data directory, offline: what is in it, and whether it is sound.
    #[command(subcommand)]
    Log(log::LogCommand),
    /// Makes a service that compiles, runs and has a test, to begin with.
    New(new::NewArgs),
    /// Measures how fast this client and a broker are together.
    #[command(subcommand)]
    Perf(perf::PerfCommand),
    /// Writes a script that completes this command's words in a shell.
    Completions(completions::CompletionsArgs),
    /// Writes the manual pages, one for each command.
    Man(completions::ManArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse(); // a usage error ends here, with exit code 2
    log_to_stderr(matches!(cli.command, Command::Broker(_)));
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::fail(&CliError::failed(format!("cannot start threads: {error}"))),
    };
    let result = runtime.block_on(async {
        let started = Instant::now();
        match cli.command {
            Command::Broker(args) => broker::run(args, started).await,
            Command::Produce(args) => produce::run(args).await,
            Command::Consume(args) => consume::run(args).await,
            Command::Topic(command) => topic::run(command).await,
            Command::Group(command) => group::run(command).await,
            Command::Config(command) => config::run(command).await,
            Command::Txn(command) => txn::run(command).await,
            Command::Dlt(command) => dlt::run(command).await,
            Command::Streams(command) => streams::run(command).await,
            Command::Log(command) => log::run(&command),
            Command::New(args) => new::run(&args),
            Command::Perf(command) => perf::run(command).await,
            Command::Completions(args) => completions::write_completions(&args, Cli::command()),
            Command::Man(args) => completions::write_man_pages(&args, Cli::command()),
        }
    });
    // A thread may still be blocked in a read of standard input; there is nothing to wait for.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::fail(&error),
    }
}

/// `RUST_LOG` decides what is logged; without it a broker tells what it does, and a client only warns.
fn log_to_stderr(is_broker: bool) {
    let default = if is_broker { "info" } else { "warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[track_caller]
    fn accepted(line: &str) {
        Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
    }

    #[track_caller]
    fn refused(line: &str, because: &str) {
        let error = Cli::try_parse_from(line.split(' ')).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
        assert!(error.to_string().contains(because), "{line}: {error}");
    }

    #[test]
    fn every_form_of_the_command_line_is_read() {
        accepted("klamm broker --data-dir d --listen 127.0.0.1:0 --listen 127.0.0.1:1 --set a=b --set c=d=e");
        accepted("klamm broker --ephemeral");
        accepted("klamm broker --config server.properties");
        accepted("klamm produce t --key-separator : --header a=b --header c= --acks 1 --compression zstd");
        accepted("klamm produce t --input json --partition 3 --timestamp -5 --key k --null-marker NULL");
        accepted("klamm consume t --group g --from beginning --max 3 --until-end --format %k:%v");
        accepted("klamm consume t --from 7 --partition 0 --isolation read_committed --output json");
        accepted("klamm consume t --from @2026-01-31T12:00:00Z --bootstrap 127.0.0.1:9");
        accepted("klamm topic create t --partitions 3 --replication-factor 1 --config retention.ms=5");
        accepted("klamm topic list --output json");
        accepted("klamm topic describe t u");
        accepted("klamm topic delete t u");
        accepted("klamm group list");
        accepted("klamm group describe g h");
        accepted("klamm group delete g h");
        accepted("klamm group reset-offsets g h --topic t:0,1 --topic u --to-offset 5 --execute");
        for to in [
            "--to-earliest",
            "--to-latest",
            "--to-current",
            "--shift-by -5",
            "--to-datetime 2026-01-31T12:00:00Z",
            "--by-duration PT1H",
            "--by-duration 15m",
        ] {
            accepted(&format!("klamm group reset-offsets g --all-topics {to} --output json"));
            accepted(&format!("klamm group reset-offsets g --topic t {to} --export"));
        }
        accepted("klamm group reset-offsets g --from-file offsets.csv --execute");
        accepted("klamm topic alter t --partitions 5 --config a=b --delete-config c");
        accepted("klamm config describe --topic t --topic u --broker 1 --all-brokers --group g --all");
        accepted("klamm config describe --broker-logger 1 --client-metrics m --output json");
        accepted(
            "klamm config alter --topic t --set a=b --set c= --delete d --append e=f,g --subtract h=i --dry-run",
        );
        accepted("klamm txn list --state Ongoing --producer-id 5 --open-longer-than 15m --id-pattern a.*");
        accepted("klamm txn describe a b");
        accepted("klamm txn abort a b");
        accepted("klamm txn abort --topic t --partition 0 --start-offset 5");
        accepted("klamm dlt list");
        accepted("klamm dlt list t-dlt u-dlt --error timeout --origin t --since -15m --output json");
        accepted(
            "klamm dlt list t-dlt --letters --max 5 --offsets 5..9 --key k --failed-group g --partition 0",
        );
        accepted("klamm dlt show t-dlt 0:17 1:5 --format hex");
        accepted("klamm dlt replay t-dlt --rate 50 --dry-run --max-hops 5 --group g --exactly-once");
        accepted("klamm dlt replay t-dlt --to t-retry-1000 --max-replays 1 --until 2026-01-31");
        accepted("klamm dlt park t-dlt --to t-parked --error nonsense --rate 0.5");
        accepted("klamm dlt purge t-dlt --yes");
        accepted("klamm dlt purge t-dlt --partition 0 --below 5");
        accepted("klamm dlt purge t-dlt --before -7d");
        accepted("klamm streams describe word-count --output json");
        accepted("klamm streams describe --file topology.json --svg");
        accepted("klamm streams reset word-count");
        accepted("klamm streams reset app --input-topic t:0,1 --input-topic u --to-datetime 5 --dry-run");
        accepted("klamm streams reset app --input-topic t --shift-by -5 --internal-topic app-a-changelog");
        accepted("klamm log dump some/folder --records --from 5 --max 10 --output json");
        accepted("klamm log verify some/folder other --output json");
        accepted("klamm perf produce t --records 10 --size 5 --partitions 2 --linger 5 --batch-bytes 1000");
        accepted("klamm perf consume t --records 10");
        accepted("klamm perf latency t --records 10 --rate 100 --size 8 --output json");
        accepted("klamm consume t u v --from beginning --until-end");
        accepted("klamm completions bash");
        accepted("klamm man some/folder");
    }

    #[test]
    fn wrong_usage_is_refused_with_a_reason() {
        refused("klamm", "Usage");
        refused("klamm broker --data-dir d --ephemeral", "cannot be used with");
        refused("klamm broker --ephemeral --set novalue", "key=value");
        refused("klamm produce", "TOPIC");
        refused("klamm produce t --acks 2", "possible values");
        refused("klamm produce t --compression rar", "possible values");
        refused("klamm produce t --header novalue", "key=value");
        refused("klamm produce t --input xml", "possible values");
        refused("klamm produce t --partition -1", "-1");
        refused("klamm consume t --from yesterday", "beginning");
        refused("klamm consume t --from @noon", "RFC 3339");
        refused("klamm consume t --group g --partition 1", "cannot be used with");
        refused("klamm consume t --format %x", "%x");
        refused("klamm topic create t --partitions 0", "0");
        refused("klamm topic alter t", "--partitions");
        refused("klamm group reset-offsets g --all-topics", "--to-earliest");
        refused("klamm group reset-offsets g --all-topics --to-earliest --to-latest", "cannot be used with");
        refused("klamm group reset-offsets g --all-topics --topic t --to-earliest", "cannot be used with");
        refused("klamm group reset-offsets g --topic t --from-file f", "cannot be used with");
        refused("klamm group reset-offsets g --topic t:x --to-earliest", "TOPIC:0,1");
        refused("klamm group reset-offsets g --topic t --by-duration soon", "PT1H30M");
        refused("klamm group reset-offsets g --topic t --to-datetime soon", "RFC 3339");
        refused("klamm group reset-offsets g --topic t --to-offset -1", "-1");
        refused(
            "klamm group reset-offsets g --topic t --to-latest --execute --export",
            "cannot be used with",
        );
        refused("klamm config describe", "--topic");
        refused("klamm config alter --topic t", "--set");
        refused("klamm config alter --set a=b", "--topic");
        refused("klamm config alter --topic t --set a", "key=value");
        refused("klamm txn abort", "ID");
        refused("klamm txn abort --topic t", "--partition");
        refused("klamm txn abort a --topic t --partition 0 --start-offset 1", "cannot be used with");
        refused("klamm txn describe", "ID");
        refused("klamm dlt", "Usage");
        refused("klamm dlt list t --max 5", "--letters");
        refused("klamm dlt list t --offsets 1-2", "FROM..TO");
        refused("klamm dlt list t --since soon", "RFC 3339");
        refused("klamm dlt show t", "PARTITION:OFFSET");
        refused("klamm dlt show t 17", "such as 0:17");
        refused("klamm dlt replay", "TOPIC");
        refused("klamm dlt replay t --rate fast", "fast");
        refused("klamm dlt park t", "--to");
        refused("klamm dlt purge t --below 5", "--partition");
        refused("klamm dlt purge t --all --before 2026-01-31", "cannot be used with");
        refused("klamm streams describe", "APPLICATION");
        refused("klamm streams describe a --file f", "cannot be used with");
        refused("klamm streams describe a --svg", "cannot be used with");
        refused("klamm streams describe --svg", "--file");
        refused("klamm streams reset", "APPLICATION");
        refused("klamm streams reset a --to-earliest --to-latest", "cannot be used with");
        refused("klamm log dump", "PATH");
        refused("klamm log verify", "DIR");
        refused("klamm topic delete", "TOPIC");
        refused("klamm consume", "TOPIC");
        refused("klamm perf latency t --rate 0", "0");
        refused("klamm completions basic", "possible values");
    }
}
