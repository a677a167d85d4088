//! What is measured.

use crate::Result;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum System {
    Klamm,
    RustStream,
    Spring,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// One record at a time, one call at a time.
    Text,
    /// Four calls at a time, each partition in order.
    Text4,
    Json,
    /// Up to 500 records at a time.
    Batch,
    /// Four calls at a time, each key in order.
    Key,
    /// Four calls at a time, in no order.
    Unordered,
    /// A commit after each record.
    AckRecord,
    /// The handler acknowledges each record, and that commits it.
    AckNow,
    /// One record at a time of those that come at a thousand a second: from the time a record was due to its handler.
    Latency,
}

impl System {
    pub const ALL: [Self; 3] = [Self::Klamm, Self::RustStream, Self::Spring];

    pub fn name(self) -> &'static str {
        match self {
            Self::Klamm => "klamm",
            Self::RustStream => "ruststream",
            Self::Spring => "spring",
        }
    }

    /// RustStream commits in an interval only; spring-kafka has no keys and no unordered handlers.
    pub fn can(self, mode: Mode) -> bool {
        match self {
            Self::Klamm => true,
            Self::RustStream => !matches!(mode, Mode::AckRecord | Mode::AckNow),
            Self::Spring => !matches!(mode, Mode::Key | Mode::Unordered),
        }
    }
}

impl Mode {
    pub const ALL: [Self; 9] = [
        Self::Text,
        Self::Text4,
        Self::Json,
        Self::Batch,
        Self::Key,
        Self::Unordered,
        Self::AckRecord,
        Self::AckNow,
        Self::Latency,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Text4 => "text4",
            Self::Json => "json",
            Self::Batch => "batch",
            Self::Key => "key",
            Self::Unordered => "unordered",
            Self::AckRecord => "ack-record",
            Self::AckNow => "ack-now",
            Self::Latency => "latency",
        }
    }

    pub fn parse(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|mode| mode.name() == name);
        found.ok_or_else(|| format!("no mode {name}").into())
    }

    pub fn topic(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Key => "keyed",
            Self::AckRecord | Self::AckNow => "few",
            Self::Latency => "paced",
            Self::Text | Self::Text4 | Self::Batch | Self::Unordered => "text",
        }
    }

    pub fn records(self) -> u64 {
        match self {
            Self::AckRecord | Self::AckNow => 50_000,
            Self::Latency => 10_000,
            Self::Json | Self::Key => 1_000_000,
            Self::Text | Self::Text4 | Self::Batch | Self::Unordered => 2_000_000,
        }
    }
}
