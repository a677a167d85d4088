//! Requests and answers as JSON: what the endpoint takes and gives, and what instances send each other. Version 1;
//! what is not known is refused, so that nobody takes an answer to half a question for one to all of it.
//!
//! Bytes are a JSON string where they are text without control characters, `{"base64": "..."}` otherwise; both are
//! taken everywhere.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::answer::{Demands, PositionBound};
use super::instance::{BYTES_MAX, ROWS_MAX, Request, USUAL_PATIENCE, USUAL_ROWS};
use super::merging::{Cursor, Room};
use super::raw::{AskedKey, RawQuery};
use crate::store::prefix_end;

/// No query waits longer.
pub(super) const PATIENCE_MAX: Duration = Duration::from_secs(30);

/// Bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub(super) enum Blob {
    Text(String),
    Binary { base64: String },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum WireQuery {
    Key { key: Blob },
    Keys { keys: Vec<WireKey> },
    AsOf { key: Blob, at_ms: i64 },
    Versions { key: Blob, from_ms: Option<i64>, to_ms: Option<i64> },
    Range { from: Option<Blob>, to: Option<Blob>, value: Option<Blob> },
    Prefix { prefix: Blob, value: Option<Blob> },
    Windows { key: Option<Blob>, from_ms: Option<i64>, to_ms: Option<i64> },
}

/// One of many keys: itself, or where it is looked for and stands in the answer, too.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum WireKey {
    Bare(Blob),
    Placed(WirePlaced),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WirePlaced {
    key: Blob,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partition: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<u32>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WireRequest {
    store: String,
    query: WireQuery,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partitions: Option<Vec<i32>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    everywhere: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    reverse: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes_max: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<WireCursor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    or_standby: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    at_least: Vec<WireRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    within_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    here: bool,
    /// Whose instances the asker takes for his own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    application: Option<String>,
    /// What the store is for who asks: 16 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    form: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WireCursor {
    place: Blob,
    partition: i32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireRecord {
    topic: String,
    partition: i32,
    offset: i64,
}

impl Blob {
    pub(super) fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) if !text.chars().any(char::is_control) && !is_longer(text) => {
                Self::Text(text.to_owned())
            }
            _ => Self::Binary { base64: BASE64_STANDARD.encode(bytes) },
        }
    }

    pub(super) fn bytes(self) -> Result<Bytes, String> {
        match self {
            Self::Text(text) => Ok(text.into()),
            Self::Binary { base64 } => {
                let bytes = BASE64_STANDARD.decode(base64);
                bytes.map(Bytes::from).map_err(|error| format!("bytes are no base64: {error}"))
            }
        }
    }
}

impl WireRequest {
    pub(super) fn of(request: &Request) -> Self {
        let query = match &request.query {
            RawQuery::Key { key } => WireQuery::Key { key: Blob::of(key) },
            RawQuery::Keys { keys } => WireQuery::Keys { keys: keys.iter().map(WireKey::of).collect() },
            RawQuery::AsOf { key, at_ms } => WireQuery::AsOf { key: Blob::of(key), at_ms: *at_ms },
            RawQuery::Versions { key, from_ms, to_ms } => {
                WireQuery::Versions { key: Blob::of(key), from_ms: Some(*from_ms), to_ms: Some(*to_ms) }
            }
            RawQuery::Rows { from, to, value } => {
                let [to, value] = [to, value].map(|bytes| bytes.as_deref().map(Blob::of));
                WireQuery::Range { from: Some(Blob::of(from)), to, value }
            }
            RawQuery::Windows { key, from_ms, to_ms } => {
                let key = key.as_deref().map(Blob::of);
                WireQuery::Windows { key, from_ms: Some(*from_ms), to_ms: Some(*to_ms) }
            }
        };
        let demands = &request.demands;
        let record = |(of, offset): (&klamm_client::TopicPartition, &i64)| WireRecord {
            topic: of.topic.to_string(),
            partition: of.partition,
            offset: *offset,
        };
        Self {
            store: request.store.to_string(),
            query,
            partitions: request.partitions.clone(),
            everywhere: request.everywhere,
            reverse: request.reverse,
            limit: Some(request.room.rows),
            bytes_max: Some(request.room.bytes),
            after: request.after.as_ref().map(WireCursor::of),
            or_standby: demands.stale,
            at_least: demands.bound.records.iter().map(record).collect(),
            within_ms: Some(u64::try_from(demands.within.as_millis()).unwrap_or(u64::MAX)),
            here: request.here_only,
            application: request.application.as_deref().map(str::to_owned),
            form: request.form.map(|form| format!("{form:016x}")),
        }
    }

