//! The broker's settings as they are now: what it was started with, and what was altered since.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_runtime::settings::{Expectation, Key};
use tokio::sync::watch;

use super::broker::BrokerConfig;
use super::keys::{ConfigError, KEYS, Values};

/// What may be altered while the broker runs: what Kafka lets be altered, as far as it is there. Whoever reads one of
/// these follows [`LiveConfig`]; logs are given theirs by the controller.
const ALTERABLE: &[&str] = &[
    "compression.gzip.level",
    "compression.type",
    "compression.zstd.level",
    "log.cleaner.backoff.ms",
    "log.cleaner.dedupe.buffer.size",
    "log.cleaner.delete.retention.ms",
    "log.cleaner.io.buffer.load.factor",
    "log.cleaner.io.buffer.size",
    "log.cleaner.io.max.bytes.per.second",
    "log.cleaner.max.compaction.lag.ms",
    "log.cleaner.min.cleanable.ratio",
    "log.cleaner.min.compaction.lag.ms",
    "log.cleaner.threads",
    "log.cleanup.policy",
    "log.dir.reserve.bytes",
    "log.flush.interval.messages",
    "log.flush.interval.ms",
    "log.index.interval.bytes",
    "log.index.size.max.bytes",
    "log.message.timestamp.after.max.ms",
    "log.message.timestamp.before.max.ms",
    "log.message.timestamp.type",
    "log.preallocate",
    "log.retention.bytes",
    "log.retention.ms",
    "log.roll.jitter.ms",
    "log.roll.ms",
    "log.segment.bytes",
    "log.segment.delete.delay.ms",
    "max.connections",
    "max.connections.per.ip",
    "message.max.bytes",
    "producer.id.expiration.ms",
];

/// The settings of this broker, followed by those who act on them.
#[derive(Debug)]
pub(crate) struct LiveConfig {
    started: BrokerConfig,
    now: watch::Sender<Arc<BrokerConfig>>,
}

impl LiveConfig {
    pub(crate) fn new(started: BrokerConfig) -> Self {
        let now = watch::Sender::new(Arc::new(started.clone()));
        Self { started, now }
    }

    /// As they are now.
    pub(crate) fn now(&self) -> Arc<BrokerConfig> {
        self.now.borrow().clone()
    }

    /// Follows them.
    pub(crate) fn follow(&self) -> watch::Receiver<Arc<BrokerConfig>> {
        self.now.subscribe()
    }

    /// Takes what was altered for all brokers and for this one. What is stored and cannot be is told and left out: a
    /// broker of another version may have taken it.
    pub(crate) fn alter(&self, all: &BTreeMap<String, String>, own: &BTreeMap<String, String>) {
        let valid = |altered: &BTreeMap<String, String>| {
            let valid = altered.iter().filter_map(|(name, value)| match check_altered(name, value) {
                Ok(key) => Some((key.name, value.clone())),
                Err(error) => {
                    tracing::warn!("a setting in the metadata is ignored: {error}");
                    None
                }
            });
            valid.collect()
        };
        let values = self.started.given.altered(valid(all), valid(own));
        self.now.send_replace(Arc::new(self.started.altered(values)));
    }
}

/// Whether a setting of the broker may be altered while it runs.
pub fn is_alterable(name: &str) -> bool {
    ALTERABLE.contains(&name)
}

/// Checks a setting that is to be altered while the broker runs.
///
/// # Errors
/// When there is no such setting, it cannot be altered, or the value is not what it expects.
pub(crate) fn check_altered(name: &str, value: &str) -> Result<&'static Key, ConfigError> {
    let Some(key) = Key::find(KEYS, name) else {
        return Err(ConfigError::new(name, value, "is not a setting of this broker"));
    };
    if !is_alterable(name) {
        let why = "cannot be altered while the broker runs: change it where it is started, and restart it";
        return Err(ConfigError::new(name, value, why));
    }
    let fits = value == value.trim() && key.expects.accepts(value);
    if !fits {
        return Err(ConfigError::new(name, value, format!("must be {}", key.expects)));
    }
    let mut alone = Values::new();
    alone.set(name, value)?;
    // Numbers that are not whole are looked at there alone.
    let altered = BrokerConfig::from_values(&alone)?;
    if altered.max_connections == 0 || altered.max_connections_per_ip == 0 {
        // It would outlast restarts.
        return Err(ConfigError::new(
            name,
            value,
            "must be at least 1: nobody could connect to alter it back",
        ));
    }
    Ok(key)
}

