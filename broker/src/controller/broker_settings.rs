//! The settings of brokers that were altered while they ran. Pure.

use std::collections::BTreeMap;

static NONE: BTreeMap<String, String> = BTreeMap::new();

/// What was altered for each broker, by its number, and for all of them, by the empty name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BrokerSettings {
    by_broker: BTreeMap<String, BTreeMap<String, String>>,
}

impl BrokerSettings {
    /// What was altered for a broker, or for all.
    pub fn of(&self, broker: &str) -> &BTreeMap<String, String> {
        self.by_broker.get(broker).unwrap_or(&NONE)
    }

    /// All that was altered: broker, setting, value.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.by_broker.iter().flat_map(|(broker, settings)| {
            settings.iter().map(move |(key, value)| (broker.as_str(), key.as_str(), value.as_str()))
        })
    }

    pub(super) fn set(&mut self, broker: &str, key: &str, value: Option<&str>) {
        match value {
            Some(value) => {
                let settings = self.by_broker.entry(broker.to_owned()).or_default();
                settings.insert(key.to_owned(), value.to_owned());
            }
            None => {
                if let Some(settings) = self.by_broker.get_mut(broker) {
                    settings.remove(key);
                    if settings.is_empty() {
                        self.by_broker.remove(broker);
                    }
                }
            }
        }
    }
}
