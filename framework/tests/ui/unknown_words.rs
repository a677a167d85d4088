use klamm::prelude::*;

#[kafka_listener(topic = "orders", group = "billing")]
async fn one_topic(Value(_order): Value<String>) {}

#[kafka_listener(topics = "orders", group = "billing", ack = auto)]
async fn auto(Value(_order): Value<String>) {}

#[kafka_listener(topics = "orders", group = "billing", dispatch = random)]
async fn random(Value(_order): Value<String>) {}

#[kafka_listener(topics = "orders", group = "billing", retries = 3)]
async fn retries(Value(_order): Value<String>) {}

fn main() {}
