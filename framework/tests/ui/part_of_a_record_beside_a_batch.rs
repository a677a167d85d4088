use klamm::prelude::*;

#[kafka_listener(topics = "orders", group = "billing", batch)]
async fn bill(_orders: Batch<Value<String>>, _meta: RecordMeta) {}

fn main() {}
