//! A listener: an annotated async function consumes a topic.
//!
//! Run it with `cargo run -p klamm-examples --bin hello_listener`. It brings a broker of its own, sends three
//! greetings, and ends when they are handled. On a cluster,
//! `App::new("kafka.example:9092").state(...).discover().run()` is all of `main`.

#![allow(clippy::print_stdout)] // What it shows, it prints.

use klamm::broker::Broker;
use klamm::prelude::*;
use tokio::sync::mpsc;

#[derive(Debug, Serialize, Deserialize)]
struct Greeting {
    name: String,
}

/// Arguments are extractors: what the record holds, where it was, what the app was given.
#[kafka_listener(topics = "greetings", group = "hello")]
async fn greet(
    Json(greeting): Json<Greeting>,
    meta: RecordMeta,
    State(said): State<mpsc::Sender<String>>,
) -> klamm::Result<()> {
    said.send(format!("Hello, {}! (partition {}, offset {})", greeting.name, meta.partition, meta.offset))
        .await?;
    Ok(())
}

#[tokio::main]
async fn main() -> klamm::Result<()> {
    let broker = Broker::builder().ephemeral().start().await?;
    let (said, mut heard) = mpsc::channel::<String>(16);
    let app = App::new(broker.bootstrap()).state(said).discover().start().await?;

    let greetings = app.template::<String, Json<Greeting>>("greetings");
    for name in ["Frieda", "Barnabas", "Klamm"] {
        greetings.send(name, Json(Greeting { name: name.to_owned() })).await?;
    }
    for _ in 0..3 {
        let Some(line) = heard.recv().await else { break };
        println!("{line}");
    }

    app.shutdown(std::time::Duration::from_secs(5)).await; // commits what was handled
    broker.shutdown().await?;
    Ok(())
}
