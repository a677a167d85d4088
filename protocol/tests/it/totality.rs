//! Decoders are total: any bytes give a value or an error, without a panic and without much memory.

use bytes::Bytes;
use klamm_protocol::arbitrary::{Arbitrary, Gen};
use klamm_protocol::frame::{decode_request_header, decode_response};
use klamm_protocol::{
    DecodeErrorKind, Decoder, ElementLimits, Encoder, Message, Request, Utf8Bytes, messages,
};
use proptest::prelude::*;

use crate::alloc::peak_of;
use crate::apis::{encode, for_all_apis, generate};

/// Most bytes that decoding may hold for each byte of input, and without input. The worst real case is a
/// structure of empty strings and arrays: one byte on the wire for each, 24 to 40 in memory, and a growing vector
/// holds its old and its new block.
const BYTES_PER_BYTE: usize = 100;
const BYTES_ANYWAY: usize = 4096;

fn decode_bounded<M: Message>(bytes: &Bytes, version: i16) {
    let (_, peak) = peak_of(|| M::decode(&mut Decoder::new(bytes.clone()), version).is_ok());
    let limit = BYTES_ANYWAY + BYTES_PER_BYTE * bytes.len();
    assert!(peak <= limit, "{} version {version}: {peak} bytes held for {} of input", M::NAME, bytes.len());
}

fn decode_all(bytes: &Bytes) {
    macro_rules! decode_each {
        ($($module:ident: $request:ident, $response:ident;)*) => {$(
            for version in messages::$request::VERSIONS {
                decode_bounded::<messages::$request>(bytes, version);
                decode_bounded::<messages::$response>(bytes, version);
                let _ = decode_response::<messages::$request>(bytes.clone(), version);
            }
        )*};
    }
    for_all_apis!(decode_each);
    let _ = decode_request_header(&mut Decoder::new(bytes.clone()));
}

/// Bytes with many small values, so that lengths and counts are often believable.
fn wire_like_bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => 0_u8..6, 1 => any::<u8>(), 1 => Just(0xff_u8), 1 => Just(0x7f_u8)];
    prop::collection::vec(byte, 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        decode_all(&bytes.into());
    }

    #[test]
    fn believable_bytes(bytes in wire_like_bytes()) {
        decode_all(&bytes.into());
    }
}

/// Valid messages with a few bytes changed, cut, doubled or inserted. This reaches deeper than arbitrary bytes.
#[test]
fn mutated_messages() {
    fn check<M: Message + Arbitrary>() {
        for version in M::VERSIONS {
            for seed in crate::seed() * 150..(crate::seed() + 1) * 150 {
                let valid = encode(&generate::<M>(seed, version), version);
                let mut g = Gen::new(seed ^ 0xabcd, version, false);
                for _ in 0..8 {
                    decode_bounded::<M>(&mutate(&valid, &mut g), version);
                }
            }
        }
    }
    macro_rules! check_all {
        ($($module:ident: $request:ident, $response:ident;)*) => {$(
            check::<messages::$request>();
            check::<messages::$response>();
        )*};
    }
    for_all_apis!(check_all);
}

fn mutate(valid: &[u8], g: &mut Gen) -> Bytes {
    let mut bytes = valid.to_vec();
    for _ in 0..=g.below(3) {
        let at = g.below(bytes.len() as u64 + 1) as usize;
        match g.below(6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, g.bits() as u8),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 if at + 4 <= bytes.len() => bytes[at..at + 4].copy_from_slice(&i32::MAX.to_be_bytes()),
            4 if at + 5 <= bytes.len() => bytes[at..at + 5].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f]),
            _ if at < bytes.len() => bytes[at] = g.bits() as u8,
            _ => {}
        }
    }
    bytes.into()
}

/// A valid message cut anywhere is an error: nothing is made up for what is missing.
#[test]
fn every_cut_is_an_error() {
    fn check<M: Message + Arbitrary>() {
        for version in M::VERSIONS {
            let valid = encode(&generate::<M>(7, version), version);
            for len in 0..valid.len() {
                let cut = valid.slice(..len);
                assert!(
                    M::decode(&mut Decoder::new(cut), version).is_err(),
                    "{} version {version} cut to {len}",
                    M::NAME
                );
            }
        }
    }
    macro_rules! check_all {
        ($($module:ident: $request:ident, $response:ident;)*) => {$(
            check::<messages::$request>();
            check::<messages::$response>();
        )*};
    }
    for_all_apis!(check_all);
}

/// Eight bytes that state two billion elements must cost nothing; other implementations reserve the memory and die.
#[test]
fn count_bombs() {
    macro_rules! bombs {
        ($($module:ident: $request:ident, $response:ident;)*) => {$(
            for version in messages::$request::VERSIONS {
                for start in 0..40 {
                    let mut bomb = vec![0_u8; start];
                    bomb.extend_from_slice(&i32::MAX.to_be_bytes());
                    bomb.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x07, 0, 0, 0]);
                    decode_bounded::<messages::$request>(&bomb.clone().into(), version);
                    decode_bounded::<messages::$response>(&bomb.into(), version);
                }
            }
        )*};
    }
    for_all_apis!(bombs);
}

/// A count that the remaining bytes could just hold, of elements larger in memory than on the wire, in a frame whose
/// rest is no elements at all: only what the bytes pay for may be reserved.
#[test]
fn believable_counts_reserve_no_more_than_the_input() {
    let mut out = Encoder::new(12, true);
    out.put_uvarint(1_000_000);
    out.put_raw(&[0xff; 1_000_000]);
    let frame = out.finish().bytes;
    let (result, peak) =
        peak_of(|| messages::MetadataRequest::decode(&mut Decoder::new(frame.clone()), 12).is_ok());
    assert!(!result);
    assert!(peak <= 2 * frame.len(), "{peak}");
}

