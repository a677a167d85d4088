//! A stream: counts words, with the counts in a RocksDB store that survives the process.
//!
//! Run it with `cargo run -p klamm-examples --bin hello_stream`. It brings a broker of its own, feeds three lines, and
//! ends when their words are counted.

#![allow(clippy::print_stdout)] // What it shows, it prints.

use klamm::broker::Broker;
use klamm::client::{Client, NewTopic, Record};
use klamm::streams::{StreamsBuilder, StreamsConfig};

#[tokio::main]
async fn main() -> klamm::Result<()> {
    let broker = Broker::builder().ephemeral().start().await?;
    let client = Client::connect(broker.bootstrap()).await?;
    client.admin().create_topics(&[NewTopic::new("lines"), NewTopic::new("word-counts")]).await?;

    let mut streams = StreamsBuilder::new();
    streams
        .stream::<Option<String>, String>("lines")
        .flat_map_values(|line| line.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>())
        .group_by(|_, word| word.clone())
        .count("counts")
        .to_stream()
        .to("word-counts");
    let topology = streams.build()?;
    println!("{}", topology.describe());

    let state_dir = std::env::temp_dir().join(format!("klamm-hello-stream-{}", std::process::id()));
    let config = StreamsConfig::new("hello-stream", broker.bootstrap()).state_dir(&state_dir);
    let app = topology.start(config).await?;

    let producer = client.producer().build()?;
    for line in ["the castle above", "the village below", "the road between"] {
        producer.send(Record::to("lines").value(line)).await?;
    }

    // Committed is what counts: then it is in the store, and in `word-counts` for everybody else.
    app.caught_up().await?;
    let counts = app.store::<String, i64>("counts")?;
    println!("\"the\" was counted {:?} times", counts.get("the").await?);
    for (word, count) in counts.all().await? {
        println!("{count:>3} {word}");
    }

    app.close().await?;
    broker.shutdown().await?;
    #[allow(clippy::disallowed_methods)] // what is banned inside Klamm itself
    std::fs::remove_dir_all(&state_dir)?;
    Ok(())
}
