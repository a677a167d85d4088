//! Settings, under Kafka's names: `server.properties` ([`parse_properties`]), the table of what there is ([`KEYS`]), the broker's own
//! settings ([`BrokerConfig`]) and those of topics ([`topic`]).

mod broker;
mod keys;
mod listeners;
mod properties;
pub mod topic;

pub use broker::BrokerConfig;
pub use keys::{ConfigError, EMBEDDED_DEFAULTS, Expectation, KEYS, Key, Values};
pub use listeners::Endpoint;
pub use properties::parse_properties;
