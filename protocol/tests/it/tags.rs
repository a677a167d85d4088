//! Versions, defaults, null and tagged fields: the rules that clients depend on.

use bytes::Bytes;
use klamm_protocol::messages::api_versions::{ApiVersion, FinalizedFeatureKey};
use klamm_protocol::messages::fetch::{FetchableTopicResponse, PartitionData, ReplicaState};
use klamm_protocol::messages::metadata::MetadataRequestTopic;
use klamm_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, FetchRequest, FetchResponse, HeartbeatRequest, MetadataRequest,
};
use klamm_protocol::{DecodeErrorKind, Decoder, EncodeError, Encoder, Message, Records, UnknownTags};

use crate::apis::{decode, encode};

#[track_caller]
fn refused<M: Message>(message: &M, version: i16) -> EncodeError {
    message.encode(&mut Encoder::new(version, false), version).unwrap_err()
}

#[track_caller]
fn broken<M: Message + std::fmt::Debug>(bytes: &[u8], version: i16) -> DecodeErrorKind {
    M::decode(&mut Decoder::new(Bytes::copy_from_slice(bytes)), version).unwrap_err().kind
}

/// librdkafka before 2.2 (Debian's kcat) reads tagged fields one byte short. It can connect only if an ApiVersions
/// answer has no tagged field that equals its default.
#[test]
fn default_tags_are_not_written() {
    let plain = ApiVersionsResponse {
        api_keys: vec![ApiVersion { api_key: 18, min_version: 0, max_version: 4, ..Default::default() }],
        ..Default::default()
    };
    assert_eq!(encode(&plain, 3)[..], [0, 0, 2, 0, 18, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0]);

    // Two set: in order of tags, with their sizes.
    let finalized = ApiVersionsResponse {
        finalized_features_epoch: 5,
        finalized_features: vec![FinalizedFeatureKey {
            name: "x".into(),
            max_version_level: 2,
            min_version_level: 1,
            ..Default::default()
        }],
        ..Default::default()
    };
    let tags = [2, 1, 8, 0, 0, 0, 0, 0, 0, 0, 5, 2, 8, 2, 2, b'x', 0, 2, 0, 1, 0];
    assert_eq!(encode(&finalized, 3)[..], [&[0, 0, 1, 0, 0, 0, 0], &tags[..]].concat());
}

#[test]
fn unknown_tags_come_back_in_order() {
    let unknown = UnknownTags::from_fields([(300, &b""[..]), (7, b"seven")]);
    assert_eq!(unknown.iter().collect::<Vec<_>>(), [(7, &b"seven"[..]), (300, b"")]);
    let response =
        ApiVersionsResponse { finalized_features_epoch: 5, unknown_tags: unknown, ..Default::default() };
    assert_eq!(decode::<ApiVersionsResponse>(&encode(&response, 3), 3), response);

    // In structures inside, with and without known tags.
    let around = UnknownTags::from_fields([(1, &b"before"[..]), (9, b"after")]);
    let partition =
        PartitionData { unknown_tags: UnknownTags::from_fields([(9, &b"after"[..])]), ..Default::default() };
    let topic =
        FetchableTopicResponse { partitions: vec![partition], unknown_tags: around, ..Default::default() };
    let response = FetchResponse { responses: vec![topic], ..Default::default() };
    assert_eq!(decode::<FetchResponse>(&encode(&response, 13), 13), response);
}

#[test]
fn a_tag_of_a_later_version_is_unknown_in_an_earlier_one() {
    // Tag 1 is `replica_state` from version 15; between the known 0 and an unknown 2 it must find its place again.
    let unknown = UnknownTags::from_fields([(1, &b"later"[..]), (2, b"never")]);
    let request = FetchRequest { cluster_id: Some("c".into()), unknown_tags: unknown, ..Default::default() };
    let bytes = encode(&request, 14);
    assert_eq!(decode::<FetchRequest>(&bytes, 14), request);
    assert!(bytes.ends_with(&[
        3, 0, 2, 2, b'c', 1, 5, b'l', b'a', b't', b'e', b'r', 2, 5, b'n', b'e', b'v', b'e', b'r'
    ]));
}

#[test]
fn broken_tag_sections() {
    let body = [1, 1]; // two empty strings of ApiVersionsRequest version 3
    let with = |tags: &[u8]| broken::<ApiVersionsRequest>(&[&body, tags].concat(), 3);
    assert_eq!(with(&[2, 5, 0, 5, 0]), DecodeErrorKind::TagOutOfOrder(5));
    assert_eq!(with(&[2, 5, 0, 4, 0]), DecodeErrorKind::TagOutOfOrder(4));
    assert!(matches!(with(&[9, 5, 0]), DecodeErrorKind::CountTooLarge { count: 9, .. }));
    assert!(matches!(with(&[1, 5, 100, 0]), DecodeErrorKind::UnexpectedEnd { needed: 100, .. }));
    assert_eq!(with(&[0xff, 0xff, 0xff, 0xff, 0x7f]), DecodeErrorKind::VarintOverflow);

    // A known tag (finalized_features_epoch, 8 bytes) with one byte more than it needs.
    let response = [0, 0, 1, 0, 0, 0, 0, 1, 1, 9, 0, 0, 0, 0, 0, 0, 0, 5, 0];
    assert_eq!(broken::<ApiVersionsResponse>(&response, 3), DecodeErrorKind::TagSize(1));

    let size = UnknownTags::MAX_BYTES + 1;
    let mut huge = Encoder::new(3, true);
    huge.put_raw(&[1, 1, 1, 50]);
    huge.put_uvarint(size as u32);
    huge.put_raw(&vec![0; size]);
    assert!(matches!(
        broken::<ApiVersionsRequest>(&huge.finish().bytes, 3),
        DecodeErrorKind::TooManyUnknownTags(_)
    ));
}

