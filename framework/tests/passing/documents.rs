//! Types with a JSON Schema, found by the macros or named, and types without one.

use klamm::asyncapi::JsonSchema;
use klamm::prelude::*;

#[derive(Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "klamm::serde::schemars")]
struct Order {
    id: u64,
}

#[derive(Serialize, Deserialize)]
struct Bare;

struct Opaque;

#[kafka_listener(topics = "t", group = "g")]
async fn handle(
    _order: Json<Order>,
    _bare: Option<Json<Bare>>,
) -> Result<Reply<Json<Vec<Order>>>, &'static str> {
    Err("no")
}

#[kafka_listener(topics = "t", group = "g")]
async fn state(_state: State<std::sync::Arc<Opaque>>) {}

#[test]
fn works() {
    let _ = App::new("b:1").info("orders", "1").schema::<Vec<Order>>().listener(handle);
}
