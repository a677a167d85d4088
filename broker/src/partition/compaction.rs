//! One compaction of a partition: its records are read, what stays is written beside them, and takes their place.
//!
//! It goes in steps, each of which is a piece of work for a thread of the log directory. The log itself is asked or
//! changed in the partition's turn only: to find the files, and to put one segment in the place of others.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::compaction_steps::{CompactionError, DECOMPRESSED_CAP_BYTES, Learning, Piece, Rewriting, close};
use super::error::{is_of_disk, is_passing};
use super::handle::Partition;
use super::snapshot::snapshot_path;
use super::writer::Writer;
use crate::disk::DiskFile;
use crate::log::cleaner::{
    Candidate, ClosedSegment, KeyHasher, KeyMap, LastOfProducer, LogState, Rules, SegmentLimits,
    Transactions, WhenToClean, grouped,
};
use crate::log::{AbortedTransaction, CleanedSegment, LogConfig, ReplaceError, StorageError, TRASH_SUFFIX};

/// What a compaction is done with.
pub(super) trait CompactionMeans: Sync {
    /// How much memory the keys may take, and how full it may get, from 0 to 1.
    fn key_memory(&self) -> (usize, f64);
    /// How much is read at a time.
    fn chunk_bytes(&self) -> usize;
    fn hasher(&self) -> KeyHasher;
    /// Called after so many bytes were read and written.
    fn pause(&self, bytes: u64) -> impl Future<Output = ()> + Send;
    /// Called before something is begun that may take so many bytes beside what is there.
    fn admit(&self, bytes: u64) -> impl Future<Output = Result<(), CompactionError>> + Send;
    /// Called before anything is replaced below this offset.
    fn before_gaps(&self, to: i64) -> impl Future<Output = Result<(), CompactionError>> + Send;
}

/// What a compaction came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Compacted {
    /// Everything below is compacted now.
    pub(super) to: i64,
    pub(super) bytes_before: u64,
    pub(super) bytes_after: u64,
    /// How many records went because they have no key.
    pub(super) without_key: u64,
}

/// What is asked of the log in the beginning.
struct Begun {
    segments: Vec<ClosedSegment>,
    aborted: Vec<AbortedTransaction>,
    producers: BTreeMap<i64, LastOfProducer>,
}

impl Partition {
    /// What of the log could be compacted now, if that is due.
    pub(super) async fn compaction_due(
        self: &Arc<Self>,
        cleaned_to: Option<i64>,
        now_ms: i64,
    ) -> Option<Candidate> {
        let config = self.config();
        if !config.compact || self.is_left_alone() || self.offline().is_some() {
            return None;
        }
        let when = WhenToClean {
            min_dirty_ratio: config.min_cleanable_dirty_ratio.0,
            min_lag_ms: config.min_compaction_lag_ms,
            max_lag_ms: config.max_compaction_lag_ms,
        };
        let found = self.ask(move |partition, writer| {
            let segments = writer.log.closed_segments();
            let marks = partition.marks().ok()?;
            let stable_to = marks.visible.offset.min(marks.synced_offset).min(marks.last_stable_offset());
            drop(marks);
            let (start_offset, end_offset) = (writer.log.start_offset(), writer.log.next_offset());
            let state = LogState { segments: &segments, start_offset, end_offset, cleaned_to, stable_to };
            let earliest_ms = match when.max_lag_ms {
                i64::MAX => None,
                _ => writer.log.earliest_ms(state.first_dirty()).ok()?,
            };
            state.candidate(when, earliest_ms, now_ms)
        });
        found.await.ok().flatten().filter(|candidate| candidate.is_due(when))
    }

    /// Compacts the log up to the end of the candidate, or as far as the memory for its keys reaches.
    ///
    /// # Errors
    /// See [`CompactionError`]. Where the disk has failed, nothing is written to its log directory any more.
    pub(super) async fn compact(
        self: &Arc<Self>,
        candidate: Candidate,
        now_ms: i64,
        means: &impl CompactionMeans,
    ) -> Result<Compacted, CompactionError> {
        let compacted = self.try_to_compact(candidate, now_ms, means).await;
        if let Err(CompactionError::NotWritten(error)) = &compacted
            && is_of_disk(error)
        {
            let what = format!("compacting {} failed: {error}", self.dir().display());
            self.fail_by(error, StorageError::new(what));
        }
        compacted
    }

