use klamm::prelude::*;

struct Order;

#[kafka_listener(topics = "orders", group = "billing")]
async fn bill(Json(_order): Json<Order>) {}

#[kafka_listener(topics = "orders", group = "billing")]
async fn bill_value(Value(_order): Value<Order>) {}

fn main() {}
