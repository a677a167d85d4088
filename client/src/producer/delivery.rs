//! The fate of one record as a future.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::record::RecordMetadata;
use crate::error::ProduceError;

/// Resolves when the record is acknowledged, or when it is known that it will not be.
///
/// Dropping it does not take the record back.
#[must_use = "the record is sent anyway, but nobody learns whether it arrived"]
#[derive(Debug)]
pub struct Delivery {}

impl Future for Delivery {
    type Output = Result<RecordMetadata, ProduceError>;

    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Err(ProduceError::Closed { possibly_written: false }))
    }
}
