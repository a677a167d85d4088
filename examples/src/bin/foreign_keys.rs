//! A table joined with another one by something in its rows: orders with their customers. When a customer moves, all of
//! the customer's orders change.
//!
//! Run it with `cargo run -p klamm-examples --bin foreign_keys`. It brings a broker of its own; with KLAMM_BOOTSTRAP it
//! takes yours.

#![allow(clippy::print_stdout)] // What it shows, it prints.

use klamm::broker::Broker;
use klamm::client::{Client, NewTopic, Record};
use klamm::streams::{StreamsApp, StreamsBuilder, StreamsConfig, Topology};

fn topology() -> klamm::Result<Topology> {
    let mut streams = StreamsBuilder::new();
    let customers = streams.table::<String, String>("customers");
    let orders = streams.table::<String, String>("orders");
    orders
        .foreign_key_join(
            &customers,
            "labels",
            |_, order| order.split(' ').next().map(str::to_owned),
            |order, city| format!("{order} to {city}"),
        )
        .to_stream()
        .to("labels-told");
    Ok(streams.build()?)
}

async fn show(app: &StreamsApp, when: &str) -> klamm::Result<()> {
    app.caught_up().await?;
    let mut labels = app.store::<String, String>("labels")?.all().await?;
    labels.sort();
    println!("{when}: {labels:?}");
    Ok(())
}

#[tokio::main]
async fn main() -> klamm::Result<()> {
    let broker = Broker::builder().ephemeral().start().await?;
    let bootstrap = std::env::var("KLAMM_BOOTSTRAP").unwrap_or_else(|_| broker.bootstrap().to_string());
    let client = Client::connect(&bootstrap).await?;
    client.admin().create_topics(&["customers", "orders", "labels-told"].map(NewTopic::new)).await?;

    let state_dir = std::env::temp_dir().join(format!("klamm-foreign-keys-{}", std::process::id()));
    let app = topology()?.start(StreamsConfig::new("labels", &bootstrap).state_dir(&state_dir)).await?;
    let producer = client.producer().build()?;
    for (customer, city) in [("anna", "Bern"), ("berta", "Rome")] {
        producer.send(Record::to("customers").key(customer).value(city)).await?;
    }
    for (order, what) in [("1", "anna tea"), ("2", "berta cups"), ("3", "anna cake")] {
        producer.send(Record::to("orders").key(order).value(what)).await?;
    }
    show(&app, "at first").await?;
    producer.send(Record::to("customers").key("anna").value("Oslo")).await?;
    show(&app, "anna moved").await?;
    producer.send(Record::to("orders").key("3").value("berta cake")).await?;
    show(&app, "berta takes the cake").await?;

    app.close().await?;
    broker.shutdown().await?;
    #[allow(clippy::disallowed_methods)] // what is banned inside Klamm itself
    tokio::fs::remove_dir_all(&state_dir).await?;
    Ok(())
}
