//! Settings of topics, brokers, groups and other resources.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use klamm_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, ListConfigResourcesRequest,
    ListConfigResourcesResponse, alter_configs, describe_configs, incremental_alter_configs,
};

use super::asking::Exchange;
use super::handle::Admin;
use super::progress::{PerItem, check};
use super::route::{Destination, Item};
use super::topics::key;
use crate::error::{AdminError, RequestError};

/// From here on resources other than client metrics are listed.
const LIST_ALL_FROM: i16 = 1;

impl Admin {
    /// Describes the settings of resources. Secret values are not told.
    ///
    /// # Errors
    /// No broker in time.
    pub async fn describe_configs(
        &self,
        resources: &[ConfigResource],
    ) -> Result<PerItem<ConfigResource, Vec<ConfigEntry>>, AdminError> {
        let build = |resources: &[ConfigResource], _| DescribeConfigsRequest {
            resources: resources
                .iter()
                .map(|resource| describe_configs::DescribeConfigsResource {
                    resource_type: resource.kind.wire(),
                    resource_name: (&*resource.name).into(),
                    configuration_keys: None,
                    ..Default::default()
                })
                .collect(),
            include_synonyms: true,
            ..Default::default()
        };
        let read = |answer: DescribeConfigsResponse, _: &[ConfigResource]| {
            let results = answer.results.into_iter().map(|result| {
                let resource = resource(result.resource_type, &result.resource_name);
                let checked = check(result.error_code, result.error_message);
                (resource, checked.map(|()| result.configs.into_iter().map(entry).collect()))
            });
            results.collect()
        };
        let exchange = Exchange { what: "describing settings", up_to: i16::MAX, build, read };
        self.ask(resources.iter().cloned(), ConfigResource::destination, exchange).await
    }

    /// Changes single settings of resources; all others stay.
    ///
    /// Brokers without IncrementalAlterConfigs (Kafka before 2.3) know only a request that replaces all settings. It is
    /// used in its place for topics alone, whose settings can all be read; somebody who changes the same topic at the
    /// same moment may then be overruled. A broker's secret values cannot be read and would be lost: for brokers the
    /// call is an error there.
    ///
    /// # Errors
    /// No broker in time.
    pub async fn alter_configs(
        &self,
        changes: &HashMap<ConfigResource, Vec<ConfigChange>>,
    ) -> Result<PerItem<ConfigResource, ()>, AdminError> {
        self.send_changes(changes, false).await
    }

    /// Checks whether settings could be changed so, and changes none.
    ///
    /// # Errors
    /// As [`Admin::alter_configs`].
    pub async fn validate_configs(
        &self,
        changes: &HashMap<ConfigResource, Vec<ConfigChange>>,
    ) -> Result<PerItem<ConfigResource, ()>, AdminError> {
        self.send_changes(changes, true).await
    }

    async fn send_changes(
        &self,
        changes: &HashMap<ConfigResource, Vec<ConfigChange>>,
        validate_only: bool,
    ) -> Result<PerItem<ConfigResource, ()>, AdminError> {
        let build = |resources: &[ConfigResource], _| IncrementalAlterConfigsRequest {
            resources: resources
                .iter()
                .filter_map(|resource| Some((resource, changes.get(resource)?)))
                .map(|(resource, changes)| incremental_alter_configs::AlterConfigsResource {
                    resource_type: resource.kind.wire(),
                    resource_name: (&*resource.name).into(),
                    configs: changes.iter().map(ConfigChange::wire).collect(),
                    ..Default::default()
                })
                .collect(),
            validate_only,
            ..Default::default()
        };
        let read = |answer: IncrementalAlterConfigsResponse, _: &[ConfigResource]| {
            let results = answer.responses.into_iter().map(|result| {
                let resource = resource(result.resource_type, &result.resource_name);
                (resource, check(result.error_code, result.error_message))
            });
            results.collect()
        };
        let exchange = Exchange { what: "changing settings", up_to: i16::MAX, build, read };
        let resources: Vec<ConfigResource> = changes.keys().cloned().collect();
        match self.ask(resources, ConfigResource::destination, exchange).await {
            Err(AdminError::Request(RequestError::Unsupported { address, api })) => {
                if changes.keys().any(|resource| resource.kind != ConfigResourceType::Topic) {
                    return Err(RequestError::Unsupported { address, api }.into());
                }
                self.replace_configs(changes, validate_only).await
            }
            result => result,
        }
    }

