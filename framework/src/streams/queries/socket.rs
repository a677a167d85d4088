//! The endpoint's connections: as many as there is room for, and none that is kept by silence, or by a question that
//! does not end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use klamm_runtime::{Listener, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// A connection is closed on which nothing moves for so long, or that has not been answered so long after a question
/// began. No query takes as long.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// Connections at a time; more wait in the kernel.
const CONNECTIONS_MAX: usize = 256;
/// After an accept that failed, as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections while there is room.
pub(super) struct Door {
    listener: Box<dyn Listener>,
    room: Arc<Semaphore>,
}

impl Door {
    pub(super) fn new(listener: Box<dyn Listener>) -> Self {
        Self { listener, room: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }
}

impl axum::serve::Listener for Door {
    type Io = Guarded;
    type Addr = String;

    async fn accept(&mut self) -> (Guarded, String) {
        loop {
            // It is never closed.
            let Ok(room) = Arc::clone(&self.room).acquire_owned().await else { continue };
            match self.listener.accept().await {
                Ok((stream, peer)) => return (Guarded::new(stream, room), peer),
                Err(error) => {
                    tracing::warn!(%error, "a connection for queries is not accepted");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<String> {
        Ok(self.listener.local_address())
    }
}

/// A connection with a limit to its silence.
#[derive(Debug)]
pub(super) struct Guarded {
    stream: Box<dyn Stream>,
    silent_until: Pin<Box<Sleep>>,
    /// Whether something has come since the last answer: whoever says a byte now and then has said nothing.
    is_asked: bool,
    _room: OwnedSemaphorePermit,
}

impl Guarded {
    fn new(stream: Box<dyn Stream>, room: OwnedSemaphorePermit) -> Self {
        let silent_until = Box::pin(sleep_until(Instant::now() + SILENCE_MAX));
        Self { stream, silent_until, is_asked: false, _room: room }
    }

    fn watched<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
        is_question: bool,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            if !(is_question && self.is_asked) {
                self.silent_until.as_mut().reset(Instant::now() + SILENCE_MAX);
            }
            self.is_asked = is_question;
            return polled;
        }
        match self.silent_until.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.watched(cx, polled, true)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watched(cx, polled, false)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
