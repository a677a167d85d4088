//! What `klamm produce` makes of a line: a value, a key and a value, or a record in JSON as `klamm consume` writes it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use clap::ValueEnum;
use klamm_client::Record;
use serde_json::value::RawValue;

/// `--input`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum InputFormat {
    /// The line is the value, or key and value
    #[default]
    Text,
    /// A record as `consume --format json` writes it; where it came from (topic, partition, offset) does not count
    Json,
}

/// How lines are read.
#[derive(Debug, Clone)]
pub(crate) struct Lines {
    pub(crate) format: InputFormat,
    /// What all records have in common.
    pub(crate) template: Record,
    pub(crate) key_separator: Option<String>,
    /// A key or value that is exactly this is none.
    pub(crate) null_marker: Option<String>,
}

impl Lines {
    /// The record of a line; an error says what is wrong with it.
    pub(crate) fn record(&self, line: Bytes) -> Result<Record, String> {
        match self.format {
            InputFormat::Text => Ok(self.of_text(line)),
            InputFormat::Json => self.of_json(&line),
        }
    }

    fn of_text(&self, line: Bytes) -> Record {
        let mut record = self.template.clone();
        let (key, value) = split(line, self.key_separator.as_deref().map(str::as_bytes));
        let null = self.null_marker.as_deref().map(str::as_bytes);
        let unless_null = |bytes: Bytes| Some(bytes).filter(|bytes| null != Some(&bytes[..]));
        record.value = unless_null(value);
        if let Some(key) = key {
            record.key = unless_null(key);
        }
        record
    }

    fn of_json(&self, line: &[u8]) -> Result<Record, String> {
        let object: Object<'_> = serde_json::from_slice(line).map_err(|error| no_json(&error))?;
        let mut record = self.template.clone();
        if let Some(name) = object.keys().find(|name| !KNOWN.contains(&name.as_str())) {
            return Err(format!("there is no field `{name}`; there are {}", KNOWN.join(", ")));
        }
        if let Some(key) = bytes(&object, "key")? {
            record.key = key;
        }
        record.value = bytes(&object, "value")?.flatten();
        if let Some(time) = present(&object, "timestamp_ms") {
            let time = time.get().parse();
            record.timestamp_ms = Some(time.map_err(|_| "`timestamp_ms` is no whole number of 64 bits")?);
        }
        if let Some(headers) = present(&object, "headers") {
            let headers: Vec<&RawValue> =
                serde_json::from_str(headers.get()).map_err(|_| "`headers` is no list")?;
            for header in headers {
                record.headers.push(self::header(header)?);
            }
        }
        Ok(record)
    }
}

/// Fields as they stand there: a number that is too large for a computer's is not made another one.
type Object<'a> = BTreeMap<String, &'a RawValue>;

const KNOWN: &[&str] = &[
    "key",
    "key_base64",
    "value",
    "value_base64",
    "headers",
    "timestamp_ms",
    "topic",
    "partition",
    "offset",
];

/// The fields of a header.
const KNOWN_OF_HEADERS: &[&str] = &["name", "value", "value_base64"];

/// What is wrong with a line. It is one line here, whatever the parser counts.
fn no_json(error: &serde_json::Error) -> String {
    if error.is_data() {
        return "no JSON object".to_owned();
    }
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    format!("no JSON: {text} at column {}", error.column())
}

/// A field that is there and not null.
fn present<'a>(object: &Object<'a>, name: &str) -> Option<&'a RawValue> {
    object.get(name).copied().filter(|value| value.get() != NULL)
}

const NULL: &str = "null";

fn header(header: &RawValue) -> Result<(std::sync::Arc<str>, Option<Bytes>), String> {
    let wrong = "a header is no object with `name` and `value`";
    let object: Object<'_> = serde_json::from_str(header.get()).map_err(|_| wrong)?;
    if let Some(name) = object.keys().find(|name| !KNOWN_OF_HEADERS.contains(&name.as_str())) {
        return Err(format!("a header has no field `{name}`; it has {}", KNOWN_OF_HEADERS.join(", ")));
    }
    let name: String =
        object.get("name").and_then(|name| serde_json::from_str(name.get()).ok()).ok_or(wrong)?;
    Ok((name.into(), bytes(&object, "value")?.flatten()))
}

/// Bytes under a name, as text, or under the name with `_base64`. `None` when neither is there; null is no bytes.
fn bytes(object: &Object<'_>, name: &str) -> Result<Option<Option<Bytes>>, String> {
    let encoded = format!("{name}_base64");
    match (object.get(name), object.get(&encoded)) {
        (Some(_), Some(_)) => Err(format!("there are both `{name}` and `{encoded}`")),
        (None, None) => Ok(None),
        (Some(value), None) => match value.get() {
            NULL => Ok(Some(None)),
            text if text.starts_with('"') => {
                let text: String =
                    serde_json::from_str(text).map_err(|error| format!("`{name}`: {}", no_json(&error)))?;
                Ok(Some(Some(text.into())))
            }
            // A document as a value is most often meant as its own text.
            text => Ok(Some(Some(Bytes::copy_from_slice(text.as_bytes())))),
        },
        (None, Some(value)) if value.get() == NULL => Ok(Some(None)),
        (None, Some(value)) => {
            let text: String =
                serde_json::from_str(value.get()).map_err(|_| format!("`{encoded}` is no text"))?;
            match BASE64_STANDARD.decode(text) {
                Ok(bytes) => Ok(Some(Some(bytes.into()))),
                Err(error) => Err(format!("`{encoded}` is no base64: {error}")),
            }
        }
    }
}

