//! What handlers return, and what it means for the records.

use std::fmt;
use std::marker::PhantomData;

use super::failure::{BoxError, Failure};
use super::reply::Answer;
use crate::serde::{DefaultSerde, Payload};

/// What a handler may fail with: whatever becomes a [`BoxError`]. Any error type that may go to another thread, and
/// `anyhow::Error`, [`klamm::Error`](crate::Error), `Box<dyn Error + Send + Sync>`, `String` and `&str`.
#[diagnostic::on_unimplemented(
    message = "a listener cannot fail with `{Self}`",
    label = "this is no error that may go to another thread",
    note = "welcome are types that implement `std::error::Error + Send + Sync + 'static` \
     (`#[derive(thiserror::Error)]`), `klamm::Error`, `anyhow::Error`, \
     `Box<dyn std::error::Error + Send + Sync>`, `String` and `&'static str`"
)]
pub trait HandlerError: Into<BoxError> + 'static {}

#[diagnostic::do_not_recommend]
impl<E: Into<BoxError> + 'static> HandlerError for E {}

/// What a handler of single records may return: `()`, or `Result<(), E>` where `E` is any error type (also
/// `anyhow::Error`, `String` or [`klamm::Error`](crate::Error)). An error goes to the failure policy. A
/// [`Reply<T>`](crate::listener::Reply) in the place of `()` answers the record.
#[diagnostic::on_unimplemented(
    message = "a listener cannot return `{Self}`",
    label = "must be `()` or `Result<(), E>`, where `E` is an error"
)]
pub trait IntoOutcome {
    /// Whether it may answer its record.
    #[doc(hidden)]
    type Answers: Answers;

    /// `Ok` when the record is handled.
    ///
    /// # Errors
    /// When handling it failed.
    #[doc(hidden)]
    fn into_outcome(self) -> Result<(), Failure>;

    /// `Ok` when the record is handled, with what answers it.
    ///
    /// # Errors
    /// When handling it failed.
    #[doc(hidden)]
    fn into_answer(self) -> Result<Option<Box<Answer>>, Failure>
    where
        Self: Sized,
    {
        self.into_outcome().map(|()| None)
    }
}

/// Whether something answers, as a type: where the macros ask, a wrong result is to be one error and not two.
#[doc(hidden)]
pub trait Answers: 'static {
    /// It does.
    const EVER: bool;

    /// What it answers with.
    fn payloads() -> Vec<Payload> {
        Vec::new()
    }
}

/// It never answers.
#[doc(hidden)]
#[derive(Debug)]
pub struct NoAnswer;

/// It answers with a `T`.
#[doc(hidden)]
#[derive(Debug)]
pub struct AnAnswer<T>(PhantomData<fn() -> T>);

impl Answers for NoAnswer {
    const EVER: bool = false;
}

impl<T: DefaultSerde> Answers for AnAnswer<T> {
    const EVER: bool = true;

    fn payloads() -> Vec<Payload> {
        T::payloads()
    }
}

impl IntoOutcome for () {
    type Answers = NoAnswer;

    fn into_outcome(self) -> Result<(), Failure> {
        Ok(())
    }
}

impl<E: HandlerError> IntoOutcome for Result<(), E> {
    type Answers = NoAnswer;

    fn into_outcome(self) -> Result<(), Failure> {
        self.map_err(Failure::handler)
    }
}

/// What a handler of batches may return: [`BatchOutcome`], `()`, or `Result` of one of them. An `Err` fails every
/// record of the batch: nothing is assumed to be finished because it came earlier.
#[diagnostic::on_unimplemented(
    message = "a batch listener cannot return `{Self}`",
    label = "must be `()`, `BatchOutcome`, or a `Result` of one of them",
    note = "`BatchOutcome` says for each record whether it is handled: `batch.each(|record| handle(record)).await` \
     makes one"
)]
pub trait IntoBatchOutcome {
    /// The outcome per record.
    #[doc(hidden)]
    fn into_batch_outcome(self) -> BatchOutcome;
}

