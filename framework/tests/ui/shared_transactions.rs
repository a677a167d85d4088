use klamm::prelude::*;

#[kafka_listener(topics = "orders", group = "billing", transactional(max = 10))]
async fn without_a_time(_order: Value<String>) {}

#[kafka_listener(topics = "orders", group = "billing", transactional(within = "50ms"))]
async fn without_a_number(_order: Value<String>) {}

#[kafka_listener(topics = "orders", group = "billing", transactional(max = 0, within = "50ms"))]
async fn of_nothing(_order: Value<String>) {}

#[kafka_listener(topics = "orders", group = "billing", transactional(max = 10, within = "soon"))]
async fn soon(_order: Value<String>) {}

#[kafka_listener(topics = "orders", group = "billing", transactional = true)]
async fn by_value(_order: Value<String>) {}

fn main() {}
