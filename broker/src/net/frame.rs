//! Frames: a length and that many bytes, cut from a stream without trusting the length.
//!
//! The buffer of a connection grows with its frames and is used again for the next ones. A connection that is silent
//! for [`SHED_AFTER`] lets it go.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use klamm_protocol::frame::LENGTH_BYTES;
use tokio::time::{Instant, timeout_at};

use super::transport::Reader;
use crate::budget::{Budget, Share};

/// API, version and correlation id: what the shortest request has.
const SHORTEST_BYTES: usize = 8;
/// Room for one read when nothing is known yet; a connection that is idle holds no more.
const IDLE_ROOM_BYTES: usize = 4 * 1024;
/// Room that a length is believed for without bytes to prove it. Beyond, the buffer doubles as bytes arrive.
const TRUSTED_ROOM_BYTES: usize = 128 * 1024;
/// How much longer a frame may take for each MiB it has.
const READ_TIME_PER_MIB: Duration = Duration::from_secs(1);
/// How long a connection may be silent and keep a large buffer for its next request.
const SHED_AFTER: Duration = Duration::from_secs(1);
/// How long a frame may take beside [`READ_TIME_PER_MIB`] of what has come of it, while others wait for its memory.
const READ_TIME_WANTED: Duration = Duration::from_secs(1);

/// The limits of frames.
#[derive(Debug, Clone)]
pub(super) struct FrameLimits {
    /// `socket.request.max.bytes`
    pub(super) max_bytes: usize,
    /// `connections.max.idle.ms`
    pub(super) idle: Duration,
    /// `request.read.timeout.ms`
    pub(super) read_timeout: Duration,
    /// `queued.max.request.bytes`, shared by all connections.
    pub(super) budget: Arc<Budget>,
}

/// Why no frame came.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a request of {0} bytes is not between {SHORTEST_BYTES} and socket.request.max.bytes")]
    Length(i64),
    #[error("the rest of a request did not come in time")]
    TooSlow,
    #[error(
        "the rest of a request came so slowly that others waited for its memory (queued.max.request.bytes)"
    )]
    InTheWay,
    #[error("there was no memory for a request within connections.max.idle.ms (queued.max.request.bytes)")]
    NoRoom,
    #[error("the stream ended inside a request")]
    Truncated,
    /// No request for connections.max.idle.ms: nothing wrong with that.
    #[error("idle")]
    Idle,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A frame without its length, and its share of the memory for requests.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) bytes: Bytes,
    /// To be held for as long as anything holds the bytes.
    pub(super) share: Share,
}

/// Cuts frames from a stream.
#[derive(Debug)]
pub(super) struct FrameReader {
    limits: FrameLimits,
    buffer: BytesMut,
}

impl FrameReader {
    pub(super) fn new(limits: FrameLimits) -> Self {
        Self { limits, buffer: BytesMut::new() }
    }

    /// The next frame; `None` when the peer has closed the stream between two. Not cancel-safe, except before
    /// the first byte of a frame.
    pub(super) async fn next(&mut self, source: &mut Reader) -> Result<Option<Frame>, FrameError> {
        if self.buffer.is_empty() && !self.first_bytes(source).await? {
            return Ok(None);
        }
        let deadline = Instant::now() + self.limits.read_timeout;
        while self.buffer.len() < LENGTH_BYTES {
            // Silence inside a request is borne no longer than between two.
            self.read(source, LENGTH_BYTES, deadline.min(Instant::now() + self.limits.idle)).await?;
        }
        let len = i64::from((&self.buffer[..LENGTH_BYTES]).get_i32());
        let fits = |len: &usize| (SHORTEST_BYTES..=self.limits.max_bytes).contains(len);
        let len = usize::try_from(len).ok().filter(fits).ok_or(FrameError::Length(len))?;
        let share = timeout_at(Instant::now() + self.limits.idle, self.limits.budget.reserve(len)).await;
        let share = share.map_err(|_| FrameError::NoRoom)?;
        self.read_body(source, LENGTH_BYTES + len).await?;
        self.buffer.advance(LENGTH_BYTES);
        Ok(Some(Frame { bytes: self.buffer.split_to(len).freeze(), share }))
    }

