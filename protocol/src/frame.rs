//! Frames: a length, a header and a body. Which header version goes with which API and version is known here.

use bytes::Bytes;

use crate::api_key::ApiKey;
use crate::decoder::Decoder;
use crate::encoder::{Encoded, Encoder};
use crate::error::{DecodeError, EncodeError};
use crate::message::{Message, Request};
use crate::primitives::{UnknownTags, Utf8Bytes};

/// Bytes of the length before each frame, a big-endian `i32` that does not count itself.
pub const LENGTH_BYTES: usize = 4;

/// What stands before the body of every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// The API asked for; a number, because a server must be able to refuse what it does not know.
    pub api_key: i16,
    /// The version of request and response.
    pub api_version: i16,
    /// Echoed in the response.
    pub correlation_id: i32,
    /// Name that the client gives itself.
    pub client_id: Option<Utf8Bytes>,
    /// Tagged fields of the header.
    pub unknown_tags: UnknownTags,
}

/// A whole request frame, length included.
pub fn encode_request<R: Request>(
    request: &R,
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
) -> Result<Bytes, EncodeError> {
    let mut out = Encoder::new(version, false);
    put_request(&mut out, request, version, correlation_id, client_id)?;
    let Encoded { bytes, splices } = out.finish();
    if splices.is_empty() { Ok(bytes) } else { Err(EncodeError::ExternalRecords) }
}

/// A whole request frame in parts to be sent one after the other: large record batches are not copied.
pub fn encode_request_in_parts<R: Request>(
    request: &R,
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
) -> Result<Vec<Bytes>, EncodeError> {
    let mut out = Encoder::new(version, false);
    out.share_records();
    put_request(&mut out, request, version, correlation_id, client_id)?;
    Ok(out.finish_in_parts())
}

fn put_request<R: Request>(
    out: &mut Encoder,
    request: &R,
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
) -> Result<(), EncodeError> {
    // The client id is never compact: brokers must be able to read it before they know the version.
    out.put_i32(0);
    out.put_i16(R::KEY.code());
    out.put_i16(version);
    out.put_i32(correlation_id);
    out.put_nullable_string(client_id)?;
    if version >= R::FLEXIBLE_FROM {
        out.put_uvarint(0);
    }
    request.encode(out, version)?;
    put_frame_len(out)
}

/// Reads the header of a request; the decoder is then at the body.
///
/// An API that nobody knows is read as if it had header version 1, enough to tell what was asked for.
pub fn decode_request_header(input: &mut Decoder) -> Result<RequestHeader, DecodeError> {
    let api_key = input.take_i16()?;
    let api_version = input.take_i16()?;
    let correlation_id = input.take_i32()?;
    input.set_version(api_version, false);
    let client_id = input.take_nullable_string()?;
    let flexible = ApiKey::try_from(api_key).is_ok_and(|key| api_version >= key.flexible_from());
    input.set_version(api_version, flexible);
    let unknown_tags = input.take_unknown_tags()?;
    Ok(RequestHeader { api_key, api_version, correlation_id, client_id, unknown_tags })
}

/// A whole response frame, length included; the length counts the splices.
pub fn encode_response<M: Message>(
    key: ApiKey,
    response: &M,
    version: i16,
    correlation_id: i32,
) -> Result<Encoded, EncodeError> {
    let mut out = Encoder::new(version, false);
    out.put_i32(0);
    out.put_i32(correlation_id);
    if has_response_tags::<M>(key, version) {
        out.put_uvarint(0);
    }
    response.encode(&mut out, version)?;
    finish_frame(out)
}

/// Reads a response frame without its length: correlation id and body. Bytes behind the body are ignored, as Kafka's
/// client does.
pub fn decode_response<R: Request>(frame: Bytes, version: i16) -> Result<(i32, R::Response), DecodeError> {
    let mut input = Decoder::new(frame);
    let correlation_id = input.take_i32()?;
    if has_response_tags::<R::Response>(R::KEY, version) {
        input.set_version(version, true);
        input.take_unknown_tags()?;
    }
    let response = R::Response::decode(&mut input, version)?;
    Ok((correlation_id, response))
}

/// Response header 1 (with tagged fields) or 0. ApiVersions always has 0, so that a client can read the answer to a
/// version that the broker does not know (KIP-511).
fn has_response_tags<M: Message>(key: ApiKey, version: i16) -> bool {
    key != ApiKey::ApiVersions && version >= M::FLEXIBLE_FROM
}

fn finish_frame(mut out: Encoder) -> Result<Encoded, EncodeError> {
    put_frame_len(&mut out)?;
    Ok(out.finish())
}

fn put_frame_len(out: &mut Encoder) -> Result<(), EncodeError> {
    let len = out.position() - LENGTH_BYTES + out.spliced_bytes();
    out.patch_i32(0, i32::try_from(len).map_err(|_| EncodeError::TooLong { len })?);
    Ok(())
}
