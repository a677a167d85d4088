use klamm::prelude::*;

#[kafka_listener(topics = "orders", group = "billing", batch, transactional(max = 10, within = "50ms"))]
async fn bill(_orders: Batch<Value<String>>) {}

fn main() {}
