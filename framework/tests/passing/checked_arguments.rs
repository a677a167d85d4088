//! Arguments that keep the rules of their types.

use garde::Validate;
use klamm::listener::Valid;
use klamm::prelude::*;

#[derive(Deserialize, Validate)]
struct Order {
    #[garde(range(min = 1))]
    cents: i64,
}

#[kafka_listener(topics = "t", group = "g")]
async fn one(Valid(Json(order)): Valid<Json<Order>>) {
    println!("{}", order.cents);
}

#[kafka_listener(topics = "t", group = "g", batch)]
async fn several(_orders: Batch<Valid<Json<Order>>>) {}
