//! The settings of a client.

use std::sync::Arc;
use std::time::Duration;

use super::properties::Properties;
use super::table::LONGEST_MS;
use crate::error::ConfigError;
use crate::observe::Observers;
use crate::runtime::{Clock, Net, Rng, SeededRng, SystemClock, TcpNet};
use crate::security::Security;

/// The settings.
#[derive(Debug, Clone)]
pub(crate) struct ClientConfig {
    pub(crate) bootstrap: Vec<Arc<str>>,
    pub(crate) client_id: Arc<str>,
    pub(crate) net: Arc<dyn Net>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Arc<dyn Rng>,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) metadata_max_age: Duration,
    pub(crate) reconnect_backoff: Duration,
    pub(crate) retry_backoff: Duration,
    pub(crate) retry_backoff_max: Duration,
    pub(crate) max_response_bytes: usize,
    pub(crate) allow_auto_create_topics: bool,
    /// As it was set in code, or given as text; `None` is neither TLS nor a login.
    pub(crate) security: Option<Security>,
    pub(crate) observers: Observers,
    /// What was given as text, also for producers and consumers.
    pub(crate) properties: Properties,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            bootstrap: vec![Arc::from("127.0.0.1:9092")],
            client_id: Arc::from("klamm"),
            net: Arc::new(TcpNet),
            clock: Arc::new(SystemClock),
            rng: Arc::new(SeededRng::from_os()),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            metadata_max_age: Duration::from_secs(300),
            reconnect_backoff: Duration::from_millis(50),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            max_response_bytes: 100 * 1024 * 1024,
            allow_auto_create_topics: true,
            security: None,
            observers: Observers::default(),
            properties: Properties::default(),
        }
    }
}

impl ClientConfig {
    /// What cannot work, named.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.bootstrap.is_empty() {
            return Err(ConfigError::new("bootstrap", "names no address"));
        }
        if let Some(address) = self.bootstrap.iter().find(|address| !has_port(address)) {
            return Err(ConfigError::new("bootstrap", format!("`{address}` is not host:port")));
        }
        check_duration("connect_timeout", self.connect_timeout)?;
        check_duration("request_timeout", self.request_timeout)?;
        check_duration("metadata_max_age", self.metadata_max_age)?;
        check_longest("retry_backoff", self.retry_backoff_max)?;
        if self.max_response_bytes == 0 {
            return Err(ConfigError::new("max_response_bytes", "must be positive"));
        }
        self.security.as_ref().map_or(Ok(()), Security::check)
    }

    /// Takes over security that was given as text, unless it was set in code.
    pub(crate) async fn secure(&mut self) -> Result<(), ConfigError> {
        match super::security::security(&self.properties).await? {
            Some(_) if self.security.is_some() => {
                Err(ConfigError::new("security.protocol", "is given beside `ClientBuilder::security`"))
            }
            Some(security) => {
                self.security = Some(security);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Takes over what was given as text.
    pub(crate) fn apply(&mut self, given: Properties) {
        let change = |setting: &mut Duration, name: &str| *setting = given.duration(name).unwrap_or(*setting);
        change(&mut self.request_timeout, "request.timeout.ms");
        change(&mut self.connect_timeout, "socket.connection.setup.timeout.ms");
        change(&mut self.metadata_max_age, "metadata.max.age.ms");
        change(&mut self.reconnect_backoff, "reconnect.backoff.ms");
        change(&mut self.retry_backoff, "retry.backoff.ms");
        change(&mut self.retry_backoff_max, "retry.backoff.max.ms");
        self.retry_backoff_max = self.retry_backoff_max.max(self.retry_backoff);
        if let Some(servers) = given.text("bootstrap.servers") {
            self.bootstrap = addresses(servers);
        }
        if let Some(id) = given.text("client.id") {
            self.client_id = Arc::from(id);
        }
        self.max_response_bytes = given.size("receive.message.max.bytes").unwrap_or(self.max_response_bytes);
        self.allow_auto_create_topics =
            given.flag("allow.auto.create.topics").unwrap_or(self.allow_auto_create_topics);
        self.properties = given;
    }
}

/// The longest time that a setting may be: as long as Kafka's 32-bit milliseconds reach. Longer ones would only be
/// rounded, and adding `Duration::MAX` to a time is a panic.
const LONGEST: Duration = Duration::from_millis(LONGEST_MS as u64);

/// Whether a time can be waited for at all.
pub(crate) fn check_duration(setting: &'static str, duration: Duration) -> Result<(), ConfigError> {
    if duration.is_zero() {
        return Err(ConfigError::new(setting, "must be longer than zero"));
    }
    check_longest(setting, duration)
}

/// As [`check_duration`], where no time at all is one.
pub(crate) fn check_longest(setting: &'static str, duration: Duration) -> Result<(), ConfigError> {
    if duration <= LONGEST {
        return Ok(());
    }
    let reason = format!("{duration:?} is more than {LONGEST:?} (24 days), the longest there is");
    Err(ConfigError::new(setting, reason))
}

/// The addresses of a list with commas.
pub(crate) fn addresses(list: &str) -> Vec<Arc<str>> {
    list.split(',').map(str::trim).filter(|address| !address.is_empty()).map(Arc::from).collect()
}

fn has_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(change: impl FnOnce(&mut ClientConfig)) -> Result<(), String> {
        let mut config = ClientConfig::default();
        change(&mut config);
        config.check().map_err(|error| error.to_string())
    }

    #[test]
    fn times_that_cannot_be_waited_for_are_refused() {
        assert_eq!(checked(|_| {}), Ok(()));
        assert_eq!(checked(|config| config.request_timeout = LONGEST), Ok(()));
        let error = checked(|config| config.request_timeout = LONGEST + Duration::from_nanos(1)).unwrap_err();
        assert!(error.starts_with("setting `request_timeout`: ") && error.contains("24 days"), "{error}");
        assert!(checked(|config| config.connect_timeout = Duration::MAX).is_err());
        assert!(checked(|config| config.metadata_max_age = Duration::ZERO).is_err());
        assert!(checked(|config| config.retry_backoff_max = Duration::MAX).is_err());
        assert!(checked(|config| config.max_response_bytes = 0).is_err());
        assert!(checked(|config| config.bootstrap.clear()).is_err());
        assert!(checked(|config| config.bootstrap = addresses("localhost")).is_err());
    }

    #[test]
    fn text_changes_what_it_names_and_nothing_else() {
        let mut given = Properties::default();
        given
            .extend([("bootstrap.servers", "a:1, b:2,"), ("retry.backoff.ms", "2000"), ("acks", "1")])
            .unwrap();
        let mut config = ClientConfig::default();
        config.apply(given);
        assert_eq!(config.bootstrap, [Arc::from("a:1"), Arc::from("b:2")]);
        assert_eq!(config.retry_backoff_max, Duration::from_secs(2), "never below the first pause");
        assert_eq!(config.request_timeout, Duration::from_secs(30));
        assert_eq!(config.properties.text("acks"), Some("1"), "kept for producers");
    }
}
