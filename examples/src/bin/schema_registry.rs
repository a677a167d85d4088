//! Avro with its schemas in a registry, and a type that has changed since the first records were written.
//!
//! `cargo run -p klamm-examples --bin schema_registry` brings a registry and a broker of its own;
//! `... --bin schema_registry http://127.0.0.1:8081` uses that registry.

#![allow(clippy::print_stdout)] // What it shows, it prints.

use klamm::broker::Broker;
use klamm::prelude::*;
use klamm::serde::SchemaRegistry;
use klamm::testing::TestRegistry;

/// As it was written first.
#[derive(Debug, Serialize, Deserialize, Record)]
#[record(
    avro,
    registry,
    schema = r#"{"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}]}"#
)]
struct FirstOrder {
    id: i64,
}

/// As it is now: what the first ones do not have has a default.
#[derive(Debug, Serialize, Deserialize, Record)]
#[record(
    avro,
    registry,
    schema = r#"{"type": "record", "name": "Order", "fields": [
    {"name": "id", "type": "long"}, {"name": "cents", "type": "long", "default": 0}]}"#
)]
struct Order {
    id: i64,
    cents: i64,
}

#[kafka_listener(topics = "orders", group = "billing")]
async fn bill(order: Order) {
    println!("order {} costs {} cents", order.id, order.cents);
}

#[tokio::main]
async fn main() -> klamm::Result<()> {
    let broker = Broker::builder().ephemeral().start().await?;
    let own = TestRegistry::on_tcp().await;
    let url = std::env::args().nth(1).unwrap_or_else(|| own.url());
    let registry = SchemaRegistry::builder(url).build()?;
    let app = App::new(broker.bootstrap()).state(registry.clone()).listener(bill).start().await?;
    app.template::<String, FirstOrder>("orders").send("k1", FirstOrder { id: 1 }).await?;
    app.template::<String, Order>("orders").send("k1", Order { id: 2, cents: 250 }).await?;
    if let Some(listener) = app.listener("bill") {
        listener.wait_handled(2).await?;
    }
    println!("the registry has {:?} of orders-value", registry.versions("orders-value").await?);
    app.shutdown(std::time::Duration::from_secs(5)).await;
    broker.shutdown().await?;
    Ok(())
}
