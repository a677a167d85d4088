//! Every way to say when offsets are committed.

use std::time::Duration;

use klamm::prelude::*;

#[kafka_listener(topics = "t", group = "g", ack = record)]
async fn of_records() {}

#[kafka_listener(topics = "t", group = "g", ack = batch)]
async fn of_batches() {}

#[kafka_listener(topics = "t", group = "g", ack = AckPolicy::Count(100))]
async fn counted() {}

#[kafka_listener(topics = "t", group = "g", ack = AckPolicy::CountTime(100, Duration::from_secs(1)))]
async fn counted_in_time() {}

#[kafka_listener(topics = "t", group = "g", ack = manual)]
async fn by_hand(ack: Ack) {
    ack.mark();
}

#[kafka_listener(topics = "t", group = "g", ack = AckPolicy::Manual)]
async fn by_an_expression(ack: Ack) {
    ack.mark();
}
