//! Bytes of real clients, one by one, and headers of all versions.

use bytes::Bytes;
use klamm_protocol::frame::{
    LENGTH_BYTES, decode_request_header, decode_response, encode_request, encode_request_in_parts,
    encode_response,
};
use klamm_protocol::messages::fetch::{FetchableTopicResponse, PartitionData};
use klamm_protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use klamm_protocol::messages::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use klamm_protocol::messages::produce::{PartitionProduceData, TopicProduceData};
use klamm_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, FetchRequest, FetchResponse, HeartbeatRequest,
    InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest,
    ProduceRequest,
};
use klamm_protocol::records::batches;
use klamm_protocol::{
    ApiKey, Decoder, EncodeError, ErrorCode, Message, Records, Request, Uuid, supported_versions,
};

/// Hexadecimal digits, with spaces and line ends between them.
fn hex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let text = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(text).collect::<Vec<u8>>().into()
}

/// Reads a captured request, and shows that writing it again gives the same bytes.
#[track_caller]
fn captured<R: Request>(frame: &str, version: i16, correlation_id: i32) -> R {
    let frame = hex(frame);
    let mut input = Decoder::new(frame.slice(LENGTH_BYTES..));
    let header = decode_request_header(&mut input).unwrap();
    assert_eq!((header.api_key, header.api_version), (R::KEY.code(), version));
    assert_eq!(header.correlation_id, correlation_id);
    assert_eq!(header.client_id.as_deref(), Some("rdkafka"));
    let request = R::decode(&mut input, version).unwrap();
    assert_eq!(input.remaining(), 0);
    assert_eq!(encode_request(&request, version, correlation_id, Some("rdkafka")).unwrap(), frame);
    request
}

// The frames below were captured from kcat 1.7.1 with librdkafka 2.0.2 (Debian 12).

/// Its first request; header version 2, whose client id is not compact.
#[test]
fn kcat_api_versions() {
    let request: ApiVersionsRequest = captured(
        "00000024 0012 0003 00000001 0007 72646b61666b61 00
         0b 6c696272646b61666b61 06 322e302e32 00",
        3,
        1,
    );
    assert_eq!((&*request.client_software_name, &*request.client_software_version), ("librdkafka", "2.0.2"));
}

/// A consumer asks for a topic without creating it.
#[test]
fn kcat_metadata() {
    let request: MetadataRequest =
        captured("0000001e 0003 0004 00000002 0007 72646b61666b61 00000001 0006 676f6c64656e 00", 4, 2);
    let topics = request.topics.unwrap();
    assert_eq!(topics[0].name.as_deref(), Some("golden"));
    assert!(!request.allow_auto_topic_creation);
}

/// One record with key "key", value "hello" and header h=v; acks=1.
#[test]
fn kcat_produce() {
    let request: ProduceRequest = captured(
        "00000081 0000 0007 00000003 0007 72646b61666b61
         ffff 0001 00007530 00000001 0006 676f6c64656e 00000001 00000000 00000050
         0000000000000000 00000044 00000000 02 e33b878f 0000 00000000
         000001a1faf42c2e 000001a1faf42c2e ffffffffffffffff ffff ffffffff 00000001
         24 00 00 00 06 6b6579 0a 68656c6c6f 02 02 68 02 76",
        7,
        3,
    );
    assert_eq!((request.acks, request.timeout_ms, &request.transactional_id), (1, 30_000, &None));
    let topic = &request.topic_data[0];
    assert_eq!((&*topic.name, topic.partition_data[0].index), ("golden", 0));
    let records = topic.partition_data[0].records.clone().and_then(Records::into_bytes).unwrap();
    let batch = batches(records).next().unwrap().unwrap();
    batch.verify_crc().unwrap();
    assert_eq!(batch.header().record_count, 1);
}

/// The lookup of the first offset, and the fetch from it without a session.
#[test]
fn kcat_list_offsets_and_fetch() {
    let lookup: ListOffsetsRequest = captured(
        "00000032 0002 0002 00000004 0007 72646b61666b61
         ffffffff 01 00000001 0006 676f6c64656e 00000001 00000000 fffffffffffffffe",
        2,
        4,
    );
    assert_eq!((lookup.replica_id, lookup.isolation_level), (-1, 1));
    assert_eq!(lookup.topics[0].partitions[0].timestamp, -2);

    let fetch: FetchRequest = captured(
        "0000005c 0001 000b 00000005 0007 72646b61666b61
         ffffffff 000001f4 00000001 03200000 01 00000000 ffffffff
         00000001 0006 676f6c64656e 00000001 00000000 ffffffff 0000000000000000 ffffffffffffffff 00100000
         00000000 0000",
        11,
        5,
    );
    assert_eq!((fetch.max_wait_ms, fetch.min_bytes, fetch.max_bytes), (500, 1, 50 << 20));
    assert_eq!((fetch.session_id, fetch.session_epoch), (0, -1));
    assert_eq!(fetch.topics[0].partitions[0].partition_max_bytes, 1 << 20);
}

