//! The headers of a dead letter: where the record came from and why it is here. Names and encodings are
//! spring-kafka's, so that its tools read ours and the other way round. Pure.

use std::sync::Arc;

use bytes::Bytes;
use klamm_client::{ConsumerRecord, Headers, TimestampType};

/// Errors can quote whole payloads; a header must not make the record too large to send.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4 * 1024;

/// What spring's listeners and ours begin the names with; then those of its retry topics.
const ORIGINAL: [&str; 2] = ["kafka_dlt-original-", "kafka_original-"];
const EXCEPTION: [&str; 2] = ["kafka_dlt-exception-", "kafka_exception-"];
const KEY_EXCEPTION: [&str; 2] = ["kafka_dlt-key-exception-", "kafka_key-exception-"];
/// What a retry topic's consumer notes about its own work.
const RETRY: &str = "retry_topic-";
/// The attempt that spring's listeners were told.
const ATTEMPT: &str = "kafka_deliveryAttempt";
/// A key or value that spring could not read, in Java's own serialization.
const SPRING_UNREADABLE: [&str; 2] = ["springDeserializerExceptionKey", "springDeserializerExceptionValue"];
/// Ours: how often the record went back from a dead-letter topic, as four bytes. It outlives every hop.
const REPLAYS: &str = "klamm_dlt-replays";

/// Headers as records to send hold them.
pub(crate) type OwnedHeaders = Vec<(Arc<str>, Option<Bytes>)>;

/// Where a record came from, as far as its headers tell.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Origin {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: Option<i32>,
    /// The record's offset there.
    pub offset: Option<i64>,
    /// The record's timestamp there, in milliseconds since the Unix epoch.
    pub timestamp_ms: Option<i64>,
    /// Who set that timestamp.
    pub timestamp_type: Option<TimestampType>,
    /// The group that could not handle it.
    pub group: Option<Arc<str>>,
}

/// Why a record became a dead letter, as far as its headers tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Cause {
    /// Whether it was the record's key that could not be read.
    pub of_key: bool,
    /// The type of the error: a Rust type or a Java class. Of spring's it is nearly always a wrapper.
    pub type_name: Option<Arc<str>>,
    /// The type of what the error wraps.
    pub source_type_name: Option<Arc<str>>,
    /// What the error said.
    pub message: Option<Arc<str>>,
    /// Where it was thrown; spring writes this, we do not.
    pub stack_trace: Option<Arc<str>>,
}

impl Cause {
    /// The type that says most: of what is wrapped, or else of the error; `unknown` where neither is told.
    pub fn name(&self) -> &str {
        self.source_type_name.as_deref().or(self.type_name.as_deref()).unwrap_or("unknown")
    }
}

/// What failed, in the words that go into the headers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failed<'a> {
    pub(crate) group: &'a str,
    pub(crate) type_name: &'a str,
    pub(crate) message: &'a str,
    pub(crate) of_key: bool,
}

/// The headers of the dead letter that a record becomes: its own, then ours. What an earlier dead letter said about
/// its failure is replaced; where the record came from first stays, so that the headers do not grow from hop to hop.
pub(crate) fn of_failed(record: &ConsumerRecord, failed: Failed<'_>) -> OwnedHeaders {
    let mut headers = record.headers.to_vec();
    headers.retain(|(name, _)| !name.starts_with(EXCEPTION[0]) && !name.starts_with(KEY_EXCEPTION[0]));
    let mut add = |name: String, value: Bytes| headers.push((name.into(), Some(value)));
    let original = ORIGINAL[0];
    if origin(&record.headers).is_none() {
        let timestamp_type = match record.timestamp_type {
            TimestampType::CreateTime => "CreateTime",
            TimestampType::LogAppendTime => "LogAppendTime",
        };
        add(format!("{original}topic"), Bytes::copy_from_slice(record.topic.as_bytes()));
        add(format!("{original}partition"), Bytes::copy_from_slice(&record.partition.to_be_bytes()));
        add(format!("{original}offset"), Bytes::copy_from_slice(&record.offset.to_be_bytes()));
        add(format!("{original}timestamp"), Bytes::copy_from_slice(&record.timestamp_ms.to_be_bytes()));
        add(format!("{original}timestamp-type"), Bytes::from_static(timestamp_type.as_bytes()));
        add(format!("{original}consumer-group"), Bytes::copy_from_slice(failed.group.as_bytes()));
    }
    let prefix = if failed.of_key { KEY_EXCEPTION[0] } else { EXCEPTION[0] };
    let message = &failed.message[..failed.message.floor_char_boundary(MESSAGE_BYTES_MAX)];
    add(format!("{prefix}fqcn"), Bytes::copy_from_slice(failed.type_name.as_bytes()));
    add(format!("{prefix}message"), Bytes::copy_from_slice(message.as_bytes()));
    headers
}

