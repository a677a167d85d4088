//! The settings of a client.

use std::sync::Arc;
use std::time::Duration;

use crate::error::ConfigError;
use crate::runtime::{Clock, Net, Rng, SeededRng, SystemClock, TcpNet};

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
        Ok(())
    }
}

fn has_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}
