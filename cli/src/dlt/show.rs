//! `klamm dlt show`: letters as a whole.

use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::{Args, ValueEnum};
use klamm::dead_letters::{DeadLetter, HeaderText};
use klamm_client::TimestampType;
use serde_json::{Map, Value, json};

use super::topic::TopicArgs;
use crate::connect::ClientArgs;
use crate::error::CliError;
use crate::format::bytes_field;
use crate::output::{self, OutputFormat};
use crate::timestamp::rfc3339;

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    topic: TopicArgs,
    /// Where the letters lie in it, as `dlt list --letters` shows
    #[arg(value_name = "PARTITION:OFFSET", required = true)]
    at: Vec<At>,
    /// How keys and values are shown [default: JSON in its lines, other text as it is, bytes escaped]
    #[arg(long, value_name = "F", value_enum)]
    format: Option<Bytes>,
    #[command(flatten)]
    client: ClientArgs,
}

/// `--format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Bytes {
    /// Text, whatever it is
    Text,
    /// JSON in its lines
    Json,
    /// Two digits a byte
    Hex,
    /// Base64
    Base64,
}

/// `PARTITION:OFFSET`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct At {
    partition: i32,
    offset: i64,
}

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once(':').and_then(|(partition, offset)| {
            Some(Self { partition: partition.parse().ok()?, offset: offset.parse().ok()? })
        });
        let at = parts.filter(|at| at.partition >= 0 && at.offset >= 0);
        at.ok_or_else(|| "it must be a partition and an offset, such as 0:17".to_owned())
    }
}

pub(crate) async fn run(args: ShowArgs) -> Result<(), CliError> {
    let session = args.client.connect().await?;
    let letters = args.topic.letters(&session.client);
    let (mut documents, mut failed) = (Vec::new(), 0);
    for at in &args.at {
        match letters.at(at.partition, at.offset).await? {
            Some(letter) if args.client.output == OutputFormat::Json => documents.push(letter_json(&letter)),
            Some(letter) => output::line(&told(&letter, args.format))?,
            None => {
                failed += 1;
                output::note(&format!("{} has no letter at {}:{}", letters.topic(), at.partition, at.offset));
            }
        }
    }
    if args.client.output == OutputFormat::Json {
        output::json(&Value::Array(documents))?;
    }
    match failed {
        0 => Ok(()),
        failed => Err(CliError::Some { failed, of: args.at.len() }),
    }
}

/// A letter, for programs.
pub(super) fn letter_json(letter: &DeadLetter) -> Value {
    let record = &letter.record;
    let origin = letter.origin.as_ref().map(|origin| {
        json!({
            "topic": &*origin.topic, "partition": origin.partition, "offset": origin.offset,
            "timestamp_ms": origin.timestamp_ms, "timestamp_type": origin.timestamp_type.map(timestamp_type),
            "group": origin.group.as_deref(),
        })
    });
    let cause = letter.cause.as_ref().map(|cause| {
        json!({
            "error": cause.name(), "type": cause.type_name.as_deref(), "source_type": cause.source_type_name.as_deref(),
            "message": cause.message.as_deref(), "of_key": cause.of_key, "stack_trace": cause.stack_trace.as_deref(),
        })
    });
    let headers = letter.readable_headers().map(|(name, text)| {
        let mut header = Map::new();
        header.insert("name".to_owned(), name.into());
        header.extend([match text {
            HeaderText::Number(number) => ("value".to_owned(), number.into()),
            HeaderText::Text(text) => ("value".to_owned(), text.into()),
            HeaderText::Bytes(bytes) => bytes_field("value", Some(bytes)),
            _ => ("value".to_owned(), Value::Null),
        }]);
        Value::Object(header)
    });
    let mut document = Map::new();
    document.insert("topic".to_owned(), (*record.topic).into());
    document.insert("partition".to_owned(), record.partition.into());
    document.insert("offset".to_owned(), record.offset.into());
    document.insert("timestamp_ms".to_owned(), record.timestamp_ms.into());
    document.insert("replays".to_owned(), letter.replays.into());
    document.insert("origin".to_owned(), origin.into());
    document.insert("cause".to_owned(), cause.into());
    document.insert("headers".to_owned(), headers.collect());
    document
        .extend([bytes_field("key", record.key.as_deref()), bytes_field("value", record.value.as_deref())]);
    Value::Object(document)
}