/// Where the record came from first: spring adds the headers of each hop behind those of the one before.
pub(crate) fn origin(headers: &Headers) -> Option<Origin> {
    ORIGINAL.into_iter().find_map(|prefix| {
        let first = |name: &str| headers.all(&format!("{prefix}{name}")).next().flatten();
        // Spring's retry topics write the group under the other name.
        let group = first("consumer-group")
            .or_else(|| headers.all(&format!("{}consumer-group", ORIGINAL[0])).next().flatten());
        Some(Origin {
            topic: text(first("topic")?)?,
            partition: first("partition").and_then(|bytes| integer(bytes)?.try_into().ok()),
            offset: first("offset").and_then(integer),
            timestamp_ms: first("timestamp").and_then(integer),
            timestamp_type: first("timestamp-type").and_then(timestamp_type),
            group: group.and_then(text),
        })
    })
}

/// Why it failed the last time.
pub(crate) fn cause(headers: &Headers) -> Option<Cause> {
    let families =
        [(EXCEPTION[0], false), (KEY_EXCEPTION[0], true), (EXCEPTION[1], false), (KEY_EXCEPTION[1], true)];
    families.into_iter().find_map(|(prefix, of_key)| {
        let last = |name: &str| headers.last(&format!("{prefix}{name}")).flatten().map(lossy);
        let cause = Cause {
            of_key,
            type_name: last("fqcn"),
            source_type_name: last("cause-fqcn"),
            message: last("message"),
            stack_trace: last("stacktrace"),
        };
        let is_told =
            cause.type_name.is_some() || cause.source_type_name.is_some() || cause.message.is_some();
        is_told.then_some(cause)
    })
}

/// How often the record went back from a dead-letter topic.
pub(crate) fn replays(headers: &Headers) -> u32 {
    let told = headers.last(REPLAYS).flatten().and_then(integer);
    told.map_or(0, |count| u32::try_from(count).unwrap_or(u32::MAX))
}

/// The headers of a letter that goes back to work: without what was said of its failure, with one replay more
/// counted. Where it came from stays unless it goes back there: who fails on it next would call another topic its
/// origin.
pub(crate) fn of_replayed(headers: &Headers, keep_origin: bool) -> OwnedHeaders {
    let count = replays(headers).saturating_add(1);
    let mut kept = headers.to_vec();
    kept.retain(|(name, _)| {
        let is_origin = ORIGINAL.iter().any(|prefix| name.starts_with(prefix));
        let is_failure = EXCEPTION.iter().chain(&KEY_EXCEPTION).any(|prefix| name.starts_with(prefix));
        let is_retry = name.starts_with(RETRY) || **name == *ATTEMPT || SPRING_UNREADABLE.contains(&&**name);
        !(is_failure || is_retry || (is_origin && !keep_origin) || **name == *REPLAYS)
    });
    kept.push((REPLAYS.into(), Some(Bytes::copy_from_slice(&count.to_be_bytes()))));
    kept
}

/// The value of a header that a dead letter has and other records do not, if it is a number.
pub(crate) fn number_of(name: &str, value: &[u8]) -> Option<i64> {
    let is_of_letters = ORIGINAL.iter().any(|prefix| name.starts_with(prefix)) || name.starts_with(RETRY);
    let is_number = ["partition", "offset", "timestamp", "attempts"].iter().any(|end| name.ends_with(end));
    if (is_of_letters && is_number) || name == ATTEMPT || name == REPLAYS { integer(value) } else { None }
}

/// A number as Java writes it: big-endian, in one to eight bytes (spring's retry topics leave out leading zeros).
pub(crate) fn integer(bytes: &[u8]) -> Option<i64> {
    let first = *bytes.first()?;
    let mut wide = if first < 0x80 { [0; 8] } else { [0xff; 8] };
    wide.get_mut(8_usize.checked_sub(bytes.len())?..)?.copy_from_slice(bytes);
    Some(i64::from_be_bytes(wide))
}

