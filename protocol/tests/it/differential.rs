//! Every message in every version against `kafka-protocol`, an independent implementation
//! generated from Kafka's schemas.
//!
//! Ours encodes, theirs decodes and encodes again: the bytes must be equal, and ours must decode them to the original.
//! Two fields of one type in the wrong order would pass that, so the values that theirs found are compared by field
//! name too. Versions that theirs lacks make a round trip through ours alone; `NEWER` names them, so that an oracle
//! that catches up is noticed.

use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as theirs;
use kafka_protocol::protocol::{Decodable, Encodable, Message as TheirMessage};
use klamm_protocol::Message;
use klamm_protocol::arbitrary::Arbitrary;
use klamm_protocol::messages as ours;

use crate::apis::{decode, encode, for_all_apis, generate};

/// Generated values per message and version.
const VALUES: u64 = 60;

/// Versions that Kafka has and the oracle has not (or has as unstable only).
const NEWER: &[(&str, i16)] = &[
    ("ApiVersionsRequest", 5),
    ("ApiVersionsResponse", 5),
    ("DescribeLogDirsRequest", 5),
    ("DescribeLogDirsResponse", 5),
    ("DescribeShareGroupOffsetsRequest", 1),
    ("DescribeShareGroupOffsetsResponse", 1),
    ("InitProducerIdRequest", 6),
    ("ListOffsetsRequest", 11),
    ("ListOffsetsResponse", 11),
    ("OffsetCommitRequest", 10),
    ("OffsetFetchRequest", 10),
    ("ShareAcknowledgeRequest", 2),
    ("ShareAcknowledgeResponse", 2),
    ("ShareFetchRequest", 2),
    ("ShareFetchResponse", 2),
];

fn check<O, T>()
where
    O: Message + Arbitrary + PartialEq + Debug,
    T: TheirMessage + Encodable + Decodable + Debug,
{
    assert!(T::VERSIONS.min <= *O::VERSIONS.start(), "{}: the oracle starts at {}", O::NAME, T::VERSIONS.min);
    for version in O::VERSIONS {
        let newer = version > T::VERSIONS.max;
        assert_eq!(
            newer,
            NEWER.contains(&(O::NAME, version)),
            "{} version {version}: oracle lacks it?",
            O::NAME
        );
        for seed in crate::seed() * VALUES..(crate::seed() + 1) * VALUES {
            let original: O = generate(seed, version);
            let bytes = encode(&original, version);
            if !newer {
                let (read_by_them, written_by_them) =
                    through_theirs::<T>(&bytes, version).unwrap_or_else(|error| {
                        panic!("{} version {version} seed {seed}: {error}\n{original:#?}", O::NAME)
                    });
                assert_eq!(
                    written_by_them,
                    bytes,
                    "{} version {version} seed {seed}\n{original:#?}",
                    O::NAME
                );
                let mut ours = values_by_name(&format!("{original:?}"));
                // Fields of newer versions, which are at their defaults here.
                ours.retain(|(name, _)| read_by_them.contains(&format!(" {name}: ")));
                let mut theirs = values_by_name(&read_by_them);
                // One of a version before ours, which stays at its default.
                theirs.retain(|(name, _)| O::NAME != "ShareFetchRequest" || name != "partition_max_bytes");
                assert_eq!(ours, theirs, "{} version {version} seed {seed}", O::NAME);
            }
            assert_eq!(decode::<O>(&bytes, version), original, "version {version} seed {seed}");
        }
    }
}

/// What theirs found, in the words of its `Debug`, and what theirs wrote.
fn through_theirs<T: Encodable + Decodable + Debug>(
    bytes: &Bytes,
    version: i16,
) -> Result<(String, Bytes), String> {
    let mut input = bytes.clone();
    let message = T::decode(&mut input, version).map_err(|error| format!("theirs cannot read: {error}"))?;
    if !input.is_empty() {
        return Err(format!("theirs leaves {} bytes of {message:#?}", input.len()));
    }
    let mut out = BytesMut::new();
    message
        .encode(&mut out, version)
        .map_err(|error| format!("theirs cannot write {message:#?}: {error}"))?;
    // A word of Rust's, which both crates have to spell in a way of their own.
    Ok((format!("{message:?}").replace(" _match: ", " match: "), out.freeze()))
}

