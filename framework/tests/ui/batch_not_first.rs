use klamm::prelude::*;

#[kafka_listener(topics = "orders", group = "billing", batch)]
async fn bill(State(_ledger): State<u64>, _orders: Batch<Value<String>>) {}

fn main() {}
