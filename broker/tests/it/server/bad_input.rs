//! What is not a request ends its connection, and only that one.

use std::time::Duration;

use klamm_protocol::frame::encode_request;
use klamm_protocol::messages::{ApiVersionsRequest, MetadataRequest, ProduceRequest};
use tokio::time::Instant;

use super::wire::*;

#[tokio::test(start_paused = true)]
async fn broken_frames_close_only_their_own_connection() {
    let memory = InMemory::start().await;
    let mut good = memory.connect().await;
    let mut unknown_api = 8_i32.to_be_bytes().to_vec();
    unknown_api.extend([0x7f, 0xff, 0, 0, 0, 0, 0, 1]);
    let mut cut_off = encode_request(&MetadataRequest::default(), 9, 1, Some("x")).unwrap().to_vec();
    let len = cut_off.len() as i32 - 5;
    cut_off.truncate(cut_off.len() - 1);
    cut_off[..4].copy_from_slice(&len.to_be_bytes());
    let cases: [(&str, &[u8]); 7] = [
        ("length 0", &[0; 4]),
        ("negative length", &[0xff; 4]),
        ("huge length", &[0x7f, 0xff, 0xff, 0xff]),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n"),
        ("TLS", &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]),
        ("unknown API", &unknown_api),
        ("cut off", &cut_off),
    ];
    for (name, bytes) in cases {
        let mut bad = memory.connect().await;
        let start = Instant::now();
        bad.send_raw(bytes).await;
        assert_eq!(bad.receive_raw().await, None, "{name}");
        assert!(start.elapsed() <= Duration::from_secs(1), "{name}");
        assert_eq!(good.metadata(&[]).await.error_code, 0, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_before_the_broken_frame_is_answered() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    let id = wire.send_in(&MetadataRequest::default(), 9).await;
    wire.send_raw(&[0xff; 4]).await;
    assert_eq!(wire.receive_in::<MetadataRequest>(9).await.0, id);
    assert_eq!(wire.receive_raw().await, None);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_version_of_api_versions_is_told_what_there_is_and_of_others_not() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    let mut frame = encode_request(&ApiVersionsRequest::default(), 0, 7, None).unwrap().to_vec();
    frame[7] = 99;
    // A flexible header goes with it, whose tags are missing: put none.
    frame.push(0);
    frame[3] += 1;
    wire.send_raw(&frame).await;
    let (id, answer) = wire.receive_in::<ApiVersionsRequest>(0).await;
    assert_eq!((id, answer.error_code), (7, 35));
    assert!(answer.api_keys.iter().any(|api| api.api_key == 18 && api.max_version == 5));
    // The connection goes on.
    assert_eq!(wire.ask_in(&ApiVersionsRequest::default(), 0).await.error_code, 0);

    // Produce is announced from 0 but served from 3.
    let mut frame = encode_request(&ProduceRequest::default(), 3, 8, None).unwrap().to_vec();
    frame[7] = 2;
    wire.send_raw(&frame).await;
    assert_eq!(wire.receive_raw().await, None);
}

#[tokio::test(start_paused = true)]
async fn silence_is_borne_for_its_time() {
    let memory = InMemory::with(|builder| {
        builder.set("connections.max.idle.ms", 60_000).set("request.read.timeout.ms", 5_000)
    })
    .await;
    let mut idle = memory.connect().await;
    let start = Instant::now();
    assert_eq!(idle.receive_raw().await, None);
    assert_eq!(start.elapsed(), Duration::from_secs(60));
    let mut half = memory.connect().await;
    half.send_raw(&[0, 0, 0, 100, 0, 3]).await;
    let start = Instant::now();
    assert_eq!(half.receive_raw().await, None);
    assert!(start.elapsed() >= Duration::from_secs(5) && start.elapsed() < Duration::from_secs(6));

    // A long poll is not idle.
    let mut patient = memory.connect().await;
    patient.metadata(&["t"]).await;
    let start = Instant::now();
    let answer = patient.ask_in(&fetch_request("t", 0, 200_000), 12).await;
    assert_eq!((answer.error_code, start.elapsed()), (0, Duration::from_secs(200)));
}

#[tokio::test(start_paused = true)]
async fn a_request_may_be_as_large_as_the_limit_and_no_larger() {
    for (len, served) in [(1_000, true), (1_001, false)] {
        let memory = InMemory::with(|builder| builder.set("socket.request.max.bytes", 1_000)).await;
        let mut wire = memory.connect().await;
        wire.metadata(&["t"]).await;
        let empty =
            encode_request(&produce_request("t", batch(&[""]), -1), 3, 1, Some("wire")).unwrap().len() - 4;
        // One byte more for each of two lengths that grow to two bytes.
        let value = "x".repeat(len - empty - 2);
        let request = produce_request("t", batch(&[&value]), -1);
        assert_eq!(encode_request(&request, 3, 1, Some("wire")).unwrap().len(), len + 4);
        wire.send_in(&request, 3).await;
        assert_eq!(wire.receive_raw().await.is_some(), served, "{len}");
    }
}

#[tokio::test(start_paused = true)]
async fn connections_over_the_limit_are_closed_and_the_others_served() {
    let memory = InMemory::with(|builder| builder.set("max.connections", 2)).await;
    let (mut first, mut second) = (memory.connect().await, memory.connect().await);
    first.metadata(&[]).await;
    second.metadata(&[]).await;
    assert_eq!(memory.connect().await.receive_raw().await, None);
    first.metadata(&[]).await;
    drop(first);
    tokio::time::sleep(Duration::from_secs(10)).await;
    memory.connect().await.metadata(&[]).await;
    second.metadata(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_reads_is_held_back_and_others_are_served() {
    let memory = InMemory::start().await;
    let mut deaf = memory.connect().await;
    let mut good = memory.connect().await;
    let frame = encode_request(&ApiVersionsRequest::default(), 0, 7, None).unwrap();
    let flood = async {
        for _ in 0..100_000 {
            deaf.send_raw(&frame).await;
        }
    };
    let finished = tokio::time::timeout(Duration::from_secs(5), flood).await;
    assert!(finished.is_err(), "the broker stops reading at some point");
    good.metadata(&[]).await;
}
