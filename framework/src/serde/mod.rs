//! How values become record bytes and back: one trait for listeners, templates and streams.
//!
//! | Format | Serde | Feature |
//! |---|---|---|
//! | JSON | [`JsonSerde`], [`Json<T>`](Json) | `json` (default) |
//! | text, bytes, numbers | [`StringSerde`], [`BytesSerde`], [`NumberSerde`] | |
//! | bincode, postcard, MessagePack | `BincodeSerde`, `PostcardSerde`, `MsgpackSerde` | of the format's name |
//! | Avro | `AvroSerde`, with a schema registry `Registered<AvroSerde>` | `avro` |
//! | Protobuf | `ProtobufSerde`, `Registered<ProtobufSerde>` | `protobuf` |
//! | JSON with a schema | `JsonSchemaSerde`, `Registered<JsonSchemaSerde>` | `json-schema` |
//! | several types on one topic | [`Tagged`] enums, [`Types`] | |
//! | several formats | [`ByTopic`], [`ByHeader`] | |
//!
//! `#[derive(Record)] #[record(json)]` teaches a type its format; `Registered` and the schema registry itself come with
//! the feature `schema-registry`.

#[cfg(feature = "avro")]
mod avro;
#[cfg(any(feature = "avro", all(feature = "schema-registry", feature = "testing")))]
pub(crate) mod avro_shape;
mod awaited;
#[cfg(feature = "bincode")]
mod bincode;
mod delegating;
#[cfg(any(feature = "bincode", feature = "postcard", feature = "msgpack"))]
mod depth;
mod error;
pub mod header;
mod in_app;
#[cfg(feature = "json")]
mod json;
#[cfg(feature = "json-schema")]
mod json_schema;
mod lookup;
#[cfg(feature = "msgpack")]
mod msgpack;
mod nullable;
mod payload;
#[cfg(feature = "postcard")]
mod postcard;
mod primitive;
#[cfg(feature = "protobuf")]
mod protobuf;
#[cfg(feature = "schema-registry")]
pub mod registry;
mod tagged;
mod types;

use std::fmt;
use std::sync::Arc;

use klamm_client::Headers;

#[cfg(feature = "avro")]
pub use avro::{AvroRecord, AvroSchema, AvroSchemaText, AvroSerde, AvroType};
pub use awaited::{deserialize, serialize};
pub(crate) use awaited::{with_patience, with_patience_for};
#[cfg(feature = "bincode")]
pub use bincode::BincodeSerde;
pub use bytes::Bytes;
pub use delegating::{ByHeader, ByTopic, FORMAT_HEADER, SPRING_FORMAT_HEADER};
pub use error::SerdeError;
pub use header::{FromHeaders, HeaderError, HeaderValue, IntoHeaders};
pub(crate) use in_app::AppSerdes;
#[cfg(feature = "json")]
pub(crate) use json::from_json;
#[cfg(feature = "json")]
pub use json::{Json, JsonSerde};
#[cfg(feature = "json-schema")]
pub use json_schema::{JsonSchema, JsonSchemaRecord, JsonSchemaSerde, JsonSchemaType};
pub(crate) use lookup::AsksFor;
pub use lookup::{Lookup, LookupError};
#[cfg(feature = "msgpack")]
pub use msgpack::MsgpackSerde;
pub use nullable::NullableSerde;
pub use payload::Payload;
pub(crate) use payload::kind_of;
#[cfg(feature = "postcard")]
pub use postcard::PostcardSerde;
pub use primitive::{BytesSerde, NumberSerde, StringSerde, UnitSerde};
#[cfg(feature = "protobuf")]
pub use protobuf::{ProtobufRecord, ProtobufSerde, ProtobufType};
#[cfg(feature = "schema-registry")]
pub use registry::{Registered, RegistryFormat, SchemaRegistry};
#[doc(hidden)]
#[cfg(any(feature = "json-schema", feature = "asyncapi"))]
pub use schemars;
pub use tagged::{SPRING_TYPE_HEADER, TYPE_HEADER, Tagged, TaggedSerde, UnknownRecord};
pub use types::{AnyRecord, Types};

/// Names and values of headers, as [`Record::headers`](klamm_client::Record) holds them.
pub type HeaderList = Vec<(Arc<str>, Option<Bytes>)>;

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

    /// As [`serialize`](Self::serialize), for a format that also sets headers. Unless implemented, there are none.
    ///
    /// # Errors
    /// When the value has no form in this format.
    fn serialize_record(
        &self,
        topic: &str,
        headers: &mut HeaderList,
        value: &T,
    ) -> Result<Bytes, SerdeError> {
        let _ = headers;
        self.serialize(topic, value)
    }

    /// As [`deserialize`](Self::deserialize), for a format that also asks the record's headers.
    ///
    /// # Errors
    /// When the bytes are not of this format.
    fn deserialize_record(&self, topic: &str, headers: &Headers, bytes: &Bytes) -> Result<T, SerdeError> {
        let _ = headers;
        self.deserialize(topic, bytes)
    }

    /// What a null key or value, no bytes at all, stands for. `None`, the default: null is not a `T`.
    fn null(&self) -> Option<T> {
        None
    }

    /// Whether `value` is written as null instead of bytes. `false` unless the format has a null.
    fn is_null(&self, value: &T) -> bool {
        let _ = value;
        false
    }

    /// The media type of what it writes, as `application/json`, for documents about an app; `None`, the default: nobody
    /// knows.
    fn content_type(&self) -> Option<&'static str> {
        None
    }

    /// Why what it writes cannot be read back with it; `None`, the default, if it can. A topology refuses such a serde
    /// where it would have to read.
    fn write_only(&self) -> Option<&'static str> {
        None
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

    /// Whether the serde needs a schema registry: an app that was not given one does not start.
    #[cfg(feature = "schema-registry")]
    const NEEDS_REGISTRY: bool = false;

    /// The serde in an app that has this schema registry, for the keys or the values of records.
    #[cfg(feature = "schema-registry")]
    fn serde_with(registry: Option<&SchemaRegistry>, is_key: bool) -> Self::Serde {
        let _ = (registry, is_key);
        Self::Serde::default()
    }

    /// What may be read and written as this type: the type itself, or those of an enum that a header tells apart.
    #[doc(hidden)]
    fn payloads() -> Vec<Payload> {
        vec![Payload::written::<Self>()]
    }
}

/// A type that has a topic of its own: `#[record(json, topic = "confirmed")]`.
pub trait RecordTopic {
    /// The topic.
    const TOPIC: &'static str;
}

/// A type that has its record's key in it: `#[record(json, key = id)]`.
pub trait RecordKey {
    /// The key.
    type Key;

    /// The key of this value.
    fn key(&self) -> &Self::Key;
}
