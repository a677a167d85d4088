//! When the producers of a partition are written down: at a roll, after so much more log, and at the end.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::error::{interrupted, is_want_of_space};
use super::handle::Partition;
use super::layered_map::Frozen;
use super::producer_state::Producer;
use super::snapshot::{self, snapshot_path};
use super::writer::Writer;

/// What a snapshot is of.
#[derive(Clone, Copy)]
struct Place {
    offset: i64,
    /// A segment begins there.
    at_segment: bool,
    /// How often the log had been cut before.
    truncations: u64,
}

impl Partition {
    /// Has the producer state as of the log's end written. Appends go on meanwhile, and when it cannot be written:
    /// without it the next start replays more.
    pub(super) fn begin_snapshot(self: &Arc<Self>, writer: &mut Writer) {
        let offset = writer.log.next_offset();
        // Also when it comes to nothing: the next is tried after as much again.
        writer.bytes_since_snapshot = 0;
        let Some(producers) = writer.producers.freeze() else {
            tracing::debug!(
                topic = %self.topic(), partition = self.index(), offset,
                "no snapshot of the producers: the one before is still being written"
            );
            return;
        };
        let at_segment = writer.log.active_base() == offset;
        let Ok(truncations) = self.marks().map(|marks| marks.truncations) else { return };
        let partition = self.clone();
        self.home.executor.start(move || {
            let place = Place { offset, at_segment, truncations };
            if let Err(error) = partition.write_snapshot(&producers, place) {
                tracing::warn!(
                    topic = %partition.topic(), partition = partition.index(), %error,
                    "no snapshot of the producers; the next start takes longer, and retention waits"
                );
                if is_want_of_space(&error)
                    && let Ok(mut marks) = partition.marks()
                {
                    marks.snapshots.without_space();
                }
            }
        });
    }

    /// Writes the snapshot, unless what it tells of may be gone, and removes those that are needed no more.
    fn write_snapshot(&self, producers: &Frozen<Producer>, place: Place) -> io::Result<()> {
        let Place { offset, at_segment, truncations } = place;
        let _one_at_a_time = self.snapshotting.lock().map_err(|_| io::Error::other(interrupted()))?;
        self.check_writable().map_err(io::Error::other)?;
        if self.marks().is_ok_and(|marks| marks.truncations != truncations) {
            return Ok(());
        }
        let bytes = snapshot::encode(producers.iter().map(|(id, producer)| (*id, producer)));
        let _names = self.names().map_err(io::Error::other)?;
        // It has its name only when it is on the disk: a process that begins anew takes what it can read for durable.
        self.disk().replace(&snapshot_path(self.dir(), offset), &bytes)?;
        let obsolete = {
            let mut marks = self.marks().map_err(io::Error::other)?;
            if marks.truncations != truncations {
                return Ok(());
            }
            let synced_offset = marks.synced_offset;
            marks.snapshots.written(offset, at_segment, synced_offset)
        };
        for offset in obsolete {
            let path = snapshot_path(self.dir(), offset);
            match self.disk().remove(&path) {
                // Retention took it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(
                    path = %path.display(), %error, "an old snapshot of the producers stays until the next start"
                ),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// One of the log's end that is there is not touched: there may be no space for it a second time.
    pub(super) fn write_last_snapshot(&self, writer: &mut Writer, path: &Path) -> io::Result<()> {
        if self.marks().map_err(io::Error::other)?.snapshots.newest() == Some(writer.log.next_offset()) {
            return Ok(());
        }
        let temporary = path.with_extension("snapshot.tmp");
        let file = self.disk().create(&temporary)?;
        file.write_all_at(&snapshot::encode(writer.producers.iter()), 0)?;
        file.sync_data()?;
        self.disk().rename(&temporary, path)?;
        // With the rest.
        writer.log.unsynced().dir(self.dir());
        Ok(())
    }
}
