//! Settings of topics: what CreateTopics may set, and the log settings that come of it.

use std::collections::BTreeMap;

use klamm_runtime::settings::{Expectation, Key, parse_bool};

use super::broker::{compression, gzip_level, zstd_level};
use super::described::{self, Described, Kind, Source, Synonym};
use super::keys::{COMPRESSIONS, ConfigError, GZIP_LEVELS, KEYS as BROKER_KEYS, Values};
use crate::log::{LogConfig, Ratio};

const BYTES: Expectation = Expectation::Int(0, i32::MAX as i64);
const MS: Expectation = Expectation::Int(0, i64::MAX);
const MS_OR_NONE: Expectation = Expectation::Int(-1, i64::MAX);
const POLICIES: &[&str] = &["delete", "compact", "compact,delete", "delete,compact"];

/// A setting of topics.
struct TopicKey {
    name: &'static str,
    expects: Expectation,
    kind: Kind,
    /// The broker's settings that it has its default from: the first that is set, or else the last.
    of_broker: &'static [&'static str],
    /// The default, where there is none of the broker.
    default: &'static str,
    doc: &'static str,
}

const fn key(
    name: &'static str,
    expects: Expectation,
    kind: Kind,
    of_broker: &'static [&'static str],
    doc: &'static str,
) -> TopicKey {
    TopicKey { name, expects, kind, of_broker, default: "", doc }
}

/// One value each is what this broker does; to take another and not do it would be a lie.
const fn fixed(
    name: &'static str,
    value: &'static [&'static str],
    kind: Kind,
    doc: &'static str,
) -> TopicKey {
    TopicKey { name, expects: Expectation::OneOf(value), kind, of_broker: &[], default: value[0], doc }
}

