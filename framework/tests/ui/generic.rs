use klamm::prelude::*;

#[kafka_listener(topics = "orders", group = "billing")]
async fn bill<T: Send>(State(_ledger): State<T>) {}

fn main() {}
