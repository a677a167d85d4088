//! Calls of handlers that wait for what their arguments ask to be looked up: the schema of a record that is the first
//! of its kind. Everything else passes through without a detour.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::extract::{Delivery, Rejection};
use super::failed_lookups::FailedLookups;
use super::failure::Failure;
use super::handler::{BatchCall, BatchInput, PreparedBatch, RecordCall};
use super::reply::Answer;
use crate::serde::{AsksFor, Lookup, LookupError, with_patience, with_patience_for};

/// Calls the handler of one record. Gives what answers it, if something does.
///
/// # Errors
/// The record was rejected, or the handler failed.
pub(super) async fn call_record(
    call: &RecordCall,
    delivery: &Delivery<'_>,
) -> Result<Option<Box<Answer>>, Failure> {
    match with_patience(|| call(delivery)).await {
        Ok(handling) => handling.await,
        Err(refused) => Err(Failure::rejected(refused.unwrap_or_else(never_found))),
    }
}

/// Decodes a batch. `input` gives its records, once for each time that they are looked at.
///
/// # Errors
/// What a panic of an extractor said.
pub(super) async fn prepare_batch<'a>(
    call: &BatchCall,
    input: impl Fn() -> BatchInput<'a>,
) -> Result<PreparedBatch, Box<dyn Any + Send>> {
    let (failed, records) = (FailedLookups::default(), input().records.len());
    let attempt =
        || match catch_unwind(AssertUnwindSafe(|| call(BatchInput { failed: Some(&failed), ..input() }))) {
            Ok(PreparedBatch { asked_for: Some(lookup), .. }) => Err(Ended::Asked(lookup)),
            Ok(prepared) => Ok(prepared),
            Err(panic) => Err(Ended::Panicked(panic)),
        };
    match with_patience_for(records, attempt, |lookup, error| failed.add(lookup, error)).await {
        Ok(prepared) => Ok(prepared),
        Err(Ok(Ended::Panicked(panic))) => Err(panic),
        Err(Ok(Ended::Asked(lookup))) => Ok(all_refused(input(), Rejection::other(lookup.to_string()))),
        Err(Err(error)) => Ok(all_refused(input(), never_found(error))),
    }
}

enum Ended {
    Asked(Lookup),
    Panicked(Box<dyn Any + Send>),
}

impl AsksFor for Ended {
    fn lookup(&self) -> Option<&Lookup> {
        match self {
            Self::Asked(lookup) => Some(lookup),
            Self::Panicked(_) => None,
        }
    }
}

fn all_refused(input: BatchInput<'_>, rejection: Rejection) -> PreparedBatch {
    PreparedBatch {
        rejected: Vec::new(),
        accepted: (0..input.records.len()).collect(),
        handling: Some(Err(rejection)),
        asked_for: None,
    }
}

fn never_found(error: LookupError) -> Rejection {
    Rejection::other(error)
}