    /// Reads what topics are set to, changes that, and replaces it.
    async fn replace_configs(
        &self,
        changes: &HashMap<ConfigResource, Vec<ConfigChange>>,
        validate_only: bool,
    ) -> Result<PerItem<ConfigResource, ()>, AdminError> {
        let mut resources: Vec<ConfigResource> = changes.keys().cloned().collect();
        resources.sort_unstable();
        let mut results = PerItem::new();
        let mut wanted: BTreeMap<ConfigResource, BTreeMap<Arc<str>, Arc<str>>> = BTreeMap::new();
        for (resource, described) in BTreeMap::from_iter(self.describe_configs(&resources).await?) {
            match described {
                Ok(entries) => {
                    let changed = changed(entries, changes.get(&resource).map_or(&[][..], |changes| changes));
                    wanted.insert(resource, changed);
                }
                Err(error) => drop(results.insert(resource, Err(error))),
            }
        }
        let build = |resources: &[ConfigResource], _| AlterConfigsRequest {
            resources: resources
                .iter()
                .filter_map(|resource| Some((resource, wanted.get(resource)?)))
                .map(|(resource, settings)| alter_configs::AlterConfigsResource {
                    resource_type: resource.kind.wire(),
                    resource_name: (&*resource.name).into(),
                    configs: settings
                        .iter()
                        .map(|(name, value)| alter_configs::AlterableConfig {
                            name: (&**name).into(),
                            value: Some((&**value).into()),
                            ..Default::default()
                        })
                        .collect(),
                    ..Default::default()
                })
                .collect(),
            validate_only,
            ..Default::default()
        };
        let read = |answer: AlterConfigsResponse, _: &[ConfigResource]| {
            let results = answer.responses.into_iter().map(|result| {
                let resource = resource(result.resource_type, &result.resource_name);
                (resource, check(result.error_code, result.error_message))
            });
            results.collect()
        };
        let exchange = Exchange { what: "replacing settings", up_to: i16::MAX, build, read };
        results.extend(self.ask(wanted.keys().cloned(), ConfigResource::destination, exchange).await?);
        Ok(results)
    }

    /// The resources of some kinds that have settings of their own; of all kinds when none is named.
    ///
    /// # Errors
    /// No broker in time, or one that cannot list these kinds: before Kafka 4.1 only client metrics can be listed.
    pub async fn list_config_resources(
        &self,
        kinds: &[ConfigResourceType],
    ) -> Result<Vec<ConfigResource>, AdminError> {
        let what = "listing resources";
        let version = self.version_somewhere::<ListConfigResourcesRequest>(what).await?;
        if version < LIST_ALL_FROM && kinds != [ConfigResourceType::ClientMetrics] {
            let api = klamm_protocol::ApiKey::ListConfigResources;
            return Err(RequestError::Unsupported { address: Arc::from("the cluster"), api }.into());
        }
        let build = |_: &[()], version| ListConfigResourcesRequest {
            resource_types: if version >= LIST_ALL_FROM {
                kinds.iter().map(|kind| kind.wire()).collect()
            } else {
                Vec::new()
            },
            ..Default::default()
        };
        let read = |answer: ListConfigResourcesResponse, _: &[()]| {
            let found = check(answer.error_code, None).map(|()| {
                let found = answer.config_resources.iter();
                found.map(|found| resource(found.resource_type, &found.resource_name)).collect()
            });
            vec![((), found)]
        };
        let exchange = Exchange { what, up_to: i16::MAX, build, read };
        let mut found: Vec<ConfigResource> = self.ask_one((), Destination::Any, exchange).await?;
        found.sort_unstable();
        Ok(found)
    }
}

/// What has settings.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConfigResource {
    /// What it is.
    pub kind: ConfigResourceType,
    /// Its name; a broker's id, or empty for what is set for all brokers.
    pub name: Arc<str>,
}

impl ConfigResource {
    /// A resource of a kind.
    pub fn new(kind: ConfigResourceType, name: impl Into<Arc<str>>) -> Self {
        Self { kind, name: name.into() }
    }

    /// A topic.
    pub fn topic(name: impl Into<Arc<str>>) -> Self {
        Self::new(ConfigResourceType::Topic, name)
    }

    /// A broker.
    pub fn broker(id: i32) -> Self {
        Self::new(ConfigResourceType::Broker, id.to_string())
    }

    /// What is set for all brokers.
    pub fn all_brokers() -> Self {
        Self::new(ConfigResourceType::Broker, "")
    }

    /// A group.
    pub fn group(name: impl Into<Arc<str>>) -> Self {
        Self::new(ConfigResourceType::Group, name)
    }

