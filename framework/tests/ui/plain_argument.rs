use klamm::prelude::*;

struct Order;

#[kafka_listener(topics = "orders", group = "billing")]
async fn bill(_order: Order, _meta: RecordMeta) {}

fn main() {}
