//! Consume, process and produce in one transaction: what a listener sends counts together with the offset of its
//! record, or not at all.
//!
//! Run it with `cargo run -p klamm-examples --bin exactly_once`. It brings a broker of its own; with KLAMM_BOOTSTRAP it
//! takes yours.

#![allow(clippy::print_stdout)] // What it shows, it prints.

use std::time::Duration;

use klamm::broker::Broker;
use klamm::client::NewTopic;
use klamm::prelude::*;
use tokio::sync::mpsc;

/// Two outputs for each order. The printer fails between them, once; then the first is not seen either.
#[kafka_listener(topics = "orders", group = "invoicing", transactional, on_failure = twice)]
async fn invoice(Value(order): Value<String>, meta: RecordMeta, tx: Tx) -> Result<(), Error> {
    tx.send("invoices", &*order, format!("invoice for {order} at attempt {}", meta.attempt)).await?;
    match &*order {
        "tea" if meta.attempt == 1 => return Err(Error::msg("the printer is out of paper")),
        "dynamite" => return Err(Error::msg("that is not for sale")),
        _ => {}
    }
    tx.send("parcels", &*order, format!("a parcel of {order}")).await?;
    Ok(())
}

fn twice() -> FailurePolicy {
    FailurePolicy::new().retry_in_place(Backoff::fixed(Duration::from_millis(50)).attempts(2)).dead_letter()
}

/// Listeners read committed records only: nothing of what was aborted comes here.
#[kafka_listener(topics = ["invoices", "parcels", "orders-dlt"], group = "onlookers")]
async fn look(
    Value(text): Value<String>,
    meta: RecordMeta,
    State(seen): State<mpsc::Sender<String>>,
) -> klamm::Result<()> {
    Ok(seen.send(format!("{}: {text}", meta.topic)).await?)
}

#[tokio::main]
async fn main() -> klamm::Result<()> {
    let broker = Broker::builder().ephemeral().start().await?;
    let bootstrap = std::env::var("KLAMM_BOOTSTRAP").unwrap_or_else(|_| broker.bootstrap().to_string());
    let (tell, mut told) = mpsc::channel::<String>(16);
    let topics =
        ["orders", "invoices", "parcels", "orders-dlt"].map(|name| NewTopic::new(name).partitions(1));
    let app = topics.into_iter().fold(App::new(bootstrap), App::topic);
    let app = app.state(tell).discover().start().await?;

    let orders = app.template::<String, String>("orders");
    for order in ["tea", "dynamite", "cups"] {
        orders.send(order, order.to_owned()).await?;
    }
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.extend(told.recv().await);
    }
    // The topics are read side by side.
    seen.sort();
    seen.iter().for_each(|line| println!("{line}"));
    app.shutdown(Duration::from_secs(5)).await;
    broker.shutdown().await?;
    Ok(())
}
