//! Counts and strings: those that lie cost nothing, and names that no topic may have are refused.
//!
//! Beside these: every message of every version cut, bent and with counts of two billion, under an allocator that
//! counts (`protocol/tests/it/totality.rs`); tags (`protocol/tests/it/tags.rs`); many elements in few bytes
//! (`server/floods.rs: more_elements_than_a_request_can_mean_are_refused`).

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::create_topics::CreatableTopic;
use klamm_protocol::messages::metadata::MetadataRequestTopic;
use klamm_protocol::messages::{ApiVersionsRequest, CreateTopicsRequest, HeartbeatRequest, MetadataRequest};

use super::cases::{Case, Expect, flexible, hold, request};
use super::target::Known;

const METADATA: i16 = 3;
const HEARTBEAT: i16 = 12;
const API_VERSIONS: i16 = 18;
const CREATE_TOPICS: i16 = 19;

fn counts() -> Vec<Case> {
    let mut rows = Vec::new();
    for count in [-2, i32::MIN, i32::MAX, 1_000_000] {
        let body = [&count.to_be_bytes()[..], &[0; 40]].concat();
        rows.push(Case::raw(&format!("{count} topics"), request(METADATA, 1, &body), Expect::Closed));
    }
    // Each topic takes two bytes at least.
    let just_too_many = [&[0, 0, 0, 11][..], &[0; 20]].concat();
    rows.push(Case::raw("one topic more than fits", request(METADATA, 1, &just_too_many), Expect::Closed));
    for (name, varint) in [
        ("a count of six bytes", &[0xff, 0xff, 0xff, 0xff, 0xff, 0x0f][..]),
        ("a count of eleven bytes", &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ("a count of 33 bits", &[0xff, 0xff, 0xff, 0xff, 0x1f]),
        ("the greatest count", &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ("a count without an end", &[0xff, 0xff]),
    ] {
        rows.push(Case::raw(name, flexible(METADATA, 9, varint), Expect::Closed));
    }
    rows.push(Case::raw(
        "a compact string of length 0 where null cannot be",
        flexible(HEARTBEAT, 4, &[0, 0, 0, 0, 1, 1, 0, 0]),
        Expect::Closed,
    ));
    rows.push(Case::raw(
        "a name that is null where null cannot be",
        request(
            CREATE_TOPICS,
            2,
            &[0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0],
        ),
        Expect::Closed,
    ));
    rows.push(Case::raw(
        "a string of a length below null's",
        request(HEARTBEAT, 0, &[0xff, 0xfe, 0, 0, 0, 1, 0, 0]),
        Expect::Closed,
    ));
    let not_text = [0, 0, 0, 1, 0, 3, b'a', 0xff, 0xfe];
    rows.push(Case::raw("a name that is no text", request(METADATA, 1, &not_text), Expect::Closed));
    rows
}

/// Tagged fields behind the body of ApiVersions 3, which has two short strings.
fn tags() -> Vec<Case> {
    let tagged = |tags: &[u8]| flexible(API_VERSIONS, 3, &[&[2, b'x', 2, b'1'], tags].concat());
    let served = |name, tags: &[u8]| Case::bent::<ApiVersionsRequest>(name, tagged(tags), 3, Expect::Served);
    let many: Vec<u8> = (0..20_000_u32)
        .flat_map(|tag| {
            let tag = tag + 100;
            [tag as u8 & 0x7f | 0x80, (tag >> 7) as u8 & 0x7f | 0x80, (tag >> 14) as u8, 0]
        })
        .collect();
    let count_of_many = [0xa0, 0x9c, 0x01];
    let large = [&[1, 50, 0x80, 0x80, 0x20][..], &vec![7; 512 << 10]].concat();
    vec![
        served("a tag that nobody knows", &[1, 50, 3, 1, 2, 3]),
        Case::raw("two billion tags", tagged(&[0xff, 0xff, 0xff, 0xff, 0x07, 1, 0]), Expect::Closed),
        Case::raw("a tag longer than the request", tagged(&[1, 50, 0xff, 0xff, 0x03]), Expect::Closed),
        // KIP-482 asks for ascending tags; Apache Kafka does not look.
        Case::raw("a tag twice", tagged(&[2, 50, 0, 50, 0]), Expect::Closed),
        Case::raw("tags in disorder", tagged(&[2, 51, 0, 50, 0]), Expect::Closed),
        // Apache Kafka keeps them all: CVE-2026-111115.
        Case::raw("twenty thousand tags", tagged(&[&count_of_many[..], &many].concat()), Expect::Closed),
        Case::raw("half a megabyte in one tag", tagged(&large), Expect::Closed),
    ]
}

fn names() -> Vec<Case> {
    let metadata = |name: &str| {
        let topic = MetadataRequestTopic { name: Some(name.into()), ..MetadataRequestTopic::default() };
        MetadataRequest { topics: Some(vec![topic]), ..MetadataRequest::default() }
    };
    let create = |name: &str| {
        let topic = CreatableTopic {
            name: name.into(),
            num_partitions: 1,
            replication_factor: 1,
            ..CreatableTopic::default()
        };
        CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() }
    };
    let refused = || Expect::Refused(ErrorCode::InvalidTopicException);
    let long = "n".repeat(250);
    let wrong = [
        ("an empty name", ""),
        ("a name of 250 letters", &long),
        ("this directory", "."),
        ("the one above", ".."),
        ("a path", "../../etc/passwd"),
        ("a path from the root", "/tmp/x"),
        ("a path of others", "a\\b"),
        ("a NUL", "a\0b"),
        ("a line's end", "a\nb"),
        ("a direction of writing", "a\u{202e}b"),
        ("letters of others", "größe"),
        ("a space", "a b"),
    ];
    let mut rows = Vec::new();
    for (what, name) in wrong {
        rows.push(Case::of(&format!("asked for: {what}"), &metadata(name), 9, refused()));
        rows.push(Case::of(&format!("created: {what}"), &create(name), 5, refused()));
    }
    let longest = "n".repeat(249);
    rows.push(Case::of("the longest name", &create(&longest), 5, Expect::Served));
    let group = |name: &str| HeartbeatRequest { group_id: name.into(), ..HeartbeatRequest::default() };
    let unknown = || Expect::Refused(ErrorCode::UnknownMemberId);
    rows.push(Case::of("a group of lines", &group("a\nb\0\u{202e}"), 4, unknown()));
    rows.push(Case::of("a group of a long name", &group(&"g".repeat(30_000)), 4, unknown()));
    let empty = Expect::Refused(ErrorCode::InvalidGroupId);
    rows.push(Case::of("a group without a name", &group(""), 4, empty));
    rows
}

fn rows(_: &Known) -> Vec<Case> {
    [counts(), tags(), names()].concat()
}

#[tokio::test(start_paused = true)]
async fn counts_that_lie_are_closed_and_names_that_cannot_be_refused() {
    hold("counts and strings", rows).await;
}