    /// What is asked; or what is wrong with it.
    pub(super) fn read(self) -> Result<Request, String> {
        let form = match self.form {
            None => None,
            Some(form) => Some(
                u64::from_str_radix(&form, 16).map_err(|_| "`form` is no number of 16 hexadecimal digits")?,
            ),
        };
        let mut bound = PositionBound::new();
        for WireRecord { topic, partition, offset } in self.at_least {
            bound = bound.record(topic, partition, offset);
        }
        let within = self.within_ms.map_or(USUAL_PATIENCE, Duration::from_millis).min(PATIENCE_MAX);
        Ok(Request {
            store: self.store.into(),
            application: self.application.map(Arc::from),
            form,
            partitions: self.partitions,
            everywhere: self.everywhere,
            query: self.query.read()?,
            reverse: self.reverse,
            room: Room {
                rows: self.limit.unwrap_or(USUAL_ROWS).clamp(1, ROWS_MAX),
                bytes: self.bytes_max.unwrap_or(BYTES_MAX).clamp(1, BYTES_MAX),
            },
            after: self.after.map(WireCursor::read).transpose()?,
            demands: Demands { stale: self.or_standby, bound, within },
            here_only: self.here,
        })
    }
}

impl WireQuery {
    fn read(self) -> Result<RawQuery, String> {
        let bytes = |blob: Option<Blob>| blob.map(Blob::bytes).transpose();
        Ok(match self {
            Self::Key { key } => RawQuery::Key { key: key.bytes()? },
            Self::AsOf { key, at_ms } => RawQuery::AsOf { key: key.bytes()?, at_ms },
            Self::Versions { key, from_ms, to_ms } => RawQuery::Versions {
                key: key.bytes()?,
                from_ms: from_ms.unwrap_or(0),
                to_ms: to_ms.unwrap_or(i64::MAX),
            },
            Self::Keys { keys } => RawQuery::Keys { keys: read_keys(keys)? },
            Self::Range { from, to, value } => RawQuery::Rows {
                from: bytes(from)?.unwrap_or_default(),
                to: bytes(to)?,
                value: bytes(value)?,
            },
            Self::Prefix { prefix, value } => {
                let (prefix, value) = (prefix.bytes()?, bytes(value)?);
                RawQuery::Rows { to: prefix_end(&prefix).map(Bytes::from), from: prefix, value }
            }
            Self::Windows { key, from_ms, to_ms } => RawQuery::Windows {
                key: bytes(key)?,
                from_ms: from_ms.unwrap_or(0),
                to_ms: to_ms.unwrap_or(i64::MAX),
            },
        })
    }
}

impl WireKey {
    fn of(asked: &AskedKey) -> Self {
        let AskedKey { at, key, partition } = asked;
        Self::Placed(WirePlaced { key: Blob::of(key), partition: *partition, at: Some(*at) })
    }
}

/// Keys in their order.
fn read_keys(keys: Vec<WireKey>) -> Result<Arc<[AskedKey]>, String> {
    let mut asked = Vec::with_capacity(keys.len());
    for (key, next) in keys.into_iter().zip(0..) {
        let WirePlaced { key, partition, at } = match key {
            WireKey::Bare(key) => WirePlaced { key, partition: None, at: None },
            WireKey::Placed(placed) => placed,
        };
        asked.push(AskedKey { at: at.unwrap_or(next), key: key.bytes()?, partition });
    }
    match asked.is_sorted_by(|one, next| one.at < next.at) {
        true => Ok(asked.into()),
        false => Err("the keys' `at` do not ascend".to_owned()),
    }
}

/// Whether JSON makes more of a text than base64 does.
fn is_longer(text: &str) -> bool {
    text.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count() > text.len() / 3
}

impl WireCursor {
    pub(super) fn of(cursor: &Cursor) -> Self {
        Self { place: Blob::of(&cursor.place), partition: cursor.partition }
    }