/// The settings of topics.
const KEYS: &[TopicKey] = &[
    key(
        "cleanup.policy",
        Expectation::OneOf(POLICIES),
        Kind::List,
        &["log.cleanup.policy"],
        "What becomes of old records.",
    ),
    key(
        "retention.ms",
        MS_OR_NONE,
        Kind::Long,
        &["log.retention.ms", "log.retention.minutes", "log.retention.hours"],
        "Segments whose youngest record is older are deleted; -1 keeps them.",
    ),
    key(
        "retention.bytes",
        MS_OR_NONE,
        Kind::Long,
        &["log.retention.bytes"],
        "The oldest segments are deleted while the others hold so much; -1 keeps them.",
    ),
    key(
        "segment.bytes",
        Expectation::Int(1024, i32::MAX as i64),
        Kind::Int,
        &["log.segment.bytes"],
        "Size at which a segment is closed.",
    ),
    key(
        "segment.ms",
        Expectation::Int(1, i64::MAX),
        Kind::Long,
        &["log.roll.ms", "log.roll.hours"],
        "Age at which a segment is closed.",
    ),
    key(
        "segment.index.bytes",
        Expectation::Int(4, i32::MAX as i64),
        Kind::Int,
        &["log.index.size.max.bytes"],
        "Largest index of a segment.",
    ),
    key(
        "index.interval.bytes",
        BYTES,
        Kind::Int,
        &["log.index.interval.bytes"],
        "One index entry for about so many bytes of log.",
    ),
    key(
        "max.message.bytes",
        BYTES,
        Kind::Int,
        &["message.max.bytes"],
        "Largest record batch, after compression.",
    ),
    key(
        "message.timestamp.type",
        Expectation::OneOf(&["CreateTime", "LogAppendTime"]),
        Kind::String,
        &["log.message.timestamp.type"],
        "Whose clock dates records: the producer's or the broker's.",
    ),
    key(
        "message.timestamp.before.max.ms",
        MS,
        Kind::Long,
        &["log.message.timestamp.before.max.ms"],
        "A record may be so much older than the broker's clock.",
    ),
    key(
        "message.timestamp.after.max.ms",
        MS,
        Kind::Long,
        &["log.message.timestamp.after.max.ms"],
        "A record may be so far in the future.",
    ),
    key(
        "segment.jitter.ms",
        MS,
        Kind::Long,
        &["log.roll.jitter.ms", "log.roll.jitter.hours"],
        "A segment is closed by up to so much earlier, by chance.",
    ),
    key(
        "file.delete.delay.ms",
        MS,
        Kind::Long,
        &["log.segment.delete.delay.ms"],
        "How long the files of deleted segments stay, under other names.",
    ),
    key(
        "flush.messages",
        Expectation::Int(1, i64::MAX),
        Kind::Long,
        &["log.flush.interval.messages"],
        "With flush=os: a batch that makes so many records unsynced is synced before it is acknowledged.",
    ),
    key(
        "flush.ms",
        MS,
        Kind::Long,
        &["log.flush.interval.ms"],
        "With flush=os: what was appended is synced so long after, at the latest.",
    ),
    key(
        "preallocate",
        Expectation::Bool,
        Kind::Boolean,
        &["log.preallocate"],
        "Whether the disk sets the room of a segment aside when it is begun.",
    ),
    key(
        "compression.type",
        Expectation::OneOf(COMPRESSIONS),
        Kind::String,
        &["compression.type"],
        "What batches are stored as: as their producers sent them, or compressed anew.",
    ),
    key(
        "compression.gzip.level",
        Expectation::OneOf(GZIP_LEVELS),
        Kind::Int,
        &["compression.gzip.level"],
        "Level of compression.type=gzip; -1 is the codec's default.",
    ),
    key(
        "compression.lz4.level",
        Expectation::OneOf(&["9"]),
        Kind::Int,
        &["compression.lz4.level"],
        "The codec for compression.type=lz4 has one level.",
    ),
    key(
        "compression.zstd.level",
        Expectation::Int(-131_072, 22),
        Kind::Int,
        &["compression.zstd.level"],
        "Level of compression.type=zstd.",
    ),
    fixed("min.insync.replicas", &["1"], Kind::Int, "There is one replica."),
    fixed("unclean.leader.election.enable", &["false"], Kind::Boolean, "There is one replica to lead."),
    key(
        "min.cleanable.dirty.ratio",
        Expectation::Text,
        Kind::Double,
        &["log.cleaner.min.cleanable.ratio"],
        "A log is compacted when more than this part of it was not yet.",
    ),
    key(
        "min.compaction.lag.ms",
        MS,
        Kind::Long,
        &["log.cleaner.min.compaction.lag.ms"],
        "Records that are younger are not compacted.",
    ),
    key(
        "max.compaction.lag.ms",
        Expectation::Int(1, i64::MAX),
        Kind::Long,
        &["log.cleaner.max.compaction.lag.ms"],
        "Records that are older are compacted, however little there is of them.",
    ),
    key(
        "delete.retention.ms",
        MS,
        Kind::Long,
        &["log.cleaner.delete.retention.ms"],
        "How long tombstones stay from the first compaction on that sees them.",
    ),
];

/// A setting that topics have, for whoever lists them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSetting {
    /// Its name.
    pub name: &'static str,
    /// What it is where neither the topic nor the broker says anything, in the topic's unit.
    pub default: String,
    /// The broker's settings that it has its default from: the first that is set.
    pub of_broker: &'static [&'static str],
    /// What it does.
    pub doc: &'static str,
}

/// All settings that topics have.
pub fn settings() -> impl Iterator<Item = TopicSetting> {
    let nothing = (BTreeMap::new(), Values::new());
    let defaults = described(&nothing.0, &nothing.1);
    KEYS.iter().zip(defaults).map(|(key, described)| {
        let default = described.value.unwrap_or_default();
        TopicSetting { name: key.name, default, of_broker: key.of_broker, doc: key.doc }
    })
}

fn find(name: &str) -> Option<&'static TopicKey> {
    KEYS.iter().find(|key| key.name == name)
}