/// The least bytes for the most memory: a hundred thousand topics with empty names, two bytes each.
#[test]
fn the_worst_valid_message_stays_within_the_bound() {
    let topic = messages::metadata::MetadataRequestTopic::default();
    let request = messages::MetadataRequest { topics: Some(vec![topic; 100_000]), ..Default::default() };
    let bytes = encode(&request, 9);
    assert!(bytes.len() < 200_010);
    decode_bounded::<messages::MetadataRequest>(&bytes, 9);
}

#[test]
fn unsupported_versions_are_errors() {
    fn check<R: Request>() {
        for version in [R::VERSIONS.start() - 1, R::VERSIONS.end() + 1, i16::MIN, i16::MAX] {
            assert!(R::decode(&mut Decoder::new(Bytes::from_static(&[0; 64])), version).is_err());
            assert!(R::default().encode(&mut Encoder::new(version, false), version).is_err());
        }
    }
    macro_rules! check_all {
        ($($module:ident: $request:ident, $response:ident;)*) => { $(check::<messages::$request>();)* };
    }
    for_all_apis!(check_all);
}

/// Elements take more memory than bytes on the wire, and a frame may have a hundred megabytes: one request for topics
/// without names took 70 times its size.
#[test]
fn elements_are_bounded_by_the_size_of_the_frame() {
    let nameless = |count: usize| {
        let topic = messages::metadata::MetadataRequestTopic { name: Some("".into()), ..Default::default() };
        messages::MetadataRequest { topics: Some(vec![topic; count]), ..Default::default() }
    };
    let small = encode(&nameless(10_000), 1);
    assert!(messages::MetadataRequest::decode(&mut Decoder::new(small), 1).is_ok());
    let large = encode(&nameless(1_000_000), 1);
    let (decoded, peak) = peak_of(|| messages::MetadataRequest::decode(&mut Decoder::new(large), 1));
    assert!(matches!(decoded.unwrap_err().kind, DecodeErrorKind::TooManyElements(1_000_000)));
    assert!(peak < 4_096, "{peak}");
}

/// Who reads the frames of strangers sets narrower limits, on memory and on the number of elements, and can ask what
/// they came to.
#[test]
fn elements_are_bounded_as_the_reader_wishes() {
    let groups = |count: usize, name: &'static str| {
        let request =
            messages::DescribeGroupsRequest { groups: vec![name.into(); count], ..Default::default() };
        encode(&request, 5)
    };
    let limits = ElementLimits { factor: 4, least_bytes: 64 << 10, count: 10_000 };
    let decode = |frame: Bytes| {
        let mut input = Decoder::with_limits(frame, limits);
        let decoded = messages::DescribeGroupsRequest::decode(&mut input, 5);
        (decoded.map(|request| request.groups.len()).map_err(|error| error.kind), input.elements().1)
    };
    let size = size_of::<Utf8Bytes>();
    // By count: at the limit, and one beyond.
    assert_eq!(decode(groups(10_000, "a group's name")), (Ok(10_000), 10_000 * size));
    let (refused, taken) = decode(groups(10_001, "a group's name"));
    assert_eq!((refused, taken), (Err(DecodeErrorKind::TooManyElements(10_001)), 0));
    // By memory: empty names take a byte each.
    let fitting = (64 << 10) / size;
    assert_eq!(decode(groups(fitting, "")).0, Ok(fitting));
    assert_eq!(decode(groups(fitting + 1, "")).0, Err(DecodeErrorKind::TooManyElements(fitting + 1)));
    // A vector is never held twice while it grows.
    let frame = groups(9_000, "12345678");
    let (decoded, peak) = peak_of(|| decode(frame).0);
    assert_eq!(decoded, Ok(9_000));
    assert!(peak < 9_000 * size * 3 / 2, "{peak}");
}

/// What a large cluster may really send stays well within that bound.
#[test]
fn a_hundred_thousand_partitions_are_decoded() {
    use messages::fetch::{FetchableTopicResponse, PartitionData};
    use messages::metadata::{MetadataResponsePartition, MetadataResponseTopic};
    use messages::produce::{PartitionProduceResponse, TopicProduceResponse};
    const COUNT: usize = 100_000;
    let fetched = FetchableTopicResponse {
        partitions: vec![PartitionData { records: Some(Default::default()), ..Default::default() }; COUNT],
        ..Default::default()
    };
    let fetch = messages::FetchResponse { responses: vec![fetched], ..Default::default() };
    let produced = TopicProduceResponse {
        partition_responses: vec![PartitionProduceResponse::default(); COUNT],
        ..Default::default()
    };
    let produce = messages::ProduceResponse { responses: vec![produced], ..Default::default() };
    let topic = MetadataResponseTopic {
        name: Some("clicks".into()),
        partitions: vec![MetadataResponsePartition {
            replica_nodes: vec![1],
            isr_nodes: vec![1],
            ..Default::default()
        }],
        ..Default::default()
    };
    let metadata = messages::MetadataResponse { topics: vec![topic; COUNT], ..Default::default() };
    for version in [4, 12] {
        let fetch = encode(&fetch, version);
        assert!(messages::FetchResponse::decode(&mut Decoder::new(fetch), version).is_ok(), "{version}");
    }
    for version in [3, 12] {
        let produce = encode(&produce, version);
        assert!(messages::ProduceResponse::decode(&mut Decoder::new(produce), version).is_ok(), "{version}");
        let metadata = encode(&metadata, version);
        assert!(
            messages::MetadataResponse::decode(&mut Decoder::new(metadata), version).is_ok(),
            "{version}"
        );
    }
}
