//! Sessions: the clicks of a visitor belong together until there are none for half an hour; each visit is told once,
//! when it is over.
//!
//! Run it with `cargo run -p klamm-examples --bin sessions`. It brings a broker of its own; with KLAMM_BOOTSTRAP it
//! takes yours.

#![allow(clippy::print_stdout)] // What it shows, it prints.

use std::time::Duration;

use klamm::broker::Broker;
use klamm::client::{Client, NewTopic, Record};
use klamm::streams::{SessionWindows, StreamsBuilder, StreamsConfig, Topology};

const MINUTE: Duration = Duration::from_secs(60);

fn topology() -> klamm::Result<Topology> {
    let mut streams = StreamsBuilder::new();
    streams
        .stream::<String, String>("clicks")
        .group_by_key()
        .windowed_by(SessionWindows::of(30 * MINUTE))
        .emit_on_window_close()
        .aggregate(
            "visits",
            String::new,
            |_, page, path| if path.is_empty() { page.clone() } else { format!("{path} > {page}") },
            // A click between two visits makes one of them.
            |_, earlier, later| format!("{earlier} > {later}"),
        )
        .to_stream_with(|visit, _| visit.key.clone())
        .non_null()
        .peek(|visitor, path| println!("{visitor}: {path}"))
        .to("visits-told");
    Ok(streams.build()?)
}

#[tokio::main]
async fn main() -> klamm::Result<()> {
    let broker = Broker::builder().ephemeral().start().await?;
    let bootstrap = std::env::var("KLAMM_BOOTSTRAP").unwrap_or_else(|_| broker.bootstrap().to_string());
    let client = Client::connect(&bootstrap).await?;
    client.admin().create_topics(&["clicks", "visits-told"].map(NewTopic::new)).await?;

    let state_dir = std::env::temp_dir().join(format!("klamm-sessions-{}", std::process::id()));
    let app = topology()?.start(StreamsConfig::new("sessions", &bootstrap).state_dir(&state_dir)).await?;
    let producer = client.producer().build()?;
    let start_ms = 1_700_000_000_000;
    for (visitor, page, minute) in [
        ("anna", "home", 0),
        ("berta", "shop", 5),
        ("anna", "shop", 20),
        ("anna", "cart", 45),
        ("anna", "home", 100), // A new visit, which also says that the time is 100 minutes.
    ] {
        let record = Record::to("clicks").key(visitor).value(page);
        producer.send(record.timestamp_ms(start_ms + minute * 60_000)).await?;
    }
    app.caught_up().await?;
    app.close().await?;
    broker.shutdown().await?;
    #[allow(clippy::disallowed_methods)] // what is banned inside Klamm itself
    tokio::fs::remove_dir_all(&state_dir).await?;
    Ok(())
}