/// What a setting that is a list has where nothing is set; nothing when it is no list.
pub(crate) fn default_list(name: &str) -> Option<&'static str> {
    let key = find(name).filter(|key| key.kind == Kind::List)?;
    Some(
        key.of_broker
            .last()
            .and_then(|name| Key::find(BROKER_KEYS, name))
            .map_or(key.default, |key| key.default),
    )
}

/// What a topic's settings are and where they come from: all of those that there are, and what else the topic has.
pub(crate) fn described(settings: &BTreeMap<String, String>, broker: &Values) -> Vec<Described> {
    let known = KEYS.iter().map(|key| {
        let own = settings.get(key.name);
        let mut synonyms: Vec<Synonym> =
            own.iter().map(|value| Synonym::new(key.name, value, Source::Topic)).collect();
        match key.of_broker {
            [] => synonyms.push(Synonym::new(key.name, key.default, Source::Default)),
            names => synonyms.extend(described::synonyms(names, broker)),
        }
        let source = synonyms[0].source;
        let value = own.cloned().unwrap_or_else(|| effective(key, &synonyms[0]));
        let (name, kind, doc) = (key.name.to_owned(), key.kind, key.doc);
        Described { name, value: Some(value), source, kind, read_only: false, doc, synonyms }
    });
    let others = settings.iter().filter(|(name, _)| find(name).is_none()).map(|(name, value)| Described {
        name: name.clone(),
        value: Some(value.clone()),
        source: Source::Topic,
        kind: Kind::Unknown,
        read_only: false,
        doc: "",
        synonyms: vec![Synonym::new(name, value, Source::Topic)],
    });
    known.chain(others).collect()
}

/// The value that a topic gets from the broker's: hours and minutes are milliseconds there.
fn effective(key: &TopicKey, from: &Synonym) -> String {
    let unit_ms = match from.name.rsplit('.').next() {
        Some("hours") => 3_600_000,
        Some("minutes") => 60_000,
        _ => return from.value.clone(),
    };
    match from.value.parse::<i64>() {
        Ok(number) if key.name.ends_with(".ms") && number >= 0 => number.saturating_mul(unit_ms).to_string(),
        _ => from.value.clone(),
    }
}

