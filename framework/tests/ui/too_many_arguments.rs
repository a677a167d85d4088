use klamm::prelude::*;

#[kafka_listener(topics = "orders", group = "billing")]
async fn bill(
    _a: Key<String>,
    _b: Value<String>,
    _c: RecordMeta,
    _d: Headers,
    _e: ConsumerRecord,
    _f: State<u8>,
    _g: State<u16>,
    _h: State<u32>,
    _i: State<u64>,
) {
}

fn main() {}
