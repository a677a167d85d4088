//! A request on its way through: its header, its body still encoded, and the forms its answer can take.

use std::fmt;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, poll};
use klamm_protocol::frame::{decode_request_header, encode_response};
use klamm_protocol::{ApiKey, DecodeErrorKind, Decoder, ElementLimits, Encoded, Message, Request, Utf8Bytes};

use super::context::Peer;
use crate::budget::Share;
use crate::partition::StoredRecords;

/// What the answer to one element of a request takes, more or less: a partition, a topic, a group.
const ANSWERED_ELEMENT_BYTES: usize = 256;

/// A request.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) api: ApiKey,
    pub(crate) version: i16,
    pub(crate) client_id: Option<Utf8Bytes>,
    pub(crate) peer: Arc<Peer>,
    correlation_id: i32,
    body: Decoder,
    share: Arc<Share>,
}

/// What it takes to answer a request, once the request itself is no longer needed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reply {
    pub(crate) api: ApiKey,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
}

/// A response, ready to be sent.
#[derive(Debug)]
pub(crate) struct Response {
    /// The frame; the token of a splice counts into `slices`.
    pub(crate) encoded: Encoded,
    /// Records that are still in their files.
    pub(crate) slices: Vec<StoredRecords>,
}

/// What becomes of a request.
pub(crate) enum Answer {
    /// Nothing: produce with acks 0.
    None,
    /// A response.
    Ready(Response),
    /// A response when what it waits for has come. May wait beside the work on later requests, for as long as the peer
    /// pleases: it is asked for when the answers before it are out. So it holds nothing of the request's frame, and
    /// says how many bytes it holds of its own.
    Later(BoxFuture<'static, Result<Option<Response>, Refusal>>, usize),
}

impl Answer {
    /// A response that has to wait, and holds so many bytes until then.
    pub(crate) fn later(
        held_bytes: usize,
        response: impl Future<Output = Result<Option<Response>, Refusal>> + Send + 'static,
    ) -> Self {
        Self::Later(Box::pin(response), held_bytes)
    }

    /// As [`Self::later`], but begun: what it does before it has to wait is done when this returns, and so not
    /// overtaken by later requests.
    pub(crate) async fn begun(
        held_bytes: usize,
        response: impl Future<Output = Result<Option<Response>, Refusal>> + Send + 'static,
    ) -> Result<Self, Refusal> {
        let mut response = response.boxed();
        Ok(match poll!(&mut response) {
            Poll::Ready(response) => response?.map_or(Self::None, Self::Ready),
            Poll::Pending => Self::Later(response, held_bytes),
        })
    }
}

/// Why a connection has to end. Tells nothing of what the peer sent.
#[derive(Debug)]
pub(crate) struct Refusal(String);

impl Refusal {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Call {
    /// Reads the header of a request. What its body decodes to is bounded by `limits` and charged to `share`.
    pub(crate) fn read(
        peer: Arc<Peer>,
        frame: Bytes,
        limits: ElementLimits,
        share: Arc<Share>,
    ) -> Result<Self, Refusal> {
        let mut body = Decoder::with_limits(frame, limits);
        let header = decode_request_header(&mut body)
            .map_err(|error| Refusal::new(format!("a request header cannot be read: {error}")))?;
        let api = ApiKey::try_from(header.api_key).map_err(|error| Refusal::new(error.to_string()))?;
        Ok(Self {
            api,
            version: header.api_version,
            client_id: header.client_id,
            peer,
            correlation_id: header.correlation_id,
            body,
            share,
        })
    }

    /// Reads the body. What follows its last field is not looked at, as in Kafka: librdkafka from 2.1 on asks for the
    /// metadata of all topics with three bytes too many.
    pub(crate) fn decode<R: Request>(&mut self) -> Result<R, Refusal> {
        let decoded = R::decode(&mut self.body, self.version);
        let (elements, bytes) = self.body.elements();
        self.share.charge(bytes + elements * ANSWERED_ELEMENT_BYTES);
        decoded.map_err(|error| {
            let cure = match error.kind {
                DecodeErrorKind::TooManyElements(_) => " (request.elements.max)",
                _ => "",
            };
            Refusal::new(format!(
                "{} version {} cannot be read: {error}{cure}",
                self.api.name(),
                self.version
            ))
        })
    }

    /// Counts what the answer takes beside what its elements are taken for.
    pub(crate) fn charge(&self, bytes: usize) {
        self.share.charge(bytes);
    }

    /// Counts so many elements that the request means without naming them, and their answers.
    pub(crate) fn charge_elements(&self, count: usize, element_bytes: usize) {
        self.share.charge(count * (element_bytes + ANSWERED_ELEMENT_BYTES));
    }

    /// How many bytes of the frame have been read, which leaves out what follows the last field.
    pub(crate) fn read_bytes(&self) -> usize {
        self.body.position()
    }

    /// How many bytes the frame has.
    pub(crate) fn frame_bytes(&self) -> usize {
        self.body.position() + self.body.remaining()
    }

    /// What the frame takes, for something that keeps it when the request is answered or waits.
    pub(crate) fn frame_share(&self) -> Arc<Share> {
        Arc::new(self.share.split(self.frame_bytes()))
    }

    /// What it takes to answer.
    pub(crate) fn reply(&self) -> Reply {
        Reply { api: self.api, version: self.version, correlation_id: self.correlation_id }
    }

    /// What the client calls itself.
    pub(crate) fn client_name(&self) -> &str {
        self.client_id.as_deref().unwrap_or_default()
    }

    /// The answer.
    pub(crate) fn answer<M: Message>(&self, body: &M) -> Result<Answer, Refusal> {
        self.reply().encode(body).map(Answer::Ready)
    }
}

impl Reply {
    /// The response without records from files.
    pub(crate) fn encode<M: Message>(self, body: &M) -> Result<Response, Refusal> {
        self.encode_with(body, Vec::new())
    }

    /// The response with its records.
    pub(crate) fn encode_with<M: Message>(
        self,
        body: &M,
        slices: Vec<StoredRecords>,
    ) -> Result<Response, Refusal> {
        let encoded =
            encode_response(self.api, body, self.version, self.correlation_id).map_err(|error| {
                Refusal::new(format!(
                    "the answer to {} version {} cannot be written: {error}",
                    self.api.name(),
                    self.version
                ))
            })?;
        Ok(Response { encoded, slices })
    }
}
