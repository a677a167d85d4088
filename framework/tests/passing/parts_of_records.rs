//! Every part that a record has, and those that may be missing.

use klamm::client::Headers;
use klamm::prelude::*;
use klamm::trace::TraceContext;

#[kafka_listener(topics = "t", group = "g")]
async fn all(
    Key(_key): Key<String>,
    Value(_value): Value<Vec<u8>>,
    Header(_tenant): Header<"tenant", i64>,
    _headers: Headers,
    _meta: RecordMeta,
    _trace: TraceContext,
    _record: ConsumerRecord,
    _state: State<String>,
) {
}

#[kafka_listener(topics = "t", group = "g")]
async fn perhaps(
    _key: Option<Key<i32>>,
    _value: Option<Value<f64>>,
    _header: Option<Header<"a-b.c", String>>,
    _wrong: Result<Key<bool>, Rejection>,
    (_more, _of_them): (RecordMeta, Option<Header<"d", String>>),
) {
}

#[kafka_listener(topics = "t", group = "g")]
async fn nothing() {}
