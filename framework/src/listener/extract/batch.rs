//! `Batch<T>`: several records at once, and the further arguments of a batch handler.

use std::future::Future;
use std::ops::Deref;
use std::panic::AssertUnwindSafe;

use futures::future::FutureExt;
use futures::stream::{self, StreamExt};

use super::{BatchDelivery, Needs, Rejection};
use crate::listener::ack::Ack;
use crate::listener::failure::Failure;
use crate::listener::outcome::{Answers, BatchOutcome, IntoOutcome};

/// Records of one partition, in order, each already made into a `T`: the first argument of a batch handler. With
/// [`batch_across_partitions`](crate::listener::ListenerBuilder::batch_across_partitions) of several, one partition
/// after the other.
///
/// Records that could not be made into a `T` are not in it: they went to the failure policy, as they would have one by
/// one. The others come alone or together, as many as were there, at most what `batch(max = ...)` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<T>(Vec<T>);

impl<T> Batch<T> {
    /// A batch of these, for calling a handler directly.
    pub fn new(records: Vec<T>) -> Self {
        Self(records)
    }

    /// The records.
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }

    /// Calls `handle` with one record after the other and collects an outcome per record: a failure, or a panic,
    /// concerns that record only. A [`Reply`](crate::listener::Reply) does not compile: nobody would send it.
    ///
    /// ```compile_fail
    /// # use klamm::prelude::*;
    /// async fn answer_all(batch: Batch<Value<String>>) -> BatchOutcome {
    ///     batch.each(|Value(text)| async move { Reply::new(text) }).await
    /// }
    /// # let _ = Listener::on("t").group("g").handle(answer_all);
    /// ```
    pub async fn each<F, Fut>(self, handle: F) -> BatchOutcome
    where
        F: FnMut(T) -> Fut,
        Fut: Future<Output: IntoOutcome>,
    {
        self.each_concurrently(1, handle).await
    }

    /// As [`each`](Self::each), with up to `limit` records at once (0 counts as 1).
    pub async fn each_concurrently<F, Fut>(self, limit: usize, mut handle: F) -> BatchOutcome
    where
        F: FnMut(T) -> Fut,
        Fut: Future<Output: IntoOutcome>,
    {
        const {
            assert!(
                !<<Fut::Output as IntoOutcome>::Answers as Answers>::EVER,
                "a `Reply` can answer a record, not a part of a batch: nobody would send it; take one record at a time"
            );
        }
        let one_by_one = stream::iter(self.0.into_iter().enumerate()).map(|(index, record)| {
            // Only the future is guarded: a closure that panics before it makes one fails the whole batch.
            let handling = AssertUnwindSafe(handle(record)).catch_unwind();
            async move {
                let failure = match handling.await {
                    Ok(result) => result.into_outcome().err(),
                    Err(panic) => Some(Failure::panicked(panic)),
                };
                (index, failure)
            }
        });
        let mut outcome = BatchOutcome::ok();
        let mut done = one_by_one.buffer_unordered(limit.max(1));
        while let Some((index, failure)) = done.next().await {
            if let Some(failure) = failure {
                outcome.fail_with(index, failure);
            }
        }
        outcome
    }
}

impl<T> Deref for Batch<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> IntoIterator for Batch<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, T> IntoIterator for &'a Batch<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// A further argument of a batch handler, after its [`Batch<T>`]: something that belongs to the whole batch.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a batch handler",
    label = "this belongs to one record, not to the batch",
    note = "after `Batch<T>` come `State<T>`, `Template<K, V>`, `Ack` and `Tx`; parts of the records go into the \
     batch: `Batch<(RecordMeta, Json<Click>)>`"
)]
pub trait FromBatch: Sized + Send + 'static {
    /// Makes the argument.
    ///
    /// # Errors
    /// When it cannot be made; every record of the batch then goes to the failure policy.
    fn from_batch(delivery: &BatchDelivery<'_>) -> Result<Self, Rejection>;

    /// What the app must provide for this argument; a lack is an error when the app starts.
    fn needs(needs: &mut Needs) {
        let _ = needs;
    }
}

impl FromBatch for Ack {
    fn from_batch(delivery: &BatchDelivery<'_>) -> Result<Self, Rejection> {
        delivery.ack.map(Ack::share).ok_or(Rejection::NoAck)
    }

    fn needs(needs: &mut Needs) {
        needs.ack();
    }
}