#[test]
fn a_value_that_the_version_lacks_is_an_error_unless_harmless() {
    let member = HeartbeatRequest { group_instance_id: Some("static".into()), ..Default::default() };
    let error = refused(&member, 2);
    assert_eq!(error, EncodeError::AbsentField { field: "HeartbeatRequest.group_instance_id", version: 2 });
    assert!(error.to_string().contains("version 2 has no such field"));
    encode(&member, 3);

    // Ignorable: the client's name is dropped.
    let named = ApiVersionsRequest { client_software_name: "klamm".into(), ..Default::default() };
    assert_eq!(encode(&named, 2).len(), 0);

    // A tagged field, not ignorable, in a version that lacks it.
    let state = ReplicaState { replica_id: 3, ..Default::default() };
    let request = FetchRequest { replica_state: state, ..Default::default() };
    assert!(matches!(refused(&request, 14), EncodeError::AbsentField { .. }));
    assert_eq!(decode::<FetchRequest>(&encode(&request, 15), 15), request);

    let tagged =
        ApiVersionsRequest { unknown_tags: UnknownTags::from_fields([(3, &b"x"[..])]), ..Default::default() };
    assert_eq!(refused(&tagged, 2), EncodeError::TagsUnsupported { version: 2 });
}

#[test]
fn null_only_where_the_version_allows_it() {
    let all = MetadataRequest { topics: None, ..Default::default() };
    assert_eq!(refused(&all, 0), EncodeError::NullField { field: "MetadataRequest.topics", version: 0 });
    assert_eq!(encode(&all, 1)[..], [0xff; 4]);
    assert_eq!(broken::<MetadataRequest>(&[0xff; 4], 0), DecodeErrorKind::UnexpectedNull);
    assert_eq!(decode::<MetadataRequest>(&Bytes::from_static(&[0xff; 4]), 1), all);

    let by_id = MetadataRequestTopic { name: None, ..Default::default() };
    let request = MetadataRequest { topics: Some(vec![by_id]), ..Default::default() };
    assert!(matches!(refused(&request, 9), EncodeError::NullField { .. }));
    assert_eq!(decode::<MetadataRequest>(&encode(&request, 10), 10), request);
    // Length -2 is no length.
    assert_eq!(broken::<HeartbeatRequest>(&[0xff, 0xfe], 0), DecodeErrorKind::InvalidLength(-2));
    assert_eq!(broken::<HeartbeatRequest>(&[0, 2, 0xc3, 0x28], 0), DecodeErrorKind::InvalidUtf8);
}

#[test]
fn strings_have_kafkas_limit() {
    let text = "x".repeat(32_768);
    let request = HeartbeatRequest { group_id: text.into(), ..Default::default() };
    assert_eq!(refused(&request, 4), EncodeError::TooLong { len: 32_768 });
    assert_eq!(refused(&request, 0), EncodeError::TooLong { len: 32_768 });
}

#[test]
fn records_elsewhere_become_splices() {
    let partition = |records| PartitionData { records: Some(records), ..Default::default() };
    let response = |first, second| {
        let topic = FetchableTopicResponse {
            partitions: vec![partition(first), partition(second)],
            ..Default::default()
        };
        FetchResponse { responses: vec![topic], ..Default::default() }
    };
    for version in FetchResponse::VERSIONS {
        let here = response(Records::Bytes(vec![7; 1000].into()), Records::Bytes(vec![8; 20].into()));
        let whole = encode(&here, version);

        let there =
            response(Records::External { len: 1000, token: 7 }, Records::External { len: 20, token: 8 });
        let mut out = Encoder::new(version, false);
        there.encode(&mut out, version).unwrap();
        let encoded = out.finish();
        assert_eq!(encoded.total_len(), whole.len());

        let mut joined = Vec::new();
        let mut from = 0;
        for splice in &encoded.splices {
            joined.extend_from_slice(&encoded.bytes[from..splice.position]);
            joined.extend(std::iter::repeat_n(splice.token as u8, splice.len));
            from = splice.position;
        }
        joined.extend_from_slice(&encoded.bytes[from..]);
        assert_eq!(joined, whole, "version {version}");
    }
}