impl IntoBatchOutcome for () {
    fn into_batch_outcome(self) -> BatchOutcome {
        BatchOutcome::ok()
    }
}

impl IntoBatchOutcome for BatchOutcome {
    fn into_batch_outcome(self) -> BatchOutcome {
        self
    }
}

impl<O: IntoBatchOutcome, E: HandlerError> IntoBatchOutcome for Result<O, E> {
    fn into_batch_outcome(self) -> BatchOutcome {
        match self {
            Ok(outcome) => outcome.into_batch_outcome(),
            Err(error) => BatchOutcome { whole: Some(Failure::handler(error)), records: Vec::new() },
        }
    }
}

/// Which records of a batch are handled and which failed. The failed ones go to the failure policy one by one, the
/// others are done; a retry brings only what failed.
#[derive(Default)]
pub struct BatchOutcome {
    whole: Option<Failure>,
    records: Vec<(usize, Failure)>,
}

impl BatchOutcome {
    /// Every record is handled.
    pub fn ok() -> Self {
        Self::default()
    }

    /// The record at `index` of the batch (from 0) failed. An index that the batch does not have fails the whole batch,
    /// because nobody can tell which record was meant.
    pub fn fail<E: Into<BoxError> + 'static>(&mut self, index: usize, error: E) {
        self.fail_with(index, Failure::handler(error));
    }

    /// Whether no record failed.
    pub fn is_ok(&self) -> bool {
        self.whole.is_none() && self.records.is_empty()
    }

    /// The indexes of the failed records, as they were reported.
    pub fn failed(&self) -> impl Iterator<Item = usize> {
        self.records.iter().map(|(index, _)| *index)
    }

    pub(crate) fn fail_with(&mut self, index: usize, failure: Failure) {
        self.records.push((index, failure));
    }

    /// Of a batch of `count` records: what failed as a whole, or the failures by index, each index once.
    pub(crate) fn into_failures(mut self, count: usize) -> Result<Vec<(usize, Failure)>, Failure> {
        if let Some(whole) = self.whole {
            return Err(whole);
        }
        if let Some((index, failure)) = self.records.iter().find(|(index, _)| *index >= count) {
            let said =
                format!("the handler reported record {index} of a batch of {count} as failed: {failure}");
            return Err(Failure::handler(said));
        }
        self.records.sort_by_key(|(index, _)| *index);
        self.records.dedup_by_key(|(index, _)| *index);
        Ok(self.records)
    }
}

impl fmt::Debug for BatchOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchOutcome").field("whole", &self.whole).field("failed", &self.records).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::extract::Batch;

    #[test]
    fn an_index_beyond_the_batch_fails_it_whole() {
        let mut outcome = BatchOutcome::ok();
        outcome.fail(0, "zero");
        outcome.fail(0, "again");
        outcome.fail(3, "three");
        assert!(outcome.into_failures(3).unwrap_err().to_string().contains("record 3 of a batch of 3"));
        let mut outcome = BatchOutcome::ok();
        outcome.fail(2, "two");
        outcome.fail(0, "zero");
        outcome.fail(0, "again");
        let failed: Vec<_> = outcome.into_failures(3).unwrap().into_iter().map(|(index, _)| index).collect();
        assert_eq!(failed, [0, 2]);
    }

    #[tokio::test]
    async fn each_reports_errors_and_panics_by_record() {
        let outcome = Batch::new(vec![1, 2, 3, 4])
            .each_concurrently(2, |n| async move {
                match n {
                    2 => Err("two"),
                    3 => panic!("three"),
                    _ => Ok(()),
                }
            })
            .await;
        assert!(!outcome.is_ok());
        let mut failed: Vec<_> = outcome.failed().collect();
        failed.sort_unstable();
        assert_eq!(failed, [1, 2]);
        assert!(Batch::new(vec![1]).each(|_| async {}).await.is_ok());
    }
}