    async fn try_to_compact(
        self: &Arc<Self>,
        candidate: Candidate,
        now_ms: i64,
        means: &impl CompactionMeans,
    ) -> Result<Compacted, CompactionError> {
        let config = self.config();
        let limits = SegmentLimits {
            size_bytes: config.segment_bytes.min(i32::MAX as u64),
            index_bytes: u64::from(config.segment_index_bytes),
        };
        let mut begun = self.ask(move |_, writer| begin(writer, candidate.end)).await?;
        if let Some(first) = grouped(&begun.segments, limits).into_iter().next() {
            means.admit(size_of(&begun.segments[first])).await?;
        }
        for number in 0..begun.segments.len() {
            let (from, end) = (begun.segments[number].base_offset, begun.segments[number].end_offset);
            let aborted = self.ask(move |_, writer| writer.log.aborted_transactions(from, end)).await??;
            // Those that began before were told of with the segments before.
            begun.aborted.extend(aborted.into_iter().filter(|one| number == 0 || one.first_offset >= from));
        }
        let map = self.learn(&begun, candidate, means).await?;
        let to = map.latest_offset().saturating_add(1).min(candidate.end);
        if to <= candidate.first_dirty {
            return Err(CompactionError::Never("there is no memory for a single key".to_owned()));
        }
        means.before_gaps(candidate.end).await?;
        let rules = Rules {
            now_ms,
            delete_retention_ms: config.delete_retention_ms,
            producers: begun.producers,
            decompressed_cap_bytes: DECOMPRESSED_CAP_BYTES,
        };
        let transactions = Transactions::new(begun.aborted);
        let mut rewriting = Rewriting { rules, map, transactions, without_key: 0 };
        let segments: Vec<_> =
            begun.segments.into_iter().filter(|segment| segment.base_offset < to).collect();
        let mut done = Compacted { to, bytes_before: 0, bytes_after: 0, without_key: 0 };
        for (number, group) in grouped(&segments, limits).into_iter().enumerate() {
            let group = &segments[group];
            if number > 0 {
                means.admit(size_of(group)).await?;
            }
            let cleaned = self.begin_cleaned(group, &config, now_ms).await?;
            let written;
            (rewriting, written) = self.rewrite(rewriting, cleaned, group, means).await?;
            done.bytes_before += size_of(group);
            done.bytes_after += written;
        }
        done.without_key = rewriting.without_key;
        Ok(done)
    }

    async fn learn(
        self: &Arc<Self>,
        begun: &Begun,
        candidate: Candidate,
        means: &impl CompactionMeans,
    ) -> Result<KeyMap, CompactionError> {
        let from = candidate.first_dirty;
        let dirty = begun.segments.iter().filter(|segment| segment.end_offset > from);
        let offsets: i64 =
            dirty.clone().map(|segment| segment.end_offset - segment.base_offset.max(from)).sum();
        let (memory_bytes, load_factor) = means.key_memory();
        let map = KeyMap::new(means.hasher(), memory_bytes, load_factor, offsets.max(0).cast_unsigned());
        let mut learning = Learning { map, transactions: Transactions::new(begun.aborted.clone()), from };
        for segment in dirty {
            let (file, size) = self.closed_file(segment.base_offset).await?;
            let mut position = 0;
            while position < size {
                let piece = Piece { file: file.clone(), position, size, chunk_bytes: means.chunk_bytes() };
                let (learned, next) = self.on_thread(move || learning.step(&piece)).await?;
                learning = learned;
                let Some(next) = next else { return Ok(learning.map) };
                means.pause(next - position).await;
                position = next;
            }
            // What lies between the last batch and the next segment is gone already.
            learning.map.know_up_to(segment.end_offset - 1);
        }
        Ok(learning.map)
    }

    async fn begin_cleaned(
        self: &Arc<Self>,
        group: &[ClosedSegment],
        config: &Arc<LogConfig>,
        now_ms: i64,
    ) -> Result<CleanedSegment, CompactionError> {
        let (base_offset, config) = (group.first().map_or(0, |segment| segment.base_offset), config.clone());
        let made = self.ask(move |partition, writer| {
            let _names = partition.names()?;
            partition.check_writable()?;
            let made = CleanedSegment::create(writer.log.files(), base_offset, &config, now_ms);
            made.map_err(CompactionError::NotWritten)
        });
        made.await?
    }