/// Bodies that Kafka's own Java classes (kafka-clients 4.3.0) wrote, in the versions that the oracle of the
/// differential tests lacks. ApiVersions 5 is newer still (Kafka 4.4).
#[test]
fn bodies_of_kafka_clients() {
    #[track_caller]
    fn check<M: Message + PartialEq + std::fmt::Debug>(body: &str, version: i16, expected: &M) {
        let body = hex(body);
        assert_eq!(M::decode(&mut Decoder::new(body.clone()), version).as_ref(), Ok(expected));
        assert_eq!(crate::apis::encode(expected, version), body);
    }
    let topic_id = Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);

    let init = InitProducerIdRequest {
        transactional_id: Some("t".into()),
        transaction_timeout_ms: 5,
        producer_id: 6,
        producer_epoch: 7,
        enable_2_pc: true,
        ..Default::default()
    };
    check("0274 00000005 0000000000000006 0007 01 00 00", 6, &init);

    let lookup = ListOffsetsPartition {
        partition_index: 2,
        current_leader_epoch: 3,
        timestamp: -6,
        ..Default::default()
    };
    let topic = ListOffsetsTopic { name: "t".into(), partitions: vec![lookup], ..Default::default() };
    let list =
        ListOffsetsRequest { isolation_level: 1, timeout_ms: 9, topics: vec![topic], ..Default::default() };
    check("ffffffff 01 02 0274 02 00000002 00000003 fffffffffffffffa 00 00 00000009 00", 11, &list);

    let commit = OffsetCommitRequestPartition {
        partition_index: 1,
        committed_offset: 2,
        committed_leader_epoch: 3,
        committed_metadata: Some("x".into()),
        ..Default::default()
    };
    let topic = OffsetCommitRequestTopic { topic_id, partitions: vec![commit], ..Default::default() };
    let commit = OffsetCommitRequest {
        group_id: "g".into(),
        generation_id_or_member_epoch: 2,
        member_id: "m".into(),
        group_instance_id: Some("i".into()),
        topics: vec![topic],
        ..Default::default()
    };
    let body = "0267 00000002 026d 0269 02 0102030405060708090a0b0c0d0e0f10
                02 00000001 0000000000000002 00000003 0278 00 00 00";
    check(body, 10, &commit);

    let topic = OffsetFetchRequestTopics { topic_id, partition_indexes: vec![1, 2], ..Default::default() };
    let group = OffsetFetchRequestGroup {
        group_id: "g".into(),
        member_id: Some("m".into()),
        member_epoch: 4,
        topics: Some(vec![topic]),
        ..Default::default()
    };
    let fetch = OffsetFetchRequest { groups: vec![group], require_stable: true, ..Default::default() };
    let body = "02 0267 026d 00000004 02 0102030405060708090a0b0c0d0e0f10 03 00000001 00000002 00 00 01 00";
    check(body, 10, &fetch);
}

/// The answer to an ApiVersions request has header version 0 in all versions; others get a
/// tagged section when flexible.
#[test]
fn response_headers() {
    let versions =
        ApiVersionsResponse { error_code: ErrorCode::UnsupportedVersion.code(), ..Default::default() };
    assert_eq!(
        encode_response(ApiKey::ApiVersions, &versions, 0, 9).unwrap().bytes,
        hex("0000000a 00000009 0023 00000000")
    );
    let flexible = encode_response(ApiKey::ApiVersions, &versions, 3, 9).unwrap();
    assert_eq!(flexible.bytes, hex("0000000c 00000009 0023 01 00000000 00"));
    assert_eq!(decode_response::<ApiVersionsRequest>(flexible.bytes.slice(4..), 3).unwrap(), (9, versions));

    let request = HeartbeatRequest::default();
    for version in HeartbeatRequest::VERSIONS {
        let frame = encode_request(&request, version, -1, None).unwrap();
        let header = decode_request_header(&mut Decoder::new(frame.slice(4..))).unwrap();
        assert_eq!((header.api_version, header.client_id), (version, None));
    }
    let response = klamm_protocol::messages::HeartbeatResponse { error_code: 27, ..Default::default() };
    let old = encode_response(ApiKey::Heartbeat, &response, 3, 1).unwrap();
    let new = encode_response(ApiKey::Heartbeat, &response, 4, 1).unwrap();
    assert_eq!(old.bytes, hex("0000000a 00000001 00000000 001b"));
    assert_eq!(new.bytes, hex("0000000c 00000001 00 00000000 001b 00"));
    assert_eq!(decode_response::<HeartbeatRequest>(new.bytes.slice(4..), 4).unwrap(), (1, response));
}

