//! Writes that are applied together, and the place in the changelog that they lead to.

use bytes::Bytes;

/// How far a store has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The first changelog offset that is not in the store.
    pub changelog_offset: i64,
    /// The largest record timestamp that the store's operator has seen, in milliseconds since the Unix
    /// epoch; -1 before the first. Kept with the data, so that a record that was late before a restart is
    /// late after it (unlike KAFKA-20099).
    pub stream_time_ms: i64,
}

impl Default for Position {
    fn default() -> Self {
        Self { changelog_offset: 0, stream_time_ms: -1 }
    }
}

/// One change to a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets a key.
    Put(Bytes, Bytes),
    /// Removes a key.
    Delete(Bytes),
    /// Removes all keys from the first, included, to the second, excluded.
    DeleteRange(Bytes, Bytes),
}

impl Write {
    /// The first key it is about.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put(key, _) | Self::Delete(key) | Self::DeleteRange(key, _) => key,
        }
    }
}

/// Writes to one store, applied in order and as a whole.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// The writes.
    pub writes: Vec<Write>,
    /// Where the store is after them; `None` leaves the position as it is.
    pub position: Option<Position>,
}

impl Batch {
    /// No writes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key`.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.writes.push(Write::Put(key.into(), value.into()));
    }

    /// Removes `key`.
    pub fn delete(&mut self, key: impl Into<Bytes>) {
        self.writes.push(Write::Delete(key.into()));
    }

    /// Removes all keys from `from`, included, to `to`, excluded.
    pub fn delete_range(&mut self, from: impl Into<Bytes>, to: impl Into<Bytes>) {
        self.writes.push(Write::DeleteRange(from.into(), to.into()));
    }

    /// Whether applying it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.position.is_none()
    }
}
