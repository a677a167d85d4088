//! Bytes from outside: whatever they are, a decoder gives a value or an error. A panic, a stack that runs over or
//! memory without bound would end the process, and this test with it.

use std::collections::BTreeMap;

use klamm::prelude::*;
use klamm::serde::{Bytes, DefaultSerde, Serde};

/// Mutations of each value and format.
const ROUNDS: u64 = 1_000;

macro_rules! shapes {
    ($($name:ident, $format:meta);* $(;)?) => {$(
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Record)]
        #[$format]
        struct $name {
            id: i64,
            text: String,
            list: Vec<i32>,
            by_name: BTreeMap<String, Option<f64>>,
            inner: Option<Box<$name>>,
        }

        impl Sample for $name {
            fn sample(depth: usize) -> Self {
                let by_name = BTreeMap::from([("a".to_owned(), Some(1.5)), ("b".to_owned(), None)]);
                let inner = depth.checked_sub(1).map(|depth| Box::new(Self::sample(depth)));
                Self { id: 300, text: "käse".to_owned(), list: vec![-1, 0, 1 << 20], by_name, inner }
            }
        }
    )*};
}

trait Sample: DefaultSerde + PartialEq + std::fmt::Debug {
    fn sample(depth: usize) -> Self;
}

shapes! {
    InJson, record(json);
    InBincode, record(bincode);
    InPostcard, record(postcard);
    InMsgpack, record(msgpack);
    InAvro, record(avro, schema = r#"{"type": "record", "name": "Sample", "fields": [
        {"name": "id", "type": "long"}, {"name": "text", "type": "string"},
        {"name": "list", "type": {"type": "array", "items": "int"}},
        {"name": "by_name", "type": {"type": "map", "values": ["null", "double"]}},
        {"name": "inner", "type": ["null", "Sample"]}]}"#);
    InJsonSchema, record(json_schema, schema = r#"{"type": "object"}"#);
}

#[derive(Clone, PartialEq, prost::Message, Record)]
#[record(protobuf)]
struct InProtobuf {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    text: String,
    #[prost(int32, repeated, tag = "3")]
    list: Vec<i32>,
    #[prost(message, optional, boxed, tag = "4")]
    inner: Option<Box<InProtobuf>>,
}

impl Sample for InProtobuf {
    fn sample(depth: usize) -> Self {
        let inner = depth.checked_sub(1).map(|depth| Box::new(Self::sample(depth)));
        Self { id: 300, text: "käse".to_owned(), list: vec![-1, 0, 1 << 20], inner }
    }
}

/// A generator of its own: the same bytes at every run.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % below.max(1)
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.next(3) {
            let at = self.next(bytes.len());
            match self.next(6) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.next(8),
                1 if !bytes.is_empty() => bytes[at] = [0, 0xff, 0x7f, 0x80, 0xdd, 0xfe][self.next(6)],
                2 => bytes.truncate(at),
                3 => bytes.insert(at, self.next(256) as u8),
                // A length of many bytes.
                4 => drop(bytes.splice(at..at, std::iter::repeat_n(0xff, self.next(10)))),
                _ => bytes.extend_from_within(at..),
            }
        }
    }
}

fn decode<T: Sample>(bytes: Vec<u8>) -> Result<T, klamm::serde::SerdeError> {
    T::Serde::default().deserialize("t", &Bytes::from(bytes))
}

fn survives<T: Sample>() {
    for depth in [0, 1, 20] {
        let value = T::sample(depth);
        let good = T::Serde::default().serialize("t", &value).unwrap();
        assert_eq!(decode::<T>(good.to_vec()).unwrap(), value);
        let (mut random, mut refused) = (Random(7 + depth as u64), 0);
        for _ in 0..ROUNDS {
            let mut bytes = good.to_vec();
            random.mutate(&mut bytes);
            refused += u64::from(decode::<T>(bytes).is_err());
        }
        assert!(refused > ROUNDS / 20, "only {refused} of {ROUNDS} were refused: are they mutated at all?");
    }
    for length in 0..64 {
        for byte in [0, 1, 2, 0x7f, 0x80, 0x81, 0x91, 0xc3, 0xff, b'[', b'{', b'"'] {
            let _ = decode::<T>(vec![byte; length]);
        }
    }
}

#[test]
fn mutated_values_are_values_or_errors() {
    survives::<InJson>();
    survives::<InBincode>();
    survives::<InPostcard>();
    survives::<InMsgpack>();
    survives::<InAvro>();
    survives::<InJsonSchema>();
    survives::<InProtobuf>();
}

