//! Answers as JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::answer::AnsweredBy;
use super::error::QueryError;
use super::instance::Reply;
use super::merging::Found;
use super::raw::RawRow;
use super::wire::{Blob, WireCursor};

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WireReply {
    rows: Vec<WireRow>,
    #[serde(default)]
    next: Option<WireCursor>,
    from: Vec<WirePart>,
}

#[derive(Debug, Serialize, Deserialize)]
struct WireRow {
    partition: i32,
    key: Blob,
    value: Blob,
    timestamp_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until_ms: Option<i64>,
    /// Where it lies in the order of the store, unless that is its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    place: Option<Blob>,
}

#[derive(Debug, Serialize, Deserialize)]
struct WirePart {
    partition: i32,
    #[serde(default)]
    host: Option<String>,
    standby: bool,
    #[serde(default)]
    behind: Option<u64>,
    changelog_offset: i64,
    stream_time_ms: i64,
    #[serde(default)]
    inputs: BTreeMap<String, i64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WireFailure {
    pub(super) error: WireError,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WireError {
    pub(super) code: String,
    pub(super) message: String,
    #[serde(default)]
    pub(super) retriable: bool,
}

impl WireReply {
    pub(super) fn of(reply: &Reply) -> Self {
        let row = |(partition, row): &(i32, RawRow)| WireRow {
            partition: *partition,
            key: Blob::of(&row.key),
            value: Blob::of(&row.value),
            timestamp_ms: row.timestamp_ms,
            until_ms: row.until_ms,
            place: (row.place != row.key).then(|| Blob::of(&row.place)),
        };
        let part = |by: &AnsweredBy| WirePart {
            partition: by.partition,
            host: by.host.as_deref().map(str::to_owned),
            standby: by.standby,
            behind: by.behind,
            changelog_offset: by.changelog_offset,
            stream_time_ms: by.stream_time_ms,
            inputs: by.inputs.iter().map(|(topic, offset)| (topic.to_string(), *offset)).collect(),
        };
        Self {
            rows: reply.found.rows.iter().map(row).collect(),
            next: reply.found.next.as_ref().map(WireCursor::of),
            from: reply.from.iter().map(part).collect(),
        }
    }

    pub(super) fn read(self) -> Result<Reply, String> {
        let mut rows = Vec::new();
        for WireRow { partition, key, value, timestamp_ms, until_ms, place } in self.rows {
            let key = key.bytes()?;
            let place = place.map_or_else(|| Ok(key.clone()), Blob::bytes)?;
            rows.push((partition, RawRow { place, key, value: value.bytes()?, timestamp_ms, until_ms }));
        }
        let by = |part: WirePart| AnsweredBy {
            partition: part.partition,
            host: part.host.map(Arc::from),
            standby: part.standby,
            behind: part.behind,
            changelog_offset: part.changelog_offset,
            stream_time_ms: part.stream_time_ms,
            inputs: part.inputs.into_iter().map(|(topic, offset)| (topic.into(), offset)).collect(),
        };
        let next = self.next.map(WireCursor::read).transpose()?;
        Ok(Reply { found: Found { rows, next }, from: self.from.into_iter().map(by).collect() })
    }
}

impl WireFailure {
    pub(super) fn of(error: &QueryError) -> Self {
        Self {
            error: WireError {
                code: error.code().to_owned(),
                message: error.to_string(),
                retriable: error.is_retriable(),
            },
        }
    }

    /// What an instance means by it.
    pub(super) fn read(self, host: &Arc<str>, store: &Arc<str>) -> QueryError {
        let WireError { code, message, retriable } = self.error;
        match &*code {
            "differs" => QueryError::Differs { store: Arc::clone(store), host: Arc::clone(host) },
            _ => QueryError::Refused {
                host: Arc::clone(host),
                code: code.into(),
                message: message.into(),
                is_retriable: retriable,
            },
        }
    }
}
