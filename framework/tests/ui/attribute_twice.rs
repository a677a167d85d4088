use klamm::prelude::*;

#[kafka_listener(topics = "orders", group = "billing", group = "audit")]
async fn bill(_order: Value<String>) {}

fn main() {}
