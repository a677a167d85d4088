//! Headers: requests that nobody knows, versions that there are not, names of clients.
//!
//! Beside these: every key and version around what there is (`server/floods.rs:
//! what_is_not_announced_is_closed_at_once`); ten thousand requests whose answers nobody reads (`server/bad_input.rs:
//! a_peer_that_never_reads_is_held_back_and_others_are_served`, `server/floods.rs:
//! a_peer_that_does_not_read_large_answers_is_held_back_early`).

use bytes::Bytes;
use klamm_protocol::ErrorCode;
use klamm_protocol::frame::encode_request;
use klamm_protocol::messages::{ApiVersionsRequest, MetadataRequest};

use super::cases::{Case, Expect, flexible, framed, hold, request};
use super::target::Known;

const METADATA: i16 = 3;
const API_VERSIONS: i16 = 18;
/// No topics, in the versions before 9: four bytes of a count, and whether to create any.
const NO_TOPICS: &[u8] = &[0, 0, 0, 0, 0];

fn rows(_: &Known) -> Vec<Case> {
    let mut rows = Vec::new();
    // 4 to 7 are for brokers among each other, 999 is nobody's.
    for key in [-1, i16::MIN, i16::MAX, 4, 7, 999] {
        rows.push(Case::raw(&format!("key {key}"), request(key, 0, &[]), Expect::Closed));
    }
    for version in [-1, i16::MIN, 99, i16::MAX] {
        let name = format!("Metadata {version}");
        rows.push(Case::raw(&name, request(METADATA, version, NO_TOPICS), Expect::Closed));
    }
    for version in [99, i16::MAX] {
        let bytes = flexible(API_VERSIONS, version, &[]);
        let refused = Expect::Refused(ErrorCode::UnsupportedVersion);
        rows.push(Case::bent::<ApiVersionsRequest>(&format!("ApiVersions {version}"), bytes, 0, refused));
    }
    // Older than the oldest: told the range, as in Kafka.
    let bytes = request(API_VERSIONS, -1, &[]);
    let refused = Expect::Refused(ErrorCode::UnsupportedVersion);
    rows.push(Case::bent::<ApiVersionsRequest>("ApiVersions -1", bytes, 0, refused));

    rows.push(Case::raw(
        "a header of version 1 where 2 has to be",
        request(METADATA, 9, &[2, 2, b't', 0, 0, 0, 0, 0]),
        Expect::Closed,
    ));
    rows.push(Case::raw(
        "a header of version 2 where 1 has to be",
        flexible(METADATA, 1, &[0x7f, 0xff, 0xff, 0xff]),
        Expect::Closed,
    ));
    rows.push(Case::raw("no name, not even none", framed(&[0, 3, 0, 1, 0, 0, 0, 7]), Expect::Closed));
    rows.push(Case::raw("half a length of a name", framed(&[0, 3, 0, 1, 0, 0, 0, 7, 0]), Expect::Closed));
    rows.push(Case::raw(
        "a name longer than the request",
        framed(&[0, 3, 0, 1, 0, 0, 0, 7, 0, 9, b'x']),
        Expect::Closed,
    ));
    let named = |name, id| -> Bytes { encode_request(&MetadataRequest::default(), 9, id, name).unwrap() };
    let long = "x".repeat(4_096);
    for (name, bytes) in [
        ("a client without a name", named(None, 1)),
        ("a client with an empty name", named(Some(""), 1)),
        ("a client with a name of 4 KiB", named(Some(&long), 1)),
        ("a client with a name of lines", named(Some("\r\nnobody\t\u{202e}\0"), 1)),
        ("a correlation id below zero", named(Some("x"), -1)),
        ("the least correlation id", named(Some("x"), i32::MIN)),
        ("the same correlation id twice", [named(Some("x"), 5), named(Some("x"), 5)].concat().into()),
    ] {
        rows.push(Case::bent::<MetadataRequest>(name, bytes, 9, Expect::Served));
    }
    // Correlation id 7, as of a request that was never sent, and a body.
    rows.push(Case::raw("an answer", framed(&[0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0]), Expect::Closed));
    rows
}

#[tokio::test(start_paused = true)]
async fn headers_that_nobody_has_are_closed_and_unusual_ones_served() {
    hold("headers", rows).await;
}
