//! A consumer's settings: their defaults, what cannot work, and how they are read from text.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use klamm_runtime::settings::parse_duration;

use super::interceptor::Interceptors;
use super::listener::RebalanceListener;
use crate::config::{Properties, check_duration};
use crate::error::ConfigError;
use crate::group::{Assignor, GroupProtocol, Strategy, TopicPattern};
use crate::types::{IsolationLevel, TopicPartition};

/// Kafka's default for `auto.commit.interval.ms`.
const AUTO_COMMIT_INTERVAL: Duration = Duration::from_secs(5);

/// Where to start in a partition without a committed offset, or whose position is no longer in the
/// log (`auto.offset.reset`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OffsetReset {
    /// At the oldest record.
    Earliest,
    /// After the newest record. Kafka's default.
    #[default]
    Latest,
    /// At the first record that is not older than this (Kafka's `by_duration`, KIP-1106), by the clock of this client;
    /// after the newest if there is none.
    ByDuration(Duration),
    /// Nowhere: it is an error.
    None,
}

/// Which topics have an [`OffsetReset`] of their own.
#[derive(Clone, Default)]
pub(crate) struct ResetOf(pub(crate) Option<Arc<ResetFn>>);

pub(crate) type ResetFn = dyn Fn(&str) -> Option<OffsetReset> + Send + Sync;

impl ResetOf {
    pub(crate) fn of(&self, topic: &str) -> Option<OffsetReset> {
        self.0.as_ref().and_then(|of| of(topic))
    }
}

impl fmt::Debug for ResetOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "ResetOf(a function)" } else { "ResetOf(none)" })
    }
}

/// What to read.
#[derive(Debug, Clone, Default)]
pub(crate) enum Subscription {
    #[default]
    Nothing,
    Topics(Vec<Arc<str>>),
    Pattern(TopicPattern),
    Partitions(Vec<TopicPartition>),
}

/// The settings.
#[derive(Clone)]
pub(crate) struct ConsumerConfig {
    pub(crate) group: Option<Arc<str>>,
    pub(crate) subscription: Subscription,
    pub(crate) offset_reset: OffsetReset,
    pub(crate) offset_reset_of: ResetOf,
    pub(crate) auto_commit: Option<Duration>,
    pub(crate) group_protocol: GroupProtocol,
    pub(crate) strategies: Vec<Strategy>,
    pub(crate) rack: Option<Arc<str>>,
    pub(crate) session_timeout: Duration,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) group_instance_id: Option<Arc<str>>,
    pub(crate) fetch_min_bytes: usize,
    pub(crate) fetch_max_wait: Duration,
    pub(crate) fetch_max_bytes: usize,
    pub(crate) partition_fetch_bytes: usize,
    pub(crate) prefetch_bytes: usize,
    pub(crate) max_batch_bytes: usize,
    pub(crate) check_crcs: bool,
    pub(crate) isolation: IsolationLevel,
    pub(crate) request_timeout: Duration,
    pub(crate) listener: Option<Arc<dyn RebalanceListener>>,
    pub(crate) interceptors: Interceptors,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            group: None,
            subscription: Subscription::Nothing,
            offset_reset: OffsetReset::Latest,
            offset_reset_of: ResetOf::default(),
            auto_commit: None,
            group_protocol: GroupProtocol::default(),
            strategies: vec![Strategy::BuiltIn(Assignor::default())],
            rack: None,
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            rebalance_timeout: Duration::from_secs(300),
            group_instance_id: None,
            fetch_min_bytes: 1,
            fetch_max_wait: Duration::from_millis(500),
            fetch_max_bytes: 16 * 1024 * 1024,
            partition_fetch_bytes: 1024 * 1024,
            prefetch_bytes: 32 * 1024 * 1024,
            max_batch_bytes: 128 * 1024 * 1024,
            check_crcs: true,
            isolation: IsolationLevel::ReadUncommitted,
            request_timeout: Duration::from_secs(30),
            listener: None,
            interceptors: Interceptors::default(),
        }
    }
}

