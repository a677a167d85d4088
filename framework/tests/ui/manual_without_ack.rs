use klamm::prelude::*;

#[kafka_listener(topics = "orders", group = "billing", ack = manual)]
async fn bill(Value(_order): Value<String>) {}

fn main() {}
