//! What the macros write does not meet what the program calls `Result`, `Option`, `Vec`, `Some`, `Ok` or `Box`.

#[allow(dead_code)]
mod core {}
#[allow(dead_code)]
mod std {}
#[allow(dead_code)]
struct Result;
#[allow(dead_code)]
struct Option;
#[allow(dead_code)]
struct Vec;
#[allow(dead_code)]
struct Box;
#[allow(dead_code, non_snake_case)]
fn Ok() {}
#[allow(dead_code, non_snake_case)]
fn Some() {}

use klamm::{Value, kafka_listener};

#[derive(klamm::Headers)]
struct Trace {
    id: String,
}

#[kafka_listener(topics = "t", group = "g", on_failure = policy)]
async fn handle(trace: Trace, Value(_value): Value<String>) {
    drop(trace.id);
}

fn policy() -> klamm::FailurePolicy {
    klamm::FailurePolicy::new()
}
