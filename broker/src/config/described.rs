//! A setting as DescribeConfigs tells it: its value, where that comes from, and what else it could come from.

use klamm_runtime::settings::{Expectation, Key};

use super::keys::{KEYS, Values};
use super::live::is_alterable;

/// Settings for one thing in several units: the first that is set counts.
const FAMILIES: &[&[&str]] = &[
    &["log.retention.ms", "log.retention.minutes", "log.retention.hours"],
    &["log.roll.ms", "log.roll.hours"],
];

/// Where a value comes from, by Kafka's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Set on the topic.
    Topic = 1,
    /// Altered for this broker while it ran.
    Broker = 2,
    /// Altered for all brokers while they ran.
    AllBrokers = 3,
    /// Given to the broker when it was started.
    File = 4,
    /// Nobody set it.
    Default = 5,
}

/// What a value is, by Kafka's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Unknown = 0,
    Boolean = 1,
    String = 2,
    Int = 3,
    Long = 5,
    Double = 6,
    List = 7,
}

/// A setting that a value can come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Synonym {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) source: Source,
}

/// A setting and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) name: String,
    /// None when it is not set and has no default.
    pub(crate) value: Option<String>,
    pub(crate) source: Source,
    pub(crate) kind: Kind,
    /// It cannot be changed while the broker runs.
    pub(crate) read_only: bool,
    pub(crate) doc: &'static str,
    /// The one in force first.
    pub(crate) synonyms: Vec<Synonym>,
}

impl Synonym {
    pub(super) fn new(name: &str, value: &str, source: Source) -> Self {
        Self { name: name.to_owned(), value: value.to_owned(), source }
    }
}

/// What a broker has for one of several settings for the same, in their order: the first one counts.
pub(super) fn synonyms(names: &[&str], values: &Values) -> Vec<Synonym> {
    let set = names.iter().flat_map(|name| {
        let [own, all, file] = values.layers(name);
        [(own, Source::Broker), (all, Source::AllBrokers), (file, Source::File)]
            .into_iter()
            .filter_map(|(value, source)| Some(Synonym::new(name, value?, source)))
    });
    // The last has the default of them all.
    let last = names.last().and_then(|name| Key::find(KEYS, name)).filter(|key| !key.default.is_empty());
    set.chain(last.map(|key| Synonym::new(key.name, key.default, Source::Default))).collect()
}

/// The settings of the broker.
pub(crate) fn of_broker(values: &Values) -> Vec<Described> {
    KEYS.iter().map(|key| described(key, values)).collect()
}

/// What was altered for all brokers.
pub(crate) fn of_all_brokers(values: &Values) -> Vec<Described> {
    let altered = KEYS.iter().filter_map(|key| {
        let [_, value, _] = values.layers(key.name);
        let synonym = Synonym::new(key.name, value?, Source::AllBrokers);
        Some(Described {
            value: Some(synonym.value.clone()),
            source: Source::AllBrokers,
            synonyms: vec![synonym],
            ..described(key, values)
        })
    });
    altered.collect()
}

fn described(key: &'static Key, values: &Values) -> Described {
    let own = synonyms(&[key.name], values);
    let family = FAMILIES.iter().find(|family| family.contains(&key.name));
    Described {
        name: key.name.to_owned(),
        value: own.first().map(|first| first.value.clone()),
        source: own.first().map_or(Source::Default, |first| first.source),
        kind: kind_of(key),
        read_only: !is_alterable(key.name),
        doc: key.doc,
        synonyms: family.map_or(own, |family| synonyms(family, values)),
    }
}

fn kind_of(key: &Key) -> Kind {
    match key.expects {
        _ if key.name == "log.cleanup.policy" => Kind::List,
        Expectation::Int(_, max) if max <= i64::from(i32::MAX) => Kind::Int,
        Expectation::Int(..) => Kind::Long,
        Expectation::Bool => Kind::Boolean,
        Expectation::OneOf(_) | Expectation::Text => Kind::String,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_brokers_setting_is_given_or_the_default_or_nothing() {
        let mut values = Values::new();
        values.set("num.partitions", "4").unwrap();
        let all = of_broker(&values);
        let one = |name: &str| {
            let found = all.iter().find(|described| described.name == name).unwrap();
            (found.value.as_deref(), found.source, found.kind, found.synonyms.len())
        };
        assert_eq!(one("num.partitions"), (Some("4"), Source::File, Kind::Int, 2));
        assert_eq!(one("flush"), (Some("sync"), Source::Default, Kind::String, 1));
        assert_eq!(one("log.roll.ms"), (None, Source::Default, Kind::Long, 1));
        assert_eq!(one("log.cleanup.policy").2, Kind::List);
        assert_eq!(one("delete.topic.enable").2, Kind::Boolean);
        assert_eq!(all.len(), KEYS.len());
        for (name, read_only) in
            [("num.partitions", true), ("log.retention.ms", false), ("log.roll.hours", true)]
        {
            assert_eq!(all.iter().find(|one| one.name == name).unwrap().read_only, read_only, "{name}");
        }
        assert!(of_all_brokers(&values).is_empty());
    }

    #[test]
    fn what_was_altered_is_told_before_what_was_given() {
        let mut values = Values::new();
        values.set("log.retention.minutes", "4").unwrap();
        values.set("max.connections", "5").unwrap();
        let all = BTreeMap::from([("log.retention.ms", "7".to_owned()), ("max.connections", "6".to_owned())]);
        let own = BTreeMap::from([("log.retention.ms", "8".to_owned())]);
        let values = values.altered(all, own);
        let told = |all: Vec<Described>, name: &str| {
            let found = all.into_iter().find(|described| described.name == name).unwrap();
            let synonyms = found
                .synonyms
                .into_iter()
                .map(|one| format!("{}={}:{}", one.name, one.value, one.source as i8));
            (found.value, found.source, synonyms.collect::<Vec<_>>().join(" "))
        };
        let (value, source, synonyms) = told(of_broker(&values), "log.retention.ms");
        assert_eq!((value.as_deref(), source), (Some("8"), Source::Broker));
        let family =
            "log.retention.ms=8:2 log.retention.ms=7:3 log.retention.minutes=4:4 log.retention.hours=168:5";
        assert_eq!(synonyms, family);
        let (value, source, synonyms) = told(of_broker(&values), "max.connections");
        assert_eq!((value.as_deref(), source), (Some("6"), Source::AllBrokers));
        assert_eq!(synonyms, "max.connections=6:3 max.connections=5:4 max.connections=10000:5");
        let (value, source, synonyms) = told(of_all_brokers(&values), "log.retention.ms");
        assert_eq!(
            (value.as_deref(), source, &*synonyms),
            (Some("7"), Source::AllBrokers, "log.retention.ms=7:3")
        );
        assert_eq!(of_all_brokers(&values).len(), 2);
    }
}
