//! Every form that a record type, and a struct of headers, may have.

use klamm::prelude::*;
use klamm::serde::{
    AvroSchema, Bytes, DefaultSerde, FromHeaders, HeaderValue, IntoHeaders, JsonSchema, RecordKey,
    RecordTopic, SerdeError, Tagged, UnknownRecord,
};

#[derive(Serialize, Deserialize, Record)]
#[record(json, topic = "orders", key = id)]
struct Order {
    id: String,
}

#[derive(Serialize, Deserialize, Record)]
#[record(msgpack)]
enum Plain {
    #[allow(dead_code)]
    A,
    B {
        n: u8,
    },
}

#[derive(Serialize, Deserialize, Record)]
#[record(bincode)]
struct Generic<T: Default, const N: usize>
where
    T: Clone,
{
    of: Option<T>,
}

#[derive(Serialize, Deserialize, Record)]
#[record(avro, schema = SCHEMA)]
struct Unregistered {
    id: i64,
}

const SCHEMA: &str = r#"{"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}]}"#;

#[derive(Serialize, Deserialize, Record)]
#[record(avro, registry, schema = SCHEMA)]
struct FromText {
    id: i64,
}

#[derive(Serialize, Deserialize, Record)]
#[record(avro)]
struct OwnSchema {
    id: i64,
}

impl AvroSchema for OwnSchema {
    fn get_schema() -> klamm::serde::AvroSchemaText {
        klamm::serde::AvroSchemaText::parse_str(SCHEMA).unwrap()
    }
}

#[derive(Serialize, Deserialize, JsonSchema, Record)]
#[schemars(crate = "klamm::serde::schemars")]
#[record(json_schema, registry)]
struct Checked {
    id: i64,
}

mod events {
    use super::*;

    #[derive(Record)]
    #[record(header = "klamm-type")]
    pub(crate) enum Event {
        /// Each in its own format.
        Placed(Order),
        #[record(name = "plain")]
        Plain(super::Plain),
        Text(String),
        #[record(other)]
        Other(UnknownRecord),
    }
}

#[derive(Default, Headers)]
#[headers(rename_all = "camelCase")]
struct Trace {
    trace_id: String,
    #[header(big_endian)]
    attempt: Option<i32>,
    #[header(rename = "x", big_endian)]
    numbers: Vec<u64>,
    raw: Vec<u8>,
    bytes: Bytes,
    r#type: Option<bool>,
    tenant: Tenant,
}

#[derive(Default)]
struct Tenant(u8);

impl HeaderValue for Tenant {
    fn from_header(bytes: &[u8]) -> Result<Self, SerdeError> {
        u8::from_header(bytes).map(Self)
    }

    fn to_header(&self) -> Bytes {
        self.0.to_header()
    }
}

#[derive(Headers)]
struct NoHeaders {}

#[kafka_listener(topics = Order::TOPIC, group = "g")]
async fn all(order: Order, trace: Trace, nothing: NoHeaders) {
    let _: &String = order.key();
    let _ = (trace.into_headers(), nothing.into_headers());
}

#[kafka_listener(topics = "a", group = "g", batch)]
async fn many(batch: Batch<(RecordMeta, Option<Order>, Trace)>) {
    drop(batch);
}

#[kafka_listener(topics = "a", group = "g")]
async fn events(event: events::Event, registered: Result<FromText, Rejection>, checked: Option<Checked>) {
    drop((event, registered, checked));
}

fn is_written<T: DefaultSerde>() {}

#[test]
fn works() {
    is_written::<Generic<String, 3>>();
    is_written::<Option<Unregistered>>();
    is_written::<OwnSchema>();
    assert_eq!(Trace::NAMES, ["traceId", "attempt", "x", "raw", "bytes", "type", "tenant"]);
    assert_eq!(<events::Event as Tagged>::NAMES, ["Placed", "plain", "Text"]);
    assert!(Trace::from_headers(&Headers::new()).is_err());
    let _ = Plain::B { n: 1 };
    let _ = App::new("127.0.0.1:1").listener(all).listener(many).listener(events);
}
