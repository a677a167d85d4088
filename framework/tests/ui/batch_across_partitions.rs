use klamm::prelude::*;

#[kafka_listener(topics = "orders", group = "billing", batch(across_partitions), transactional)]
async fn bill(_orders: Batch<Value<String>>) {}

fn main() {}
