//! Frames: lengths that no frame has, strangers' protocols, frames that end early or late.
//!
//! Beside these: two frames in one write and one byte a write (`glued_frames_and_single_bytes_are_served_in_order`,
//! and over TCP all of these, in `tests/tests/it/bad_input.rs`); a frame of exactly the limit (`server/bad_input.rs:
//! a_request_may_be_as_large_as_the_limit_and_no_larger`); silence (`silence_is_borne_for_its_time`).

use bytes::Bytes;
use klamm_protocol::messages::{ApiVersionsRequest, MetadataRequest};
use klamm_runtime::Rng;

use super::cases::{Case, Expect, frame_of, hold};
use super::rng;
use super::target::{Known, READ_TIMEOUT, REQUEST_MAX};

/// What `/api/versions` looks like to the wrong port.
const HTTP: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const TLS: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 1, 2, 3];
const SSH: &[u8] = b"SSH-2.0-OpenSSH_9.2\r\n";
const PROXY: &[u8] = b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n";
const PROXY_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01\0\x01\0\x02";

fn rows(_: &Known) -> Vec<Case> {
    let with_length = |length: i64| [&(length as i32).to_be_bytes()[..], &[0; 12]].concat();
    let lengths = [0, 1, 3, 7, -1, i64::from(i32::MIN), i64::from(i32::MAX), REQUEST_MAX as i64 + 1];
    let mut rows: Vec<Case> = lengths
        .iter()
        .map(|length| Case::raw(&format!("length {length}"), with_length(*length), Expect::Closed))
        .collect();
    let noise = rng(11, "noise", 0);
    let noise: Vec<u8> = (0..4_096).map(|_| noise.next_u64() as u8 | 0x80).collect();
    for (name, bytes) in [
        ("HTTP", HTTP),
        ("TLS", TLS),
        ("SSH", SSH),
        ("PROXY", PROXY),
        ("PROXY in its second version", PROXY_2),
        ("noise", &noise),
    ] {
        rows.push(Case::raw(name, bytes.to_vec(), Expect::Closed));
    }
    let whole = frame_of(&MetadataRequest::default(), 9);
    for cut in [2, 4, 9, whole.len() - 1] {
        let name = format!("{cut} of {} bytes, then silence", whole.len());
        rows.push(Case::raw(&name, whole.slice(..cut), Expect::ClosedAfter(READ_TIMEOUT)));
    }
    let versions = frame_of(&ApiVersionsRequest::default(), 0);
    let glued: Bytes = [&versions[..], &whole].concat().into();
    rows.push(Case::bent::<ApiVersionsRequest>("two frames in one piece", glued, 0, Expect::Served));
    for more in [3, 1_000, REQUEST_MAX - versions.len() + 4] {
        let mut late = versions.to_vec();
        late.resize(versions.len() + more, 0xa5);
        let len = (late.len() - 4) as u32;
        late[..4].copy_from_slice(&len.to_be_bytes());
        let name = format!("{more} bytes behind the request");
        rows.push(Case::bent::<ApiVersionsRequest>(&name, late, 0, Expect::Served));
    }
    rows
}

#[tokio::test(start_paused = true)]
async fn what_is_no_frame_is_closed_and_what_is_one_is_served() {
    hold("frames", rows).await;
}
