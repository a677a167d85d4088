//! The Kafka wire protocol.

// The derive names this crate by its full name, here too.
extern crate self as klamm_protocol;

mod api_key;
#[doc(hidden)]
pub mod arbitrary;
pub mod compression;
mod decoder;
mod encoder;
mod error;
mod error_code;
mod field;
pub mod frame;
mod message;
pub mod messages;
mod primitives;
pub mod records;

pub use api_key::{ApiKey, UnknownApiKey};
pub use decoder::Decoder;
pub use encoder::{Encoded, Encoder, Splice};
pub use error::{DecodeError, DecodeErrorKind, EncodeError};
pub use error_code::ErrorCode;
pub use field::Field;
pub use klamm_protocol_derive::Message;
pub use message::{Message, Request};
pub use messages::supported_versions;
pub use primitives::{ParseUuidError, Records, UnknownTags, Utf8Bytes, Uuid};

/// What derived code uses besides the public names.
#[doc(hidden)]
pub mod derived {
    pub use crate::field::{put_option, take_option};
    pub use crate::primitives::{TagReader, TagWriter};
}
