//! Which records wait for one another, as a word and as text.

use klamm::prelude::*;

#[kafka_listener(topics = "t", group = "g", dispatch = by_partition, concurrency = 1)]
async fn by_partition() {}

#[kafka_listener(topics = "t", group = "g", dispatch = by_key, concurrency = 2 + 2)]
async fn by_key() {}

#[kafka_listener(topics = "t", group = "g", dispatch = "unordered")]
async fn unordered() {}