/// The stack of a test's thread is 2 MiB: a hundred thousand levels would run over it.
#[test]
fn nesting_has_a_bound() {
    const LEVELS: usize = 100_000;
    let json = format!(
        "{}null{}",
        r#"{"id":1,"text":"","list":[],"by_name":{},"inner":"#.repeat(LEVELS),
        "}".repeat(LEVELS)
    );
    assert!(decode::<InJson>(json.clone().into_bytes()).is_err());
    assert!(decode::<InJsonSchema>(json.into_bytes()).is_err());
    // id 0, no text, no list, no map, and inside of it another.
    assert!(decode::<InBincode>([0, 0, 0, 0, 1].repeat(LEVELS)).unwrap_err().to_string().contains("deeper"));
    assert!(decode::<InPostcard>([0, 0, 0, 0, 1].repeat(LEVELS)).is_err());
    let one = b"\x85\xa2id\x00\xa4text\xa0\xa4list\x90\xa7by_name\x80\xa5inner";
    assert!(decode::<InMsgpack>(one.repeat(LEVELS)).is_err());
    let good = <InAvro as DefaultSerde>::Serde::default().serialize("t", &InAvro::sample(0)).unwrap();
    let deep = [&good[..10], &[0, 0, 0, 0, 2].repeat(LEVELS)].concat();
    assert!(decode::<InAvro>(deep).unwrap_err().to_string().contains("deeper"));
    // Each level is a field 4 of the rest's length; the innermost lengths first.
    let mut message: Vec<u8> = Vec::new();
    for _ in 0..300 {
        let mut outer = vec![0x22];
        let mut length = message.len();
        while length >= 0x80 {
            outer.push(length as u8 | 0x80);
            length >>= 7;
        }
        outer.push(length as u8);
        outer.append(&mut message);
        message = outer;
    }
    assert!(decode::<InProtobuf>(message).is_err());
}

/// As deep as it may be, and brought into the form of another schema on the way: within the stack of a test's thread.
#[test]
fn what_is_as_deep_as_it_may_be_is_read() {
    assert_eq!(round_trip(InBincode::sample(60)).list.len(), 3);
    assert_eq!(round_trip(InPostcard::sample(60)).list.len(), 3);
    assert_eq!(round_trip(InMsgpack::sample(60)).list.len(), 3);
    assert_eq!(round_trip(InJson::sample(60)).list.len(), 3);
    assert_eq!(round_trip(InAvro::sample(60)).list.len(), 3);
    let serde = klamm::serde::AvroSerde::new().older(OLDER_AVRO).unwrap();
    let deep = <OlderAvro as DefaultSerde>::Serde::default().serialize("t", &OlderAvro::sample(60)).unwrap();
    let mut read: InAvro = serde.deserialize("t", &deep).unwrap();
    let mut levels = 0;
    while let Some(inner) = read.inner.take() {
        (read, levels) = (*inner, levels + 1);
    }
    assert_eq!(levels, 60);
}

fn round_trip<T: Sample>(value: T) -> T {
    let written = T::Serde::default().serialize("t", &value).unwrap();
    let read = decode::<T>(written.to_vec()).unwrap();
    assert_eq!(read, value);
    read
}

const OLDER_AVRO: &str = r#"{"type": "record", "name": "Sample", "fields": [
    {"name": "id", "type": "int"}, {"name": "text", "type": "string"},
    {"name": "list", "type": {"type": "array", "items": "int"}},
    {"name": "by_name", "type": {"type": "map", "values": ["null", "float"]}},
    {"name": "inner", "type": ["null", "Sample"]}]}"#;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Record)]
#[record(avro, schema = OLDER_AVRO)]
struct OlderAvro {
    id: i32,
    text: String,
    list: Vec<i32>,
    by_name: BTreeMap<String, Option<f32>>,
    inner: Option<Box<OlderAvro>>,
}

impl Sample for OlderAvro {
    fn sample(depth: usize) -> Self {
        let by_name = BTreeMap::from([("a".to_owned(), Some(1.5)), ("b".to_owned(), None)]);
        let inner = depth.checked_sub(1).map(|depth| Box::new(Self::sample(depth)));
        Self { id: 300, text: "käse".to_owned(), list: vec![-1], by_name, inner }
    }
}

#[test]
fn lists_of_nothing_have_a_bound() {
    #[derive(Debug, PartialEq, Serialize, Deserialize, Record)]
    #[record(bincode)]
    struct Nothing {
        list: Vec<()>,
    }
    // 2^60 elements in nine bytes.
    let bytes = Bytes::from_static(&[253, 0, 0, 0, 0, 0, 0, 0, 0x10]);
    let read: Result<Nothing, _> = klamm::serde::BincodeSerde.deserialize("t", &bytes);
    assert!(read.unwrap_err().to_string().contains("too many"));
}
