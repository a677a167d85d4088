//! A listener in a service on axum, with pages for its orchestrator (`/livez`, `/readyz`) and for Prometheus
//! (`/metrics`).
//!
//! Run it with `cargo run -p klamm-examples --bin axum_service`. It brings a broker of its own, asks its own pages
//! once, and ends; with KLAMM_SERVE=127.0.0.1:8080 it serves them there until Ctrl-C, and with KLAMM_BOOTSTRAP it takes
//! your brokers.

#![allow(clippy::print_stdout)] // What it shows, it prints.

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State as Shared};
use axum::routing::post;
use klamm::broker::Broker;
use klamm::http;
use klamm::prelude::*;
use klamm::template::Template;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

type Orders = Template<String, String>;

#[kafka_listener(topics = "orders", group = "billing", idle_after = "1m")]
async fn bill(Value(order): Value<String>) {
    println!("charged {order}");
}

/// The service's own page: an order comes in over HTTP, and goes to the listener.
async fn order(Shared(orders): Shared<Orders>, Path(what): Path<String>) -> Result<String, String> {
    let at = orders.send(what.clone(), what).await.map_err(|error| error.to_string())?;
    Ok(format!("{}-{} offset {}\n", at.topic, at.partition, at.offset))
}

#[tokio::main]
async fn main() -> klamm::Result<()> {
    // Before anything that is measured.
    let prometheus = PrometheusBuilder::new().install_recorder()?;
    let broker = Broker::builder().ephemeral().start().await?;
    let bootstrap = std::env::var("KLAMM_BOOTSTRAP").unwrap_or_else(|_| broker.bootstrap().to_string());
    let app = App::new(bootstrap).discover().start().await?;

    let pages = Router::new()
        .route("/orders/{what}", post(order))
        .with_state(app.template("orders"))
        .merge(http::router(&app))
        .merge(http::metrics(move || prometheus.render()));
    let serve = std::env::var("KLAMM_SERVE").ok();
    let socket = TcpListener::bind(serve.as_deref().unwrap_or("127.0.0.1:0")).await?;
    let address = socket.local_addr()?;
    println!("serving http://{address}");
    let over = async move {
        let shown = match serve {
            Some(_) => tokio::signal::ctrl_c().await.map_err(Error::from),
            None => show(&address.to_string()).await,
        };
        shown.unwrap_or_else(|error| println!("{error}"));
    };
    axum::serve(socket, pages).with_graceful_shutdown(over).await?;

    app.shutdown(Duration::from_secs(20)).await;
    broker.shutdown().await?;
    Ok(())
}

/// Asks the service's own pages.
async fn show(address: &str) -> klamm::Result<()> {
    print!("{}", ask(address, "POST /orders/beer").await?);
    tokio::time::sleep(Duration::from_secs(2)).await; // Gauges are told every second.
    print!("{}", ask(address, "GET /readyz").await?);
    let metrics = ask(address, "GET /metrics").await?;
    let wanted = ["klamm_listener_deliveries_total{", "klamm_listener_ready{", "klamm_listener_lag_records{"];
    for line in metrics.lines().filter(|line| wanted.iter().any(|wanted| line.starts_with(wanted))) {
        println!("{line}");
    }
    Ok(())
}

async fn ask(address: &str, what: &str) -> klamm::Result<String> {
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(format!("{what} HTTP/1.0\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}
