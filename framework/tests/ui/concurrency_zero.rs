use klamm::prelude::*;

#[kafka_listener(topics = "orders", group = "billing", concurrency = 0)]
async fn bill(Value(_order): Value<String>) {}

fn main() {}
