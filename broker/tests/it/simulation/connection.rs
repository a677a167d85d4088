//! A connection that never waits: requests go out, answers are picked up when they are there.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use futures::FutureExt;
use klamm_protocol::Request;
use klamm_protocol::frame::{decode_response, encode_request};
use klamm_runtime::{MemoryNet, Net, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::unconstrained;

/// How much is read at once.
const PIECE_BYTES: usize = 1 << 10;

/// A stream of frames to a broker, with what is to be remembered for each answer that is to come.
#[derive(Debug)]
pub(super) struct Connection<T> {
    stream: Box<dyn Stream>,
    received: BytesMut,
    last_id: i32,
    waiting: VecDeque<T>,
    closed: bool,
}

impl<T> Connection<T> {
    /// Nothing when nobody listens.
    pub(super) async fn open(net: &MemoryNet, address: &str) -> Option<Self> {
        let stream = net.connect(address).await.ok()?;
        Some(Self { stream, received: BytesMut::new(), last_id: 0, waiting: VecDeque::new(), closed: false })
    }

    /// Sends a request. `remembered` comes back with its answer; a request that is not answered has nothing.
    pub(super) fn send<R: Request>(&mut self, request: &R, version: i16, remembered: Option<T>) {
        self.last_id += 1;
        let frame = encode_request(request, version, self.last_id, Some("simulation")).unwrap();
        let written = unconstrained(self.stream.write_all(&frame)).now_or_never();
        // A broker that does not read is as good as gone.
        self.closed |= !matches!(written, Some(Ok(())));
        self.waiting.extend(remembered);
    }

    /// The next answer that is there, without its length.
    pub(super) fn receive(&mut self) -> Option<(T, Bytes)> {
        unconstrained(self.answer()).now_or_never().flatten()
    }

    /// Waits for the next answer; nothing when the broker has ended the connection. Cancel-safe.
    pub(super) async fn answer(&mut self) -> Option<(T, Bytes)> {
        loop {
            if let Some(len) = self.received.first_chunk::<4>().map(|len| i32::from_be_bytes(*len) as usize)
                && self.received.len() >= 4 + len
            {
                self.received.advance(4);
                let frame = self.received.split_to(len).freeze();
                return Some((self.waiting.pop_front()?, frame));
            }
            if self.closed {
                return None;
            }
            self.received.reserve(PIECE_BYTES);
            self.closed = !matches!(self.stream.read_buf(&mut self.received).await, Ok(1..));
        }
    }

    /// What is waited for.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The broker has ended it.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Closes it; gives what was never answered.
    pub(super) fn cut(self) -> VecDeque<T> {
        self.waiting
    }
}

/// An answer to a request of this kind.
pub(super) fn decoded<R: Request>(frame: Bytes, version: i16) -> R::Response {
    decode_response::<R>(frame, version).unwrap().1
}