    /// Waits for the first bytes of a frame; false when the stream ended.
    async fn first_bytes(&mut self, source: &mut Reader) -> Result<bool, FrameError> {
        let silent_since = Instant::now();
        // What is left of the buffer of earlier frames, if nothing else holds it.
        self.buffer.reserve(IDLE_ROOM_BYTES);
        let read = match timeout_at(silent_since + SHED_AFTER, source.read(&mut self.buffer)).await {
            Ok(read) => read?,
            Err(_) => {
                self.buffer = BytesMut::with_capacity(IDLE_ROOM_BYTES);
                let read = timeout_at(silent_since + self.limits.idle, source.read(&mut self.buffer)).await;
                read.map_err(|_| FrameError::Idle)??
            }
        };
        Ok(read > 0)
    }

    /// Fills the buffer to `total` bytes.
    async fn read_body(&mut self, source: &mut Reader, total: usize) -> Result<(), FrameError> {
        let begun = Instant::now();
        let deadline = begun + self.limits.read_timeout + time_for(total);
        let mut silent_since = begun;
        while self.buffer.len() < total {
            let until = deadline.min(silent_since + self.limits.idle);
            // Whoever has room and brings nothing is in the way of others. Looked at once a second.
            let look = until.min(Instant::now() + READ_TIME_WANTED);
            match self.read(source, total, look).await {
                Err(FrameError::TooSlow) if look < until => {}
                read => {
                    read?;
                    silent_since = Instant::now();
                }
            }
            let taken = begun.elapsed();
            if taken >= READ_TIME_WANTED + time_for(self.buffer.len()) && self.limits.budget.is_wanted() {
                return Err(FrameError::InTheWay);
            }
        }
        Ok(())
    }

    /// Reads what there is, towards `total` bytes.
    async fn read(&mut self, source: &mut Reader, total: usize, deadline: Instant) -> Result<(), FrameError> {
        let missing = total - self.buffer.len();
        self.buffer.reserve(missing.min(TRUSTED_ROOM_BYTES.max(self.buffer.len())));
        match timeout_at(deadline, source.read(&mut self.buffer)).await {
            Err(_) => Err(FrameError::TooSlow),
            Ok(Ok(0)) => Err(FrameError::Truncated),
            Ok(read) => {
                read?;
                Ok(())
            }
        }
    }
}

