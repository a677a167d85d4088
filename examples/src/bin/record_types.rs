//! Types that say how they are written: several on one topic, headers as a struct, no wrapper anywhere.
//!
//! `cargo run -p klamm-examples --bin record_types`

#![allow(clippy::print_stdout)] // What it shows, it prints.

use klamm::broker::Broker;
use klamm::prelude::*;

#[derive(Debug, Serialize, Deserialize)]
struct Placed {
    id: u64,
    cents: i64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Cancelled {
    id: u64,
    why: String,
}

/// What comes along on the topic: the header `klamm-type` says which one a record is.
#[derive(Debug, Record)]
#[record(json, header = "klamm-type")]
enum OrderEvent {
    #[record(name = "order.placed")]
    Placed(Placed),
    #[record(name = "order.cancelled")]
    Cancelled(Cancelled),
}

/// What goes along with it.
#[derive(Debug, Headers)]
#[headers(rename_all = "kebab-case")]
struct Origin {
    trace_id: String,
    shop: Option<u32>,
}

#[kafka_listener(topics = "orders", group = "billing")]
async fn bill(event: OrderEvent, origin: Origin) {
    let from = origin.shop.map_or("the web".to_owned(), |shop| format!("shop {shop}"));
    match event {
        OrderEvent::Placed(order) => println!("order {} of {} cents from {from}", order.id, order.cents),
        OrderEvent::Cancelled(order) => println!("order {} from {from} is off: {}", order.id, order.why),
    }
}

#[tokio::main]
async fn main() -> klamm::Result<()> {
    let broker = Broker::builder().ephemeral().start().await?;
    let app = App::new(broker.bootstrap()).listener(bill).start().await?;
    let orders = app.template::<String, OrderEvent>("orders");
    let events = [
        OrderEvent::Placed(Placed { id: 1, cents: 250 }),
        OrderEvent::Cancelled(Cancelled { id: 1, why: "it rains".to_owned() }),
    ];
    for event in events {
        let origin = Origin { trace_id: "7f".to_owned(), shop: Some(3) };
        orders.record(event).key("k1").headers(origin).send().await?;
    }
    if let Some(listener) = app.listener("bill") {
        listener.wait_handled(2).await?;
    }
    app.shutdown(std::time::Duration::from_secs(5)).await;
    broker.shutdown().await?;
    Ok(())
}