fn text(bytes: &[u8]) -> Option<Arc<str>> {
    std::str::from_utf8(bytes).ok().map(Arc::from)
}

fn lossy(bytes: &[u8]) -> Arc<str> {
    String::from_utf8_lossy(bytes).into()
}

fn timestamp_type(bytes: &[u8]) -> Option<TimestampType> {
    match bytes {
        b"CreateTime" => Some(TimestampType::CreateTime),
        b"LogAppendTime" => Some(TimestampType::LogAppendTime),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(headers: Headers) -> ConsumerRecord {
        ConsumerRecord {
            topic: "orders".into(),
            partition: 3,
            offset: 258,
            timestamp_ms: 7,
            timestamp_type: TimestampType::CreateTime,
            leader_epoch: None,
            key: None,
            value: None,
            headers,
        }
    }

    fn failed(message: &str) -> Failed<'_> {
        Failed { group: "billing", type_name: "my::Error", message, of_key: false }
    }

    fn pairs(headers: &[(&str, &[u8])]) -> Headers {
        headers.iter().map(|(name, value)| (*name, value.to_vec())).collect()
    }

    #[test]
    fn headers_are_encoded_as_spring_does() {
        let own = pairs(&[("trace", b"7f")]);
        let written = Headers::from(of_failed(&record(own), failed("broke")));
        let last = |name: &str| written.last(name).flatten().map(<[u8]>::to_vec);
        assert_eq!(last("trace").unwrap(), b"7f");
        assert_eq!(last("kafka_dlt-original-topic").unwrap(), b"orders");
        assert_eq!(last("kafka_dlt-original-partition").unwrap(), [0, 0, 0, 3]);
        assert_eq!(last("kafka_dlt-original-offset").unwrap(), [0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(last("kafka_dlt-original-timestamp").unwrap(), [0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(last("kafka_dlt-original-timestamp-type").unwrap(), b"CreateTime");
        assert_eq!(last("kafka_dlt-original-consumer-group").unwrap(), b"billing");
        assert_eq!(last("kafka_dlt-exception-message").unwrap(), b"broke");
        assert_eq!(last("kafka_dlt-exception-fqcn").unwrap(), b"my::Error");
    }

    #[test]
    fn what_is_written_is_read() {
        let written = Headers::from(of_failed(&record(Headers::new()), failed("broke")));
        let expected = Origin {
            topic: "orders".into(),
            partition: Some(3),
            offset: Some(258),
            timestamp_ms: Some(7),
            timestamp_type: Some(TimestampType::CreateTime),
            group: Some("billing".into()),
        };
        assert_eq!(origin(&written), Some(expected));
        let told = cause(&written).unwrap();
        assert_eq!((told.name(), told.message.as_deref(), told.of_key), ("my::Error", Some("broke"), false));
        let of_key = Failed { of_key: true, ..failed("no key") };
        let written = Headers::from(of_failed(&record(Headers::new()), of_key));
        assert!(cause(&written).unwrap().of_key && written.last("kafka_dlt-exception-message").is_none());
        assert_eq!((origin(&Headers::new()), cause(&Headers::new())), (None, None));
    }

    #[test]
    fn a_second_hop_keeps_the_origin_and_replaces_the_failure() {
        let first = of_failed(&record(Headers::new()), failed("first"));
        let again = ConsumerRecord { topic: "orders-dlt".into(), ..record(Headers::from(first.clone())) };
        let second = of_failed(&again, Failed { group: "repair", ..failed("second") });
        assert_eq!(second.len(), first.len(), "headers do not grow");
        let second = Headers::from(second);
        assert_eq!(origin(&second), origin(&Headers::from(first)));
        assert_eq!(second.all("kafka_dlt-exception-message").collect::<Vec<_>>(), [Some(&b"second"[..])]);
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let written = Headers::from(of_failed(&record(Headers::new()), failed(&"ä".repeat(4_001))));
        let message = written.last("kafka_dlt-exception-message").flatten().unwrap();
        assert!(message.len() <= MESSAGE_BYTES_MAX && std::str::from_utf8(message).is_ok());
    }

    /// Spring appends origins and, in a retry topic's chain, uses the other family of names.
    #[test]
    fn springs_two_families_are_read() {
        let headers = pairs(&[
            ("kafka_original-topic", b"orders"),
            ("kafka_original-partition", &[0, 0, 0, 2]),
            ("kafka_original-timestamp", &[0, 0, 1, 0x8b, 0, 0, 0, 0]),
            ("kafka_dlt-original-consumer-group", b"billing"),
            ("retry_topic-attempts", &[0, 0, 0, 3]),
            ("kafka_exception-fqcn", b"org.springframework.kafka.listener.ListenerExecutionFailedException"),
            ("kafka_exception-cause-fqcn", b"java.lang.IllegalStateException"),
            ("kafka_exception-message", b"Listener failed; no"),
            ("kafka_exception-stacktrace", b"at x"),
            ("kafka_original-topic", b"orders-retry-1000"),
        ]);
        let found = origin(&headers).unwrap();
        assert_eq!(
            (&*found.topic, found.partition, found.group.as_deref()),
            ("orders", Some(2), Some("billing"))
        );
        let told = cause(&headers).unwrap();
        let next = Headers::from(of_failed(&record(headers.clone()), failed("again")));
        assert_eq!(origin(&next), origin(&headers), "a listener of ours on its retry topic");
        assert_eq!(
            (told.name(), told.stack_trace.as_deref()),
            ("java.lang.IllegalStateException", Some("at x"))
        );
    }

    #[test]
    fn a_replay_strips_the_failure_and_counts() {
        let own = pairs(&[("trace", b"7f"), ("retry_topic-attempts", &[0, 0, 0, 3])]);
        let letter = Headers::from(of_failed(&record(own), failed("broke")));
        assert_eq!(replays(&letter), 0);
        let replayed = Headers::from(of_replayed(&letter, false));
        assert_eq!(replayed.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["trace", REPLAYS]);
        assert_eq!(replays(&replayed), 1);
        let elsewhere = Headers::from(of_replayed(&letter, true));
        assert_eq!((origin(&elsewhere), cause(&elsewhere)), (origin(&letter), None));

        let again = Headers::from(of_failed(&record(replayed), failed("broke again")));
        let twice = Headers::from(of_replayed(&again, false));
        assert_eq!((replays(&again), replays(&twice), twice.all(REPLAYS).count()), (1, 2, 1));
    }

    #[test]
    fn numbers_are_read_in_every_width_and_nothing_else_is() {
        assert_eq!(integer(&[0, 0, 0, 3]), Some(3));
        assert_eq!(integer(&[1, 0]), Some(256));
        assert_eq!(integer(&[0xff]), Some(-1));
        assert_eq!(integer(&i64::MIN.to_be_bytes()), Some(i64::MIN));
        assert_eq!((integer(&[]), integer(&[0; 9])), (None, None));
        assert_eq!(number_of("kafka_dlt-original-offset", &[0, 7]), Some(7));
        assert_eq!(number_of("retry_topic-attempts", &[0, 0, 0, 2]), Some(2));
        assert_eq!((number_of("kafka_dlt-original-topic", b"a"), number_of("offset", &[1])), (None, None));
    }

    /// Headers come from outside: whatever is in them, reading is an answer.
    #[test]
    fn no_header_makes_reading_panic() {
        use klamm_runtime::{Rng, SeededRng};
        let rng = SeededRng::new(7);
        let names = [
            "topic",
            "partition",
            "offset",
            "timestamp",
            "timestamp-type",
            "consumer-group",
            "fqcn",
            "message",
        ];
        for _ in 0..2_000 {
            let mut headers = Headers::new();
            for _ in 0..rng.below(8) {
                let families = [ORIGINAL, EXCEPTION, KEY_EXCEPTION][rng.below(3) as usize];
                let name = format!("{}{}", families[rng.below(2) as usize], names[rng.below(8) as usize]);
                let value: Vec<u8> = (0..rng.below(12)).map(|_| rng.next_u64() as u8).collect();
                headers.push(name, (rng.below(5) > 0).then(|| value.into()));
            }
            let _ = (origin(&headers), cause(&headers), replays(&headers));
            assert!(of_replayed(&headers, false).len() <= 1 + headers.iter().count());
        }
    }
}
