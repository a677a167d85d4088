//! Structs of headers, with every kind of field.

use klamm::prelude::*;
use klamm::serde::{Bytes, FromHeaders, IntoHeaders};

#[derive(Debug, PartialEq, Headers)]
#[headers(rename_all = "kebab-case")]
struct Trace {
    trace_id: String,
    #[header(big_endian)]
    hops: i32,
    tenant: Option<u64>,
    #[header(rename = "tag")]
    tags: Vec<String>,
    raw: Option<Bytes>,
    is_test: bool,
    r#type: Option<String>,
}

#[derive(Headers)]
struct None {}

#[kafka_listener(topics = "t", group = "g")]
async fn handle(_trace: Trace, _perhaps: Option<Trace>, _wrong: Result<Trace, Rejection>, _none: None) {}

#[test]
fn works() {
    let make = || Trace {
        trace_id: "7f".into(),
        hops: 2,
        tenant: Some(7),
        tags: vec!["a".into()],
        raw: Option::None,
        is_test: true,
        r#type: Option::None,
    };
    let sent = klamm::client::Headers::from(make().into_headers());
    assert_eq!(Trace::from_headers(&sent).unwrap(), make());
}
