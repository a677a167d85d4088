//! Settings, under Kafka's names: `server.properties` ([`parse_properties`]), the table of what there is ([`KEYS`]),
//! the broker's own settings ([`BrokerConfig`]) and those of topics ([`topic`]).

mod broker;
mod group;
mod keys;
mod listeners;
pub mod topic;
mod transaction;

pub use broker::BrokerConfig;
pub use group::GroupConfig;
pub use keys::{ConfigError, EMBEDDED_DEFAULTS, KEYS, Values};
pub use klamm_runtime::settings::{Expectation, Key, parse_properties};
pub use listeners::Endpoint;
pub use transaction::TransactionConfig;
