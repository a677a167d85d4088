//! An enum that a header tells apart.

use klamm::prelude::*;
use klamm::serde::UnknownRecord;

#[derive(Serialize, Deserialize)]
struct Placed {
    id: u64,
}

#[derive(Serialize, Deserialize)]
struct Cancelled {
    id: u64,
}

#[derive(Record)]
#[record(json, header = "klamm-type")]
enum Event {
    #[record(name = "order.placed")]
    Placed(Placed),
    Cancelled(Cancelled),
    #[record(other)]
    Other(UnknownRecord),
}

#[kafka_listener(topics = "orders", group = "g")]
async fn handle(event: Event) {
    match event {
        Event::Placed(Placed { id }) | Event::Cancelled(Cancelled { id }) => println!("{id}"),
        Event::Other(UnknownRecord { name, .. }) => println!("{name}"),
    }
}
