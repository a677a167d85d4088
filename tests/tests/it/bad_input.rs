//! What a stranger may throw at the port: the broker closes or answers, stays up, stays small,
//! and goes on serving others.

use std::time::Duration;

use klamm_runtime::{Rng, SeededRng};
use klamm_tests::{BrokerProcess, seed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Offenders are answered or closed within this, and so is everybody else served.
const PATIENCE: Duration = Duration::from_secs(1);
/// Where a connection that says nothing more is closed; short, so that the silent cases need not wait ten minutes.
const IDLE: &str = "connections.max.idle.ms=1500";
const IDLE_PATIENCE: Duration = Duration::from_secs(4);
/// A frame limit small enough to be tested exactly.
const FRAME_BYTES_MAX: usize = 1_048_576;
const RESIDENT_GROWTH_KIB_MAX: u64 = 16 * 1_024;

/// What the broker did with a connection.
#[derive(Debug, PartialEq)]
enum Outcome {
    Closed,
    Answered(Vec<u8>),
}

struct Target {
    broker: BrokerProcess,
    resident_kib: u64,
    _data: tempfile::TempDir,
}

impl Target {
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let frame_limit = format!("socket.request.max.bytes={FRAME_BYTES_MAX}");
        let broker = BrokerProcess::start_with(data.path(), "127.0.0.1:0", &[IDLE, &frame_limit]).await;
        let target = Self { resident_kib: broker.resident_kib(), broker, _data: data };
        target.serves_others().await;
        target
    }

    /// Sends `bytes` on a connection of their own and tells what came of it.
    async fn send(&self, bytes: &[u8], patience: Duration) -> Outcome {
        let mut stream = TcpStream::connect(self.broker.bootstrap()).await.unwrap();
        // The broker may close before it has read everything; that is an outcome, not an error.
        let _ = stream.write_all(bytes).await;
        outcome(&mut stream, patience).await
    }

    /// Another client's request is answered in time.
    async fn serves_others(&self) {
        let answer = self.send(&api_versions(7), PATIENCE).await;
        let Outcome::Answered(body) = answer else { panic!("a well-behaved client was turned away") };
        assert_eq!(&body[..4], &7_i32.to_be_bytes(), "the answer carries the request's correlation id");
    }

    async fn unharmed(&mut self, case: &str) {
        assert!(self.broker.is_running(), "{case}: the broker is gone:\n{}", self.broker.log());
        self.serves_others().await;
        let grown_kib = self.broker.resident_kib().saturating_sub(self.resident_kib);
        assert!(grown_kib <= RESIDENT_GROWTH_KIB_MAX, "{case}: the broker grew by {grown_kib} KiB");
        assert!(!self.broker.log().contains("panicked"), "{case}: a panic:\n{}", self.broker.log());
    }
}

async fn outcome(stream: &mut TcpStream, patience: Duration) -> Outcome {
    let read = async {
        let mut length = [0; 4];
        if stream.read_exact(&mut length).await.is_err() {
            return Outcome::Closed;
        }
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        match stream.read_exact(&mut body).await {
            Ok(_) => Outcome::Answered(body),
            Err(_) => Outcome::Closed,
        }
    };
    timeout(patience, read)
        .await
        .unwrap_or_else(|_| panic!("neither answered nor closed within {patience:?}"))
}

fn frame(body: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(body);
    frame
}

/// ApiVersions v0 from client `bad`.
fn api_versions(correlation_id: i32) -> Vec<u8> {
    let mut body = vec![0, 18, 0, 0];
    body.extend_from_slice(&correlation_id.to_be_bytes());
    body.extend_from_slice(&[0, 3, b'b', b'a', b'd']);
    frame(&body)
}

