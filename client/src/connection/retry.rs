//! The one retry: attempts with growing pauses between them, within a deadline.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::backoff::Backoff;
use crate::config::ClientConfig;
use crate::error::RequestError;

/// Attempts with growing pauses between them until one succeeds, fails for good, or `deadline` passes.
#[derive(Debug)]
pub(crate) struct Retry<'a> {
    config: &'a ClientConfig,
    what: &'static str,
    started: Instant,
    deadline: Instant,
    backoff: Backoff,
    last: Option<RequestError>,
}

impl<'a> Retry<'a> {
    pub(crate) fn new(config: &'a ClientConfig, what: &'static str, deadline: Instant) -> Self {
        Self { config, what, started: Instant::now(), deadline, backoff: Backoff::of(config), last: None }
    }

    /// Begins with this pause instead of `retry_backoff`.
    pub(crate) fn first_pause(mut self, first: Duration) -> Self {
        self.backoff = Backoff::new(first, self.config.retry_backoff_max);
        self
    }

    /// One attempt and, when it failed in a way that another may cure, the pause after it:
    /// `None` then asks for the next.
    pub(crate) async fn attempt<T>(
        &mut self,
        attempt: impl Future<Output = Result<T, RequestError>>,
    ) -> Result<Option<T>, RequestError> {
        match tokio::time::timeout_at(self.deadline, attempt).await {
            Ok(Ok(value)) => return Ok(Some(value)),
            Ok(Err(error)) if !error.is_retriable() => return Err(error),
            Ok(Err(error)) => self.last = Some(error),
            Err(_) => {}
        }
        let pause = self.backoff.next(&*self.config.rng);
        if Instant::now() + pause >= self.deadline {
            let last =
                self.last.take().map_or_else(|| Arc::from("none"), |error| Arc::from(error.to_string()));
            return Err(RequestError::Deadline { what: self.what, after: self.started.elapsed(), last });
        }
        tokio::time::sleep(pause).await;
        Ok(None)
    }
}
