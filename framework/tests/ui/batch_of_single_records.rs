use klamm::prelude::*;

#[kafka_listener(topics = "orders", group = "billing", batch(max = 10))]
async fn bill(Value(_order): Value<String>) {}

fn main() {}
