//! What can go wrong between a value and its bytes.

use thiserror::Error;

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
