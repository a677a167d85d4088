use klamm::prelude::*;

#[kafka_listener(topics = "orders", pattern = "orders-.*", group = "billing")]
async fn bill(Value(_order): Value<String>) {}

fn main() {}
