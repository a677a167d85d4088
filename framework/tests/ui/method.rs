use klamm::prelude::*;

struct Billing;

impl Billing {
    #[kafka_listener(topics = "orders", group = "billing")]
    async fn bill(&self, Value(_order): Value<String>) {}
}

fn main() {}
