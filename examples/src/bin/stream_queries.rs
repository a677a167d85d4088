//! Queries over HTTP: the state of a pipeline is the service's data, without a database in between.
//!
//! Run it with `cargo run -p klamm-examples --bin stream_queries`. It brings a broker of its own, asks its own page,
//! and ends; with KLAMM_SERVE=127.0.0.1:8080 it serves until Ctrl-C.

#![allow(clippy::print_stdout)] // What it shows, it prints.

use axum::Router;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::routing::get;
use klamm::broker::Broker;
use klamm::client::{Client, NewTopic, Record};
use klamm::prelude::*;
use klamm::streams::{AppStore, StreamsBuilder, StreamsConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

type Counts = AppStore<String, i64>;

/// What was counted of a word, as of the last commit.
async fn count(
    Shared(counts): Shared<Counts>,
    Path(word): Path<String>,
) -> Result<String, (StatusCode, String)> {
    match counts.get(&*word).await {
        Ok(Some(count)) => Ok(format!("{count}\n")),
        Ok(None) => Err((StatusCode::NOT_FOUND, "never seen\n".to_owned())),
        // This instance is starting, or has not got the word's partition.
        Err(error) => Err((StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"))),
    }
}

#[tokio::main]
async fn main() -> klamm::Result<()> {
    let broker = Broker::builder().ephemeral().start().await?;
    let client = Client::connect(broker.bootstrap()).await?;
    client.admin().create_topics(&[NewTopic::new("lines")]).await?;
    let mut streams = StreamsBuilder::new();
    streams
        .stream::<Option<String>, String>("lines")
        .flat_map_values(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .group_by(|_, word| word.clone())
        .count("counts");
    let state_dir = std::env::temp_dir().join(format!("klamm-queries-{}", std::process::id()));
    let config = StreamsConfig::new("queries", broker.bootstrap()).state_dir(&state_dir);
    let app = streams.build()?.start(config).await?;
    let producer = client.producer().build()?;
    producer.send(Record::to("lines").value("the road to the castle")).await?;
    app.caught_up().await?;

    let pages = Router::new().route("/counts/{word}", get(count)).with_state(app.store("counts")?);
    let serve = std::env::var("KLAMM_SERVE").ok();
    let socket = TcpListener::bind(serve.as_deref().unwrap_or("127.0.0.1:0")).await?;
    let address = socket.local_addr()?;
    println!("serving http://{address}/counts/the");
    let over = async move {
        let shown = match serve {
            Some(_) => tokio::signal::ctrl_c().await.map_err(Error::from),
            None => show(&address.to_string()).await,
        };
        shown.unwrap_or_else(|error| println!("{error}"));
    };
    axum::serve(socket, pages).with_graceful_shutdown(over).await?;
    app.close().await?;
    broker.shutdown().await?;
    #[allow(clippy::disallowed_methods)] // what is banned inside Klamm itself
    tokio::fs::remove_dir_all(&state_dir).await?;
    Ok(())
}

async fn show(address: &str) -> klamm::Result<()> {
    for word in ["the", "village"] {
        let mut socket = TcpStream::connect(address).await?;
        socket.write_all(format!("GET /counts/{word} HTTP/1.0\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.trim()).unwrap_or_default();
        println!("{word}: {body}");
    }
    Ok(())
}
