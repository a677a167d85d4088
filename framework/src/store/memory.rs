//! The engine without files: a `BTreeMap` behind a lock. Rebuilt from the changelog at every start.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;

use super::{Batch, EngineFigures, KeyRange, Position, StateStore, StoreError, Write};

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    content: RwLock<Content>,
}

#[derive(Debug, Default)]
struct Content {
    entries: BTreeMap<Bytes, Bytes>,
    position: Position,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

impl StateStore for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let content = self.content.read().unwrap_or_else(PoisonError::into_inner);
        Ok(content.entries.get(key).cloned())
    }

    fn scan(&self, range: KeyRange<'_>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        if range.to.is_some_and(|to| to <= range.from) {
            return Ok(Vec::new());
        }
        let to = range.to.map_or(Bound::Unbounded, Bound::Excluded);
        let content = self.content.read().unwrap_or_else(PoisonError::into_inner);
        let found = content.entries.range::<[u8], _>((Bound::Included(range.from), to));
        Ok(found.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn scan_reverse(&self, range: KeyRange<'_>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        if range.to.is_some_and(|to| to <= range.from) {
            return Ok(Vec::new());
        }
        let to = range.to.map_or(Bound::Unbounded, Bound::Excluded);
        let content = self.content.read().unwrap_or_else(PoisonError::into_inner);
        let found = content.entries.range::<[u8], _>((Bound::Included(range.from), to)).rev();
        Ok(found.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut content = self.content.write().unwrap_or_else(PoisonError::into_inner);
        for write in &batch.writes {
            match write {
                Write::Put(key, value) => match content.entries.get_mut(key) {
                    Some(entry) => *entry = value.clone(),
                    None => {
                        // Keys of a restored changelog are slices of what was fetched, which would be kept with them.
                        content.entries.insert(Bytes::copy_from_slice(key), value.clone());
                    }
                },
                Write::Delete(key) => {
                    content.entries.remove(key);
                }
                Write::DeleteRange(from, to) => {
                    let mut removed = content.entries.split_off(from);
                    let mut kept = removed.split_off(to.max(from));
                    content.entries.append(&mut kept);
                }
            }
        }
        if let Some(position) = batch.position {
            content.position = position;
        }
        Ok(())
    }

    fn position(&self) -> Result<Position, StoreError> {
        Ok(self.content.read().unwrap_or_else(PoisonError::into_inner).position)
    }

    fn figures(&self) -> EngineFigures {
        let content = self.content.read().unwrap_or_else(PoisonError::into_inner);
        EngineFigures { rows: Some(content.entries.len() as u64), ..EngineFigures::default() }
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
