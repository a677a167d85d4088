//! A generic type whose format needs no schema.

use klamm::prelude::*;

#[derive(Serialize, Deserialize, Record)]
#[record(json)]
struct Page<T> {
    items: Vec<T>,
}

#[kafka_listener(topics = "t", group = "g")]
async fn handle(page: Page<String>) {
    println!("{}", page.items.len());
}
