//! A policy by the name of a function, as a call, and as an expression.

use std::time::Duration;

use klamm::prelude::*;

fn patient() -> FailurePolicy {
    FailurePolicy::new().retry_in_place(Backoff::fixed(Duration::from_secs(1)).attempts(3)).dead_letter()
}

mod policies {
    pub fn strict() -> klamm::FailurePolicy {
        klamm::FailurePolicy::new().stop()
    }
}

#[kafka_listener(topics = "t", group = "g", on_failure = patient)]
async fn by_name() -> Result<(), String> {
    Ok(())
}

#[kafka_listener(topics = "t", group = "g", on_failure = policies::strict)]
async fn by_path() {}

#[kafka_listener(topics = "t", group = "g", on_failure = patient().skip())]
async fn by_expression() {}
