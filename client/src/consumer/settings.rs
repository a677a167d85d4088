//! A consumer's settings as text, under Kafka's names.

use std::sync::Arc;
use std::time::Duration;

use super::builder::{ConsumerConfig, OffsetReset};
use crate::config::Properties;
use crate::error::ConfigError;
use crate::group::{Assignor, GroupProtocol, Strategy};
use crate::types::IsolationLevel;

/// Kafka's default for `auto.commit.interval.ms`.
const AUTO_COMMIT_INTERVAL: Duration = Duration::from_secs(5);

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
        match given.text("auto.offset.reset") {
            Some("earliest") => config.offset_reset = OffsetReset::Earliest,
            Some("latest") => config.offset_reset = OffsetReset::Latest,
            Some("none") => config.offset_reset = OffsetReset::None,
            _ => {}
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
    fn words_mean_what_kafka_means_by_them() {
        assert_eq!(config("enable.auto.commit=true").unwrap().auto_commit, Some(Duration::from_secs(5)));
        assert_eq!(config("enable.auto.commit=false auto.commit.interval.ms=9").unwrap().auto_commit, None);
        assert_eq!(config("auto.offset.reset=none").unwrap().offset_reset, OffsetReset::None);
        assert_eq!(config("auto.offset.reset=latest").unwrap().offset_reset, OffsetReset::Latest);
        assert_eq!(config("group.id=").unwrap().group, None);
        let java = "partition.assignment.strategy=org.apache.kafka.clients.consumer.RoundRobinAssignor";
        assert_eq!(names(&config(java).unwrap()), ["roundrobin".into()]);
        let error = config("partition.assignment.strategy=fair").unwrap_err().to_string();
        assert!(error.contains("`fair` must be range, roundrobin, sticky or cooperative-sticky"), "{error}");
    }
}