impl ConsumerConfig {
    /// The defaults, changed by what was given as text.
    pub(super) fn from_properties(given: &Properties) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let change = |setting: &mut _, name| *setting = given.duration(name).unwrap_or(*setting);
        change(&mut config.session_timeout, "session.timeout.ms");
        change(&mut config.heartbeat_interval, "heartbeat.interval.ms");
        change(&mut config.rebalance_timeout, "max.poll.interval.ms");
        change(&mut config.fetch_max_wait, "fetch.max.wait.ms");
        change(&mut config.request_timeout, "request.timeout.ms");
        let change = |setting: &mut _, name| *setting = given.size(name).unwrap_or(*setting);
        change(&mut config.fetch_min_bytes, "fetch.min.bytes");
        change(&mut config.fetch_max_bytes, "fetch.max.bytes");
        change(&mut config.partition_fetch_bytes, "max.partition.fetch.bytes");
        change(&mut config.prefetch_bytes, "prefetch.bytes");
        let name = |name| given.text(name).filter(|text| !text.is_empty()).map(Arc::from);
        config.group = name("group.id");
        config.group_instance_id = name("group.instance.id");
        config.rack = name("client.rack");
        config.check_crcs = given.flag("check.crcs").unwrap_or(config.check_crcs);
        if given.flag("enable.auto.commit") == Some(true) {
            config.auto_commit =
                Some(given.duration("auto.commit.interval.ms").unwrap_or(AUTO_COMMIT_INTERVAL));
        }
        match given.text("group.protocol") {
            Some("classic") => config.group_protocol = GroupProtocol::Classic,
            Some("consumer") => config.group_protocol = GroupProtocol::Consumer,
            _ => {}
        }
        if let Some(reset) = given.text("auto.offset.reset") {
            config.offset_reset = offset_reset(reset)?;
        }
        match given.text("isolation.level") {
            Some("read_committed") => config.isolation = IsolationLevel::ReadCommitted,
            Some("read_uncommitted") => config.isolation = IsolationLevel::ReadUncommitted,
            _ => {}
        }
        if let Some(strategy) = given.text("partition.assignment.strategy") {
            let named = strategy.split(',').map(|name| assignor(name.trim()).map(Strategy::BuiltIn));
            config.strategies = named.collect::<Result<_, _>>()?;
        }
        Ok(config)
    }
}

/// A policy as Kafka spells it, such as `by_duration:PT1H30M` (KIP-1106).
fn offset_reset(text: &str) -> Result<OffsetReset, ConfigError> {
    let policy = match text {
        "earliest" => Some(OffsetReset::Earliest),
        "latest" => Some(OffsetReset::Latest),
        "none" => Some(OffsetReset::None),
        other => other.strip_prefix("by_duration:").and_then(parse_duration).map(OffsetReset::ByDuration),
    };
    policy.ok_or_else(|| {
        let reason = format!("`{text}` must be earliest, latest, none or like by_duration:P1DT2H3M4.5S");
        ConfigError::new("auto.offset.reset", reason)
    })
}

/// An assignor by the name that members know it by, or by that of its Java class.
fn assignor(name: &str) -> Result<Assignor, ConfigError> {
    match name.strip_prefix("org.apache.kafka.clients.consumer.").unwrap_or(name) {
        "range" | "RangeAssignor" => Ok(Assignor::Range),
        "roundrobin" | "RoundRobinAssignor" => Ok(Assignor::RoundRobin),
        "sticky" | "StickyAssignor" => Ok(Assignor::Sticky),
        "cooperative-sticky" | "CooperativeStickyAssignor" => Ok(Assignor::CooperativeSticky),
        _ => Err(ConfigError::new(
            "partition.assignment.strategy",
            format!("`{name}` must be range, roundrobin, sticky or cooperative-sticky"),
        )),
    }
}

impl ConsumerConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let subscribes = match &self.subscription {
            Subscription::Nothing => {
                return Err(ConfigError::new("topics", "nothing to read: set topics, pattern or assign"));
            }
            Subscription::Topics(topics) if topics.is_empty() => {
                return Err(ConfigError::new("topics", "is empty"));
            }
            Subscription::Topics(_) | Subscription::Pattern(_) => true,
            Subscription::Partitions(_) => false,
        };
        if subscribes && self.group.is_none() {
            return Err(ConfigError::new("group", "topics and pattern need one; assign does not"));
        }
        if self.group.as_ref().is_some_and(|group| group.is_empty()) {
            return Err(ConfigError::new("group", "is empty"));
        }
        if self.auto_commit.is_some() && self.group.is_none() {
            return Err(ConfigError::new("auto_commit", "needs a group"));
        }
        if self.auto_commit.is_some_and(|interval| interval.is_zero()) {
            return Err(ConfigError::new("auto_commit", "the interval must be positive"));
        }
        if self.heartbeat_interval.is_zero() || self.heartbeat_interval >= self.session_timeout {
            return Err(ConfigError::new(
                "heartbeat_interval",
                "must be positive and shorter than session_timeout",
            ));
        }
        let mut names = std::collections::BTreeSet::new();
        if self.strategies.is_empty() || !self.strategies.iter().all(|strategy| names.insert(strategy.name()))
        {
            return Err(ConfigError::new("assignors", "name at least one, and none twice"));
        }
        check_duration("session_timeout", self.session_timeout)?;
        check_duration("rebalance_timeout", self.rebalance_timeout)?;
        check_duration("request_timeout", self.request_timeout)?;
        if !self.fetch_max_wait.is_zero() {
            check_duration("fetch_max_wait", self.fetch_max_wait)?;
        }
        if self.partition_fetch_bytes == 0 || self.fetch_max_bytes == 0 || self.prefetch_bytes == 0 {
            return Err(ConfigError::new("prefetch_bytes", "and the fetch sizes must be positive"));
        }
        Ok(())
    }
}

