use klamm::prelude::*;

#[kafka_listener(topics = "orders", group = "billing", ack = record)]
async fn bill(Value(_order): Value<String>, ack: Ack) {
    ack.mark();
}

fn main() {}
