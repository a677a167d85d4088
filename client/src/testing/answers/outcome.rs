//! What comes of a request: a frame, nothing, or not yet.

use bytes::Bytes;
use klamm_protocol::Message;
use klamm_protocol::frame::encode_response;
use tokio::time::Instant;

use crate::testing::received::Received;

#[derive(Debug)]
pub(in crate::testing) enum Outcome {
    /// The frame of the answer.
    Answer(Bytes),
    /// The request is not answered: Produce with `acks` 0.
    Nothing,
    /// It is held until then, if nothing happens before.
    Hold(Instant),
    /// What a broker closes the connection for.
    Close,
}

impl Received {
    /// The answer's frame.
    pub(super) fn answer<M: Message>(&self, response: &M) -> Outcome {
        match encode_response(self.api, response, self.version, self.correlation_id) {
            Ok(encoded) => Outcome::Answer(encoded.bytes),
            Err(error) => {
                tracing::warn!(api = ?self.api, version = self.version, %error, "the fake broker cannot answer");
                Outcome::Close
            }
        }
    }
}
