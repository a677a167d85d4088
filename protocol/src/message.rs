//! `Message` and `Request`: a whole request or response body, in every version it has.

use std::ops::RangeInclusive;

use crate::api_key::ApiKey;
use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::error::{DecodeError, DecodeErrorKind, EncodeError};
use crate::field::Field;

/// The body of a request or response. Derived: `#[derive(Message)]` with
/// `#[message(versions = 3..=13, flexible = 9..)]`.
pub trait Message: Field + Default {
    /// Name of the type.
    const NAME: &'static str;

    /// Versions that can be written and read.
    const VERSIONS: RangeInclusive<i16>;

    /// First version with compact lengths and tagged fields (KIP-482); `i16::MAX` if there is none.
    const FLEXIBLE_FROM: i16;

    /// Appends the body in a version.
    ///
    /// Fails if there is no such version, or if a field is set that the version cannot carry
    /// and that may not be dropped.
    fn encode(&self, out: &mut Encoder, version: i16) -> Result<(), EncodeError> {
        if !Self::VERSIONS.contains(&version) {
            return Err(EncodeError::UnsupportedVersion {
                message: Self::NAME,
                version,
                supported: Self::VERSIONS,
            });
        }
        out.set_version(version, version >= Self::FLEXIBLE_FROM);
        self.put(out)
    }

    /// Reads a body in a version. Fields that the version lacks get their defaults; bytes behind the body stay unread.
    fn decode(input: &mut Decoder, version: i16) -> Result<Self, DecodeError> {
        if !Self::VERSIONS.contains(&version) {
            let kind = DecodeErrorKind::UnsupportedVersion {
                message: Self::NAME,
                version,
                supported: Self::VERSIONS,
            };
            return Err(input.error(kind));
        }
        input.set_version(version, version >= Self::FLEXIBLE_FROM);
        Self::take(input)
    }
}

/// A request body, which names its API and its answer.
pub trait Request: Message {
    /// The API.
    const KEY: ApiKey;

    /// The answer, in the same version.
    type Response: Message;
}