/// The length of a frame counts what the sender splices in.
#[test]
fn frame_length_counts_splices() {
    let records = Some(Records::External { len: 5000, token: 1 });
    let topic = FetchableTopicResponse {
        partitions: vec![PartitionData { records, ..Default::default() }],
        ..Default::default()
    };
    let response = FetchResponse { responses: vec![topic], ..Default::default() };
    let frame = encode_response(ApiKey::Fetch, &response, 12, 1).unwrap();
    let stated = Decoder::new(frame.bytes.clone()).take_i32().unwrap();
    assert_eq!(stated as usize + LENGTH_BYTES, frame.total_len());
    assert_eq!(frame.splices.len(), 1);
}

#[test]
fn records_elsewhere_cannot_go_into_plain_bytes() {
    use klamm_protocol::messages::produce::{PartitionProduceData, TopicProduceData};
    let records = Some(Records::External { len: 10, token: 1 });
    let partition = PartitionProduceData { records, ..Default::default() };
    let topic = TopicProduceData { partition_data: vec![partition], ..Default::default() };
    let request = ProduceRequest { topic_data: vec![topic], ..Default::default() };
    assert_eq!(encode_request(&request, 9, 1, None), Err(EncodeError::ExternalRecords));
}

/// What nobody knows can still be told apart and refused.
#[test]
fn unknown_apis_have_a_header() {
    let frame = hex("7fff 0001 00000005 ffff");
    let header = decode_request_header(&mut Decoder::new(frame)).unwrap();
    assert_eq!((header.api_key, header.api_version, header.correlation_id), (0x7fff, 1, 5));
    assert!(ApiKey::try_from(header.api_key).is_err());
}

/// In parts it is the same frame, and large batches are the very bytes that were given.
#[test]
fn a_request_in_parts_is_the_same_request() {
    let batch = |len: usize| Bytes::from(vec![7; len]);
    for version in [3, 8, 9, 12] {
        for lens in [&[][..], &[1], &[4_095], &[4_096], &[5_000, 10, 0, 70_000]] {
            let batches: Vec<Bytes> = lens.iter().map(|&len| batch(len)).collect();
            let data = batches.iter().zip(0..).map(|(bytes, index)| PartitionProduceData {
                index,
                records: Some(Records::Bytes(bytes.clone())),
                ..Default::default()
            });
            let topic =
                TopicProduceData { name: "t".into(), partition_data: data.collect(), ..Default::default() };
            let request = ProduceRequest { acks: -1, topic_data: vec![topic], ..Default::default() };
            let whole = encode_request(&request, version, 7, Some("me")).unwrap();
            let parts = encode_request_in_parts(&request, version, 7, Some("me")).unwrap();
            assert_eq!(parts.concat(), whole, "version {version}, {lens:?}");
            let shared = batches.iter().filter(|batch| batch.len() >= 4_096);
            let shared: Vec<*const u8> = shared.map(|batch| batch.as_ptr()).collect();
            let given: Vec<*const u8> =
                parts.iter().map(|part| part.as_ptr()).filter(|at| shared.contains(at)).collect();
            assert_eq!(given, shared, "version {version}, {lens:?}");
            assert!(parts.iter().all(|part| !part.is_empty()));
        }
    }
    let data =
        PartitionProduceData { records: Some(Records::External { len: 1, token: 0 }), ..Default::default() };
    let topic = TopicProduceData { partition_data: vec![data], ..Default::default() };
    let request = ProduceRequest { topic_data: vec![topic], ..Default::default() };
    assert_eq!(encode_request_in_parts(&request, 9, 1, None), Err(EncodeError::ExternalRecords));
}

