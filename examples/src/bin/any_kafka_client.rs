//! The embedded broker serves any Kafka client: this program starts one, shows the commands to talk to it,
//! and checks it once itself.
//!
//! Run it with `cargo run -p klamm-examples --bin any_kafka_client`; it serves until Ctrl-C, or with
//! `--once` only for its own check.

#![allow(clippy::print_stdout)] // What it shows, it prints.

use std::path::PathBuf;

use clap::Parser;
use klamm::Error;
use klamm::broker::Broker;
use klamm::client::{Client, Record};

/// A broker for any Kafka client.
#[derive(Debug, Parser)]
struct Args {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
    /// Folder of the data; without it, all is in memory and forgotten at the end
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// End after the check
    #[arg(long)]
    once: bool,
}

#[tokio::main]
async fn main() -> klamm::Result<()> {
    let args = Args::parse();
    let builder = Broker::builder().listen(&args.listen);
    let builder = match &args.data_dir {
        Some(folder) => builder.data_dir(folder),
        None => builder.ephemeral(),
    };
    let broker = builder.start().await?;
    let bootstrap = broker.bootstrap();

    println!("serving at {bootstrap}; for instance:");
    println!("  echo hello | kcat -b {bootstrap} -P -t greetings");
    println!("  kcat -b {bootstrap} -C -t greetings -e");
    println!("  kafka-console-consumer.sh --bootstrap-server {bootstrap} --topic greetings --from-beginning");
    println!(
        "  python3 -c 'from confluent_kafka import Producer; p = Producer({{\"bootstrap.servers\": \"{bootstrap}\"}}); \
         p.produce(\"greetings\", \"hi\"); p.flush()'"
    );

    check(bootstrap).await?;
    if !args.once {
        println!("Ctrl-C ends it");
        tokio::signal::ctrl_c().await?;
    }
    broker.shutdown().await?;
    Ok(())
}

/// One record there and back, with Klamm's own client.
async fn check(bootstrap: &str) -> klamm::Result<()> {
    let client = Client::connect(bootstrap).await?;
    let producer = client.producer().build()?;
    let written =
        producer.send(Record::to("greetings").key("k").value("hello").header("from", "klamm")).await?;
    let mut consumer =
        client.consumer().assign([("greetings", written.partition)]).from_beginning().start().await?;
    consumer.handle().seek(&("greetings", written.partition).into(), written.offset)?;
    let read = consumer.next().await.transpose()?.ok_or_else(|| Error::msg("the consumer ended"))?;
    if read.value.as_deref() != Some(b"hello") || read.headers.last("from") != Some(Some(b"klamm")) {
        return Err(Error::msg(format!("wrote hello, read {read:?}")));
    }
    println!("checked: greetings-{} offset {} came back as it was written", read.partition, read.offset);
    consumer.close().await?;
    Ok(producer.close().await?)
}