    pub(super) fn read(self) -> Result<Cursor, String> {
        Ok(Cursor { place: self.place.bytes()?, partition: self.partition })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::answer::AnsweredBy;
    use super::super::instance::Reply;
    use super::super::merging::Found;
    use super::super::raw::RawRow;
    use super::super::wire_reply::WireReply;
    use super::*;

    fn bytes() -> impl Strategy<Value = Bytes> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from),
            ".{0,10}".prop_map(Bytes::from),
            Just(Bytes::from_static(b"a/b?c=%00\0\"\\")),
        ]
    }

    fn queries() -> impl Strategy<Value = RawQuery> {
        prop_oneof![
            bytes().prop_map(|key| RawQuery::Key { key }),
            (bytes(), any::<i64>()).prop_map(|(key, at_ms)| RawQuery::AsOf { key, at_ms }),
            (bytes(), any::<i64>(), any::<i64>()).prop_map(|(key, from_ms, to_ms)| RawQuery::Versions {
                key,
                from_ms,
                to_ms
            }),
            (bytes(), prop::option::of(bytes()), prop::option::of(bytes()))
                .prop_map(|(from, to, value)| RawQuery::Rows { from, to, value }),
            prop::collection::vec((bytes(), prop::option::of(any::<i32>())), 0..4).prop_map(|keys| {
                let asked = |((key, partition), at)| AskedKey { at, key, partition };
                RawQuery::Keys { keys: keys.into_iter().zip(3..).map(asked).collect() }
            }),
            (prop::option::of(bytes()), any::<i64>(), any::<i64>())
                .prop_map(|(key, from_ms, to_ms)| RawQuery::Windows { key, from_ms, to_ms }),
        ]
    }

    fn cursors() -> impl Strategy<Value = Cursor> {
        (bytes(), any::<i32>()).prop_map(|(place, partition)| Cursor { place, partition })
    }

    prop_compose! {
        fn requests()(
            query in queries(),
            partitions in prop::option::of(prop::collection::vec(any::<i32>(), 0..4)),
            (reverse, here_only, everywhere) in any::<(bool, bool, bool)>(),
            (rows, bytes) in (1..=ROWS_MAX, 1..=BYTES_MAX),
            after in prop::option::of(cursors()),
            (stale, form) in any::<(Option<u64>, Option<u64>)>(),
            application in prop::option::of(".{0,3}"),
            within_ms in 0..30_000_u64,
            record in prop::option::of((".{1,5}", any::<i32>(), any::<i64>())),
        ) -> Request {
            let bound = record.map_or_else(PositionBound::new, |(topic, partition, offset)| {
                PositionBound::new().record(topic, partition, offset)
            });
            let demands = Demands { stale, bound, within: Duration::from_millis(within_ms) };
            let room = Room { rows, bytes };
            let (store, application) = ("s".into(), application.map(Arc::from));
            Request {
                store, application, form, partitions, everywhere, query, reverse, room, after, demands, here_only,
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_asked_is_read_as_it_was_written(request in requests()) {
            let text = serde_json::to_vec(&WireRequest::of(&request)).unwrap();
            let read: WireRequest = serde_json::from_slice(&text).unwrap();
            prop_assert_eq!(read.read().unwrap(), request);
        }

        #[test]
        fn what_is_answered_is_read_as_it_was_written(
            rows in prop::collection::vec((any::<i32>(), bytes(), bytes(), bytes(), any::<i64>()), 0..4),
            next in prop::option::of(cursors()),
            (partition, standby, behind, changelog_offset) in any::<(i32, bool, Option<u64>, i64)>(),
        ) {
            let rows = rows.into_iter().map(|(partition, place, key, value, timestamp_ms)| {
                (partition, RawRow { place, key, value, timestamp_ms, until_ms: Some(timestamp_ms) })
            });
            let inputs = BTreeMap::from([(Arc::from("t"), changelog_offset)]);
            let host = Some("h:1".into());
            let by = AnsweredBy {
                partition, host, standby, behind, changelog_offset, stream_time_ms: -1, inputs,
            };
            let reply = Reply { found: Found { rows: rows.collect(), next }, from: vec![by] };
            let text = serde_json::to_vec(&WireReply::of(&reply)).unwrap();
            prop_assert_eq!(serde_json::from_slice::<WireReply>(&text).unwrap().read().unwrap(), reply);
        }

        #[test]
        fn bytes_of_strangers_are_refused(text in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(request) = serde_json::from_slice::<WireRequest>(&text) {
                drop(request.read());
            }
        }
    }

    fn read(text: &str) -> Result<Request, String> {
        serde_json::from_str::<WireRequest>(text).map_err(|error| error.to_string())?.read()
    }

    #[test]
    fn people_write_little() {
        let request = read(r#"{"store": "counts", "query": {"kind": "prefix", "prefix": "a"}}"#).unwrap();
        assert_eq!(request.query, RawQuery::Rows { from: "a".into(), to: Some("b".into()), value: None });
        assert_eq!((request.room.rows, request.demands.within), (USUAL_ROWS, USUAL_PATIENCE));
        let all = read(r#"{"store": "counts", "query": {"kind": "windows"}}"#).unwrap();
        assert_eq!(all.query, RawQuery::Windows { key: None, from_ms: 0, to_ms: i64::MAX });
    }

    #[test]
    fn what_is_wrong_is_told_and_what_is_too_much_is_cut() {
        let error = |text| read(text).unwrap_err();
        assert!(error(r#"{"store": "s", "query": {"kind": "all"}}"#).contains("unknown variant `all`"));
        assert!(error(r#"{"store": "s", "query": {"kind": "range"}, "limitt": 1}"#).contains("limitt"));
        assert!(error(r#"{"query": {"kind": "range"}}"#).contains("missing field `store`"));
        let key = error(r#"{"store": "s", "query": {"kind": "key", "key": {"base64": "?"}}}"#);
        assert!(key.contains("no base64"), "{key}");
        assert!(error(r#"{"store": "s", "query": {"kind": "range"}, "form": "x"}"#).contains("form"));
        let much = r#"{"store": "s", "query": {"kind": "range"}, "limit": 99999999, "bytes_max": 99999999,
            "within_ms": 99999999}"#;
        let much = read(much).unwrap();
        assert_eq!(much.room, Room { rows: ROWS_MAX, bytes: BYTES_MAX });
        assert_eq!(much.demands.within, PATIENCE_MAX);
    }
}
