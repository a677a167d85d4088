use klamm::prelude::*;

const ORDER: &str = r#"{"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}]}"#;

#[derive(Serialize, Deserialize, Record)]
#[record(avro, registry, schema = ORDER)]
struct Order {
    id: i64,
}

#[derive(Record)]
#[record(header = "klamm-type")]
enum Event {
    Placed(Order),
    Note(String),
}

fn main() {}