fn time_for(bytes: usize) -> Duration {
    READ_TIME_PER_MIB * u32::try_from(bytes >> 20).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use klamm_runtime::Stream;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::super::transport::split;
    use super::*;

    fn limits() -> FrameLimits {
        FrameLimits {
            max_bytes: 100,
            idle: Duration::from_secs(600),
            read_timeout: Duration::from_secs(30),
            budget: Budget::new(Some(1_000)),
        }
    }

    fn pair(limits: FrameLimits) -> (DuplexStream, Reader, FrameReader) {
        let (ours, theirs) = duplex(1 << 20);
        let stream: Box<dyn Stream> = Box::new(theirs);
        (ours, split(stream, Duration::from_secs(1), Arc::default()).0, FrameReader::new(limits))
    }

    fn frame(len: usize) -> Vec<u8> {
        let mut bytes = (len as i32).to_be_bytes().to_vec();
        bytes.extend((0..len).map(|n| n as u8));
        bytes
    }

    #[tokio::test(start_paused = true)]
    async fn frames_are_cut_however_they_arrive() {
        let (mut peer, mut source, mut frames) = pair(limits());
        let bytes = [frame(8), frame(100), frame(9)].concat();
        peer.write_all(&bytes).await.unwrap();
        for len in [8, 100, 9] {
            assert_eq!(frames.next(&mut source).await.unwrap().unwrap().bytes.len(), len);
        }
        let one_by_one = async {
            for byte in frame(20) {
                peer.write_all(&[byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            peer
        };
        let (peer, got) = tokio::join!(one_by_one, frames.next(&mut source));
        assert_eq!(got.unwrap().unwrap().bytes[..], frame(20)[4..]);
        drop(peer);
        assert!(frames.next(&mut source).await.unwrap().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn lengths_outside_the_limits_are_refused_at_once() {
        for len in [i32::MIN, -1, 0, 1, 7, 101, i32::MAX] {
            let (mut peer, mut source, mut frames) = pair(limits());
            peer.write_all(&len.to_be_bytes()).await.unwrap();
            let refused = frames.next(&mut source).await.unwrap_err();
            assert!(matches!(refused, FrameError::Length(found) if found == i64::from(len)), "{len}");
        }
    }

    /// `connections.max.idle.ms` bounds silence, wherever in a request it begins.
    #[tokio::test(start_paused = true)]
    async fn silence_inside_a_request_is_borne_no_longer_than_between_two() {
        for bytes in [2, 4, 20] {
            let (mut peer, mut source, mut frames) =
                pair(FrameLimits { idle: Duration::from_secs(3), ..limits() });
            peer.write_all(&frame(50)[..bytes]).await.unwrap();
            let start = Instant::now();
            assert!(matches!(frames.next(&mut source).await, Err(FrameError::TooSlow)), "{bytes}");
            assert_eq!(start.elapsed().as_secs(), 3, "{bytes}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_borne_between_requests_longer_than_inside_one() {
        let (mut peer, mut source, mut frames) = pair(limits());
        let start = Instant::now();
        assert!(matches!(frames.next(&mut source).await, Err(FrameError::Idle)));
        assert_eq!(start.elapsed().as_secs(), 600);
        peer.write_all(&frame(50)[..20]).await.unwrap();
        let start = Instant::now();
        assert!(matches!(frames.next(&mut source).await, Err(FrameError::TooSlow)));
        assert_eq!(start.elapsed().as_secs(), 30);
    }

    /// A request waits for its memory before it takes any, however much of it has come.
    #[tokio::test(start_paused = true)]
    async fn the_memory_for_requests_is_shared_and_given_back() {
        let limits = FrameLimits { max_bytes: 1 << 20, budget: Budget::new(Some(1 << 20)), ..limits() };
        let (mut peer, mut source, mut frames) = pair(limits.clone());
        peer.write_all(&[frame(900_000), frame(200_000)].concat()[..1_000_000]).await.unwrap();
        let first = frames.next(&mut source).await.unwrap().unwrap();
        assert_eq!(first.share.held_bytes(), 900_000);
        let start = Instant::now();
        let (second, ()) = tokio::join!(frames.next(&mut source), async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            drop(first);
            peer.write_all(&frame(200_000)[1_000_000 - 900_004..]).await.unwrap();
        });
        assert_eq!((second.unwrap().unwrap().bytes.len(), start.elapsed().as_secs()), (200_000, 20));
        let held = limits.budget.reserve(1 << 20).await;
        peer.write_all(&frame(200_000)).await.unwrap();
        assert!(matches!(frames.next(&mut source).await, Err(FrameError::NoRoom)));
        assert_eq!(start.elapsed().as_secs(), 620);
        drop(held);
    }

    /// Whoever promises much and brings little keeps nobody waiting for long; alone, it may take its time.
    #[tokio::test(start_paused = true)]
    async fn who_brings_nothing_makes_room_for_those_who_wait() {
        let limits = FrameLimits { max_bytes: 8 << 20, budget: Budget::new(Some(8 << 20)), ..limits() };
        for (wanted, seconds) in [(false, 38), (true, 2)] {
            let (mut peer, mut source, mut frames) = pair(limits.clone());
            peer.write_all(&(8_i32 << 20).to_be_bytes()).await.unwrap();
            let start = Instant::now();
            let trickle = async {
                loop {
                    peer.write_all(&[1]).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            };
            let other = async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                if wanted {
                    drop(limits.budget.reserve(1 << 20).await);
                }
                std::future::pending::<()>().await;
            };
            let error = tokio::select! {
                frame = frames.next(&mut source) => frame.unwrap_err(),
                () = trickle => unreachable!(),
                () = other => unreachable!(),
            };
            assert_eq!(matches!(error, FrameError::InTheWay), wanted, "{error}");
            assert!(matches!(error, FrameError::InTheWay | FrameError::TooSlow), "{error}");
            assert!(start.elapsed().as_secs().abs_diff(seconds) <= 1, "{:?}", start.elapsed());
        }
    }

    /// Each idle connection kept the buffer of the largest request that it ever sent.
    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_keeps_no_large_buffer() {
        let limits = FrameLimits { max_bytes: 1 << 20, budget: Budget::new(None), ..limits() };
        let (mut peer, mut source, mut frames) = pair(limits);
        peer.write_all(&frame(900_000)).await.unwrap();
        drop(frames.next(&mut source).await.unwrap().unwrap());
        assert!(frames.buffer.capacity() > 0 || frames.buffer.try_reclaim(900_000));
        let later = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            peer.write_all(&frame(50)).await.unwrap();
        };
        let (next, ()) = tokio::join!(frames.next(&mut source), later);
        assert_eq!(next.unwrap().unwrap().bytes.len(), 50);
        assert!(!frames.buffer.try_reclaim(IDLE_ROOM_BYTES + 1));
    }
}