    /// A broker knows its own settings alone.
    fn destination(&self) -> Destination {
        match self.kind {
            ConfigResourceType::Broker | ConfigResourceType::BrokerLogger => {
                self.name.parse().map_or(Destination::Any, Destination::Broker)
            }
            _ => Destination::Any,
        }
    }
}

impl fmt::Display for ConfigResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.kind, self.name)
    }
}

impl Item for ConfigResource {
    fn name(&self) -> Arc<str> {
        self.to_string().into()
    }
}

/// A kind of thing that has settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ConfigResourceType {
    /// A topic.
    Topic,
    /// A broker.
    Broker,
    /// The log levels of a broker.
    BrokerLogger,
    /// A subscription to clients' metrics (KIP-714).
    ClientMetrics,
    /// A group.
    Group,
    /// One that this client does not know.
    Unknown(i8),
}

impl ConfigResourceType {
    fn wire(self) -> i8 {
        match self {
            Self::Topic => 2,
            Self::Broker => 4,
            Self::BrokerLogger => 8,
            Self::ClientMetrics => 16,
            Self::Group => 32,
            Self::Unknown(code) => code,
        }
    }

    fn from_wire(code: i8) -> Self {
        let known = [Self::Topic, Self::Broker, Self::BrokerLogger, Self::ClientMetrics, Self::Group];
        known.into_iter().find(|kind| kind.wire() == code).unwrap_or(Self::Unknown(code))
    }
}

/// A setting of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigEntry {
    /// Kafka's name of it.
    pub name: Arc<str>,
    /// Its value; `None` when it is not set, or secret.
    pub value: Option<Arc<str>>,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// Whether it cannot be changed while the broker runs.
    pub read_only: bool,
    /// Whether its value is secret.
    pub sensitive: bool,
}

/// Where a setting's value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConfigSource {
    /// Set for the topic.
    Topic,
    /// Set for the broker while it runs.
    Broker,
    /// Set for all brokers while they run.
    AllBrokers,
    /// In the broker's file.
    File,
    /// The default.
    Default,
    /// A log level set while the broker runs.
    BrokerLogger,
    /// Set for the metrics subscription.
    ClientMetrics,
    /// Set for the group.
    Group,
    /// Not told, or one that this client does not know.
    Unknown,
}

impl ConfigSource {
    fn from_wire(code: i8) -> Self {
        match code {
            1 => Self::Topic,
            2 => Self::Broker,
            3 => Self::AllBrokers,
            4 => Self::File,
            5 => Self::Default,
            6 => Self::BrokerLogger,
            7 => Self::ClientMetrics,
            8 => Self::Group,
            _ => Self::Unknown,
        }
    }
}

/// A change of one setting.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigChange {
    /// Sets a value: name, value.
    Set(Arc<str>, Arc<str>),
    /// Goes back to the default.
    Reset(Arc<str>),
    /// Adds values, separated by commas, to a list: name, values.
    Append(Arc<str>, Arc<str>),
    /// Removes values, separated by commas, from a list: name, values.
    Subtract(Arc<str>, Arc<str>),
}

impl ConfigChange {
    /// Sets a value.
    pub fn set(name: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        Self::Set(name.into(), value.into())
    }

    /// Goes back to the default.
    pub fn reset(name: impl Into<Arc<str>>) -> Self {
        Self::Reset(name.into())
    }

    fn wire(&self) -> incremental_alter_configs::AlterableConfig {
        let (name, config_operation, value) = match self {
            Self::Set(name, value) => (name, 0, Some(value)),
            Self::Reset(name) => (name, 1, None),
            Self::Append(name, value) => (name, 2, Some(value)),
            Self::Subtract(name, value) => (name, 3, Some(value)),
        };
        let value = value.map(|value| (&**value).into());
        incremental_alter_configs::AlterableConfig {
            name: (&**name).into(),
            config_operation,
            value,
            ..Default::default()
        }
    }
}

/// Without values, which may be secret.
impl fmt::Debug for ConfigChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, name) = match self {
            Self::Set(name, _) => ("Set", name),
            Self::Reset(name) => ("Reset", name),
            Self::Append(name, _) => ("Append", name),
            Self::Subtract(name, _) => ("Subtract", name),
        };
        write!(f, "{what}({name})")
    }
}

fn resource(kind: i8, name: &klamm_protocol::Utf8Bytes) -> ConfigResource {
    ConfigResource { kind: ConfigResourceType::from_wire(kind), name: key(name) }
}

