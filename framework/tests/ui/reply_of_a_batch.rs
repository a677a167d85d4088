use klamm::prelude::*;

#[kafka_listener(topics = "requests", group = "quotes", batch)]
async fn quote(_requests: Batch<Value<String>>) -> Reply<String> {
    Reply::new("seven".to_owned())
}

fn main() {}