/// Key and value of a line. An empty separator separates nothing.
fn split(line: Bytes, separator: Option<&[u8]>) -> (Option<Bytes>, Bytes) {
    let Some(separator) = separator.filter(|separator| !separator.is_empty()) else { return (None, line) };
    match line.windows(separator.len()).position(|window| window == separator) {
        Some(at) => (Some(line.slice(..at)), line.slice(at + separator.len()..)),
        None => (None, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &'static str, separator: &str, key: Option<&'static str>, value: &'static str) {
        let found = split(Bytes::from_static(line.as_bytes()), Some(separator.as_bytes()));
        assert_eq!(found, (key.map(Bytes::from), Bytes::from(value)), "{line} by {separator}");
    }

    #[test]
    fn keys_end_at_the_first_separator() {
        check("a:b:c", ":", Some("a"), "b:c");
        check(":b", ":", Some(""), "b");
        check("a:", ":", Some("a"), "");
        check("abc", ":", None, "abc");
        check("", ":", None, "");
        check("a=>b", "=>", Some("a"), "b");
        check("a", "long separator", None, "a");
        check("ab", "", None, "ab");
    }

    fn lines(format: InputFormat) -> Lines {
        Lines {
            format,
            template: Record::to("t").key("template").header("h", "0"),
            key_separator: Some(":".to_owned()),
            null_marker: Some("NULL".to_owned()),
        }
    }

    #[test]
    fn text_has_the_key_of_the_line_or_of_the_template_and_nulls_where_they_are_marked() {
        let record = |line: &'static str| lines(InputFormat::Text).record(Bytes::from(line)).unwrap();
        assert_eq!(record("k:v"), Record::to("t").key("k").value("v").header("h", "0"));
        assert_eq!(record("v"), Record::to("t").key("template").value("v").header("h", "0"));
        assert_eq!(record("k:NULL"), Record::to("t").key("k").header("h", "0"));
        assert_eq!(record("NULL:v"), Record::to("t").value("v").header("h", "0"));
        assert_eq!(record("NULLE"), Record::to("t").key("template").value("NULLE").header("h", "0"));
    }

    #[test]
    fn json_is_what_consume_writes() {
        let record = |line: &str| lines(InputFormat::Json).record(Bytes::copy_from_slice(line.as_bytes()));
        let line = r#"{"topic":"x","partition":9,"offset":7,"timestamp_ms":5,"key":"k","value_base64":"/w==",
            "headers":[{"name":"a","value":"1"},{"name":"a","value":null}]}"#;
        let mut expected = Record::to("t").key("k").value(vec![0xff]).header("h", "0").header("a", "1");
        expected.headers.push(("a".into(), None));
        expected.timestamp_ms = Some(5);
        assert_eq!(record(line).unwrap(), expected);
        assert_eq!(record(r#"{"key":null}"#).unwrap(), Record::to("t").header("h", "0"), "a tombstone");
        assert_eq!(record(r#"{"value":{"a":1}}"#).unwrap().value.as_deref(), Some(&br#"{"a":1}"#[..]));
        for (line, because) in [
            ("{", "no JSON"),
            ("[]", "no JSON object"),
            (r#"{"valeu":1}"#, "there is no field `valeu`"),
            (r#"{"value":"a","value_base64":"YQ=="}"#, "both"),
            (r#"{"value_base64":"?"}"#, "no base64"),
            (r#"{"value_base64":1}"#, "no text"),
            (r#"{"headers":{}}"#, "no list"),
            (r#"{"headers":[{"value":"a"}]}"#, "a header"),
            (r#"{"timestamp_ms":"now"}"#, "whole number"),
            (r#"{"timestamp_ms":1.5}"#, "whole number"),
            (r#"{"timestamp_ms":9223372036854775808}"#, "whole number of 64 bits"),
            (r#"{"headers":[{"name":"a","valeu":"1"}]}"#, "a header has no field `valeu`"),
            (r#"{"headers":[{"name":1}]}"#, "a header is no object"),
            (r#"{"headers":[{"name":"a","value_base64":"YQ="}]}"#, "no base64"),
            ("5", "no JSON object"),
            ("", "no JSON: EOF while parsing a value at column 0"),
            (r#"{"value":"a"} {"value":"b"}"#, "no JSON: trailing characters at column 15"),
        ] {
            let error = record(line).unwrap_err();
            assert!(error.contains(because), "{line}: {error}");
            assert!(!error.contains("line 1"), "{error}");
        }
    }

    /// What is in none of the documented forms must be an error in bounded time, or come out as it went in.
    #[test]
    fn hostile_lines() {
        let record = |line: &[u8]| lines(InputFormat::Json).record(Bytes::copy_from_slice(line));
        let error = record(b"{\"value\":\"\xff\"}").unwrap_err();
        assert!(error.contains("no JSON") && error.contains("unicode"), "{error}");
        let error = record(b"\xff\xfe{\0}\0").unwrap_err();
        assert!(error.contains("no JSON"), "{error}");
        let error = record(br#"{"value":"\ud800"}"#).unwrap_err();
        assert!(error.contains("no JSON"), "{error}");
        let deep = [br#"{"value":"#.as_slice(), &b"[".repeat(1_000_000)].concat();
        let error = record(&deep).unwrap_err();
        assert!(error.contains("no JSON: EOF"), "{error}");
        // It was sent as 1.2345678901234568e22.
        let same = record(br#"{"value":12345678901234567890123,"key":{"b":1.10, "a":2}}"#).unwrap();
        assert_eq!(same.value.as_deref(), Some(&b"12345678901234567890123"[..]));
        assert_eq!(same.key.as_deref(), Some(&br#"{"b":1.10, "a":2}"#[..]));
    }
}