const VERSIONS: &[(ApiKey, std::ops::RangeInclusive<i16>)] = &[
    (ApiKey::Produce, 3..=13),
    (ApiKey::Fetch, 4..=18),
    (ApiKey::ListOffsets, 1..=11),
    (ApiKey::Metadata, 0..=13),
    (ApiKey::OffsetCommit, 2..=10),
    (ApiKey::OffsetFetch, 1..=10),
    (ApiKey::FindCoordinator, 0..=6),
    (ApiKey::JoinGroup, 0..=9),
    (ApiKey::Heartbeat, 0..=4),
    (ApiKey::LeaveGroup, 0..=5),
    (ApiKey::SyncGroup, 0..=5),
    (ApiKey::DescribeGroups, 0..=6),
    (ApiKey::ListGroups, 0..=5),
    (ApiKey::ApiVersions, 0..=5),
    (ApiKey::CreateTopics, 2..=7),
    (ApiKey::DeleteTopics, 1..=6),
    (ApiKey::InitProducerId, 0..=6),
    (ApiKey::AddPartitionsToTxn, 0..=5),
    (ApiKey::AddOffsetsToTxn, 0..=4),
    (ApiKey::EndTxn, 0..=5),
    (ApiKey::TxnOffsetCommit, 0..=5),
    (ApiKey::SaslHandshake, 0..=1),
    (ApiKey::DeleteRecords, 0..=2),
    (ApiKey::OffsetForLeaderEpoch, 2..=4),
    (ApiKey::WriteTxnMarkers, 1..=1),
    (ApiKey::DescribeAcls, 1..=3),
    (ApiKey::CreateAcls, 1..=3),
    (ApiKey::DeleteAcls, 1..=3),
    (ApiKey::DescribeConfigs, 1..=4),
    (ApiKey::AlterConfigs, 0..=2),
    (ApiKey::DescribeLogDirs, 1..=5),
    (ApiKey::SaslAuthenticate, 0..=2),
    (ApiKey::CreatePartitions, 0..=3),
    (ApiKey::DeleteGroups, 0..=2),
    (ApiKey::ElectLeaders, 0..=2),
    (ApiKey::IncrementalAlterConfigs, 0..=1),
    (ApiKey::AlterPartitionReassignments, 0..=1),
    (ApiKey::ListPartitionReassignments, 0..=0),
    (ApiKey::OffsetDelete, 0..=0),
    (ApiKey::DescribeClientQuotas, 0..=1),
    (ApiKey::AlterClientQuotas, 0..=1),
    (ApiKey::DescribeUserScramCredentials, 0..=0),
    (ApiKey::AlterUserScramCredentials, 0..=0),
    (ApiKey::DescribeQuorum, 0..=2),
    (ApiKey::UpdateFeatures, 0..=2),
    (ApiKey::DescribeCluster, 0..=2),
    (ApiKey::DescribeProducers, 0..=0),
    (ApiKey::DescribeTransactions, 0..=0),
    (ApiKey::ListTransactions, 0..=2),
    (ApiKey::ConsumerGroupDescribe, 0..=1),
    (ApiKey::ListConfigResources, 0..=1),
    (ApiKey::ShareGroupDescribe, 1..=1),
    (ApiKey::ConsumerGroupHeartbeat, 0..=1),
    (ApiKey::ShareGroupHeartbeat, 1..=1),
    (ApiKey::ShareFetch, 1..=2),
    (ApiKey::ShareAcknowledge, 1..=2),
    (ApiKey::DescribeShareGroupOffsets, 0..=1),
    (ApiKey::AlterShareGroupOffsets, 0..=0),
    (ApiKey::DeleteShareGroupOffsets, 0..=0),
    (ApiKey::StreamsGroupDescribe, 0..=0),
    (ApiKey::CreateDelegationToken, 1..=3),
    (ApiKey::RenewDelegationToken, 1..=2),
    (ApiKey::ExpireDelegationToken, 1..=2),
    (ApiKey::DescribeDelegationToken, 1..=3),
    (ApiKey::UnregisterBroker, 0..=0),
    (ApiKey::GetTelemetrySubscriptions, 0..=0),
    (ApiKey::PushTelemetry, 0..=0),
    (ApiKey::DescribeTopicPartitions, 0..=0),
];

#[test]
fn versions_as_kafka_serves_them() {
    for key in ApiKey::ALL {
        let versions = VERSIONS.iter().find(|(known, _)| known == key).map(|(_, versions)| versions.clone());
        assert_eq!(supported_versions(*key), versions, "{key}");
        assert_eq!(ApiKey::try_from(key.code()), Ok(*key));
    }
}

/// Names, numbers and retriability agree with `kafka-protocol`, except where Kafka changed its mind since.
#[test]
fn error_codes_agree_with_the_oracle() {
    use kafka_protocol::error::ResponseError;
    for &error in ErrorCode::ALL {
        assert_eq!(ErrorCode::from_code(error.code()), error);
        assert!(error.name().bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'), "{error}");
        let Some(theirs) = ResponseError::try_from_code(error.code()) else {
            assert_eq!(error, ErrorCode::None);
            continue;
        };
        assert_eq!(format!("{theirs:?}"), format!("{error:?}"));
        // ConcurrentTransactions became retriable in Kafka 4.
        if error != ErrorCode::ConcurrentTransactions {
            assert_eq!(theirs.is_retriable(), error.is_retriable(), "{error}");
        }
    }
    assert_eq!(ErrorCode::from_code(9999), ErrorCode::Unknown(9999));
    assert_eq!(ErrorCode::Unknown(9999).to_string(), "unknown error code 9999");
    assert_eq!(ErrorCode::NotCoordinator.to_string(), "NOT_COORDINATOR");
}