/// Metadata v1 for all topics.
fn metadata(correlation_id: i32) -> Vec<u8> {
    let mut body = vec![0, 3, 0, 1];
    body.extend_from_slice(&correlation_id.to_be_bytes());
    body.extend_from_slice(&[0, 3, b'b', b'a', b'd', 0xff, 0xff, 0xff, 0xff]);
    frame(&body)
}

/// A Produce v3 request with a record batch of garbage for topic `t`.
fn produce(correlation_id: i32) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 3];
    body.extend_from_slice(&correlation_id.to_be_bytes());
    body.extend_from_slice(&[0, 3, b'b', b'a', b'd', 0xff, 0xff, 0xff, 0xff, 0, 0, 3, 0xe8]);
    body.extend_from_slice(&[0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 70]);
    body.extend((0..70_u8).collect::<Vec<_>>());
    frame(&body)
}

#[tokio::test]
async fn lengths_that_no_frame_has_close_the_connection() {
    let mut target = Target::start().await;
    let too_long = i32::try_from(FRAME_BYTES_MAX + 1).unwrap();
    for length in [0, 1, 3, -1, i32::MIN, i32::MAX, too_long] {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend_from_slice(&[0; 3]);
        assert_eq!(target.send(&bytes, PATIENCE).await, Outcome::Closed, "length {length}");
        target.unharmed(&format!("length {length}")).await;
    }
}

#[tokio::test]
async fn a_frame_of_just_the_limit_is_read() {
    let mut target = Target::start().await;
    // An ApiVersions request followed by padding: the limit concerns the frame, the padding is trailing bytes.
    let mut body = api_versions(5)[4..].to_vec();
    body.resize(FRAME_BYTES_MAX, 0);
    target.send(&frame(&body), Duration::from_secs(5)).await;
    target.unharmed("a frame of the limit").await;
}

#[tokio::test]
async fn silence_after_half_a_frame_is_closed_at_the_idle_limit() {
    let mut target = Target::start().await;
    let whole = api_versions(1);
    for cut in [0, 2, 4, 9] {
        assert_eq!(
            target.send(&whole[..cut], IDLE_PATIENCE).await,
            Outcome::Closed,
            "{cut} bytes, then silence"
        );
    }
    target.unharmed("silence").await;
}

