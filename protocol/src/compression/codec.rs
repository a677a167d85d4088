//! `Compression`: the codecs by their numbers and names.

use std::ops::RangeInclusive;

use thiserror::Error;

/// How the records of a batch are compressed: bits 0 to 2 of the batch attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Compression {
    /// Records as they are.
    #[default]
    None = 0,
    /// A gzip stream at level 6, zlib's default.
    Gzip = 1,
    /// Snappy blocks of 32 KiB in the framing of snappy-java, which Kafka's clients read and write.
    /// Raw snappy is read as well.
    Snappy = 2,
    /// An LZ4 frame of independent 64 KiB blocks without checksums, as Kafka's Java client writes.
    Lz4 = 3,
    /// A zstd frame at level 3, zstd's default.
    Zstd = 4,
}

impl Compression {
    /// Every codec, in the order of their wire numbers.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec of a wire number, or `None` for a number Kafka does not define.
    pub const fn from_id(id: u8) -> Option<Self> {
        match id {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The wire number.
    pub const fn id(self) -> u8 {
        self as u8
    }

    /// The levels that can be chosen, from fast to small, or `None` for a codec that has one way only.
    pub const fn levels(self) -> Option<RangeInclusive<i32>> {
        match self {
            Self::Gzip => Some(1..=9),
            Self::Zstd => Some(-131_072..=22),
            Self::None | Self::Snappy | Self::Lz4 => None,
        }
    }

    /// The name in Kafka's `compression.type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl std::fmt::Display for Compression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(name: &str) -> Result<Self, UnknownCompression> {
        Self::ALL
            .into_iter()
            .find(|codec| codec.name() == name)
            .ok_or_else(|| UnknownCompression(name.to_owned()))
    }
}

/// A name that is none of Kafka's codecs.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("unknown compression {0:?}: it is one of none, gzip, snappy, lz4, zstd")]
pub struct UnknownCompression(pub String);