fn entry(told: describe_configs::DescribeConfigsResourceResult) -> ConfigEntry {
    ConfigEntry {
        name: key(&told.name),
        value: told.value.as_ref().map(key),
        source: ConfigSource::from_wire(told.config_source),
        read_only: told.read_only,
        sensitive: told.is_sensitive,
    }
}

/// What a topic is to be set to: what it is set to now, changed.
fn changed(entries: Vec<ConfigEntry>, changes: &[ConfigChange]) -> BTreeMap<Arc<str>, Arc<str>> {
    let effective: BTreeMap<Arc<str>, Arc<str>> =
        entries.iter().filter_map(|entry| Some((Arc::clone(&entry.name), entry.value.clone()?))).collect();
    let own = entries.into_iter().filter(|entry| entry.source == ConfigSource::Topic);
    let mut settings: BTreeMap<Arc<str>, Arc<str>> =
        own.filter_map(|entry| Some((entry.name, entry.value?))).collect();
    let list = |name: &Arc<str>, settings: &BTreeMap<Arc<str>, Arc<str>>| -> Vec<String> {
        let value = settings.get(name).or_else(|| effective.get(name)).map_or("", |value| &**value);
        value.split(',').map(str::trim).filter(|one| !one.is_empty()).map(str::to_owned).collect()
    };
    for change in changes {
        match change {
            ConfigChange::Set(name, value) => {
                settings.insert(Arc::clone(name), Arc::clone(value));
            }
            ConfigChange::Reset(name) => {
                settings.remove(name);
            }
            ConfigChange::Append(name, values) => {
                let mut list = list(name, &settings);
                let new = values.split(',').map(str::trim).filter(|one| !one.is_empty());
                for value in new {
                    if !list.iter().any(|have| have == value) {
                        list.push(value.to_owned());
                    }
                }
                settings.insert(Arc::clone(name), list.join(",").into());
            }
            ConfigChange::Subtract(name, values) => {
                let mut list = list(name, &settings);
                list.retain(|have| !values.split(',').any(|value| value.trim() == have));
                settings.insert(Arc::clone(name), list.join(",").into());
            }
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replacement_keeps_what_is_set_and_only_that() {
        let entry = |name: &str, value: &str, source| ConfigEntry {
            name: name.into(),
            value: Some(value.into()),
            source,
            read_only: false,
            sensitive: false,
        };
        let entries = vec![
            entry("retention.ms", "1", ConfigSource::Topic),
            entry("segment.bytes", "2", ConfigSource::Topic),
            entry("cleanup.policy", "delete", ConfigSource::Default),
            entry("flush.ms", "3", ConfigSource::AllBrokers),
        ];
        let changes = [
            ConfigChange::set("retention.bytes", "9"),
            ConfigChange::reset("segment.bytes"),
            ConfigChange::Append("cleanup.policy".into(), "compact, delete".into()),
        ];
        let settings = changed(entries.clone(), &changes);
        let text: Vec<String> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(text, ["cleanup.policy=delete,compact", "retention.bytes=9", "retention.ms=1"]);
        let changes = [ConfigChange::Subtract("cleanup.policy".into(), "delete".into())];
        assert_eq!(&*changed(entries, &changes)["cleanup.policy"], "");
    }

    #[test]
    fn a_changes_value_is_not_told() {
        let changes = [
            ConfigChange::set("ssl.key.password", "hunter2"),
            ConfigChange::Append("a".into(), "hunter2".into()),
            ConfigChange::Subtract("b".into(), "hunter2".into()),
            ConfigChange::reset("c"),
        ];
        let text = format!("{changes:?}");
        assert_eq!(text, "[Set(ssl.key.password), Append(a), Subtract(b), Reset(c)]");
    }

    #[test]
    fn kinds_and_sources_by_number() {
        for code in i8::MIN..=i8::MAX {
            assert_eq!(ConfigResourceType::from_wire(code).wire(), code);
        }
        assert_eq!(ConfigResourceType::from_wire(32), ConfigResourceType::Group);
        assert_eq!(ConfigSource::from_wire(1), ConfigSource::Topic);
        assert_eq!(ConfigSource::from_wire(9), ConfigSource::Unknown);
    }

    #[test]
    fn brokers_are_asked_about_themselves() {
        assert_eq!(ConfigResource::broker(7).destination(), Destination::Broker(7));
        assert_eq!(ConfigResource::all_brokers().destination(), Destination::Any);
        assert_eq!(ConfigResource::topic("7").destination(), Destination::Any);
        let logger = ConfigResource::new(ConfigResourceType::BrokerLogger, "3");
        assert_eq!(logger.destination(), Destination::Broker(3));
    }
}
