//! Types that say how they are written, as arguments of listeners.

use klamm::prelude::*;

#[derive(Serialize, Deserialize, Record)]
#[record(json, topic = "orders", key = id)]
struct AsJson {
    id: u64,
}

#[derive(Serialize, Deserialize, Record)]
#[record(bincode)]
struct AsBincode(u64);

#[derive(Serialize, Deserialize, Record)]
#[record(postcard)]
enum AsPostcard {
    One,
    Two { of: String },
}

#[derive(Serialize, Deserialize, Record)]
#[record(msgpack)]
struct AsMsgpack;

#[kafka_listener(topics = "t", group = "g")]
async fn one(_order: AsJson, _key: Key<String>) {}

#[kafka_listener(topics = "t", group = "g")]
async fn perhaps(_order: Option<AsBincode>) {}

#[kafka_listener(topics = "t", group = "g")]
async fn or_why_not(_order: Result<AsPostcard, Rejection>) {}

#[kafka_listener(topics = "t", group = "g", batch)]
async fn several(_orders: Batch<AsMsgpack>) {}

#[test]
fn works() {
    use klamm::serde::{RecordKey, RecordTopic};
    assert_eq!((AsJson::TOPIC, AsJson { id: 7 }.key()), ("orders", &7));
    let _ = (AsPostcard::One, AsPostcard::Two { of: String::new() });
}