impl fmt::Debug for ConsumerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerConfig")
            .field("group", &self.group)
            .field("subscription", &self.subscription)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<ConsumerConfig, ConfigError> {
        let mut given = Properties::default();
        given.extend(text.split(' ').filter_map(|pair| pair.split_once('='))).unwrap();
        ConsumerConfig::from_properties(&given)
    }

    fn names(config: &ConsumerConfig) -> Vec<Arc<str>> {
        config.strategies.iter().map(Strategy::name).collect()
    }

    #[test]
    fn every_setting_arrives() {
        let given = config(
            "group.id=g group.instance.id=i auto.offset.reset=earliest enable.auto.commit=true \
             auto.commit.interval.ms=1 session.timeout.ms=2 heartbeat.interval.ms=3 max.poll.interval.ms=4 \
             fetch.min.bytes=5 fetch.max.wait.ms=6 fetch.max.bytes=7 max.partition.fetch.bytes=8 prefetch.bytes=9 \
             check.crcs=false isolation.level=read_committed request.timeout.ms=10 \
             partition.assignment.strategy=range,sticky client.rack=r group.protocol=consumer",
        )
        .unwrap();
        assert_eq!((given.group.as_deref(), given.group_instance_id.as_deref()), (Some("g"), Some("i")));
        assert_eq!(
            (given.offset_reset, given.isolation),
            (OffsetReset::Earliest, IsolationLevel::ReadCommitted)
        );
        assert_eq!((names(&given), given.check_crcs), (vec!["range".into(), "sticky".into()], false));
        assert_eq!((given.rack.as_deref(), given.group_protocol), (Some("r"), GroupProtocol::Consumer));
        assert_eq!(given.auto_commit, Some(Duration::from_millis(1)));
        let times = [
            given.session_timeout,
            given.heartbeat_interval,
            given.rebalance_timeout,
            given.fetch_max_wait,
            given.request_timeout,
        ];
        assert_eq!(times, [2, 3, 4, 6, 10].map(Duration::from_millis));
        let sizes =
            [given.fetch_min_bytes, given.fetch_max_bytes, given.partition_fetch_bytes, given.prefetch_bytes];
        assert_eq!(sizes, [5, 7, 8, 9]);
    }

    #[test]
    fn a_policy_by_duration_is_as_in_java() {
        for (text, seconds) in [
            ("P1D", 86_400.0),
            ("PT1H30M", 5_400.0),
            ("P1DT2H3M4.5S", 93_784.5),
            ("PT0S", 0.0),
            ("PT0.25S", 0.25),
            ("P2DT1M", 172_860.0),
        ] {
            let given = config(&format!("auto.offset.reset=by_duration:{text}")).unwrap();
            assert_eq!(
                given.offset_reset,
                OffsetReset::ByDuration(Duration::from_secs_f64(seconds)),
                "{text}"
            );
        }
        for text in [
            "", "P", "PT", "P1", "1D", "PT1D", "P1H", "PT1M1H", "PT1S1S", "PT-1S", "P-1D", "PT1,5S", "PTS",
            "P1DT", "PTinfS", "P1.5D",
        ] {
            assert!(config(&format!("auto.offset.reset=by_duration:{text}")).is_err(), "{text}");
        }
    }

    #[test]
    fn words_mean_what_kafka_means_by_them() {
        assert_eq!(config("enable.auto.commit=true").unwrap().auto_commit, Some(Duration::from_secs(5)));
        assert_eq!(config("enable.auto.commit=false auto.commit.interval.ms=9").unwrap().auto_commit, None);
        assert_eq!(config("auto.offset.reset=none").unwrap().offset_reset, OffsetReset::None);
        assert_eq!(config("auto.offset.reset=latest").unwrap().offset_reset, OffsetReset::Latest);
        assert_eq!(config("group.id=").unwrap().group, None);
        let error = config("auto.offset.reset=smallest").unwrap_err().to_string();
        assert!(error.contains("`smallest` must be earliest, latest, none or like by_duration:"), "{error}");
        let java = "partition.assignment.strategy=org.apache.kafka.clients.consumer.RoundRobinAssignor";
        assert_eq!(names(&config(java).unwrap()), ["roundrobin".into()]);
        let error = config("partition.assignment.strategy=fair").unwrap_err().to_string();
        assert!(error.contains("`fair` must be range, roundrobin, sticky or cooperative-sticky"), "{error}");
    }
}
