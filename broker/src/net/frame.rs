//! Frames: a length and that many bytes, cut from a stream without trusting the length.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use klamm_protocol::frame::LENGTH_BYTES;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::transport::Reader;

/// API, version and correlation id: what the shortest request has.
const SHORTEST_BYTES: usize = 8;
/// Room for one read when nothing is known yet; a connection that is idle holds no more.
const IDLE_ROOM_BYTES: usize = 4 * 1024;
/// Room that a length is believed for without bytes to prove it. Beyond, the buffer doubles as bytes arrive.
const TRUSTED_ROOM_BYTES: usize = 128 * 1024;
/// How much longer a frame may take for each MiB it has.
const READ_TIME_PER_MIB: Duration = Duration::from_secs(1);

/// The limits of frames.
#[derive(Debug, Clone)]
pub(super) struct FrameLimits {
    /// `socket.request.max.bytes`
    pub(super) max_bytes: usize,
    /// `connections.max.idle.ms`
    pub(super) idle: Duration,
    /// `request.read.timeout.ms`
    pub(super) read_timeout: Duration,
    /// `queued.max.request.bytes`, shared by all connections; none is no limit.
    pub(super) budget: Option<Arc<Semaphore>>,
}

/// Why no frame came.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a request of {0} bytes is not between {SHORTEST_BYTES} and socket.request.max.bytes")]
    Length(i64),
    #[error("the rest of a request did not come in time")]
    TooSlow,
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

/// What a frame takes of `queued.max.request.bytes`, given back when dropped.
#[derive(Debug)]
pub(super) struct Share(#[expect(dead_code, reason = "it is held, not read")] Option<OwnedSemaphorePermit>);

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
        if self.buffer.is_empty() {
            self.buffer.reserve(IDLE_ROOM_BYTES);
            let idle_until = Instant::now() + self.limits.idle;
            match timeout_at(idle_until, source.read(&mut self.buffer)).await {
                Err(_) => return Err(FrameError::Idle),
                Ok(Ok(0)) => return Ok(None),
                Ok(read) => {
                    read?;
                }
            }
        }
        let begun = Instant::now();
        self.fill(source, LENGTH_BYTES, begun + self.limits.read_timeout).await?;
        let len = i64::from((&self.buffer[..LENGTH_BYTES]).get_i32());
        let fits = |len: &usize| (SHORTEST_BYTES..=self.limits.max_bytes).contains(len);
        let len = usize::try_from(len).ok().filter(fits).ok_or(FrameError::Length(len))?;
        let mebibytes = u32::try_from(len >> 20).unwrap_or(u32::MAX);
        let deadline = begun + self.limits.read_timeout + READ_TIME_PER_MIB * mebibytes;
        let share = self.read_body(source, LENGTH_BYTES + len, deadline).await?;
        self.buffer.advance(LENGTH_BYTES);
        Ok(Some(Frame { bytes: self.buffer.split_to(len).freeze(), share: Share(share) }))
    }

    /// Fills the buffer to `total` bytes, taking its share of the budget as it grows.
    async fn read_body(
        &mut self,
        source: &mut Reader,
        total: usize,
        deadline: Instant,
    ) -> Result<Option<OwnedSemaphorePermit>, FrameError> {
        let Some(budget) = self.limits.budget.clone() else {
            return self.fill(source, total, deadline).await.map(|()| None);
        };
        let mut share: Option<OwnedSemaphorePermit> = None;
        let mut target = self.buffer.len().min(total);
        loop {
            let held = share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            let missing = u32::try_from(target.saturating_sub(held)).unwrap_or(u32::MAX);
            let more = timeout_at(deadline, budget.clone().acquire_many_owned(missing)).await;
            let more = more.map_err(|_| FrameError::TooSlow)?.map_err(|_| FrameError::TooSlow)?;
            match &mut share {
                Some(share) => share.merge(more),
                None => share = Some(more),
            }
            self.fill(source, target, deadline).await?;
            if target == total {
                return Ok(share);
            }
            target = total.min((target * 2).max(TRUSTED_ROOM_BYTES));
        }
    }

    /// Reads until the buffer has `total` bytes or more.
    async fn fill(&mut self, source: &mut Reader, total: usize, deadline: Instant) -> Result<(), FrameError> {
        while self.buffer.len() < total {
            let missing = total - self.buffer.len();
            self.buffer.reserve(missing.min(TRUSTED_ROOM_BYTES.max(self.buffer.len())));
            // Silence inside a request is borne no longer than between two.
            let deadline = deadline.min(Instant::now() + self.limits.idle);
            match timeout_at(deadline, source.read(&mut self.buffer)).await {
                Err(_) => return Err(FrameError::TooSlow),
                Ok(Ok(0)) => return Err(FrameError::Truncated),
                Ok(read) => {
                    read?;
                }
            }
        }
        Ok(())
    }
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
            budget: Some(Arc::new(Semaphore::new(1_000))),
        }
    }

    fn pair(limits: FrameLimits) -> (DuplexStream, Reader, FrameReader) {
        let (ours, theirs) = duplex(1 << 20);
        let stream: Box<dyn Stream> = Box::new(theirs);
        (ours, split(stream, Duration::from_secs(1)).0, FrameReader::new(limits))
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

    #[tokio::test(start_paused = true)]
    async fn the_memory_for_requests_is_shared_and_given_back() {
        let limits = FrameLimits { budget: Some(Arc::new(Semaphore::new(150))), ..limits() };
        let (mut peer, mut source, mut frames) = pair(limits);
        peer.write_all(&[frame(96), frame(96)].concat()).await.unwrap();
        let first = frames.next(&mut source).await.unwrap().unwrap();
        assert!(matches!(frames.next(&mut source).await, Err(FrameError::TooSlow)));
        drop(first);
        assert_eq!(frames.next(&mut source).await.unwrap().unwrap().bytes.len(), 96);
    }
}
