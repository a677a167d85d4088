//! A setting as DescribeConfigs tells it: its value, where that comes from, and what else it could come from.

use klamm_runtime::settings::{Expectation, Key};

use super::keys::{KEYS, Values};

/// Where a value comes from, by Kafka's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Set on the topic.
    Topic = 1,
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
    pub(super) fn of_topic(name: &str, value: &str) -> Self {
        Self { name: name.to_owned(), value: value.to_owned(), source: Source::Topic }
    }

    pub(super) fn of_file(name: &str, value: &str) -> Self {
        Self { name: name.to_owned(), value: value.to_owned(), source: Source::File }
    }

    pub(super) fn default(name: &str, value: &str) -> Self {
        Self { name: name.to_owned(), value: value.to_owned(), source: Source::Default }
    }
}

/// The settings of the broker. They are what it was started with.
pub(crate) fn of_broker(values: &Values) -> Vec<Described> {
    KEYS.iter().map(|key| described(key, values)).collect()
}

fn described(key: &'static Key, values: &Values) -> Described {
    let own = values.is_set(key.name).then(|| Synonym::of_file(key.name, values.text(key.name)));
    let default = (!key.default.is_empty()).then(|| Synonym::default(key.name, key.default));
    let synonyms: Vec<Synonym> = own.into_iter().chain(default).collect();
    let first = synonyms.first();
    Described {
        name: key.name.to_owned(),
        value: first.map(|synonym| synonym.value.clone()),
        source: first.map_or(Source::Default, |synonym| synonym.source),
        kind: kind_of(key.expects),
        read_only: true,
        doc: key.doc,
        synonyms,
    }
}

fn kind_of(expects: Expectation) -> Kind {
    match expects {
        Expectation::Int(_, max) if max <= i64::from(i32::MAX) => Kind::Int,
        Expectation::Int(..) => Kind::Long,
        Expectation::Bool => Kind::Boolean,
        Expectation::OneOf(_) | Expectation::Text => Kind::String,
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(one("log.roll.ms"), (None, Source::Default, Kind::Long, 0));
        assert_eq!(one("delete.topic.enable").2, Kind::Boolean);
        assert!(all.len() == KEYS.len() && all.iter().all(|described| described.read_only));
    }
}
