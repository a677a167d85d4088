//! How records of a changelog become rows of an engine, for stores of which each record is a row by itself.

use bytes::Bytes;

use super::list_entries::{self, ListTime};
use super::store_spec::StoreLayout;
use super::versioned_load::{self, Listing};
use crate::store::{Rows, StateStore, StoreError};

/// Knows the layout of a store, and nothing else of it: rows can be put together away from the thread that has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChangelogRows {
    layout: StoreLayout,
    listed: Option<ListTime>,
}

impl ChangelogRows {
    pub(super) fn new(layout: StoreLayout, listed: Option<ListTime>) -> Self {
        Self { layout, listed }
    }

    /// What comes before the first records.
    pub(crate) fn begin(self, engine: &dyn StateStore) -> Result<(), StoreError> {
        match (self.layout, self.listed) {
            (StoreLayout::Versioned(_), _) => versioned_load::begin(engine),
            (_, Some(_)) => list_entries::doubt_list(engine),
            (_, None) => Ok(()),
        }
    }

    /// What comes after the last ones, if anything.
    pub(crate) fn end(self) -> Option<Listing> {
        match self.layout {
            StoreLayout::Versioned(layout) => Some(Listing::new(layout)),
            StoreLayout::KeyValue | StoreLayout::Window(_) => None,
        }
    }

    /// Adds what a record says, which has its own time and is read at the stream time of all up to it.
    pub(crate) fn add(
        self,
        rows: &mut Rows,
        key: &Bytes,
        value: Option<&Bytes>,
        (timestamp_ms, stream_time_ms): (i64, i64),
    ) {
        if let StoreLayout::Versioned(layout) = self.layout {
            return versioned_load::add(layout, rows, (key, value), timestamp_ms, stream_time_ms);
        }
        let segment = match self.layout {
            StoreLayout::Window(layout) => match layout.time_of(key) {
                Some(time_ms) => layout.segment_of(time_ms).to_be_bytes(),
                None => return,
            },
            StoreLayout::KeyValue | StoreLayout::Versioned(_) => [0; 8],
        };
        let before: &[u8] = match self.layout {
            StoreLayout::Window(_) => &segment,
            _ if self.listed.is_some() => &[list_entries::ROW],
            _ => &[],
        };
        if let Some(time_ms) = self.listed.and_then(|listed| listed(key)) {
            let entry = list_entries::list_key(time_ms, key);
            let doubt = value.map(|_| list_entries::in_doubt());
            rows.add([&entry, &[]], doubt.as_deref().map(|doubt| [doubt, &[]]));
        }
        let stamp = timestamp_ms.to_be_bytes();
        rows.add([before, key], value.map(|value| [&stamp[..], &value[..]]));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use klamm_client::Headers;
    use klamm_runtime::{Rng, SeededRng};

    use super::super::{Medium, OrderedStore, StoreSpec, TaskStore, TopicId};
    use super::*;
    use crate::store::{KeyRange, MemoryStore, Position, WindowLayout};
    use crate::streams::incoming::Incoming;

    fn spec(layout: StoreLayout) -> StoreSpec {
        StoreSpec {
            name: "rows".into(),
            layout,
            medium: Medium::Memory,
            logged: true,
            retention: None,
            history: None,
            time_to_live: None,
            keeps_duplicates: false,
            write_only: None,
            codec: Arc::new(()),
            types: "",
        }
    }

    fn first_number(key: &Bytes) -> Option<i64> {
        Some(i64::from(*key.first()?))
    }

    fn records(rng: &SeededRng, layout: StoreLayout, from: i64) -> Vec<Incoming> {
        let record = |offset| {
            let plain = Bytes::from(vec![rng.below(5) as u8; rng.below(3) as usize]);
            let start_ms = rng.below(50_000) as i64;
            let key = match layout {
                StoreLayout::Window(layout) if layout.is_of_sessions() => {
                    WindowLayout::session_key(&plain, start_ms, start_ms + 7)
                }
                StoreLayout::Window(_) => WindowLayout::changelog_key(&plain, start_ms % 5 * 10_000),
                _ => plain.clone(),
            };
            // Now and then something that was never written by a store.
            let key = if rng.below(10) == 0 { plain } else { key };
            Incoming {
                offset,
                timestamp_ms: rng.below(60_000) as i64,
                key: (rng.below(20) > 0).then_some(key),
                value: (rng.below(4) > 0).then(|| Bytes::copy_from_slice(&rng.next_u64().to_be_bytes())),
                headers: Headers::new(),
            }
        };
        (from..from + rng.below(40) as i64).map(record).collect()
    }

    /// Written past its thread, a store is what it is when its thread writes it: whatever its layout is, with
    /// tombstones that come after their rows in one piece, before them, or in another one.
    #[test]
    fn rows_written_in_pieces_are_those_that_are_written_one_by_one() {
        let rng = SeededRng::new(0x10AD);
        let retention = Duration::from_secs(1);
        for round in 0..1_000 {
            let layouts = [
                (StoreLayout::KeyValue, None),
                (StoreLayout::KeyValue, Some(first_number as ListTime)),
                (StoreLayout::Window(WindowLayout::new(retention)), None),
                (StoreLayout::Window(WindowLayout::new(retention)), Some(first_number as ListTime)),
                (StoreLayout::Window(WindowLayout::sessions(retention)), None),
            ];
            let (layout, listed) = layouts[round % layouts.len()];
            let engines: [Arc<dyn StateStore>; 2] =
                [Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new())];
            let open = |engine: &Arc<dyn StateStore>| {
                OrderedStore::open(&spec(layout), Arc::clone(engine), TopicId(0), listed).unwrap()
            };
            let mut next = 0;
            for _ in 0..1 + rng.below(3) {
                // Each time by another life of the task.
                let mut store = open(&engines[0]);
                let pieces = open(&engines[1]).changelog_rows().unwrap();
                pieces.begin(&*engines[1]).unwrap();
                for _ in 0..1 + rng.below(3) {
                    let records = records(&rng, layout, next);
                    next += records.len() as i64 + rng.below(3) as i64;
                    store.restore(&records, next).unwrap();
                    let mut rows = Rows::new();
                    for record in &records {
                        let Some(key) = &record.key else { continue };
                        pieces.add(&mut rows, key, record.value.as_ref(), (record.timestamp_ms, 0));
                    }
                    rows.sort();
                    let position = Position { changelog_offset: next, ..store.position() };
                    engines[1].load(&rows, position).unwrap();
                }
            }
            let [one_by_one, in_pieces] =
                engines.map(|engine| engine.scan(KeyRange::ALL, usize::MAX).unwrap());
            assert_eq!(in_pieces, one_by_one, "round {round}: {layout:?}, listed: {}", listed.is_some());
        }
    }
}
