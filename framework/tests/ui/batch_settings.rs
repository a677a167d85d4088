use klamm::prelude::*;

#[kafka_listener(topics = "orders", group = "billing", batch(max = 0))]
async fn none(_orders: Batch<Value<String>>) {}

#[kafka_listener(topics = "orders", group = "billing", batch(max = 10, wait = "50 parsecs"))]
async fn far(_orders: Batch<Value<String>>) {}

#[kafka_listener(topics = "orders", group = "billing", batch(maximum = 10))]
async fn misspelt(_orders: Batch<Value<String>>) {}

#[kafka_listener(topics = "orders", group = "billing", batch, dispatch = by_key)]
async fn by_key(_orders: Batch<Value<String>>) {}

fn main() {}
