//! Settings of topics: what CreateTopics may set, and the log settings that come of it.

use std::collections::BTreeMap;

use klamm_runtime::settings::Expectation;

use super::keys::ConfigError;
use crate::log::LogConfig;

const BYTES: Expectation = Expectation::Int(0, i32::MAX as i64);
const MS: Expectation = Expectation::Int(0, i64::MAX);
const MS_OR_NONE: Expectation = Expectation::Int(-1, i64::MAX);
const POLICIES: &[&str] = &["delete", "compact", "compact,delete", "delete,compact"];

/// The settings of a topic and what their values must be.
const KEYS: &[(&str, Expectation)] = &[
    ("cleanup.policy", Expectation::OneOf(POLICIES)),
    ("retention.ms", MS_OR_NONE),
    ("retention.bytes", MS_OR_NONE),
    ("segment.bytes", Expectation::Int(1024, i32::MAX as i64)),
    ("segment.ms", Expectation::Int(1, i64::MAX)),
    ("segment.index.bytes", Expectation::Int(4, i32::MAX as i64)),
    ("index.interval.bytes", BYTES),
    ("max.message.bytes", BYTES),
    ("message.timestamp.type", Expectation::OneOf(&["CreateTime", "LogAppendTime"])),
    ("message.timestamp.before.max.ms", MS),
    ("message.timestamp.after.max.ms", MS),
    // One value each is what this broker does; to take another and not do it would be a lie.
    ("compression.type", Expectation::OneOf(&["producer"])),
    ("min.insync.replicas", Expectation::Int(1, 1)),
    ("unclean.leader.election.enable", Expectation::OneOf(&["false"])),
    ("preallocate", Expectation::OneOf(&["false"])),
];

/// Settings of compaction, kept for the day when logs are compacted, because Kafka Streams and
/// others set them on every topic.
const KEPT_FOR_COMPACTION: &[&str] =
    &["min.cleanable.dirty.ratio", "min.compaction.lag.ms", "max.compaction.lag.ms", "delete.retention.ms"];

/// Checks one setting of a topic.
///
/// # Errors
/// When there is no such setting, or the value is not what it expects.
pub fn check(name: &str, value: &str) -> Result<(), ConfigError> {
    if KEPT_FOR_COMPACTION.contains(&name) {
        return match value.parse::<f64>() {
            Ok(_) => Ok(()),
            Err(_) => Err(ConfigError::new(name, value, "must be a number")),
        };
    }
    let Some((_, expects)) = KEYS.iter().find(|(known, _)| *known == name) else {
        return Err(ConfigError::new(name, value, "is not a topic setting of this broker"));
    };
    // What is stored is read again as it is, so there are no blanks around it.
    let fits = value == value.trim() && expects.accepts(value);
    if fits { Ok(()) } else { Err(ConfigError::new(name, value, format!("must be {expects}"))) }
}

/// The settings of a topic's logs: the broker's, changed by the topic's.
pub fn log_config(defaults: &LogConfig, topic: &BTreeMap<String, String>) -> LogConfig {
    let mut config = defaults.clone();
    for (name, value) in topic {
        let int = value.parse::<i64>().unwrap_or_default();
        match name.as_str() {
            "cleanup.policy" => {
                config.compact = value.contains("compact");
                config.delete = value.contains("delete");
            }
            "retention.ms" => config.retention_ms = int,
            "retention.bytes" => config.retention_bytes = int,
            "segment.bytes" => config.segment_bytes = int as u64,
            "segment.ms" => config.segment_ms = int,
            "segment.index.bytes" => config.segment_index_bytes = int as u32,
            "index.interval.bytes" => config.index_interval_bytes = int as u32,
            "max.message.bytes" => config.max_message_bytes = int as u32,
            "message.timestamp.type" => config.timestamp_type = super::broker::timestamp_type(value),
            "message.timestamp.before.max.ms" => config.timestamp_before_max_ms = int,
            "message.timestamp.after.max.ms" => config.timestamp_after_max_ms = int,
            _ => {}
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::TimestampType;

    #[test]
    fn a_topic_changes_what_it_sets_and_nothing_else() {
        let settings = [
            ("cleanup.policy", "compact"),
            ("retention.ms", "-1"),
            ("segment.bytes", "2048"),
            ("message.timestamp.type", "LogAppendTime"),
            ("min.cleanable.dirty.ratio", "0.1"),
        ];
        let mut topic = BTreeMap::new();
        for (name, value) in settings {
            check(name, value).unwrap();
            topic.insert(name.to_owned(), value.to_owned());
        }
        let expected = LogConfig {
            compact: true,
            delete: false,
            retention_ms: -1,
            segment_bytes: 2_048,
            timestamp_type: TimestampType::LogAppendTime,
            ..LogConfig::default()
        };
        assert_eq!(log_config(&LogConfig::default(), &topic), expected);
    }

    #[test]
    fn what_would_not_be_done_is_refused() {
        let error = |name, value| check(name, value).unwrap_err().to_string();
        assert_eq!(error("compression.type", "gzip"), "setting compression.type=gzip: must be producer");
        assert!(error("no.such.thing", "1").contains("is not a topic setting"));
        assert!(error("retention.ms", "soon").contains("whole number"));
    }
}
