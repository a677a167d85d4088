use std::rc::Rc;

use klamm::prelude::*;

async fn pause() {}

#[kafka_listener(topics = "orders", group = "billing")]
async fn bill(Value(order): Value<String>) {
    let held = Rc::new(order);
    pause().await;
    drop(held);
}

async fn plain(Value(order): Value<String>) {
    let held = Rc::new(order);
    pause().await;
    drop(held);
}

fn main() {
    let _ = Listener::on("orders").group("billing").handle(plain);
}
