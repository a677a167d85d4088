//! The value types of messages: strings, uuids, records fields and unknown tagged fields.

mod records_field;
mod unknown_tags;
mod utf8_bytes;
mod uuid;

pub use records_field::Records;
pub use unknown_tags::{TagReader, TagWriter, UnknownTags};
pub use utf8_bytes::Utf8Bytes;
pub use uuid::{ParseUuidError, Uuid};
