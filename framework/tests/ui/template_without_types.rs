use klamm::prelude::*;

#[kafka_listener(topics = "orders", group = "billing")]
async fn bill(Value(order): Value<String>, template: Template) {}

fn main() {}
