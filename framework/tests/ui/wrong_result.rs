use klamm::prelude::*;

#[kafka_listener(topics = "orders", group = "billing")]
async fn number(Value(_order): Value<String>) -> u64 {
    7
}

#[kafka_listener(topics = "orders", group = "billing")]
async fn not_an_error(Value(_order): Value<String>) -> Result<(), u64> {
    Ok(())
}

#[kafka_listener(topics = "orders", group = "billing")]
async fn outcome_of_one(Value(_order): Value<String>) -> BatchOutcome {
    BatchOutcome::ok()
}

fn main() {}