    /// Writes what stays of a group of segments, and puts it in their place. Gives how many bytes it is.
    async fn rewrite(
        self: &Arc<Self>,
        mut rewriting: Rewriting,
        mut cleaned: CleanedSegment,
        group: &[ClosedSegment],
        means: &impl CompactionMeans,
    ) -> Result<(Rewriting, u64), CompactionError> {
        for (number, segment) in group.iter().enumerate() {
            let (file, size) = self.closed_file(segment.base_offset).await?;
            let is_last = number + 1 == group.len();
            let mut position = 0;
            while position < size {
                let piece = Piece { file: file.clone(), position, size, chunk_bytes: means.chunk_bytes() };
                let step = self.on_thread(move || rewriting.step(cleaned, &piece, is_last)).await?;
                let (next, written);
                (rewriting, cleaned, next, written) = step;
                means.pause(next - position + written).await;
                position = next;
            }
        }
        let replaced: Arc<[i64]> = group.iter().map(|segment| segment.base_offset).collect();
        let asked = replaced.clone();
        let leaving = self.ask(move |_, writer| writer.log.leaving(&asked)).await?;
        let cleaned = self.on_thread(move || close(cleaned, leaving)).await?;
        let written = cleaned.size();
        let swapped =
            self.change(move |partition, writer| partition.put_in_place(writer, cleaned, &replaced)).await;
        let (partition, trash) = (self.clone(), swapped??);
        self.on_thread(move || partition.end_swap(trash)).await?;
        Ok((rewriting, written))
    }

    async fn closed_file(
        self: &Arc<Self>,
        base_offset: i64,
    ) -> Result<(Arc<dyn DiskFile>, u64), CompactionError> {
        let found = self.ask(move |_, writer| writer.log.closed_file(base_offset)).await??;
        found.ok_or_else(|| CompactionError::Later("the log was changed meanwhile".to_owned()))
    }

    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, CompactionError> + Send + 'static,
    ) -> Result<T, CompactionError> {
        let done = self.home.executor.run(work).await;
        done.map_err(|ended| CompactionError::Later(ended.to_string()))?
    }

    /// The swap: nothing is appended or read meanwhile. Gives what may be removed when the directory is synced.
    fn put_in_place(
        self: &Arc<Self>,
        writer: &mut Writer,
        cleaned: CleanedSegment,
        replaced: &[i64],
    ) -> Result<Vec<PathBuf>, CompactionError> {
        let _names = self.names()?;
        self.check_writable()?;
        match writer.log.replace_segments(cleaned, replaced) {
            Ok(mut trash) => {
                if let Ok(mut marks) = self.marks() {
                    marks.note_unsynced(writer.log.take_unsynced());
                    marks.compacted(&writer.log);
                }
                trash.extend(self.snapshots_without_segments(writer, replaced));
                Ok(trash)
            }
            Err(ReplaceError::Undone(error)) => Err(CompactionError::NotWritten(error)),
            Err(ReplaceError::HalfDone(error)) => Err(self.swap_failed(&error)),
        }
    }

    /// Makes the new names durable, while records are appended and read, and removes what was replaced.
    fn end_swap(self: &Arc<Self>, trash: Vec<PathBuf>) -> Result<(), CompactionError> {
        // Another partition may have this directory's name by now.
        let _names = self.names()?;
        match self.disk().sync_dir(self.dir()) {
            Ok(()) => drop(self.remove_trash(trash)),
            Err(error) if is_passing(&error) => tracing::debug!(
                dir = %self.dir().display(), %error,
                "what a compaction replaced stays until the next start: the directory is synced with the next flush"
            ),
            Err(error) => return Err(self.swap_failed(&error)),
        }
        Ok(())
    }

    fn swap_failed(&self, error: &io::Error) -> CompactionError {
        let what = format!(
            "putting compacted segments in their place in {} failed: {error}. The partition is read-only until the \
             broker is restarted, which finishes it; check the disk before",
            self.dir().display()
        );
        self.fail_by(error, StorageError::new(what.clone()));
        CompactionError::Later(what)
    }

    /// Snapshots of the producers that lie where no segment begins any more, and that nothing relies on.
    fn snapshots_without_segments(&self, writer: &Writer, replaced: &[i64]) -> Vec<PathBuf> {
        let mut trash = Vec::new();
        for offset in replaced.iter().skip(1) {
            if self.marks().is_ok_and(|marks| marks.snapshots.relies_on(*offset)) {
                continue;
            }
            let path = snapshot_path(writer.log.dir(), *offset);
            let renamed = path.with_extension(format!("snapshot{TRASH_SUFFIX}"));
            if self.disk().rename(&path, &renamed).is_ok() {
                trash.push(renamed);
            }
        }
        trash
    }
}

fn size_of(segments: &[ClosedSegment]) -> u64 {
    segments.iter().map(|segment| segment.size_bytes).sum()
}

fn begin(writer: &Writer, end: i64) -> Begun {
    let mut segments = writer.log.closed_segments();
    segments.retain(|segment| segment.end_offset <= end);
    let last = |producer: &super::producer_state::Producer| LastOfProducer {
        data_offset: producer.batches.back().map(|batch| batch.last_offset),
        epoch: producer.epoch,
    };
    let producers = writer.producers.iter().map(|(id, producer)| (id, last(producer))).collect();
    Begun { segments, aborted: Vec::new(), producers }
}
