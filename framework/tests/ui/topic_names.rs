use klamm::prelude::*;

#[kafka_listener(topics = "orders,bills", group = "billing")]
async fn joined(Value(_order): Value<String>) {}

#[kafka_listener(topics = ["orders", "what is this!"], group = "billing")]
async fn spaced(Value(_order): Value<String>) {}

#[kafka_listener(topics = [], group = "billing")]
async fn none(Value(_order): Value<String>) {}

#[kafka_listener(topics = "${orders.topic", group = "billing")]
async fn open(Value(_order): Value<String>) {}

fn main() {}
