//! `FailedLookups`: what could not be looked up for a batch. Pure.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::serde::{Lookup, LookupError};

/// What could not be looked up for the records of a batch. A serde that remembers it says so itself, but forgets it
/// after a while, and a registry may take longer over all that a batch asks for.
#[derive(Debug, Default)]
pub(crate) struct FailedLookups(Mutex<HashMap<String, LookupError>>);

impl FailedLookups {
    pub(super) fn of(&self, lookup: &Lookup) -> Option<LookupError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(lookup.what()).cloned()
    }

    pub(super) fn add(&self, lookup: &Lookup, error: &LookupError) {
        let mut failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failed.insert(lookup.what().to_owned(), error.clone());
    }
}
