//! Versions that are restored in pieces. A record of the changelog is a version by itself, whatever its neighbours are;
//! which versions end, and when, follows from all of them, and is listed when all are there. Until then a mark says
//! that the list lacks some, so that a crash in between costs the listing and nothing else.

use bytes::Bytes;

use crate::store::{Batch, KeyRange, Rows, Stamped, StateStore, StoreError, VersionedLayout};

/// How many versions are looked at together.
const PAGE_ROWS: usize = 4_096;

/// What is written at a time.
const PIECE_BYTES: usize = 8 * 1024 * 1024;

/// The list lacks some from now on.
pub(super) fn begin(engine: &dyn StateStore) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    batch.put(VersionedLayout::UNLISTED, Stamped { timestamp_ms: 0, value: Bytes::new() }.encode());
    engine.apply(&batch)
}

/// Adds what a record says, unless it is older than the history.
pub(super) fn add(
    layout: VersionedLayout,
    rows: &mut Rows,
    (key, value): (&Bytes, Option<&Bytes>),
    timestamp_ms: i64,
    stream_time_ms: i64,
) {
    if timestamp_ms < layout.horizon_ms(stream_time_ms) {
        return;
    }
    let version_key = VersionedLayout::version_key(key, timestamp_ms);
    let stamp = timestamp_ms.to_be_bytes();
    let version = VersionedLayout::version(value.map(|value| &value[..]));
    rows.add([&version_key, &[]], Some([&stamp, &version]));
}

/// Lists which versions end, a piece at a time.
#[derive(Debug)]
pub(crate) struct Listing {
    layout: VersionedLayout,
    from: Option<Vec<u8>>,
    /// Key and time of the version before, which is newer if it has the same key.
    before: Option<(Bytes, i64)>,
    rows: Rows,
}

impl Listing {
    pub(super) fn new(layout: VersionedLayout) -> Self {
        let (first, _) = VersionedLayout::versions();
        Self { layout, from: Some(first.to_vec()), before: None, rows: Rows::new() }
    }

    /// Goes on for a piece; whether that was the last one. Nothing is done where the list lacks nothing.
    ///
    /// # Errors
    /// The engine cannot be read or written, or holds what is no version.
    pub(crate) fn step(&mut self, engine: &dyn StateStore) -> Result<bool, StoreError> {
        if engine.get(VersionedLayout::UNLISTED)?.is_none() {
            return Ok(true);
        }
        let position = engine.position()?;
        let horizon_ms = self.layout.horizon_ms(position.stream_time_ms);
        let (_, to) = VersionedLayout::versions();
        while let Some(from) = self.from.take() {
            let page = engine.scan(KeyRange { from: &from, to: Some(&to) }, PAGE_ROWS)?;
            if page.len() == PAGE_ROWS {
                self.from = page.last().map(|(key, _)| [&key[..], &[0]].concat());
            }
            for (version_key, stored) in page {
                self.look_at(&version_key, stored, horizon_ms)?;
            }
            if self.rows.held_bytes() >= PIECE_BYTES {
                break;
            }
        }
        let is_last = self.from.is_none();
        if is_last {
            self.rows.add([VersionedLayout::UNLISTED, &[]], None);
        }
        self.rows.sort();
        engine.load(&self.rows, position)?;
        self.rows.clear();
        Ok(is_last)
    }

