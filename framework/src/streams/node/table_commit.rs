//! How a store comes to have what is committed: restored from its changelog, or written, in parts, after a commit.

use std::sync::Arc;

use bytes::Bytes;

use super::changelog_rows::ChangelogRows;
use super::store_spec::{engine_key, write};
use super::table_store::TableStore;
use super::{CacheFigures, StoreLayout, TaskStore, TopicId, row_format};
use crate::store::{Batch, Position, StateStore, StoreError, WindowLayout};
use crate::streams::incoming::Incoming;

impl<K: 'static, V: 'static> TaskStore for TableStore<K, V> {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn changelog(&self) -> Option<TopicId> {
        self.logged.then_some(self.topic)
    }

    fn engine(&self) -> Arc<dyn StateStore> {
        Arc::clone(&self.engine)
    }

    fn position(&self) -> Position {
        self.position
    }

    fn changelog_rows(&self) -> Option<ChangelogRows> {
        Some(ChangelogRows::new(self.layout, None))
    }

    fn look_again(&mut self) -> Result<(), StoreError> {
        self.position = self.engine.position()?;
        Ok(())
    }

    fn restore(&mut self, records: &[Incoming], next_offset: i64) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        for record in records {
            self.position.stream_time_ms = self.position.stream_time_ms.max(record.timestamp_ms);
            let Some(engine_key) = record.key.as_ref().and_then(|key| engine_key(self.layout, key)) else {
                continue;
            };
            write(&mut batch, engine_key, record.value.clone(), record.timestamp_ms);
        }
        self.position.changelog_offset = next_offset;
        batch.position = Some(self.position);
        self.engine.apply(&batch)
    }

    fn commit(&mut self, changelog_offset: Option<i64>) -> Result<(), StoreError> {
        self.settle(usize::MAX)?;
        if let Some(offset) = changelog_offset {
            self.position.changelog_offset = self.position.changelog_offset.max(offset);
        }
        self.cache.commit();
        if !self.cache.is_settled() || self.engine.position()? != self.position {
            self.committed = Some(self.position);
        }
        Ok(())
    }

    /// A row is as the last commit left it, or later ones: never newer than what is committed. The changelog has all of
    /// them, so that a crash before the position is written costs nothing but reading them again.
    fn settle(&mut self, rows: usize) -> Result<bool, StoreError> {
        let Some(position) = self.committed else {
            self.shrink();
            return Ok(true);
        };
        let (mut batch, layout) = (Batch::new(), self.layout);
        self.cache.take_pending(rows, |key, row| {
            let Some(key) = engine_key(layout, &Bytes::copy_from_slice(key)) else { return };
            match row_format::stored(row) {
                Some(stored) => batch.put(key, stored),
                None => batch.delete(key),
            }
        });
        // Neighbours are cheaper to insert one after the other; the sort is stable, so the last write of a key stays
        // last.
        batch.writes.sort_by(|a, b| a.key().cmp(b.key()));
        let is_last = self.cache.is_settled();
        if is_last {
            if let StoreLayout::Window(layout) = self.layout {
                let segment = layout.first_live_segment(position.stream_time_ms);
                if segment > self.first_live_segment {
                    WindowLayout::drop_before(segment, &mut batch);
                    self.first_live_segment = segment;
                }
            }
            batch.position = Some(position);
        }
        let applied = self.engine.apply(&batch);
        if is_last || applied.is_err() {
            // What was taken for a write that failed is nowhere but in the changelog: no later one may lead past it.
            self.committed = None;
        }
        applied?;
        if is_last {
            self.shrink();
        }
        Ok(is_last)
    }

    fn cache(&self) -> CacheFigures {
        self.cache_figures()
    }

    fn shrink(&mut self) {
        self.note_held();
        let fair = self.share.fair_bytes();
        // Rows that wait are written back when they are forwarded, and can be given up after that.
        if (self.is_hot_full() || self.hot.is_crowded()) && self.cache.unsent() == 0 {
            for row in self.hot.clear() {
                self.cache.hold(row.address, false);
            }
        }
        if fair < usize::MAX {
            self.cache.shrink_to(fair.saturating_sub(self.hot.held_bytes()));
            self.note_held();
        }
    }
}
