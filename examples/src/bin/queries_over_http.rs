//! Queries over all instances of an application: whoever is asked answers, from what it has or from who has it, over
//! HTTP or in Rust.
//!
//! Run it with `cargo run -p klamm-examples --bin queries_over_http`. It brings a broker and two instances of its own,
//! asks them, takes one away, and ends; with KLAMM_SERVE=127.0.0.1:8080 the first answers there until Ctrl-C:
//!
//! ```console
//! $ curl -s -H 'content-type: application/json' 127.0.0.1:8080/v1/query \
//!     -d '{"store": "visits", "query": {"kind": "key", "key": "castle"}}'
//! ```

#![allow(clippy::print_stdout)] // What it shows, it prints.

use std::path::Path;
use std::time::Duration;

use klamm::broker::Broker;
use klamm::client::{Client, NewTopic, Record};
use klamm::streams::{PositionBound, StreamsApp, StreamsBuilder, StreamsConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PLACES: [&str; 5] = ["castle", "bridge", "inn", "school", "village"];

async fn instance(bootstrap: &str, directory: &Path, address: &str) -> klamm::Result<StreamsApp> {
    let mut streams = StreamsBuilder::new();
    streams.stream::<String, String>("visitors").group_by_key().count("visits");
    let config = StreamsConfig::new("visits", bootstrap)
        .state_dir(directory.join(address.replace(':', "-")))
        .commit_interval(Duration::from_millis(100))
        .standby_replicas(1)
        .query_server(address);
    Ok(streams.build()?.start(config).await?)
}

#[tokio::main]
async fn main() -> klamm::Result<()> {
    let broker = Broker::builder().ephemeral().start().await?;
    let client = Client::connect(broker.bootstrap()).await?;
    client.admin().create_topics(&[NewTopic::new("visitors").partitions(4)]).await?;
    let directory = std::env::temp_dir().join(format!("klamm-queries-{}", std::process::id()));
    let serve = std::env::var("KLAMM_SERVE").ok();
    let first = instance(broker.bootstrap(), &directory, serve.as_deref().unwrap_or("127.0.0.1:0")).await?;
    let second = instance(broker.bootstrap(), &directory, "localhost:0").await?;

    let producer = client.producer().build()?;
    for (visit, place) in PLACES.iter().cycle().take(20).enumerate() {
        producer.send(Record::to("visitors").key(*place).value(visit.to_string())).await?;
    }
    // Both have their share, and copies of the other's.
    while first.metrics().tasks != 2 || second.metrics().tasks != 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    first.caught_up().await?;
    second.caught_up().await?;
    let at = producer.send(Record::to("visitors").key("village").value("20")).await?;
    show(&first, PositionBound::new().record("visitors", at.partition, at.offset)).await?;
    if serve.is_some() {
        println!("ask {}", first.query_address().unwrap_or_default());
        tokio::signal::ctrl_c().await?;
    }

    // Without a word: its tasks are missed after the session, and their copies answer until then.
    while second.standby_tasks().iter().filter(|standby| standby.lag == Some(0)).count() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(first);
    for place in PLACES {
        let answer = second.query::<String, i64>("visits")?.or_standby(1_000).key(place).await?;
        let from = &answer.from[0];
        println!("{place}: {:?}, a copy: {}, behind: {:?}", answer.value, from.standby, from.behind);
    }
    second.close().await?;
    broker.shutdown().await?;
    #[allow(clippy::disallowed_methods)] // what is banned inside Klamm itself
    tokio::fs::remove_dir_all(&directory).await?;
    Ok(())
}

async fn show(app: &StreamsApp, bound: PositionBound) -> klamm::Result<()> {
    let visits = app.query::<String, i64>("visits")?;
    // Including what was sent last.
    let village = visits.clone().at_least(bound).key("village").await?;
    println!("village: {:?}, answered by {:?}", village.value, village.from[0].host);
    for row in visits.all().await?.value.rows {
        println!("{}: {}", row.key, row.value);
    }
    let question = r#"{"store": "visits", "query": {"kind": "range", "from": "a", "to": "d"}}"#;
    println!("{}", ask(app.query_address().unwrap_or_default(), question).await?);
    Ok(())
}

/// What any program can do that speaks HTTP.
async fn ask(address: &str, question: &str) -> klamm::Result<String> {
    let mut socket = TcpStream::connect(address).await?;
    let head = "POST /v1/query HTTP/1.0\r\ncontent-type: application/json";
    let request = format!("{head}\r\ncontent-length: {}\r\n\r\n{question}", question.len());
    socket.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}
