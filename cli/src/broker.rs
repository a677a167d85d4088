//! `klamm broker`: serves until it is told to stop, then drains and flushes.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use klamm_broker::Broker;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::error::CliError;
use crate::output;
use crate::properties;

/// How long draining and flushing may take after a signal.
const STOP_DEADLINE: Duration = Duration::from_millis(9_500);

#[derive(Debug, Args)]
pub(crate) struct BrokerArgs {
    /// Address to listen on; may be repeated. Port 0 takes a free one. Default: `listeners` of the
    /// settings, or 127.0.0.1:9092
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
    /// Folder of the data, created if missing. Default: `log.dirs` of the settings
    #[arg(long, value_name = "DIR", conflicts_with = "ephemeral")]
    data_dir: Option<PathBuf>,
    /// Keep everything in memory and forget it at the end
    #[arg(long)]
    ephemeral: bool,
    /// File of settings under Kafka's names (server.properties)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting under Kafka's name, over the file's; may be repeated
    #[arg(long, value_name = "key=value", value_parser = properties::key_value)]
    set: Vec<(String, String)>,
}

pub(crate) async fn run(args: BrokerArgs, started: Instant) -> Result<(), CliError> {
    // Before anything else: a signal during start must not kill a broker that has files open.
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;

    let from_file = match &args.config {
        Some(path) => properties::read_file("--config", path).await?,
        None => Vec::new(),
    };
    let is_set = |key: &str| from_file.iter().chain(&args.set).any(|(found, _)| found == key);

    let mut builder = Broker::builder().as_process();
    if args.ephemeral {
        builder = builder.ephemeral();
    } else if let Some(folder) = &args.data_dir {
        builder = builder.data_dir(folder);
    } else if !is_set("log.dirs") && !is_set("log.dir") {
        return Err(CliError::usage(
            "where shall the data go? Give --data-dir DIR, or log.dirs in --config or --set, or --ephemeral",
        ));
    }
    if let Some(path) = &args.config {
        builder = builder.config_file(path);
    }
    for address in &args.listen {
        builder = builder.listen(address);
    }
    for (key, value) in &args.set {
        builder = builder.set(key, value);
    }

    let broker = tokio::select! {
        broker = builder.start() => broker.map_err(|error| CliError::failed(error.to_string()))?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let ready_ms = started.elapsed().as_millis();
    output::line(&format!("ready {} in {ready_ms} ms", broker.bootstrap()))?;

    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        () = broker.gave_up() => {
            let _ = tokio::time::timeout(STOP_DEADLINE, broker.shutdown()).await;
            return Err(CliError::failed(
                "the disks of all log directories have failed; repair them and start the broker again",
            ));
        }
    };
    tracing::info!("{name}: draining");
    match tokio::time::timeout(STOP_DEADLINE, broker.shutdown()).await {
        Ok(Ok(())) => {
            tracing::info!("stopped");
            Ok(())
        }
        Ok(Err(error)) => Err(CliError::failed(error.to_string())),
        Err(_) => Err(CliError::failed(format!(
            "the broker did not drain within {STOP_DEADLINE:?}; the next start recovers what was not flushed"
        ))),
    }
}

fn no_signals(error: std::io::Error) -> CliError {
    CliError::failed(format!("cannot listen for signals: {error}"))
}
