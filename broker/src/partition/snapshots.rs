//! When the producers of a partition are written down: at a roll, beside appends, and at the end.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::error::{interrupted, is_want_of_space};
use super::handle::Partition;
use super::layered_map::Frozen;
use super::producer_state::Producer;
use super::snapshot::{self, snapshot_path};
use super::writer::Writer;

impl Partition {
    /// Has the producer state as of the log's end written beside the new segment. Appends go on meanwhile, and when it
    /// cannot be written: without it the next start replays more.
    pub(super) fn begin_snapshot(self: &Arc<Self>, writer: &mut Writer) {
        let offset = writer.log.next_offset();
        let Some(producers) = writer.producers.freeze() else {
            tracing::debug!(
                topic = %self.topic(), partition = self.index(), offset,
                "no snapshot of the producers: the one before is still being written"
            );
            return;
        };
        let Ok(truncations) = self.marks().map(|marks| marks.truncations) else { return };
        let partition = self.clone();
        self.home.executor.start(move || {
            let written = partition.write_snapshot(&producers, offset, truncations);
            if let Err(error) = &written {
                tracing::warn!(
                    topic = %partition.topic(), partition = partition.index(), %error,
                    "no snapshot of the producers; the next start takes longer, and retention waits"
                );
            }
            let tried = match written {
                Ok(written) => written.then_some(true),
                Err(error) => is_want_of_space(&error).then_some(false),
            };
            if let (Some(written), Ok(mut marks)) = (tried, partition.marks())
                && marks.truncations == truncations
            {
                marks.snapshot_tried(offset, written);
            }
        });
    }

    /// Says whether it did: what the snapshot tells of may be gone.
    fn write_snapshot(
        &self,
        producers: &Frozen<Producer>,
        offset: i64,
        truncations: u64,
    ) -> io::Result<bool> {
        let _one_at_a_time = self.snapshotting.lock().map_err(|_| io::Error::other(interrupted()))?;
        self.check_writable().map_err(io::Error::other)?;
        if self.marks().is_ok_and(|marks| marks.truncations != truncations) {
            return Ok(false);
        }
        let bytes = snapshot::encode(producers.iter().map(|(id, producer)| (*id, producer)));
        let _names = self.names().map_err(io::Error::other)?;
        // It has its name only when it is on the disk: a process that begins anew takes what it can read for durable.
        self.disk().replace(&snapshot_path(self.dir(), offset), &bytes).map(|()| true)
    }

    /// One of the log's end that is there is not touched: there may be no space for it a second time.
    pub(super) fn write_last_snapshot(&self, writer: &mut Writer, path: &Path) -> io::Result<()> {
        if self.marks().map_err(io::Error::other)?.snapshot == Some(writer.log.next_offset()) {
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
