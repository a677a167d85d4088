use klamm::listener::FromRecord;
use klamm::prelude::*;

#[kafka_listener(topics = "orders", group = "billing")]
async fn by_reference(_text: &str) {}

#[kafka_listener(topics = "orders", group = "billing")]
async fn of_any_type(_order: impl FromRecord) {}

#[kafka_listener(topics = "orders", group = "billing")]
async fn now_and_then(#[cfg(debug_assertions)] _key: Key<String>) {}

fn main() {}
