//! When a snapshot of the metadata is due, and the one that is being written. Commands go on meanwhile: an image that
//! is written down is a clone, which costs nothing.

use futures::future::BoxFuture;

use super::error::ControllerError;
use super::image::Image;
use super::metadata_log::MetadataLog;

/// The snapshots of a metadata log.
pub(super) struct Snapshots {
    every_bytes: u64,
    /// The last one that is whole.
    last: Option<i64>,
    bytes_since: u64,
    /// One on its way to the disk, and its offset.
    writing: Option<(i64, BoxFuture<'static, Result<(), ControllerError>>)>,
    /// The disk has failed for one of them. As in Kafka the next comes after the next start.
    given_up: bool,
}

impl Snapshots {
    pub(super) fn new(every_bytes: u64, last: Option<i64>, bytes_since: u64) -> Self {
        Self { every_bytes, last, bytes_since, writing: None, given_up: false }
    }

    /// So much was written to the log.
    pub(super) fn note(&mut self, bytes: u64) {
        self.bytes_since += bytes;
    }

    /// Whether one is being written. It must not be left alone: somebody else may have the directory then.
    pub(super) fn is_under_way(&self) -> bool {
        self.writing.is_some()
    }

    /// Begins one of what is committed, which the log up to `end` has made, if it is due.
    pub(super) fn begin_if_due(&mut self, log: &MetadataLog, committed: &Image, end: i64) {
        if self.bytes_since < self.every_bytes || self.writing.is_some() || self.given_up {
            return;
        }
        // Counted from here, also if it fails: a disk that refuses one is not asked again with every command.
        self.bytes_since = 0;
        let writing = log.clone().snapshot(committed.clone(), end, self.last);
        self.writing = Some((end, Box::pin(writing)));
    }

    /// Waits for the one that is being written; for ever when there is none. Cancel-safe.
    pub(super) async fn written(&mut self) {
        let Some((offset, writing)) = &mut self.writing else { return std::future::pending().await };
        let (offset, written) = (*offset, writing.await);
        self.writing = None;
        match written {
            Ok(()) => {
                self.last = Some(offset);
                tracing::debug!(offset, "the metadata was written down");
            }
            Err(error) if error.is_of_disk() => {
                self.given_up = true;
                tracing::error!(
                    %error,
                    "the metadata log grows from now on: no snapshot of the metadata is made before the next start. \
                     Check the disk and restart the broker"
                );
            }
            Err(error) => tracing::warn!(%error, "the metadata log stays longer than it need be"),
        }
    }
}