/// A letter, for people.
fn told(letter: &DeadLetter, format: Option<Bytes>) -> String {
    let record = &letter.record;
    let mut lines = vec![
        format!("letter   {} {}:{}", record.topic, record.partition, record.offset),
        format!("written  {}", rfc3339(record.timestamp_ms)),
    ];
    if letter.replays > 0 {
        lines.push(format!("replays  {}: it came back", letter.replays));
    }
    if let Some(origin) = &letter.origin {
        let number = |number: Option<i64>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
        let (partition, offset) = (number(origin.partition.map(i64::from)), number(origin.offset));
        lines.push(format!("origin   {} {partition}:{offset}", origin.topic));
        lines.extend(origin.timestamp_ms.map(|at_ms| format!("sent     {}", rfc3339(at_ms))));
        lines.extend(origin.group.as_ref().map(|group| format!("group    {group}")));
    }
    if let Some(cause) = &letter.cause {
        let of = if cause.of_key { " (of the key)" } else { "" };
        lines.push(format!("error    {}{of}", cause.name()));
        lines.extend(cause.message.as_ref().map(|message| format!("message  {message}")));
        lines.extend(cause.stack_trace.as_ref().map(|trace| format!("trace\n{}", trace.trim_end())));
    }
    lines.push("headers".to_owned());
    let is_told_already = |name: &str| name.ends_with("-stacktrace") || name.ends_with("-exception-message");
    let headers = letter.readable_headers().filter(|(name, _)| !is_told_already(name));
    lines.extend(headers.map(|(name, text)| format!("  {name}: {text}")));
    for (name, bytes) in [("key", &record.key), ("value", &record.value)] {
        lines.push(match bytes {
            None => format!("{name}: none"),
            Some(bytes) => format!("{name}, {} bytes\n{}", bytes.len(), shown(bytes, format)),
        });
    }
    lines.join("\n")
}

fn timestamp_type(of: TimestampType) -> &'static str {
    match of {
        TimestampType::CreateTime => "CreateTime",
        TimestampType::LogAppendTime => "LogAppendTime",
    }
}

fn shown(bytes: &[u8], format: Option<Bytes>) -> String {
    let text = || String::from_utf8_lossy(bytes).into_owned();
    let json = || {
        // A bare number or word is text as well.
        let value: Value = serde_json::from_slice(bytes).ok()?;
        let is_long = value.is_object() || value.is_array();
        is_long.then(|| serde_json::to_string_pretty(&value).ok()).flatten()
    };
    match format {
        Some(Bytes::Text) => text(),
        Some(Bytes::Hex) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        Some(Bytes::Base64) => BASE64_STANDARD.encode(bytes),
        Some(Bytes::Json) => json().unwrap_or_else(text),
        None if std::str::from_utf8(bytes).is_err() => bytes.escape_ascii().to_string(),
        None => json().unwrap_or_else(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        assert_eq!("3:17".parse(), Ok(At { partition: 3, offset: 17 }));
        for wrong in ["", "3", "3:", ":17", "-1:2", "1:-2", "1:2:3", "a:b"] {
            assert!(wrong.parse::<At>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn bytes_are_shown_as_what_they_are() {
        assert_eq!(shown(b"{\"a\":1}", None), "{\n  \"a\": 1\n}");
        assert_eq!(
            (shown(b"12", None), shown("wört".as_bytes(), None)),
            ("12".to_owned(), "wört".to_owned())
        );
        assert_eq!(shown(&[0xff, b'a'], None), "\\xffa");
        assert_eq!(shown(b"{\"a\":1}", Some(Bytes::Text)), "{\"a\":1}");
        assert_eq!(shown(b"ab", Some(Bytes::Hex)), "6162");
        assert_eq!(shown(&[0xff, 0xfe], Some(Bytes::Base64)), "//4=");
        assert_eq!(shown(b"no", Some(Bytes::Json)), "no");
    }
}
