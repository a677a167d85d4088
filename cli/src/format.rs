//! How `klamm consume` writes a record: a pattern with placeholders, or a line of JSON.

use std::io::{self, Write};
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use klamm_client::ConsumerRecord;
use serde_json::{Map, Value};

/// How a record is written, each on a line of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Format {
    /// `json`
    Json,
    /// Anything else: text with placeholders.
    Text(Vec<Part>),
}

/// A piece of a text format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// Bytes written as they are.
    Literal(Vec<u8>),
    /// `%k`
    Key,
    /// `%v`
    Value,
    /// `%o`
    Offset,
    /// `%p`
    Partition,
    /// `%t`, milliseconds since the Unix epoch
    Timestamp,
    /// `%h`, as `a=1,b=2`
    Headers,
    /// `%T`
    Topic,
}

impl Default for Format {
    fn default() -> Self {
        Self::Text(vec![Part::Value])
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "json" {
            return Ok(Self::Json);
        }
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            let part = match (character, characters.clone().next()) {
                ('%', Some('%')) => Err('%'),
                ('%', Some('k')) => Ok(Part::Key),
                ('%', Some('v')) => Ok(Part::Value),
                ('%', Some('o')) => Ok(Part::Offset),
                ('%', Some('p')) => Ok(Part::Partition),
                ('%', Some('t')) => Ok(Part::Timestamp),
                ('%', Some('h')) => Ok(Part::Headers),
                ('%', Some('T')) => Ok(Part::Topic),
                ('%', other) => {
                    let unknown = other.map(String::from).unwrap_or_default();
                    return Err(format!(
                        "no placeholder %{unknown}; there are %k key, %v value, %o offset, %p partition, %t timestamp, \
                         %h headers, %T topic, %% a percent sign"
                    ));
                }
                ('\\', Some('n')) => Err('\n'),
                ('\\', Some('t')) => Err('\t'),
                ('\\', Some('0')) => Err('\0'),
                ('\\', Some('\\')) => Err('\\'),
                _ => {
                    push_char(&mut literal, character);
                    continue;
                }
            };
            characters.next();
            match part {
                Err(character) => push_char(&mut literal, character),
                Ok(part) => {
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(part);
                }
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self::Text(parts))
    }
}

fn push_char(literal: &mut Vec<u8>, character: char) {
    literal.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
}

impl Format {
    /// Writes a record and a line end. Keys and values are written as their bytes are; a missing one as nothing.
    pub(crate) fn write(&self, out: &mut impl Write, record: &ConsumerRecord) -> io::Result<()> {
        match self {
            Self::Json => serde_json::to_writer(&mut *out, &as_json(record))?,
            Self::Text(parts) => {
                for part in parts {
                    part.write(out, record)?;
                }
            }
        }
        out.write_all(b"\n")
    }
}

impl Part {
    fn write(&self, out: &mut impl Write, record: &ConsumerRecord) -> io::Result<()> {
        match self {
            Self::Literal(bytes) => out.write_all(bytes),
            Self::Key => out.write_all(record.key.as_deref().unwrap_or_default()),
            Self::Value => out.write_all(record.value.as_deref().unwrap_or_default()),
            Self::Offset => write!(out, "{}", record.offset),
            Self::Partition => write!(out, "{}", record.partition),
            Self::Topic => out.write_all(record.topic.as_bytes()),
            Self::Timestamp => write!(out, "{}", record.timestamp_ms),
            Self::Headers => {
                for (index, (name, value)) in record.headers.iter().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    write!(out, "{comma}{name}=")?;
                    out.write_all(value.unwrap_or_default())?;
                }
                Ok(())
            }
        }
    }
}

fn as_json(record: &ConsumerRecord) -> Value {
    let mut object = Map::new();
    object.insert("topic".into(), (*record.topic).into());
    object.insert("partition".into(), record.partition.into());
    object.insert("offset".into(), record.offset.into());
    object.insert("timestamp_ms".into(), record.timestamp_ms.into());
    object.extend([bytes_field("key", record.key.as_deref()), bytes_field("value", record.value.as_deref())]);
    let headers = record.headers.iter().map(|(name, value)| {
        let mut header = Map::new();
        header.insert("name".into(), name.into());
        header.extend([bytes_field("value", value)]);
        Value::Object(header)
    });
    object.insert("headers".into(), headers.collect());
    Value::Object(object)
}

/// Text as a string; bytes that are no text as base64, under a name that says so.
pub(crate) fn bytes_field(name: &str, bytes: Option<&[u8]>) -> (String, Value) {
    match bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes)) {
        None => (name.to_owned(), Value::Null),
        Some(Ok(text)) => (name.to_owned(), text.into()),
        Some(Err(bytes)) => (format!("{name}_base64"), BASE64_STANDARD.encode(bytes).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use klamm_client::{Headers, TimestampType};

    use super::*;

    fn record() -> ConsumerRecord {
        ConsumerRecord {
            topic: Arc::from("t"),
            partition: 2,
            offset: 7,
            timestamp_ms: 1_000,
            timestamp_type: TimestampType::CreateTime,
            leader_epoch: None,
            key: Some(Bytes::from_static(b"k")),
            value: Some(Bytes::from_static("wért".as_bytes())),
            headers: [("a", "1"), ("a", "2")].into_iter().collect::<Headers>(),
        }
    }

    #[track_caller]
    fn check(format: &str, record: &ConsumerRecord, expected: &str) {
        let mut out = Vec::new();
        format.parse::<Format>().unwrap().write(&mut out, record).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected, "{format}");
    }

    #[test]
    fn placeholders() {
        check("%v", &record(), "wért\n");
        check("%T-%p", &record(), "t-2\n");
        check("%p/%o %t %k=%v [%h]", &record(), "2/7 1000 k=wért [a=1,a=2]\n");
        check("100%% \\t%k\\n\\\\n", &record(), "100% \tk\n\\n\n");
        check("", &record(), "\n");
        check("ä%kö", &record(), "äkö\n");
        let empty = ConsumerRecord { key: None, value: None, headers: Headers::new(), ..record() };
        check("%k|%v|%h", &empty, "||\n");
    }

    #[test]
    fn unknown_placeholders_are_refused() {
        assert!("%x".parse::<Format>().unwrap_err().contains("%x"));
        assert!("50%".parse::<Format>().is_err());
    }

    #[test]
    fn json_has_everything_and_is_one_line() {
        let written = as_json(&record()).to_string();
        assert!(!written.contains('\n'));
        let expected = serde_json::json!({
            "topic": "t", "partition": 2, "offset": 7, "timestamp_ms": 1_000, "key": "k", "value": "wért",
            "headers": [{"name": "a", "value": "1"}, {"name": "a", "value": "2"}],
        });
        assert_eq!(as_json(&record()), expected);
    }

    #[test]
    fn bytes_that_are_no_text_are_base64() {
        let record = ConsumerRecord { key: None, value: Some(Bytes::from_static(&[0xff, 0xfe])), ..record() };
        let written = as_json(&record);
        assert_eq!(written["key"], Value::Null);
        assert_eq!(written["value_base64"], "//4=");
        assert!(written.get("value").is_none());
    }
}