#[tokio::test]
async fn glued_frames_and_single_bytes_are_served_in_order() {
    let mut target = Target::start().await;
    let mut stream = TcpStream::connect(target.broker.bootstrap()).await.unwrap();
    let glued: Vec<u8> =
        (0..20).flat_map(|id| if id % 2 == 0 { api_versions(id) } else { metadata(id) }).collect();
    stream.write_all(&glued).await.unwrap();
    for id in 0..20_i32 {
        let Outcome::Answered(body) = outcome(&mut stream, PATIENCE).await else { panic!("closed at {id}") };
        assert_eq!(&body[..4], &id.to_be_bytes());
    }
    for byte in api_versions(99) {
        stream.write_all(&[byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    let Outcome::Answered(body) = outcome(&mut stream, PATIENCE).await else { panic!("closed") };
    assert_eq!(&body[..4], &99_i32.to_be_bytes());
    target.unharmed("glued frames").await;
}

#[tokio::test]
async fn trailing_bytes_after_a_request_are_ignored() {
    let mut target = Target::start().await;
    let mut body = metadata(3)[4..].to_vec();
    body.extend_from_slice(b"more than the request");
    let answer = target.send(&frame(&body), PATIENCE).await;
    assert!(matches!(answer, Outcome::Answered(_)), "librdkafka from 2.1 on sends some: {answer:?}");
    target.unharmed("trailing bytes").await;
}

#[tokio::test]
async fn other_protocols_are_closed() {
    let mut target = Target::start().await;
    let noise: Vec<u8> = {
        let rng = SeededRng::new(11);
        (0..4_096).map(|_| u8::try_from(rng.below(256)).unwrap() | 0x80).collect()
    };
    let strangers: [(&str, &[u8]); 5] = [
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("TLS", &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n"),
        ("PROXY", b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n"),
        ("noise", &noise),
    ];
    for (name, bytes) in strangers {
        assert_eq!(target.send(bytes, PATIENCE).await, Outcome::Closed, "{name}");
        target.unharmed(name).await;
    }
}

#[tokio::test]
async fn unknown_requests_close_and_an_unknown_version_of_api_versions_is_told_the_range() {
    let mut target = Target::start().await;
    for key in [-1_i16, 999, i16::MAX, 4] {
        let mut body = key.to_be_bytes().to_vec();
        body.extend_from_slice(&[0, 0, 0, 0, 0, 1, 0xff, 0xff]);
        assert_eq!(target.send(&frame(&body), PATIENCE).await, Outcome::Closed, "api key {key}");
    }
    for version in [-1_i16, 99] {
        let mut body = vec![0, 3];
        body.extend_from_slice(&version.to_be_bytes());
        body.extend_from_slice(&[0, 0, 0, 1, 0xff, 0xff]);
        assert_eq!(target.send(&frame(&body), PATIENCE).await, Outcome::Closed, "Metadata version {version}");
    }
    let mut body = vec![0, 18, 0, 99];
    body.extend_from_slice(&[0, 0, 0, 1, 0xff, 0xff, 0]);
    let Outcome::Answered(answer) = target.send(&frame(&body), PATIENCE).await else { panic!("closed") };
    assert_eq!(&answer[4..6], &35_i16.to_be_bytes(), "UNSUPPORTED_VERSION, in the layout of version 0");
    target.unharmed("unknown requests").await;
}

#[tokio::test]
async fn a_reader_who_never_reads_is_bounded() {
    let mut target = Target::start().await;
    let mut stream = TcpStream::connect(target.broker.bootstrap()).await.unwrap();
    let requests: Vec<u8> = (0..10_000).flat_map(metadata).collect();
    // The broker stops reading at some point: the write stalls rather than filling the broker's memory.
    let _ = timeout(Duration::from_secs(2), stream.write_all(&requests)).await;
    target.unharmed("ten thousand requests without reading").await;
}

#[tokio::test]
async fn mutations_of_each_frame_do_no_harm() {
    let mut target = Target::start().await;
    let rng = SeededRng::new(seed(20_261_120));
    for original in [api_versions(1), metadata(2), produce(3)] {
        for round in 0..300 {
            let mutated = mutate(&original, &rng);
            let mut stream = TcpStream::connect(target.broker.bootstrap()).await.unwrap();
            let _ = stream.write_all(&mutated).await;
            // The end of our side lets the broker finish with half a frame at once.
            let _ = stream.shutdown().await;
            let mut sink = Vec::new();
            let ended = timeout(Duration::from_secs(5), stream.read_to_end(&mut sink)).await;
            assert!(ended.is_ok(), "round {round}: no end for {mutated:02x?}");
        }
        target.unharmed("mutations").await;
    }
}

/// One of: a flipped bit, a length moved by one, a piece cut out, a piece doubled, a truncated end.
fn mutate(original: &[u8], rng: &SeededRng) -> Vec<u8> {
    let mut bytes = original.to_vec();
    let at = |bound: usize| usize::try_from(rng.below(bound as u64)).unwrap();
    match rng.below(5) {
        0 => {
            let position = at(bytes.len());
            bytes[position] ^= 1 << at(8);
        }
        1 => {
            let position = at(bytes.len());
            bytes[position] = bytes[position].wrapping_add(if rng.below(2) == 0 { 1 } else { 255 });
        }
        2 => {
            let start = at(bytes.len());
            let end = start + at(bytes.len() - start);
            bytes.drain(start..end);
        }
        3 => {
            let start = at(bytes.len());
            let piece = bytes[start..].to_vec();
            bytes.extend(piece);
        }
        _ => bytes.truncate(at(bytes.len())),
    }
    bytes
}
