//! A share consumer's settings: their defaults, what cannot work, and how they are read from text.

use std::sync::Arc;
use std::time::Duration;

use super::sharing::AcquireMode;
use crate::config::{Properties, check_duration};
use crate::error::ConfigError;

/// Records that are acquired at once unless told otherwise; Kafka's default of `max.poll.records`.
const MAX_POLL_RECORDS: usize = 500;

/// When records count as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AcknowledgementMode {
    /// Asking for more accepts what was handed out before and of which nothing else was said. Kafka's default.
    #[default]
    Implicit,
    /// Nothing is accepted that the program does not accept.
    Explicit,
}

/// The settings.
#[derive(Debug, Clone)]
pub(super) struct ShareConfig {
    pub(super) group: Arc<str>,
    pub(super) topics: Vec<Arc<str>>,
    pub(super) acknowledgement: AcknowledgementMode,
    pub(super) acquire: AcquireMode,
    pub(super) max_poll_records: usize,
    pub(super) fetch_min_bytes: usize,
    pub(super) fetch_max_wait: Duration,
    pub(super) fetch_max_bytes: usize,
    pub(super) max_batch_bytes: usize,
    pub(super) check_crcs: bool,
    pub(super) rack: Option<Arc<str>>,
    pub(super) request_timeout: Duration,
}

impl ShareConfig {
    fn new(group: Arc<str>) -> Self {
        Self {
            group,
            topics: Vec::new(),
            acknowledgement: AcknowledgementMode::default(),
            acquire: AcquireMode::default(),
            max_poll_records: MAX_POLL_RECORDS,
            fetch_min_bytes: 1,
            fetch_max_wait: Duration::from_millis(500),
            fetch_max_bytes: 16 * 1024 * 1024,
            max_batch_bytes: 128 * 1024 * 1024,
            check_crcs: true,
            rack: None,
            request_timeout: Duration::from_secs(30),
        }
    }

    /// The defaults, changed by what was given as text.
    pub(super) fn from_properties(group: Arc<str>, given: &Properties) -> Self {
        let mut config = Self::new(group);
        let change = |setting: &mut _, name| *setting = given.duration(name).unwrap_or(*setting);
        change(&mut config.fetch_max_wait, "fetch.max.wait.ms");
        change(&mut config.request_timeout, "request.timeout.ms");
        let change = |setting: &mut _, name| *setting = given.size(name).unwrap_or(*setting);
        change(&mut config.max_poll_records, "max.poll.records");
        change(&mut config.fetch_min_bytes, "fetch.min.bytes");
        change(&mut config.fetch_max_bytes, "fetch.max.bytes");
        config.check_crcs = given.flag("check.crcs").unwrap_or(config.check_crcs);
        config.rack = given.text("client.rack").filter(|rack| !rack.is_empty()).map(Arc::from);
        if given.text("share.acknowledgement.mode") == Some("explicit") {
            config.acknowledgement = AcknowledgementMode::Explicit;
        }
        if given.text("share.acquire.mode") == Some("record_limit") {
            config.acquire = AcquireMode::RecordLimit;
        }
        config
    }

    /// How long an answer to what is said may take: a fetch that is held goes before it.
    pub(super) fn patience(&self) -> Duration {
        self.request_timeout.saturating_add(self.fetch_max_wait)
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.group.is_empty() {
            return Err(ConfigError::new("group", "is empty"));
        }
        if self.topics.is_empty() {
            return Err(ConfigError::new("topics", "nothing to read: name at least one"));
        }
        if self.max_poll_records == 0 || self.fetch_max_bytes == 0 {
            return Err(ConfigError::new("max_poll_records", "and fetch_max_bytes must be positive"));
        }
        check_duration("request_timeout", self.request_timeout)?;
        if !self.fetch_max_wait.is_zero() {
            check_duration("fetch_max_wait", self.fetch_max_wait)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> ShareConfig {
        let mut given = Properties::default();
        given.extend(text.split(' ').filter_map(|pair| pair.split_once('='))).unwrap();
        ShareConfig::from_properties("g".into(), &given)
    }

    #[test]
    fn every_setting_arrives() {
        let given = config(
            "share.acknowledgement.mode=explicit share.acquire.mode=record_limit max.poll.records=1 fetch.min.bytes=2 \
             fetch.max.wait.ms=3 fetch.max.bytes=4 check.crcs=false client.rack=r request.timeout.ms=5",
        );
        assert_eq!((&*given.group, given.acknowledgement), ("g", AcknowledgementMode::Explicit));
        assert_eq!((given.acquire, given.rack.as_deref()), (AcquireMode::RecordLimit, Some("r")));
        let sizes = [given.max_poll_records, given.fetch_min_bytes, given.fetch_max_bytes];
        assert_eq!((sizes, given.check_crcs), ([1, 2, 4], false));
        let times = [given.fetch_max_wait, given.request_timeout];
        assert_eq!(times, [3, 5].map(Duration::from_millis));
    }

    #[test]
    fn defaults_are_those_of_the_table() {
        let given =
            config("share.acknowledgement.mode=implicit share.acquire.mode=batch_optimized client.rack=");
        for key in crate::SETTINGS {
            let expected = match key.name {
                "max.poll.records" => given.max_poll_records,
                "fetch.min.bytes" => given.fetch_min_bytes,
                "fetch.max.bytes" => given.fetch_max_bytes,
                "fetch.max.wait.ms" => given.fetch_max_wait.as_millis() as usize,
                "request.timeout.ms" => given.request_timeout.as_millis() as usize,
                _ => continue,
            };
            assert_eq!(key.default, expected.to_string(), "{}", key.name);
        }
        assert_eq!((given.acknowledgement, given.acquire), Default::default());
        assert_eq!((given.check_crcs, given.rack), (true, None));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let fine = || ShareConfig { topics: vec!["t".into()], ..ShareConfig::new("g".into()) };
        assert_eq!(fine().check(), Ok(()));
        assert_eq!(ShareConfig { fetch_max_wait: Duration::ZERO, ..fine() }.check(), Ok(()));
        let wrong = [
            ("group", ShareConfig { group: "".into(), ..fine() }),
            ("topics", ShareConfig { topics: Vec::new(), ..fine() }),
            ("max_poll_records", ShareConfig { max_poll_records: 0, ..fine() }),
            ("max_poll_records", ShareConfig { fetch_max_bytes: 0, ..fine() }),
            ("request_timeout", ShareConfig { request_timeout: Duration::ZERO, ..fine() }),
            ("fetch_max_wait", ShareConfig { fetch_max_wait: Duration::MAX, ..fine() }),
        ];
        for (setting, config) in wrong {
            assert_eq!(config.check().unwrap_err().setting, setting);
        }
    }
}
