//! Settings, under Kafka's names: `server.properties` ([`parse_properties`]), the table of what there is ([`KEYS`]),
//! the broker's own settings ([`BrokerConfig`]) and those of topics ([`topic`]), which of them may be altered while the
//! broker runs, and how they are told.

mod broker;
mod described;
mod group;
mod keys;
mod listeners;
mod live;
pub mod topic;
mod transaction;

pub use broker::BrokerConfig;
pub(crate) use described::{Described, of_all_brokers, of_broker};
pub use group::GroupConfig;
pub use keys::{ConfigError, EMBEDDED_DEFAULTS, KEYS, Values};
pub use klamm_runtime::settings::{Expectation, Key, parse_properties};
pub use listeners::Endpoint;
pub use live::is_alterable;
pub(crate) use live::{LiveConfig, check_altered, default_list};
pub use transaction::TransactionConfig;