/// `name: value` of every number, truth value, text and array of them in a `Debug` output, sorted because the
/// two crates declare fields in different orders. Empty texts count as null, and both are left out; so are
/// uuids, which print differently.
fn values_by_name(debug: &str) -> Vec<(String, String)> {
    let tokens = tokens_of(debug);
    let is_value = |token: &str| {
        token.starts_with(['"', '-'])
            || token.starts_with(|c: char| c.is_ascii_digit())
            || matches!(token, "true" | "false")
    };
    let mut values = Vec::new();
    for (index, name) in tokens.iter().enumerate() {
        if tokens.get(index + 1).is_none_or(|colon| colon != ":") || is_value(name) {
            continue;
        }
        let rest = &tokens[index + 2..];
        let value = match rest {
            [first, ..] if is_value(first) => first.clone(),
            [bracket, ..] if bracket == "[" => {
                rest[1..].iter().take_while(|token| is_value(token) || *token == ",").cloned().collect()
            }
            _ => continue,
        };
        values.push((name.clone(), value));
    }
    let uuids = ["topic_id", "replica_directory_id", "client_instance_id"];
    values.retain(|(name, value)| !value.is_empty() && value != "\"\"" && !uuids.contains(&name.as_str()));
    values.sort();
    values
}

/// Words, numbers, quoted texts and signs; wrappers such as `Some(..)` and `BrokerId(..)` vanish,
/// byte strings become `bytes`.
fn tokens_of(debug: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut chars = debug.chars().peekable();
    while let Some(c) = chars.next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
        if c == '"' {
            let mut text = String::from(c);
            while let Some(next) = chars.next() {
                text.push(next);
                match next {
                    '\\' => text.extend(chars.next()),
                    '"' => break,
                    _ => {}
                }
            }
            if tokens.last().is_some_and(|last| last == "b") {
                text = "bytes".to_owned();
                tokens.pop();
            }
            tokens.push(text);
        } else if is_word(c) {
            let mut word = String::from(c);
            while let Some(next) = chars.next_if(|next| is_word(*next)) {
                word.push(next);
            }
            tokens.push(word);
        } else if c == '(' {
            tokens.pop();
        } else if !c.is_whitespace() && c != ')' {
            tokens.push(c.to_string());
        }
    }
    tokens
}

#[test]
fn values_are_found_under_their_names() {
    let inner = r#"B { name: Some("x: \"1\""), empty: "", ids: [GroupId("a"), GroupId("b")] }"#;
    let debug = &format!("A {{ id: BrokerId(-1), on: true, b: {inner} }}");
    let expected = [("id", "-1"), ("ids", r#""a","b""#), ("name", r#""x: \"1\"""#), ("on", "true")]
        .map(|(n, v)| (n.into(), v.into()));
    assert_eq!(values_by_name(debug), expected);
}

macro_rules! tests {
    ($($module:ident: $request:ident, $response:ident;)*) => {$(
        #[test]
        fn $module() {
            check::<ours::$request, theirs::$request>();
            check::<ours::$response, theirs::$response>();
        }
    )*};
}

for_all_apis!(tests);

/// A default message of ours and of theirs is the same on the wire, in every shared version. Ours has null where an
/// unset text means "none" and Kafka's schema would say empty; those are the exceptions, by name.
#[test]
fn defaults_agree() {
    fn check<O: Message, T: TheirMessage + Encodable + Default>() {
        for version in O::VERSIONS.filter(|version| *version <= T::VERSIONS.max) {
            let mut expected = BytesMut::new();
            T::default().encode(&mut expected, version).unwrap();
            // Klamm's default is "not transactional" (null; empty is an error), "a client" (-1; 0 is a
            // broker) and "no message".
            let excepted =
                ["InitProducerIdRequest", "ListOffsetsRequest", "FindCoordinatorResponse"].contains(&O::NAME);
            if !excepted {
                assert_eq!(encode(&O::default(), version), expected, "{} version {version}", O::NAME);
            }
        }
    }
    macro_rules! check_all {
        ($($module:ident: $request:ident, $response:ident;)*) => {$(
            check::<ours::$request, theirs::$request>();
            check::<ours::$response, theirs::$response>();
        )*};
    }
    for_all_apis!(check_all);
}
