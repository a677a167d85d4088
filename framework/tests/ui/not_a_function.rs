use klamm::prelude::*;

#[kafka_listener(topics = "orders", group = "billing")]
struct Billing;

fn main() {}
