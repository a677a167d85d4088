//! How values become record bytes and back: one trait for listeners, templates and streams.

#[cfg(feature = "bincode")]
mod bincode;
mod error;
#[cfg(feature = "json")]
mod json;
mod nullable;
#[cfg(feature = "postcard")]
mod postcard;
mod primitive;

use std::fmt;

use bytes::Bytes;

#[cfg(feature = "bincode")]
pub use bincode::BincodeSerde;
pub use error::SerdeError;
#[cfg(feature = "json")]
pub(crate) use json::from_json;
#[cfg(feature = "json")]
pub use json::{Json, JsonSerde};
pub use nullable::NullableSerde;
#[cfg(feature = "postcard")]
pub use postcard::PostcardSerde;
pub use primitive::{BytesSerde, NumberSerde, StringSerde, UnitSerde};

/// Writes and reads values of type `T` as record keys or values.
///
/// Implement it for a format of your own; hand it over with the `..._with` builders, or make it the type's default with
/// [`DefaultSerde`].
pub trait Serde<T>: Send + Sync + fmt::Debug + 'static {
    /// The bytes of `value`, as they go into a record of `topic`.
    ///
    /// # Errors
    /// When the value has no form in this format.
    fn serialize(&self, topic: &str, value: &T) -> Result<Bytes, SerdeError>;

    /// The value that `bytes`, read from a record of `topic`, stand for. Bytes come from outside: never panic on them.
    ///
    /// # Errors
    /// When the bytes are not of this format.
    fn deserialize(&self, topic: &str, bytes: &Bytes) -> Result<T, SerdeError>;

    /// What a null key or value, no bytes at all, stands for. `None`, the default: null is not a `T`.
    fn null(&self) -> Option<T> {
        None
    }

    /// Whether `value` is written as null instead of bytes. `false` unless the format has a null.
    fn is_null(&self, value: &T) -> bool {
        let _ = value;
        false
    }

    /// How many of a serialized key's first bytes choose its partition: all of them unless the key ends in something
    /// that must not scatter it, as the window of a windowed key.
    fn partition_bytes(&self, serialized: &[u8]) -> usize {
        serialized.len()
    }
}

/// A type that says how it is written unless told otherwise.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say how it is written to a record",
    label = "this type has no default serde",
    note = "either teach the type: `#[derive(Record)] #[record(json)] struct ...` (or wrap it: `Json<{Self}>`)",
    note = "or name the serdes in place: `Consumed::with(key_serde, value_serde)`, `Grouped::with(...)`, \
     `Produced::with(...)`"
)]
pub trait DefaultSerde: Sized + Send + 'static {
    /// The serde that is used where none is named.
    type Serde: Serde<Self> + Default + Clone;
}
