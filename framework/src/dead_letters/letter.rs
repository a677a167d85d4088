//! `DeadLetter`: a record of a dead-letter topic, with what its headers say. Pure.

use std::fmt;

use klamm_client::ConsumerRecord;

use super::headers::{self, Cause, Origin};

/// A record of a dead-letter topic, with what its headers say: those of klamm's listeners and of spring-kafka's.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The record as it lies in the dead-letter topic.
    pub record: ConsumerRecord,
    /// Where it came from first; `None` where its headers do not tell.
    pub origin: Option<Origin>,
    /// Why it failed the last time; `None` where its headers do not tell.
    pub cause: Option<Cause>,
    /// How often it went back from a dead-letter topic, and came here again.
    pub replays: u32,
}

impl DeadLetter {
    /// Reads the headers of a record. Whatever is in them, this is an answer.
    pub fn new(record: ConsumerRecord) -> Self {
        let (origin, cause) = (headers::origin(&record.headers), headers::cause(&record.headers));
        let replays = headers::replays(&record.headers);
        Self { record, origin, cause, replays }
    }

    /// The type of its error in one word; `unknown` where the headers do not tell.
    pub fn error(&self) -> &str {
        self.cause.as_ref().map_or("unknown", Cause::name)
    }

    /// Its headers for people: a number where the value is one in Java's binary form, text where it is text.
    pub fn readable_headers(&self) -> impl Iterator<Item = (&str, HeaderText<'_>)> {
        self.record.headers.iter().map(|(name, value)| {
            let text = match value {
                None => HeaderText::Nothing,
                Some(bytes) => match (headers::number_of(name, bytes), std::str::from_utf8(bytes)) {
                    (Some(number), _) => HeaderText::Number(number),
                    (None, Ok(text)) => HeaderText::Text(text),
                    (None, Err(_)) => HeaderText::Bytes(bytes),
                },
            };
            (name, text)
        })
    }
}

/// The value of a header as people read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderText<'a> {
    /// The header has no value.
    Nothing,
    /// A number that was written as bytes.
    Number(i64),
    /// Text.
    Text(&'a str),
    /// Neither.
    Bytes(&'a [u8]),
}

impl fmt::Display for HeaderText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => Ok(()),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
            Self::Bytes(bytes) => bytes.escape_ascii().fmt(f),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use klamm_client::{Headers, TimestampType};

    use super::*;
    use crate::dead_letters::headers::{Failed, of_failed};

    pub(in crate::dead_letters) fn record(topic: &str, partition: i32, offset: i64) -> ConsumerRecord {
        ConsumerRecord {
            topic: Arc::from(topic),
            partition,
            offset,
            timestamp_ms: 1_000 + offset,
            timestamp_type: TimestampType::CreateTime,
            leader_epoch: None,
            key: Some("k".into()),
            value: Some("v".into()),
            headers: Headers::new(),
        }
    }

    /// What becomes of a record of `orders` that fails: a letter of the same partition.
    pub(in crate::dead_letters) fn letter(
        partition: i32,
        offset: i64,
        type_name: &str,
        message: &str,
    ) -> DeadLetter {
        let failed = record("orders", partition, 100 + offset);
        let written = of_failed(&failed, Failed { group: "billing", type_name, message, of_key: false });
        DeadLetter::new(ConsumerRecord { headers: written.into(), ..record("orders-dlt", partition, offset) })
    }

    #[test]
    fn a_letter_says_where_it_came_from_and_why() {
        let letter = letter(2, 5, "my::Error", "broke");
        let origin = letter.origin.as_ref().unwrap();
        assert_eq!((&*origin.topic, origin.partition, origin.offset), ("orders", Some(2), Some(105)));
        assert_eq!((letter.error(), letter.replays), ("my::Error", 0));
        let plain = DeadLetter::new(record("orders-dlt", 0, 0));
        assert_eq!((plain.origin.as_ref(), plain.error()), (None, "unknown"));
    }

    #[test]
    fn headers_are_shown_as_people_read_them() {
        let mut letter = letter(2, 5, "my::Error", "broke");
        letter.record.headers.push("raw", Some(vec![0xff, b'a'].into()));
        letter.record.headers.push("none", None);
        let shown = |wanted: &str| {
            letter
                .readable_headers()
                .find(|(name, _)| *name == wanted)
                .map(|(_, text)| text.to_string())
                .unwrap()
        };
        assert_eq!(shown("kafka_dlt-original-offset"), "105");
        assert_eq!(shown("kafka_dlt-original-topic"), "orders");
        assert_eq!((shown("raw"), shown("none")), ("\\xffa".to_owned(), String::new()));
    }
}
