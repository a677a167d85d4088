//! Transactional listeners, with a transaction for each record or a shared one.

use std::time::Duration;

use klamm::prelude::*;

#[kafka_listener(topics = "t", group = "g", transactional, transaction_timeout = "30s")]
async fn alone(_value: Value<String>, _tx: Tx) {}

#[kafka_listener(topics = "t", group = "g", transactional(max = 100, within = "50ms"))]
async fn shared(_value: Value<String>, _tx: Tx) {}

#[kafka_listener(topics = "t", group = "g", transactional(id_prefix = "eu-", max = 2, within = Duration::from_secs(1)))]
async fn named(_value: Value<String>) {}

#[kafka_listener(topics = "t", group = "g", transactional(), send_to = "answers")]
async fn answering(Value(text): Value<String>) -> Reply<String> {
    text.into()
}
