//! What can go wrong between a value and its bytes.

use thiserror::Error;

use super::lookup::{AsksFor, Lookup, LookupError};

/// A value that cannot be written, or bytes that cannot be read. Carries the cause, never the payload.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SerdeError {
    /// The value has no form in the format.
    #[error("a {type_name} cannot be written as {format}: {source}")]
    Serialize {
        /// The format's name, as in `json`.
        format: &'static str,
        /// The Rust type.
        type_name: &'static str,
        /// What the format's library said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The bytes are not of the format.
    #[error("{length_bytes} bytes are not a {type_name} in {format}: {source}")]
    Deserialize {
        /// The format's name, as in `json`.
        format: &'static str,
        /// The Rust type.
        type_name: &'static str,
        /// How many bytes there were.
        length_bytes: usize,
        /// What the format's library said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A record of several types on one topic names one that is not known here.
    #[error(
        "the header `{header}` names the type `{name}`, which is not known here; known are {known:?} (a variant with \
         `#[record(name = \"...\")]` adds one, `#[record(other)]` takes the rest)"
    )]
    UnknownType {
        /// The header that names the type.
        header: Box<str>,
        /// The type that it names.
        name: Box<str>,
        /// The types that are known.
        known: Box<[String]>,
    },
    /// A record of several types on one topic does not say which one it is.
    #[error("the record has no header `{header}`, which would name its type")]
    NoType {
        /// The header that would name the type.
        header: String,
    },
    /// Something must be looked up first; then the same call succeeds. [`serialize`](super::serialize) and
    /// [`deserialize`](super::deserialize) see to it, as listeners and templates do.
    #[error("{0} must be looked up first")]
    Pending(Lookup),
    /// A schema is none, or the type cannot be read from what was written with it.
    #[error("{0}")]
    Schema(Box<str>),
    /// What had to be looked up could not be had.
    #[error(transparent)]
    Lookup(LookupError),
}

impl SerdeError {
    /// A value of type `T` that `format` cannot write.
    pub fn serialize<T>(
        format: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Serialize { format, type_name: std::any::type_name::<T>(), source: source.into() }
    }

    /// Bytes that are not a `T` in `format`.
    pub fn deserialize<T>(
        format: &'static str,
        length_bytes: usize,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Deserialize {
            format,
            type_name: std::any::type_name::<T>(),
            length_bytes,
            source: source.into(),
        }
    }
}

impl AsksFor for SerdeError {
    fn lookup(&self) -> Option<&Lookup> {
        match self {
            Self::Pending(lookup) => Some(lookup),
            _ => None,
        }
    }
}
