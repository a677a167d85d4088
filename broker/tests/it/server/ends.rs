//! Where a request ends: bytes behind its last field are ignored, and one that is cut anywhere is refused.
//!
//! librdkafka from 2.1 to at least 2.15 asks for the metadata of all topics with three bytes too many. Kafka ignores
//! them, and this broker closed the connection: `list_topics()`, subscriptions by pattern and `kcat -L` failed.
//! Debian's kcat is older than that.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests fail like tests.

use klamm_protocol::Request;
use klamm_protocol::frame::encode_request;
use klamm_protocol::messages::create_topics::CreatableTopic;
use klamm_protocol::messages::join_group::JoinGroupRequestProtocol;
use klamm_protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_protocol::messages::metadata::MetadataRequestTopic;
use klamm_protocol::messages::*;

use super::wire::*;

/// The frame of a request with `tail` behind it, and the length to go with them.
fn frame<R: Request>(request: &R, version: i16, tail: &[u8]) -> Vec<u8> {
    let mut frame = encode_request(request, version, 1, Some("wire")).unwrap().to_vec();
    frame.extend_from_slice(tail);
    with_length(frame)
}

fn with_length(mut frame: Vec<u8>) -> Vec<u8> {
    let len = frame.len() as i32 - 4;
    frame[..4].copy_from_slice(&len.to_be_bytes());
    frame
}

/// Asks in each version with bytes behind, on one connection: it is answered each time, and with no less than without
/// them.
async fn tails<R: Request>(memory: &InMemory, request: R, versions: std::ops::RangeInclusive<i16>) {
    let mut wire = memory.connect().await;
    for version in versions {
        let mut answers = Vec::new();
        for tail in [&[][..], &[0], &[1, 0, 0], &[0xff; 3], &[0; 70_000]] {
            wire.send_raw(&frame(&request, version, tail)).await;
            let answer = wire.receive_raw().await;
            let case = format!("{} version {version}, {} bytes behind", R::NAME, tail.len());
            answers.push(answer.unwrap_or_else(|| panic!("{case}: closed")).len());
        }
        assert!(answers.iter().all(|len| *len == answers[0]), "{} version {version}: {answers:?}", R::NAME);
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_behind_the_last_field_of_any_request_are_ignored() {
    let memory = InMemory::start().await;
    memory.connect().await.metadata(&["t"]).await;
    let all = MetadataRequest { topics: None, ..MetadataRequest::default() };
    tails(&memory, all, 1..=13).await;
    tails(&memory, produce_request("t", batch(&["a"]), -1), 3..=12).await;
    tails(&memory, fetch_request("nowhere", 0, 0), 4..=12).await;
    tails(&memory, FetchRequest::default(), 13..=18).await;
    tails(&memory, ListOffsetsRequest::default(), 1..=11).await;
    tails(&memory, OffsetCommitRequest::default(), 2..=9).await;
    tails(&memory, OffsetFetchRequest::default(), 8..=9).await;
    tails(&memory, FindCoordinatorRequest { key: "g".into(), ..Default::default() }, 0..=3).await;
    tails(&memory, FindCoordinatorRequest::default(), 4..=6).await;
    tails(&memory, JoinGroupRequest::default(), 0..=9).await;
    tails(&memory, HeartbeatRequest::default(), 0..=4).await;
    tails(&memory, LeaveGroupRequest::default(), 0..=2).await;
    tails(&memory, LeaveGroupRequest::default(), 3..=5).await;
    tails(&memory, SyncGroupRequest::default(), 0..=5).await;
    tails(&memory, DescribeGroupsRequest::default(), 0..=6).await;
    tails(&memory, ListGroupsRequest::default(), 0..=5).await;
    tails(&memory, ApiVersionsRequest::default(), 0..=2).await;
    tails(&memory, api_versions(), 3..=5).await;
    tails(&memory, CreateTopicsRequest::default(), 2..=7).await;
    tails(&memory, DeleteTopicsRequest::default(), 1..=6).await;
    tails(&memory, InitProducerIdRequest::default(), 0..=5).await;
}

fn api_versions() -> ApiVersionsRequest {
    ApiVersionsRequest {
        client_software_name: "wire".into(),
        client_software_version: "1".into(),
        ..ApiVersionsRequest::default()
    }
}

/// Every beginning of the request, each with the length that it has, on a connection of its own: all are refused, the
/// whole is answered.
async fn cuts<R: Request>(memory: &InMemory, request: R, version: i16) {
    let whole = frame(&request, version, &[]);
    for cut in 4..=whole.len() {
        let mut wire = memory.connect().await;
        wire.send_raw(&with_length(whole[..cut].to_vec())).await;
        let answered = wire.receive_raw().await.is_some();
        assert_eq!(answered, cut == whole.len(), "{} cut to {cut} of {} bytes", R::NAME, whole.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_cut_at_any_byte_is_refused() {
    let memory = InMemory::start().await;
    let name = MetadataRequestTopic { name: Some("t".into()), ..MetadataRequestTopic::default() };
    cuts(&memory, MetadataRequest { topics: Some(vec![name]), ..MetadataRequest::default() }, 13).await;
    cuts(&memory, produce_request("t", batch(&["a", "b"]), -1), 12).await;
    cuts(&memory, fetch_request("t", 0, 0), 12).await;
    let offsets = ListOffsetsTopic {
        name: "t".into(),
        partitions: vec![ListOffsetsPartition::default()],
        ..ListOffsetsTopic::default()
    };
    cuts(&memory, ListOffsetsRequest { topics: vec![offsets], ..ListOffsetsRequest::default() }, 11).await;
    let protocol = JoinGroupRequestProtocol { name: "range".into(), ..JoinGroupRequestProtocol::default() };
    let join = JoinGroupRequest { group_id: "".into(), protocols: vec![protocol], ..Default::default() };
    cuts(&memory, join, 9).await;
    let topic = CreatableTopic { name: "cut".into(), ..CreatableTopic::default() };
    cuts(&memory, CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() }, 7).await;
    cuts(&memory, api_versions(), 5).await;
    cuts(&memory, InitProducerIdRequest::default(), 5).await;
}

/// A header that ends early, with the lengths of its client id lying: refused without a word.
#[tokio::test(start_paused = true)]
async fn a_header_whose_client_id_lies_about_its_length_is_refused() {
    let memory = InMemory::start().await;
    for length in [-2_i16, i16::MIN, 5, i16::MAX] {
        let mut wire = memory.connect().await;
        let mut header = vec![0, 0, 0, 0, 0, 3, 0, 9, 0, 0, 0, 1];
        header.extend(length.to_be_bytes());
        header.extend(b"abc");
        wire.send_raw(&with_length(header)).await;
        assert_eq!(wire.receive_raw().await, None, "{length}");
    }
}
