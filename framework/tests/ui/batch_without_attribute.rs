use klamm::prelude::*;

#[kafka_listener(topics = "orders", group = "billing")]
async fn bill(_orders: Batch<Value<String>>) {}

fn main() {}
