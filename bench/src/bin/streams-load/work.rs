//! What is measured.

use crate::Result;

/// A pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Work {
    /// `map_values` and `filter`, no state.
    Stateless,
    /// A count of 100,000 keys, in no order.
    Count,
    /// A count of a million keys, in no order.
    ManyKeys,
    /// A count of 1,000 keys in windows of ten seconds of the records' time.
    Window,
    /// Two streams, joined within ten seconds.
    Join,
    /// A table with a table, by a foreign key.
    ForeignKey,
    /// Lines to words, through a repartition topic, to counts.
    Words,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Guarantee {
    AtLeastOnce,
    ExactlyOnce,
}

/// What one measurement is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mode {
    pub(crate) work: Work,
    pub(crate) guarantee: Guarantee,
    pub(crate) cache_bytes: usize,
}

pub(crate) const CACHE_BYTES: usize = 64 * 1024 * 1024;

impl Mode {
    /// Each kind of work: at least once and exactly once, and with state also without a cache.
    pub(crate) fn all() -> Vec<Self> {
        let mut modes = Vec::new();
        for work in Work::ALL {
            for guarantee in [Guarantee::AtLeastOnce, Guarantee::ExactlyOnce] {
                modes.push(Self { work, guarantee, cache_bytes: CACHE_BYTES });
            }
            if work != Work::Stateless && work != Work::Join {
                modes.push(Self { work, guarantee: Guarantee::AtLeastOnce, cache_bytes: 0 });
            }
        }
        modes
    }

    pub(crate) fn name(self) -> String {
        let cache = if self.cache_bytes == 0 { " no-cache" } else { "" };
        format!("{} {}{cache}", self.work.name(), self.guarantee.name())
    }
}

impl Guarantee {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AtLeastOnce => "at-least-once",
            Self::ExactlyOnce => "exactly-once",
        }
    }

    pub(crate) fn parse(name: &str) -> Result<Self> {
        let found = [Self::AtLeastOnce, Self::ExactlyOnce].into_iter().find(|known| known.name() == name);
        found.ok_or_else(|| format!("no guarantee {name}").into())
    }

    /// Both systems commit equally often.
    pub(crate) fn commit_interval_ms(self) -> u64 {
        match self {
            Self::AtLeastOnce => 1_000,
            Self::ExactlyOnce => 100,
        }
    }
}

impl Work {
    pub(crate) const ALL: [Self; 7] = [
        Self::Stateless,
        Self::Count,
        Self::ManyKeys,
        Self::Window,
        Self::Join,
        Self::ForeignKey,
        Self::Words,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stateless => "stateless",
            Self::Count => "count",
            Self::ManyKeys => "many-keys",
            Self::Window => "window",
            Self::Join => "join",
            Self::ForeignKey => "foreign-key",
            Self::Words => "words",
        }
    }

    pub(crate) fn parse(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|work| work.name() == name);
        found.ok_or_else(|| format!("no work {name}").into())
    }

    /// The topics that it reads.
    pub(crate) fn topics(self) -> &'static [&'static str] {
        match self {
            Self::Stateless | Self::Count => &["keyed"],
            Self::ManyKeys => &["million"],
            Self::Window => &["few-keys"],
            Self::Join => &["left", "right"],
            Self::ForeignKey => &["orders", "customers"],
            Self::Words => &["lines"],
        }
    }

    /// What is counted as done: records that were read, of `words` the words, of a foreign key the joined rows.
    pub(crate) fn steps(self) -> u64 {
        match self {
            Self::Stateless | Self::Count | Self::ManyKeys | Self::Window | Self::Join => 2_000_000,
            Self::ForeignKey => 300_000,
            Self::Words => 3_000_000,
        }
    }
}
