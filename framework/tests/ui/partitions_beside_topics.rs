use klamm::prelude::*;

#[kafka_listener(topics = "orders", partitions = [klamm::listener::Partitions::all("orders")], group = "billing")]
async fn bill(_order: Value<String>) {}

fn main() {}
