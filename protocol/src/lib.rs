//! The Kafka wire protocol: messages, record batches, compression, error codes. Pure: no I/O, no clock, no tokio.
//!
//! * [`messages`]: one struct for all versions of a request or response, one file per API. Their nested structures stay
//!   in the file of the API.
//! * [`frame`]: the length and header around them, for clients and servers.
//! * [`records`] and [`compression`]: what is inside a records field.
//! * [`ApiKey`], [`ErrorCode`], [`Uuid`], [`Utf8Bytes`]: the words that all of them share.
//!
//! ```
//! use klamm_protocol::frame::{decode_request_header, decode_response, encode_request, encode_response};
//! use klamm_protocol::messages::metadata::{MetadataRequestTopic, MetadataResponseTopic};
//! use klamm_protocol::messages::{MetadataRequest, MetadataResponse};
//! use klamm_protocol::{ApiKey, Decoder, Message};
//!
//! // A client asks. Fields that are not named keep the protocol's defaults.
//! let request = MetadataRequest {
//!     topics: Some(vec![MetadataRequestTopic { name: Some("clicks".into()), ..Default::default() }]),
//!     ..Default::default()
//! };
//! let frame = encode_request(&request, 12, 7, Some("demo"))?;
//!
//! // A server reads the length, then the rest: `asked` shares the frame's memory.
//! let mut input = Decoder::new(frame.slice(4..));
//! let header = decode_request_header(&mut input)?;
//! assert_eq!(header.api_key, ApiKey::Metadata.code());
//! let asked = MetadataRequest::decode(&mut input, header.api_version)?;
//! assert_eq!(asked, request);
//!
//! // And answers in the same version.
//! let topic = MetadataResponseTopic { name: Some("clicks".into()), ..Default::default() };
//! let response = MetadataResponse { topics: vec![topic], ..Default::default() };
//! let answer = encode_response(ApiKey::Metadata, &response, header.api_version, header.correlation_id)?;
//!
//! let (correlation_id, body) = decode_response::<MetadataRequest>(answer.bytes.slice(4..), 12)?;
//! assert_eq!((correlation_id, body), (7, response));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What can be relied on
//!
//! * **Decoding is total.** Any bytes give a value or a [`DecodeError`]; lengths and counts are checked against the
//!   bytes that remain before anything is allocated, and the elements of arrays take at most 16 times the frame (or
//!   1 MiB).
//! * **Decoding copies no payload.** Strings, byte fields and records are slices of the frame.
//! * **Encoding loses nothing silently.** A field that is set but that the version lacks is an [`EncodeError`], except
//!   where Kafka declares the loss harmless.
//! * **Tagged fields equal to their default are not written**, in ascending order are the others; those nobody here
//!   knows come back out as they came in ([`UnknownTags`]).
//!
//! # Adding a message
//!
//! Write the struct in `messages/`, with the versions of each field in `#[field(..)]`, and derive
//! [`Message`](derive@Message), whose documentation lists the attributes. Then name it in `messages/mod.rs`.

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
pub use decoder::{Decoder, ElementLimits};
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
