use klamm::prelude::*;

#[kafka_listener]
async fn bill(Value(_order): Value<String>) {}

fn main() {}