/// What an alterable setting that is a list has where nothing is set; nothing when it is no list.
pub(crate) fn default_list(name: &str) -> Option<&'static str> {
    let key = Key::find(KEYS, name).filter(|_| name == "log.cleanup.policy")?;
    matches!(key.expects, Expectation::OneOf(_)).then_some(key.default)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(some: &[(&str, &str)]) -> BTreeMap<String, String> {
        some.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_is_altered_for_a_broker_goes_before_what_is_for_all_and_both_before_its_file() {
        let mut values = Values::new();
        values.set("log.retention.hours", "1").unwrap();
        values.set("max.connections", "7").unwrap();
        let live = LiveConfig::new(BrokerConfig::from_values(&values).unwrap());
        let mut followed = live.follow();
        let now = || (live.now().log.retention_ms, live.now().max_connections);
        assert_eq!(now(), (3_600_000, 7));
        live.alter(&settings(&[("log.retention.ms", "50"), ("max.connections", "8")]), &settings(&[]));
        assert_eq!(now(), (50, 8));
        live.alter(&settings(&[("log.retention.ms", "50")]), &settings(&[("log.retention.ms", "-1")]));
        assert_eq!(now(), (-1, 7));
        assert!(followed.has_changed().unwrap() && followed.borrow_and_update().log.retention_ms == -1);
        live.alter(&settings(&[]), &settings(&[]));
        assert_eq!(now(), (3_600_000, 7));
        assert_eq!(live.now().listeners, live.started.listeners);
    }

    #[test]
    fn every_alterable_setting_is_one_and_changes_something() {
        for name in ALTERABLE {
            let key = Key::find(KEYS, name).unwrap();
            let other = match key.expects {
                Expectation::OneOf(values) => {
                    values.iter().copied().find(|value| *value != key.default).unwrap()
                }
                Expectation::Bool => "true",
                Expectation::Int(_, most) if most < 4_321 => "5",
                Expectation::Int(..) => "4321",
                // A number that need not be whole.
                Expectation::Text => "0.25",
            };
            let live = LiveConfig::new(BrokerConfig::from_values(&Values::new()).unwrap());
            live.alter(&settings(&[(name, other)]), &settings(&[]));
            let now = live.now();
            let of = |config: &BrokerConfig| {
                let BrokerConfig { log, cleaner, reserve, .. } = config.clone();
                (log, cleaner, reserve, config.max_connections, config.max_connections_per_ip)
            };
            assert_ne!(of(&now), of(&live.started), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_and_ignored_where_it_is_stored() {
        let refused = |name, value| check_altered(name, value).unwrap_err().to_string();
        assert!(refused("log.dirs", "/x").contains("cannot be altered while the broker runs"));
        assert!(refused("log.retention.hours", "1").contains("cannot be altered"), "as in Kafka");
        assert!(refused("no.such.thing", "1").contains("is not a setting"));
        assert!(refused("max.connections", "many").contains("must be a whole number"));
        assert!(refused("max.connections", " 5").contains("must be"));
        for name in ["max.connections", "max.connections.per.ip"] {
            assert!(refused(name, "00").contains("nobody could connect"), "{name}");
            check_altered(name, "1").unwrap();
        }
        let live = LiveConfig::new(BrokerConfig::from_values(&Values::new()).unwrap());
        live.alter(&settings(&[("max.connections", "many"), ("node.id", "5")]), &settings(&[("x", "y")]));
        assert_eq!((live.now().max_connections, live.now().node_id), (10_000, 1));
    }

    #[test]
    fn one_is_a_list() {
        assert_eq!(default_list("log.cleanup.policy"), Some("delete"));
        assert_eq!(default_list("log.message.timestamp.type"), None);
        assert_eq!(default_list("nothing"), None);
    }
}
