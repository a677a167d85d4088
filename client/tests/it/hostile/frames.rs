//! Frames that are none, or not the ones that were asked for, on every API that a client uses.

use bytes::{BufMut, Bytes, BytesMut};
use klamm_client::testing::{Answer, Exchange};
use klamm_protocol::ApiKey;

use super::{Case, reads_through, sends_through};

type Make = fn(&Exchange<'_>) -> Bytes;

/// A length, and what stands behind it.
fn framed(length: i32, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_i32(length);
    frame.extend_from_slice(body);
    frame.freeze()
}

/// The usual answer behind its length.
fn body<'a>(exchange: &Exchange<'a>) -> &'a [u8] {
    exchange.answer.get(4..).unwrap_or_default()
}

fn length(exchange: &Exchange<'_>) -> i32 {
    body(exchange).len() as i32
}

const LIES: &[(&str, Make)] = &[
    ("a negative length", |_| framed(-1, &[])),
    ("the most negative length", |_| framed(i32::MIN, &[])),
    ("no length", |_| framed(0, &[])),
    ("no room for a correlation id", |_| framed(3, &[0, 0, 0])),
    ("a length of 2 GiB", |_| framed(i32::MAX, &[0; 64])),
    ("a length above the limit", |_| framed(100 * 1024 * 1024 + 1, &[0; 64])),
    ("a length at the limit, and silence", |exchange| framed(100 * 1024 * 1024, body(exchange))),
    ("one byte more than there is", |exchange| framed(length(exchange) + 1, body(exchange))),
    ("one byte less than there is", |exchange| framed(length(exchange) - 1, body(exchange))),
    ("half an answer, and silence", |exchange| exchange.answer.slice(..exchange.answer.len() / 2)),
    ("half an answer for a whole one", |exchange| {
        let half = &body(exchange)[..body(exchange).len() / 2];
        framed(half.len() as i32, half)
    }),
    ("the answer twice", |exchange| [&exchange.answer[..], &exchange.answer[..]].concat().into()),
    ("another correlation id", |exchange| {
        let mut frame = exchange.answer.to_vec();
        frame[7] ^= 0x55;
        frame.into()
    }),
    ("a negative correlation id", |exchange| {
        let mut frame = exchange.answer.to_vec();
        frame[4] |= 0x80;
        frame.into()
    }),
    ("a correlation id alone", |exchange| framed(4, &body(exchange)[..4])),
    ("ones for a body", |exchange| {
        framed(length(exchange), &[&body(exchange)[..4], &vec![0xff; body(exchange).len() - 4]].concat())
    }),
    ("zeros for a body", |exchange| {
        framed(length(exchange), &[&body(exchange)[..4], &vec![0; body(exchange).len() - 4]].concat())
    }),
    ("an absurd count", |exchange| {
        framed(9, &[&body(exchange)[..4], &[0xff, 0xff, 0xff, 0xff, 0x07]].concat())
    }),
    ("a page of HTTP", |_| Bytes::from_static(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
    ("nothing", |_| Bytes::new()),
];

fn cases(apis: &[ApiKey]) -> Vec<Case> {
    let mut cases = Vec::new();
    for &api in apis {
        for &(name, make) in LIES {
            cases.push(Case::new(format!("{api:?}: {name}"), move |broker| {
                broker.always(api, Answer::tampered(make));
            }));
        }
    }
    cases
}

#[tokio::test(start_paused = true)]
async fn to_a_producer() {
    sends_through(cases(&[ApiKey::Metadata, ApiKey::InitProducerId, ApiKey::Produce])).await;
}

#[tokio::test(start_paused = true)]
async fn to_a_reader() {
    reads_through(cases(&[ApiKey::ListOffsets, ApiKey::Fetch, ApiKey::ApiVersions]), false).await;
}

#[tokio::test(start_paused = true)]
async fn to_a_member() {
    let apis = [
        ApiKey::FindCoordinator,
        ApiKey::JoinGroup,
        ApiKey::SyncGroup,
        ApiKey::OffsetFetch,
        ApiKey::Heartbeat,
        ApiKey::LeaveGroup,
    ];
    reads_through(cases(&apis), true).await;
}

/// What is too long is told and costs nothing: Kafka itself sends bytes behind the body that nobody knows.
#[tokio::test(start_paused = true)]
async fn bytes_behind_an_answer_are_ignored() {
    let trailing: Make = |exchange| framed(length(exchange) + 3, &[body(exchange), &[1, 2, 3]].concat());
    for api in [ApiKey::Metadata, ApiKey::Produce, ApiKey::InitProducerId, ApiKey::ApiVersions] {
        let broker = crate::scripted::start(1).await;
        broker.always(api, Answer::tampered(trailing));
        let client = broker.client().await.unwrap();
        let producer = client.producer().build().unwrap();
        producer.send(klamm_client::Record::to(crate::scripted::TOPIC).value("a")).await.unwrap();
        assert_eq!(broker.requests(ApiKey::Produce), 1, "{api:?}");
    }
}
