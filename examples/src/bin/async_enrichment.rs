//! Asynchronous enrichment: each login is looked up in a slow service, many at a time, those of a user in order; a
//! look-up that fails is tried again, and what stays unknown becomes a dead letter.
//!
//! Run it with `cargo run -p klamm-examples --bin async_enrichment`. It brings a broker of its own; with
//! KLAMM_BOOTSTRAP it takes yours.

#![allow(clippy::print_stdout)] // What it shows, it prints.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use klamm::Error;
use klamm::broker::Broker;
use klamm::client::{Client, NewTopic, Record};
use klamm::streams::{AsyncCalls, ErrorPolicy, StreamsBuilder, StreamsConfig};
use tokio::time::Instant;

const LOGINS: u32 = 200;
const LOOK_UP: Duration = Duration::from_millis(50);

/// Stands for a service somewhere else: it takes its time, and every tenth answer is an error.
#[derive(Default)]
struct Directory {
    asked: AtomicUsize,
}

impl Directory {
    async fn city_of(&self, user: &str) -> Result<String, Error> {
        tokio::time::sleep(LOOK_UP).await;
        match user {
            "mallory" => Err(Error::msg("nobody knows mallory")),
            _ if self.asked.fetch_add(1, Ordering::Relaxed) % 10 == 9 => Err(Error::msg("busy, try again")),
            _ => Ok(format!("the city of {user}")),
        }
    }
}

#[tokio::main]
async fn main() -> klamm::Result<()> {
    let broker = Broker::builder().ephemeral().start().await?;
    let bootstrap = std::env::var("KLAMM_BOOTSTRAP").unwrap_or_else(|_| broker.bootstrap().to_string());
    let client = Client::connect(&bootstrap).await?;
    client.admin().create_topics(&["logins", "located", "logins-dlt"].map(NewTopic::new)).await?;

    let directory = Arc::new(Directory::default());
    let located = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&located);
    let mut streams = StreamsBuilder::new();
    streams
        .stream::<String, String>("logins")
        .map_values_async_with(AsyncCalls::new().max_in_flight(50), move |user, page| {
            let directory = Arc::clone(&directory);
            async move { directory.city_of(&user).await.map(|city| format!("{page} from {city}")) }
        })
        .on_error(ErrorPolicy::dead_letter("logins-dlt").retry(3, Duration::from_millis(10)))
        .peek(move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
        })
        .to("located");
    streams
        .stream::<String, String>("logins-dlt")
        .for_each(|user, page| println!("nobody knows where {user} looked at {page}"));

    let app = streams.build()?.start(StreamsConfig::new("locating", &bootstrap)).await?;
    let producer = client.producer().build()?;
    let began = Instant::now();
    for number in 0..LOGINS {
        producer.send(Record::to("logins").key(format!("user-{number}")).value("/shop")).await?;
    }
    producer.send(Record::to("logins").key("mallory").value("/admin")).await?;
    app.caught_up().await?;
    println!("{} logins located", located.load(Ordering::Relaxed));
    println!("it took {:?}, one after the other at least {:?}", began.elapsed(), LOOK_UP * LOGINS);
    app.close().await?;
    broker.shutdown().await?;
    Ok(())
}
