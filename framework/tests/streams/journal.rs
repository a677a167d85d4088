//! A user's engine: rows in memory, and a journal of batches that is written when it is flushed. What was not flushed
//! is lost when it is closed, as in a crash. It does not always work.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write as _};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use klamm::store::{Batch, KeyRange, Position, StateStore, StoreEngine, StoreError, StorePlace, Write};

/// Opens journals, and says what they do wrong.
#[derive(Debug, Default)]
pub(crate) struct Journals {
    /// Opened so far.
    pub(crate) opened: AtomicUsize,
    /// So many batches go well, and one panics in its middle; negative for all.
    pub(crate) panics_after: AtomicI64,
    /// The same for errors.
    pub(crate) fails_after: AtomicI64,
    /// Batches applied.
    pub(crate) applied: AtomicUsize,
}

impl Journals {
    pub(crate) fn new() -> Arc<Self> {
        let never = || AtomicI64::new(-1);
        Arc::new(Self { panics_after: never(), fails_after: never(), ..Self::default() })
    }

    pub(crate) fn engine(self: &Arc<Self>) -> impl StoreEngine {
        let journals = Arc::clone(self);
        move |place: &StorePlace| {
            journals.opened.fetch_add(1, Ordering::Relaxed);
            Journal::open(place, &journals)
        }
    }

    fn is_due(after: &AtomicI64) -> bool {
        after.load(Ordering::Relaxed) >= 0 && after.fetch_sub(1, Ordering::Relaxed) == 0
    }
}

#[derive(Debug)]
pub(crate) struct Journal {
    journals: Arc<Journals>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    rows: BTreeMap<Bytes, Bytes>,
    position: Position,
    pending: Vec<u8>,
}

impl Journal {
    fn open(place: &StorePlace, journals: &Arc<Journals>) -> Result<Self, StoreError> {
        let failed =
            |source: std::io::Error| StoreError::Engine { store: place.store.clone(), source: source.into() };
        let path = place.directory.join("journal");
        let mut file = File::options().create(true).read(true).append(true).open(path).map_err(failed)?;
        let mut written = Vec::new();
        file.read_to_end(&mut written).map_err(failed)?;
        let (rows, position, pending) = (BTreeMap::new(), Position::default(), Vec::new());
        let mut state = State { file, rows, position, pending };
        let mut written = Bytes::from(written);
        while !written.is_empty() {
            state.apply(&decode(&mut written));
        }
        Ok(Self { journals: Arc::clone(journals), state: Mutex::new(state) })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rows<'a>(
        rows: impl Iterator<Item = (&'a Bytes, &'a Bytes)>,
        range: KeyRange<'_>,
        limit: usize,
    ) -> Vec<(Bytes, Bytes)> {
        let is_within = |key: &Bytes| key >= range.from && range.to.is_none_or(|to| key < to);
        let found = rows.filter(|(key, _)| is_within(key)).take(limit);
        found.map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

impl State {
    fn apply(&mut self, batch: &Batch) {
        for write in &batch.writes {
            match write {
                Write::Put(key, value) => drop(self.rows.insert(key.clone(), value.clone())),
                Write::Delete(key) => drop(self.rows.remove(key)),
                Write::DeleteRange(from, to) => self.rows.retain(|key, _| key < from || key >= to),
            }
        }
        self.position = batch.position.unwrap_or(self.position);
    }
}

impl StateStore for Journal {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.state().rows.get(key).cloned())
    }

    fn scan(&self, range: KeyRange<'_>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        Ok(Self::rows(self.state().rows.iter(), range, limit))
    }

    fn scan_reverse(&self, range: KeyRange<'_>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        Ok(Self::rows(self.state().rows.iter().rev(), range, limit))
    }

    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        if Journals::is_due(&self.journals.fails_after) {
            let source = "the journal is full".into();
            return Err(StoreError::Engine { store: "journal".to_owned(), source });
        }
        let mut state = self.state();
        if Journals::is_due(&self.journals.panics_after) {
            // Half of it is there, and on disk, with the position.
            let writes = batch.writes[..batch.writes.len() / 2].to_vec();
            let half = Batch { writes, ..batch.clone() };
            state.apply(&half);
            encode(&half, &mut state.pending);
            flush(&mut state).unwrap();
            panic!("the journal falls over");
        }
        state.apply(batch);
        encode(batch, &mut state.pending);
        self.journals.applied.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn position(&self) -> Result<Position, StoreError> {
        Ok(self.state().position)
    }

    fn flush(&self) -> Result<(), StoreError> {
        flush(&mut self.state())
            .map_err(|source| StoreError::Engine { store: "journal".to_owned(), source: source.into() })
    }
}

fn flush(state: &mut State) -> std::io::Result<()> {
    let pending = std::mem::take(&mut state.pending);
    state.file.write_all(&pending)?;
    state.file.sync_all()
}

fn encode(batch: &Batch, into: &mut Vec<u8>) {
    let mut bytes = BytesMut::new();
    let mut put = |part: &Bytes| {
        bytes.put_u32(part.len() as u32);
        bytes.put_slice(part);
    };
    for write in &batch.writes {
        let (kind, one, other) = match write {
            Write::Put(key, value) => (1, key, value.clone()),
            Write::Delete(key) => (2, key, Bytes::new()),
            Write::DeleteRange(from, to) => (3, from, to.clone()),
        };
        put(&Bytes::from(vec![kind]));
        put(one);
        put(&other);
    }
    into.put_u32(batch.writes.len() as u32);
    into.put_slice(&bytes);
    let position = batch.position.unwrap_or(Position { changelog_offset: -1, stream_time_ms: -1 });
    into.put_i64(position.changelog_offset);
    into.put_i64(position.stream_time_ms);
}

fn decode(from: &mut Bytes) -> Batch {
    let mut batch = Batch::new();
    for _ in 0..from.get_u32() {
        let mut part = || {
            let length = from.get_u32() as usize;
            from.split_to(length)
        };
        let (kind, one, other) = (part(), part(), part());
        batch.writes.push(match kind[0] {
            1 => Write::Put(one, other),
            2 => Write::Delete(one),
            _ => Write::DeleteRange(one, other),
        });
    }
    let position = Position { changelog_offset: from.get_i64(), stream_time_ms: from.get_i64() };
    batch.position = (position.changelog_offset >= 0).then_some(position);
    batch
}