/// Checks one setting of a topic.
///
/// # Errors
/// When there is no such setting, or the value is not what it expects.
pub fn check(name: &str, value: &str) -> Result<(), ConfigError> {
    let Some(TopicKey { expects, kind, .. }) = find(name) else {
        return Err(ConfigError::new(name, value, "is not a topic setting of this broker"));
    };
    if *kind == Kind::Double && !value.parse().is_ok_and(|ratio: f64| (0.0..=1.0).contains(&ratio)) {
        return Err(ConfigError::new(name, value, "must be a number from 0 to 1"));
    }
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
            "segment.jitter.ms" => config.segment_jitter_ms = int,
            "file.delete.delay.ms" => config.file_delete_delay_ms = int,
            "flush.messages" => config.flush_messages = int,
            "flush.ms" => config.flush_ms = int,
            "preallocate" => config.preallocate = parse_bool(value).unwrap_or(false),
            "compression.type" => config.compression = compression(value),
            "compression.gzip.level" => config.gzip_level = gzip_level(int),
            "compression.zstd.level" => config.zstd_level = zstd_level(int),
            "segment.index.bytes" => config.segment_index_bytes = int as u32,
            "index.interval.bytes" => config.index_interval_bytes = int as u32,
            "max.message.bytes" => config.max_message_bytes = int as u32,
            "message.timestamp.type" => config.timestamp_type = super::broker::timestamp_type(value),
            "message.timestamp.before.max.ms" => config.timestamp_before_max_ms = int,
            "message.timestamp.after.max.ms" => config.timestamp_after_max_ms = int,
            "min.cleanable.dirty.ratio" => {
                config.min_cleanable_dirty_ratio = Ratio(value.parse().unwrap_or_default());
            }
            "min.compaction.lag.ms" => config.min_compaction_lag_ms = int,
            "max.compaction.lag.ms" => config.max_compaction_lag_ms = int,
            "delete.retention.ms" => config.delete_retention_ms = int,
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
            ("min.compaction.lag.ms", "7"),
            ("max.compaction.lag.ms", "8"),
            ("delete.retention.ms", "9"),
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
            min_cleanable_dirty_ratio: Ratio(0.1),
            min_compaction_lag_ms: 7,
            max_compaction_lag_ms: 8,
            delete_retention_ms: 9,
            ..LogConfig::default()
        };
        assert_eq!(log_config(&LogConfig::default(), &topic), expected);
    }

    #[test]
    fn every_default_is_a_value_that_would_be_taken() {
        for described in described(&BTreeMap::new(), &Values::new()) {
            let Described { name, value, source, synonyms, .. } = described;
            assert_eq!((source, synonyms.len()), (Source::Default, 1), "{name}");
            check(&name, &value.unwrap()).unwrap();
            assert!(find(&name).unwrap().of_broker.iter().all(|name| Key::find(BROKER_KEYS, name).is_some()));
        }
    }

    #[test]
    fn a_value_is_the_topics_or_the_files_or_the_default() {
        let mut broker = Values::new();
        broker.set("log.retention.minutes", "2").unwrap();
        broker.set("log.roll.hours", "3").unwrap();
        let settings = BTreeMap::from([
            ("segment.bytes".to_owned(), "4096".to_owned()),
            ("of.an.older.broker".to_owned(), "x".to_owned()),
        ]);
        let all = described(&settings, &broker);
        let one = |name: &str| {
            let found = all.iter().find(|described| described.name == name).unwrap();
            let from = found.synonyms.iter().map(|synonym| (synonym.name.as_str(), synonym.value.as_str()));
            (found.value.as_deref().unwrap(), found.source, from.collect::<Vec<_>>())
        };
        let default = ("log.retention.hours", "168");
        let minutes = ("log.retention.minutes", "2");
        assert_eq!(one("retention.ms"), ("120000", Source::File, vec![minutes, default]));
        let hours = vec![("log.roll.hours", "3"), ("log.roll.hours", "168")];
        assert_eq!(one("segment.ms"), ("10800000", Source::File, hours));
        let own = vec![("segment.bytes", "4096"), ("log.segment.bytes", "1073741824")];
        assert_eq!(one("segment.bytes"), ("4096", Source::Topic, own));
        assert_eq!(
            one("compression.type"),
            ("producer", Source::Default, vec![("compression.type", "producer")])
        );
        assert_eq!(one("of.an.older.broker").1, Source::Topic);
        // As the log has them.
        let config = crate::config::BrokerConfig::from_values(&broker).unwrap();
        assert_eq!((config.log.retention_ms, config.log.segment_ms), (120_000, 10_800_000));
    }

    #[test]
    fn what_would_not_be_done_is_refused() {
        let error = |name, value| check(name, value).unwrap_err().to_string();
        assert_eq!(error("compression.lz4.level", "12"), "setting compression.lz4.level=12: must be 9");
        for (name, value) in [
            ("compression.type", "none"),
            ("compression.gzip.level", "0"),
            ("compression.gzip.level", "10"),
            ("compression.zstd.level", "23"),
            ("flush.messages", "0"),
            ("flush.ms", "-1"),
            ("file.delete.delay.ms", "-1"),
            ("segment.jitter.ms", "-1"),
            ("preallocate", "yes"),
        ] {
            assert!(error(name, value).contains("must be"), "{name}={value}");
        }
        assert!(error("no.such.thing", "1").contains("is not a topic setting"));
        assert!(error("retention.ms", "soon").contains("whole number"));
        for (name, value) in [
            ("min.cleanable.dirty.ratio", "1.5"),
            ("min.cleanable.dirty.ratio", "nan"),
            ("min.cleanable.dirty.ratio", "-0.1"),
            ("min.compaction.lag.ms", "-1"),
            ("max.compaction.lag.ms", "0"),
            ("delete.retention.ms", "0.5"),
        ] {
            assert!(error(name, value).contains("must be"), "{name}={value}");
        }
        check("min.cleanable.dirty.ratio", "1").unwrap();
    }
}