    fn look_at(&mut self, version_key: &Bytes, stored: Bytes, horizon_ms: i64) -> Result<(), StoreError> {
        let corrupt = StoreError::Corrupt { what: "the key of a version" };
        let (key, from_ms) = VersionedLayout::split(version_key).ok_or(corrupt)?;
        let newer = self.before.take().filter(|(newer, _)| *newer == key).map(|(_, newer_ms)| newer_ms);
        let is_row = VersionedLayout::row_of(Stamped::decode(stored)?.value)?.is_some();
        // A deletion has nothing to say from the moment on at which nobody can ask for what was before it.
        let end_ms = if is_row { newer } else { Some(from_ms) };
        match end_ms {
            Some(end_ms) if end_ms <= horizon_ms => self.rows.add([version_key, &[]], None),
            Some(end_ms) => {
                let listed = VersionedLayout::ending_key(end_ms, version_key);
                self.rows.add([&listed, &[]], Some([&end_ms.to_be_bytes(), &[]]));
            }
            None => {}
        }
        self.before = Some((key, from_ms));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use klamm_client::Headers;
    use klamm_runtime::{Rng, SeededRng};

    use super::super::{ChangelogRows, Medium, StoreLayout, StoreSpec, TaskStore, TopicId, VersionedRows};
    use super::*;
    use crate::store::{MemoryStore, Position, VersionedStore};
    use crate::streams::incoming::Incoming;

    const HISTORY_MS: u64 = 40;

    fn open(engine: &Arc<dyn StateStore>) -> VersionedRows {
        let layout = VersionedLayout::new(Duration::from_millis(HISTORY_MS));
        let spec = StoreSpec {
            name: "rows".into(),
            layout: StoreLayout::Versioned(layout),
            medium: Medium::Memory,
            logged: true,
            retention: None,
            history: Some(Duration::from_millis(HISTORY_MS)),
            time_to_live: None,
            keeps_duplicates: false,
            write_only: None,
            codec: Arc::new(()),
            types: "",
        };
        VersionedRows::open(&spec, layout, Arc::clone(engine), TopicId(0)).unwrap()
    }

    /// Mostly in order, now and then too old, with deletions and the same time again.
    fn records(rng: &SeededRng, next: &mut i64, most: u64) -> Vec<Incoming> {
        let record = |_| {
            *next += 1;
            Incoming {
                offset: *next,
                timestamp_ms: (*next * 3 - rng.below(60) as i64).max(0),
                key: (rng.below(20) > 0).then(|| Bytes::from(vec![b'k'; rng.below(4) as usize])),
                value: (rng.below(4) > 0).then(|| Bytes::from(next.to_string())),
                headers: Headers::new(),
            }
        };
        (0..rng.below(most)).map(record).collect()
    }

    fn load(rows: ChangelogRows, engine: &dyn StateStore, records: &[Incoming], next: i64) {
        let mut position = engine.position().unwrap();
        let mut piece = Rows::new();
        for record in records {
            position.stream_time_ms = position.stream_time_ms.max(record.timestamp_ms);
            let Some(key) = &record.key else { continue };
            let times = (record.timestamp_ms, position.stream_time_ms);
            rows.add(&mut piece, key, record.value.as_ref(), times);
        }
        piece.sort();
        engine.load(&piece, Position { changelog_offset: next + 1, ..position }).unwrap();
    }

    /// All versions that can be asked for, and what they are at all times.
    fn seen(engine: &Arc<dyn StateStore>) -> Vec<(Bytes, Bytes)> {
        let (from, to) = VersionedLayout::versions();
        let versions = engine.scan(KeyRange { from: &from, to: Some(&to) }, usize::MAX).unwrap();
        let store =
            VersionedStore::new(Arc::clone(engine), VersionedLayout::new(Duration::from_millis(HISTORY_MS)));
        store.all().unwrap();
        versions
    }

    /// In pieces or record by record, with crashes before the list is made or in the middle of that: the versions are
    /// the same, and so are those that later records leave.
    #[test]
    fn versions_written_in_pieces_are_those_that_are_written_one_by_one() {
        let rng = SeededRng::new(0x7E25);
        for round in 0..600 {
            let engines: [Arc<dyn StateStore>; 2] =
                [Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new())];
            let mut next = 0;
            for _ in 0..1 + rng.below(3) {
                let mut one_by_one = open(&engines[0]);
                let mut in_pieces = open(&engines[1]);
                let rows = in_pieces.changelog_rows().unwrap();
                rows.begin(&*engines[1]).unwrap();
                for _ in 0..1 + rng.below(3) {
                    let records = records(&rng, &mut next, 30);
                    one_by_one.restore(&records, next + 1).unwrap();
                    load(rows, &*engines[1], &records, next);
                }
                match rng.below(3) {
                    // A crash: the next life lists them.
                    0 => in_pieces = open(&engines[1]),
                    _ => {
                        let mut listing = rows.end().unwrap();
                        while !listing.step(&*engines[1]).unwrap() {}
                    }
                }
                if rng.below(3) == 0 {
                    // Another crash, and so little to read that it is read one by one.
                    let records = records(&rng, &mut next, 5);
                    one_by_one.restore(&records, next + 1).unwrap();
                    in_pieces.look_again().unwrap();
                    in_pieces.restore(&records, next + 1).unwrap();
                }
                in_pieces.look_again().unwrap();
                assert_eq!(in_pieces.position(), one_by_one.position(), "round {round}");
                assert_eq!(seen(&engines[1]), seen(&engines[0]), "round {round}");
                assert!(engines[1].get(VersionedLayout::UNLISTED).unwrap().is_none());
            }
            let (mut one_by_one, mut in_pieces) = (open(&engines[0]), open(&engines[1]));
            for _ in 0..5 {
                let records = records(&rng, &mut next, 10);
                one_by_one.restore(&records, next + 1).unwrap();
                in_pieces.restore(&records, next + 1).unwrap();
                assert_eq!(seen(&engines[1]), seen(&engines[0]), "round {round}, later");
            }
        }
    }
}
