//! Work that blocks its thread: run on a thread for it, so that no task of the runtime stands still meanwhile.

use std::any::Any;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::task::JoinHandle;

/// Blocking work under way: it runs from the call of [`Blocking::start`] on, whether or not this future is polled, and
/// goes on when the future is dropped.
#[derive(Debug)]
#[must_use = "it runs anyway, but nobody learns how it ended"]
pub struct Blocking<T>(JoinHandle<T>);

/// Blocking work ended with a panic, or the runtime ended before it began.
#[derive(Debug, thiserror::Error)]
#[error("blocking work ended unexpectedly: {0}")]
pub struct Panicked(#[from] tokio::task::JoinError);

impl<T: Send + 'static> Blocking<T> {
    /// Runs `work` on a thread where it may block.
    pub fn start(work: impl FnOnce() -> T + Send + 'static) -> Self {
        #[allow(clippy::disallowed_methods)] // This is the one place where blocking threads are taken.
        Self(tokio::task::spawn_blocking(work))
    }

    /// Waits for the end; a panic of the work goes on in the caller, whom it belongs to.
    pub async fn join(self) -> T {
        match self.await {
            Ok(done) => done,
            Err(panicked) => std::panic::resume_unwind(panicked.into_payload()),
        }
    }
}

impl<T> Future for Blocking<T> {
    type Output = Result<T, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(ready!(Pin::new(&mut self.0).poll(cx)).map_err(Panicked))
    }
}

impl Panicked {
    fn into_payload(self) -> Box<dyn Any + Send> {
        self.0.try_into_panic().unwrap_or_else(|error| Box::new(error.to_string()))
    }
}

/// The text of a file: for settings, which are read once.
///
/// # Errors
/// What the operating system says, and bytes that are not UTF-8.
pub async fn read_text_file(path: &Path) -> io::Result<String> {
    let path = path.to_owned();
    #[allow(clippy::disallowed_methods)] // Settings are no part of the data that the disk seam stands for.
    Blocking::start(move || std::fs::read_to_string(path)).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_runs_unpolled_and_its_panic_is_told() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let work = Blocking::start(move || sender.send(1).unwrap());
        assert_eq!(receiver.recv().unwrap(), 1);
        work.join().await;
        let panicked = Blocking::start(|| std::panic::resume_unwind(Box::new("a defect"))).await;
        assert!(panicked.unwrap_err().to_string().contains("unexpectedly"));
        let error = read_text_file(Path::new("no/such/file")).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    #[should_panic(expected = "a defect")]
    async fn join_hands_the_panic_on() {
        Blocking::start(|| std::panic::panic_any("a defect")).join().await;
    }
}
