use klamm::prelude::*;

#[kafka_listener(topics = "orders", group = "billing")]
fn bill(Value(_order): Value<String>) {}

fn main() {}
