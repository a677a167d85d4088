//! Counts words: files to a topic, a pipeline with its state in RocksDB, and a listener with the ten most frequent
//! words. All of Klamm in one process, on a broker that comes along.
//!
//! ```text
//! cargo run --release -p klamm-examples --bin quickstart -- --until-end --counts counts.txt PATH...
//! ```
//!
//! | file | its job |
//! |---|---|
//! | `input.rs` | which files, which lines |
//! | `feed.rs`, `checkpoint.rs` | lines to the topic `lines`, and how far that is, in transactions |
//! | `pipeline.rs` | lines to words to counts |
//! | `table.rs` | the listener |
//! | `finish.rs` | when all is processed |
//! | `gauges.rs`, `display.rs` | what is shown meanwhile |
//!
//! The data directory keeps everything. A second run adds to the counts; a run that was interrupted, whatever way, goes
//! on where it was when it is started again with the same arguments, and counts each word once: lines are fed in
//! transactions, with how far that is, and counted exactly once.

// A program of its own reads and writes its own files; the ban is for the house itself.
#![allow(clippy::disallowed_methods)]
// A program talks to its user, and has no outside that `pub` could be unreachable from.
#![allow(clippy::print_stdout, unreachable_pub)]

mod checkpoint;
mod display;
mod feed;
mod finish;
mod gauges;
mod input;
mod pipeline;
mod table;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use klamm::broker::Broker;
use klamm::client::{Client, NewTopic};
use klamm::prelude::*;
use klamm::streams::{AppState, StreamsApp};
use tokio::time::Instant;

use crate::checkpoint::{Checkpoint, Place};
use crate::gauges::Gauges;
use crate::input::Inputs;
use crate::table::Table;

/// More than there are processors on most machines, and few enough to look at.
const PARTITIONS: i32 = 4;
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// Counts the words of text files through a broker, a stream and a listener.
#[derive(Debug, Parser)]
struct Args {
    /// Folder of the broker's data and of the counts; it may be used again and again
    #[arg(long, value_name = "D", default_value = "data/quickstart")]
    data_dir: PathBuf,
    /// End when all input is counted; otherwise the broker goes on serving until Ctrl-C
    #[arg(long)]
    until_end: bool,
    /// Write every count as `word<TAB>count` to this file at the end
    #[arg(long, value_name = "FILE", requires = "until_end")]
    counts: Option<PathBuf>,
    /// Address of the broker; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: String,
    /// Files and folders; - is standard input [default: this repository]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
}

#[tokio::main]
async fn main() -> klamm::Result<()> {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    run(args).await
}

async fn run(args: Args) -> klamm::Result<()> {
    tokio::fs::create_dir_all(&args.data_dir).await?;
    let data_dir = tokio::fs::canonicalize(&args.data_dir).await?;
    let paths = if args.paths.is_empty() { vec![repository()] } else { args.paths };
    let inputs = Inputs::find(&paths, &data_dir).await?;

    let broker = Broker::builder().data_dir(data_dir.join("broker")).listen(&args.listen).start().await?;
    let bootstrap = broker.bootstrap().to_owned();
    println!("counting the words of {} files; the broker is at {bootstrap}", inputs.files.len());

    let client = Client::connect(&bootstrap).await?;
    create_topics(&client).await?;
    let mut producer = feed::producer(&client).await?;
    let earlier = checkpoint::read(&client, &inputs).await?;
    let start = Place::after(earlier.as_ref(), &inputs);
    if start != Place::default() {
        println!("going on with an interrupted run");
    }

    let started = Instant::now();
    let gauges = Arc::new(Gauges::default());
    let table = Table::default();
    let streams = pipeline::start(&bootstrap, &data_dir.join("state"), Arc::clone(&gauges)).await?;
    let app = App::new(&bootstrap).state(table.clone()).discover().start().await?;

    let count_all = async {
        tokio::try_join!(feed::feed(&mut producer, &inputs, start, &gauges), fill_table(&table, &streams))?;
        finish::until_counted(&streams).await?;
        let counted_in = started.elapsed();
        finish::until_shown(&client).await?;
        Ok::<_, Error>(Some(counted_in))
    };
    let counted_in = tokio::select! {
        counted_in = count_all => counted_in?,
        _ = tokio::signal::ctrl_c() => None,
        () = display::show(&gauges, &table, inputs.bytes()) => None, // It never ends by itself.
        (listener, failure) = app.failure() => return Err(Error::msg(format!("listener {listener}: {failure}"))),
        ended = streams.ended() => return ended.map_err(Error::from),
    };
    match counted_in {
        None => println!("interrupted; the next run with the same arguments goes on from here"),
        Some(counted_in) => {
            let counts = pipeline::counts(&streams).await?;
            if let Some(file) = &args.counts {
                pipeline::write_counts(&counts, file).await?;
            }
            // Not before the counts are written: a run that is killed in between has to write them yet.
            let transaction = producer.begin().await?;
            checkpoint::note(&transaction, &inputs, &Checkpoint::Done).await?;
            transaction.commit().await?;

            for (word, count) in table.top() {
                println!("{count:>12}  {word}");
            }
            let (words, distinct, seconds) = (gauges.words(), counts.len(), counted_in.as_secs_f64());
            let rate = words as f64 / seconds;
            println!("counted {words} words ({distinct} distinct) in {seconds:.2} s: {rate:.0} words/s");
            if !args.until_end {
                display::what_next(&bootstrap, &data_dir);
                tokio::signal::ctrl_c().await?;
            }
        }
    }
    app.shutdown(DRAIN_DEADLINE).await;
    streams.close().await?;
    broker.shutdown().await?;
    Ok(())
}

/// Begins the table with what earlier runs counted: the listener only hears of words that come again.
async fn fill_table(table: &Table, streams: &StreamsApp) -> klamm::Result<()> {
    streams.wait_for(AppState::Running).await?;
    for (word, count) in pipeline::counts(streams).await? {
        table.set(word, count);
    }
    Ok(())
}

/// The topics that are not the pipeline's own. Those that exist already stay as they are.
async fn create_topics(client: &Client) -> klamm::Result<()> {
    let topics = [
        NewTopic::new(feed::TOPIC).partitions(PARTITIONS),
        NewTopic::new(pipeline::OUTPUT).partitions(PARTITIONS),
        NewTopic::new(checkpoint::TOPIC).partitions(1).config("cleanup.policy", "compact"),
    ];
    for result in client.admin().create_topics(&topics).await?.into_values() {
        match result {
            Err(error) if error.code() != Some(klamm::client::ErrorCode::TopicAlreadyExists) => {
                return Err(error.into());
            }
            _ => {}
        }
    }
    Ok(())
}

/// The folder that this program was built from.
fn repository() -> PathBuf {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR"));
    examples.parent().unwrap_or(examples).to_owned()
}
