//! An engine in memory that loses what it was given last, as one on disk without a log does in a crash.
#![allow(clippy::unwrap_used)] // A failing step is a failing test.

use std::sync::Mutex;

use bytes::Bytes;

use crate::store::{Batch, KeyRange, MemoryStore, Position, StateStore, StoreError};

#[derive(Debug, Default)]
pub(crate) struct FragileStore {
    content: MemoryStore,
    applied: Mutex<Vec<Batch>>,
}

impl FragileStore {
    /// What is left of it without the last batches.
    pub(crate) fn without(&self, lost: usize) -> Self {
        let left = Self::default();
        let applied = self.applied.lock().unwrap();
        let kept = applied.len().saturating_sub(lost);
        applied[..kept].iter().for_each(|batch| left.apply(batch).unwrap());
        left
    }
}

impl StateStore for FragileStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.content.get(key)
    }

    fn scan(&self, range: KeyRange<'_>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.content.scan(range, limit)
    }

    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        self.applied.lock().unwrap().push(batch.clone());
        self.content.apply(batch)
    }

    fn position(&self) -> Result<Position, StoreError> {
        self.content.position()
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
