//! Windows: what was paid with a card within a minute; more than a limit raises an alert, and what came too late for
//! its minute is told apart.
//!
//! Run it with `cargo run -p klamm-examples --bin fraud_window`. It brings a broker of its own; with KLAMM_BOOTSTRAP it
//! takes yours.

#![allow(clippy::print_stdout)] // What it shows, it prints.

use std::time::Duration;

use klamm::broker::Broker;
use klamm::client::{Client, NewTopic, Record};
use klamm::streams::{HoppingWindows, StreamsBuilder, StreamsConfig, Topology};

const LIMIT_CENTS: i64 = 100_000;

fn topology() -> klamm::Result<Topology> {
    let mut streams = StreamsBuilder::new();
    let payments = streams.stream::<String, i64>("payments");
    // A minute begins every ten seconds, and waits half a minute for payments that were held up.
    let minutes = HoppingWindows::of(Duration::from_secs(60), Duration::from_secs(10));
    let minutes = payments.group_by_key().windowed_by(minutes.grace(Duration::from_secs(30)));
    minutes
        .aggregate("paid-in-a-minute", || 0_i64, |_, cents, sum| sum + cents)
        .filter(|_, sum| *sum > LIMIT_CENTS)
        .to_stream_with(|windowed, _| windowed.key.clone())
        .non_null()
        .map_values(|sum| format!("{sum} cents within a minute"))
        .peek(|card, alert| println!("ALERT {card}: {alert}"))
        .to("alerts");
    minutes.late().peek(|card, cents| println!("too late: {cents} cents of {card}")).to("late-payments");
    Ok(streams.build()?)
}

#[tokio::main]
async fn main() -> klamm::Result<()> {
    let broker = Broker::builder().ephemeral().start().await?;
    let bootstrap = std::env::var("KLAMM_BOOTSTRAP").unwrap_or_else(|_| broker.bootstrap().to_string());
    let client = Client::connect(&bootstrap).await?;
    client.admin().create_topics(&["payments", "alerts", "late-payments"].map(NewTopic::new)).await?;

    let state_dir = std::env::temp_dir().join(format!("klamm-fraud-{}", std::process::id()));
    let app = topology()?.start(StreamsConfig::new("fraud", &bootstrap).state_dir(&state_dir)).await?;
    let producer = client.producer().build()?;
    let start_ms = 1_700_000_000_000;
    for (card, cents, second) in [
        ("card-1", 70_000_i64, 0),
        ("card-2", 90_000, 5),
        ("card-1", 40_000, 55), // Within a minute of the first.
        ("card-2", 90_000, 90), // Not within a minute.
        ("card-2", 1, 1),       // A minute and a half late.
    ] {
        let record = Record::to("payments").key(card).value(cents.to_be_bytes().to_vec());
        producer.send(record.timestamp_ms(start_ms + second * 1_000)).await?;
    }
    app.caught_up().await?;
    app.close().await?;
    broker.shutdown().await?;
    #[allow(clippy::disallowed_methods)] // what is banned inside Klamm itself
    tokio::fs::remove_dir_all(&state_dir).await?;
    Ok(())
}
