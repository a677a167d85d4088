//! What the macros write is warned of by no lint.

#![deny(warnings, missing_debug_implementations, unused_qualifications, unreachable_pub, clippy::pedantic)]

use klamm::prelude::*;

#[derive(Debug, Serialize, Deserialize, Record)]
#[record(json)]
struct Order {
    id: u64,
}

#[derive(Debug, Headers)]
struct Trace {
    id: Option<String>,
}

/// Bills.
#[kafka_listener(topics = "orders", group = "g", transactional(max = 10, within = "1s"))]
async fn bill(order: Order, trace: Trace, key: Key<String>, tx: Tx) -> Result<Reply<Order>, String> {
    println!("{trace:?} {} {}", trace.id.is_some(), key.0);
    drop(tx);
    Ok(Reply::new(Order { id: order.id }))
}

#[kafka_listener(topics = "orders", group = "g", batch(max = 10, across_partitions))]
async fn count(orders: Batch<Order>) {
    println!("{}", orders.len());
}
