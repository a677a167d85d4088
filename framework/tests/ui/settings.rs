use klamm::prelude::*;

#[kafka_listener(topics = "orders", group = "billing", offset_reset = newest)]
async fn newest() {}

#[kafka_listener(topics = "orders", group = "billing", commit_on_assign = sometimes)]
async fn sometimes() {}

#[kafka_listener(topics = "orders", group = "billing", max_in_flight = 0, max_in_flight_bytes = 0)]
async fn nothing_in_hand() {}

#[kafka_listener(topics = "orders", group = "billing", revoke_deadline = "soon")]
async fn soon() {}

#[kafka_listener(topics = "orders", group = "billing", revoke_deadline = 10)]
async fn ten() {}

#[kafka_listener(topics = "orders", group = "billing", max_in_flight = "many")]
async fn many() {}

fn main() {}
