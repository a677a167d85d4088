//! The two sparse indexes of a segment: offset to file position, and timestamp to offset. Entries are Kafka's, byte for
//! byte.
//!
//! The newest entries are in memory until there are enough of them for a write; lookups near the log's end touch no
//! file. What is in the file is read with plain reads: an index page that cannot be read is an error of that lookup.

use std::io;
use std::sync::Arc;

use super::open_files::LogFile;
use crate::disk::DiskFile;

/// How many entries are gathered before they are written to the file.
const GATHERED_ENTRIES: usize = 128;
/// How many entries a lookup reads at once, after it has found among which of them it must look.
const BLOCK_ENTRIES: usize = 256;

/// One entry of an index. The file keeps offsets relative to the segment's base.
pub(crate) trait IndexEntry: Copy {
    /// Its size in the file.
    const BYTES: usize;
    /// Entries that must have room at least.
    const LEAST_CAPACITY: usize;

    fn write(&self, base_offset: i64, bytes: &mut Vec<u8>) -> io::Result<()>;
    fn read(base_offset: i64, bytes: &[u8]) -> Self;
    fn offset(&self) -> i64;
    /// Whether this one may follow `before`.
    fn may_follow(&self, before: &Self) -> bool;
}

/// An entry of `.index`: the last offset of a batch, and where that batch starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchPlace {
    pub(crate) last_offset: i64,
    pub(crate) position: u64,
}

/// An entry of `.timeindex`: the largest timestamp so far, and the last offset of the batch that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MaxTimestamp {
    pub(crate) timestamp: i64,
    pub(crate) last_offset: i64,
}

impl IndexEntry for BatchPlace {
    const BYTES: usize = 8;
    const LEAST_CAPACITY: usize = 1;

    fn write(&self, base_offset: i64, bytes: &mut Vec<u8>) -> io::Result<()> {
        let offset = relative(self.last_offset, base_offset)?;
        let position = i32::try_from(self.position).map_err(io::Error::other)?;
        bytes.extend_from_slice(&offset.to_be_bytes());
        bytes.extend_from_slice(&position.to_be_bytes());
        Ok(())
    }

    fn read(base_offset: i64, bytes: &[u8]) -> Self {
        let last_offset = base_offset + i64::from(be_i32(&bytes[..4]));
        Self { last_offset, position: u64::from(be_i32(&bytes[4..]).cast_unsigned()) }
    }

    fn offset(&self) -> i64 {
        self.last_offset
    }

    fn may_follow(&self, before: &Self) -> bool {
        self.last_offset > before.last_offset && self.position > before.position
    }
}

impl IndexEntry for MaxTimestamp {
    const BYTES: usize = 12;
    /// One is kept for the entry at the segment's end.
    const LEAST_CAPACITY: usize = 2;

    fn write(&self, base_offset: i64, bytes: &mut Vec<u8>) -> io::Result<()> {
        let offset = relative(self.last_offset, base_offset)?;
        bytes.extend_from_slice(&self.timestamp.to_be_bytes());
        bytes.extend_from_slice(&offset.to_be_bytes());
        Ok(())
    }

    fn read(base_offset: i64, bytes: &[u8]) -> Self {
        let mut timestamp = [0; 8];
        timestamp.copy_from_slice(&bytes[..8]);
        Self {
            timestamp: i64::from_be_bytes(timestamp),
            last_offset: base_offset + i64::from(be_i32(&bytes[8..])),
        }
    }

    fn offset(&self) -> i64 {
        self.last_offset
    }

    fn may_follow(&self, before: &Self) -> bool {
        self.timestamp > before.timestamp && self.last_offset >= before.last_offset
    }
}

/// `.index`.
pub(crate) type OffsetIndex = Index<BatchPlace>;
/// `.timeindex`.
pub(crate) type TimeIndex = Index<MaxTimestamp>;

/// Entries in ascending order: the older ones in a file, the newest in memory.
#[derive(Debug)]
pub(crate) struct Index<E> {
    file: LogFile,
    base_offset: i64,
    /// Whether the file is there and holds `written` entries (and perhaps some behind them that do not count).
    made: bool,
    /// The entries in the file were written by a process that died, and perhaps never got to the disk.
    inherited: bool,
    written: usize,
    gathered: Vec<E>,
    last: Option<E>,
    capacity: usize,
}

impl<E: IndexEntry> Index<E> {
    /// An empty index with room for `max_bytes` of entries. A file that is there already counts as nothing.
    pub(crate) fn empty(file: LogFile, base_offset: i64, max_bytes: u32) -> Self {
        let capacity = capacity::<E>(max_bytes);
        Self {
            file,
            base_offset,
            made: false,
            inherited: false,
            written: 0,
            gathered: Vec::new(),
            last: None,
            capacity,
        }
    }

    /// An index that was completed when its segment was closed. `None` when its file is missing or cannot be right;
    /// `sound` looks at the last entry.
    pub(crate) fn open(
        file: LogFile,
        base_offset: i64,
        sound: impl FnOnce(Option<E>) -> bool,
    ) -> io::Result<Option<Self>> {
        let Some((open, len)) = open_if_there(&file)? else { return Ok(None) };
        if !len.is_multiple_of(E::BYTES) {
            return Ok(None);
        }
        let written = len / E::BYTES;
        let mut index = Self { made: true, written, capacity: written, ..Self::empty(file, base_offset, 0) };
        let ends = index.read_entries(&*open, written.saturating_sub(2), written)?;
        let ascending = match ends.as_slice() {
            [before, last] => last.may_follow(before),
            _ => true,
        };
        index.last = ends.last().copied();
        let above_base = index.last.is_none_or(|last| last.offset() >= base_offset);
        Ok((ascending && above_base && sound(index.last)).then_some(index))
    }

    /// What is left of the index of a segment that was being written when the broker died: its first entries, as long
    /// as they ascend and `known` holds for them.
    pub(crate) fn resume(
        file: LogFile,
        base_offset: i64,
        max_bytes: u32,
        known: impl Fn(&E) -> bool,
    ) -> io::Result<Self> {
        let Some((open, len)) = open_if_there(&file)? else {
            return Ok(Self::empty(file, base_offset, max_bytes));
        };
        let mut index = Self { made: true, inherited: true, ..Self::empty(file, base_offset, max_bytes) };
        let count = (len / E::BYTES).min(index.capacity);
        for start in (0..count).step_by(BLOCK_ENTRIES) {
            for entry in index.read_entries(&*open, start, count.min(start + BLOCK_ENTRIES))? {
                let follows = index.last.is_none_or(|before| entry.may_follow(&before));
                if !follows || entry.offset() < base_offset || !known(&entry) {
                    return Ok(index);
                }
                index.written += 1;
                index.last = Some(entry);
            }
        }
        Ok(index)
    }

    /// The last entry for which `holds`, which must hold for all entries up to some one and for none behind it.
    pub(crate) fn last_where(&self, holds: impl Fn(&E) -> bool) -> io::Result<Option<E>> {
        Ok(self.search(holds)?.map(|(_, entry)| entry))
    }

    fn search(&self, holds: impl Fn(&E) -> bool) -> io::Result<Option<(usize, E)>> {
        if let Some(found) = self.gathered.partition_point(&holds).checked_sub(1) {
            return Ok(Some((self.written + found, self.gathered[found])));
        }
        if self.written == 0 {
            return Ok(None);
        }
        let file = self.file.open()?;
        let (mut low, mut high) = (0, self.written.div_ceil(BLOCK_ENTRIES));
        while low < high {
            let middle = low + (high - low) / 2;
            let first = middle * BLOCK_ENTRIES;
            if self.read_entries(&*file, first, first + 1)?.iter().all(&holds) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let Some(block) = low.checked_sub(1) else { return Ok(None) };
        let start = block * BLOCK_ENTRIES;
        let entries = self.read_entries(&*file, start, self.written.min(start + BLOCK_ENTRIES))?;
        let found =
            entries.partition_point(&holds).checked_sub(1).map(|found| (start + found, entries[found]));
        // Entries that were damaged need not ascend.
        Ok(found.filter(|(_, entry)| holds(entry)))
    }

    fn read_entries(&self, file: &dyn DiskFile, start: usize, end: usize) -> io::Result<Vec<E>> {
        let mut bytes = vec![0; (end - start) * E::BYTES];
        file.read_exact_at(&mut bytes, (start * E::BYTES) as u64)?;
        Ok(bytes.chunks_exact(E::BYTES).map(|entry| E::read(self.base_offset, entry)).collect())
    }

    /// The last entry.
    pub(crate) fn last(&self) -> Option<E> {
        self.last
    }

    fn count(&self) -> usize {
        self.written + self.gathered.len()
    }

    /// Whether there is only the room left that is kept for the segment's end, if any is.
    pub(crate) fn is_full(&self) -> bool {
        self.count() + E::LEAST_CAPACITY > self.capacity
    }

    /// Adds an entry, which must be above the last.
    ///
    /// # Errors
    /// The entry cannot be written in the file's form; it is not added then. A file that cannot be written is no error:
    /// the entries stay in memory and are tried again with the next.
    pub(crate) fn append(&mut self, entry: E) -> io::Result<()> {
        entry.write(self.base_offset, &mut Vec::with_capacity(E::BYTES))?;
        self.gathered.push(entry);
        self.last = Some(entry);
        if self.gathered.len() >= GATHERED_ENTRIES
            && let Err(error) = self.write_gathered()
        {
            tracing::warn!(path = %self.file.path().display(), %error, "cannot write index entries yet");
        }
        Ok(())
    }

    /// Forgets the entries of `offset` and above.
    pub(crate) fn truncate(&mut self, offset: i64) -> io::Result<()> {
        let found = self.search(|entry| entry.offset() < offset)?;
        let kept = found.map_or(0, |(last, _)| last + 1);
        self.last = found.map(|(_, last)| last);
        self.gathered.truncate(kept.saturating_sub(self.written));
        self.written = self.written.min(kept);
        Ok(())
    }

    /// Writes everything to the file, which then holds nothing else; the segment is closed.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        self.write_gathered()?;
        let (file, len) = (self.file.open()?, (self.written * E::BYTES) as u64);
        if file.size()? != len {
            file.set_len(len)?;
        }
        if self.inherited {
            let mut bytes = vec![0; self.written * E::BYTES];
            file.read_exact_at(&mut bytes, 0)?;
            file.write_all_at(&bytes, 0)?;
            self.inherited = false;
        }
        self.gathered = Vec::new();
        self.capacity = self.written;
        Ok(())
    }

    /// Makes room for more entries: a closed segment becomes the active one after a restart.
    pub(crate) fn grow(&mut self, max_bytes: u32) {
        self.capacity = capacity::<E>(max_bytes).max(self.count() + 1);
    }

    fn write_gathered(&mut self) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(self.gathered.len() * E::BYTES);
        for entry in &self.gathered {
            entry.write(self.base_offset, &mut bytes)?;
        }
        let file = if self.made { self.file.open()? } else { self.file.create()? };
        self.made = true;
        file.write_all_at(&bytes, (self.written * E::BYTES) as u64)?;
        self.written += self.gathered.len();
        self.gathered.clear();
        Ok(())
    }

    /// The file has another name now, or will have when it is opened next.
    pub(crate) fn rename(&mut self, file: LogFile) {
        self.file = file;
    }

    /// How large the file is when the index is closed.
    pub(crate) fn len_bytes(&self) -> u64 {
        (self.count() * E::BYTES) as u64
    }

    /// The file, to be synced.
    pub(crate) fn file(&self) -> io::Result<Arc<dyn DiskFile>> {
        self.file.open()
    }
}

impl Index<BatchPlace> {
    /// The last known batch that is at or before the one that holds `offset`.
    pub(crate) fn place_for_offset(&self, offset: i64) -> io::Result<Option<BatchPlace>> {
        self.last_where(|entry| entry.last_offset <= offset)
    }

    /// The last known batch whose start is at most `position`.
    pub(crate) fn place_before(&self, position: u64) -> io::Result<Option<BatchPlace>> {
        self.last_where(|entry| entry.position <= position)
    }
}

impl Index<MaxTimestamp> {
    /// The last known batch before the first record whose timestamp is at least `timestamp`.
    pub(crate) fn entry_before(&self, timestamp: i64) -> io::Result<Option<MaxTimestamp>> {
        self.last_where(|entry| entry.timestamp < timestamp)
    }

    /// Adds an entry unless the last one has this timestamp or a later one.
    pub(crate) fn note(&mut self, timestamp: i64, last_offset: i64) -> io::Result<()> {
        // -1 is "no timestamp" and never gets an entry.
        if timestamp <= self.last.map_or(-1, |last| last.timestamp) {
            return Ok(());
        }
        self.append(MaxTimestamp { timestamp, last_offset })
    }
}

fn capacity<E: IndexEntry>(max_bytes: u32) -> usize {
    (max_bytes as usize / E::BYTES).max(E::LEAST_CAPACITY)
}

fn open_if_there(file: &LogFile) -> io::Result<Option<(Arc<dyn DiskFile>, usize)>> {
    match file.open() {
        Ok(open) => {
            let len = usize::try_from(open.size()?).map_err(io::Error::other)?;
            Ok(Some((open, len)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn relative(offset: i64, base_offset: i64) -> io::Result<i32> {
    i32::try_from(offset - base_offset).map_err(io::Error::other)
}

fn be_i32(bytes: &[u8]) -> i32 {
    let mut four = [0; 4];
    four.copy_from_slice(bytes);
    i32::from_be_bytes(four)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::super::open_files::{LogFiles, OpenFiles};
    use super::*;
    use crate::disk::{Calls, Disk, DiskCall, Failure, FileDisk, MemoryDisk, Tear};

    fn log_in(disk: Arc<dyn Disk>, dir: &Path) -> Arc<LogFiles> {
        OpenFiles::new(disk, 4).of_log(dir)
    }

    fn memory() -> (MemoryDisk, Arc<LogFiles>) {
        let disk = MemoryDisk::new();
        (disk.clone(), log_in(Arc::new(disk), Path::new("/")))
    }

    fn place(last_offset: i64, position: u64) -> BatchPlace {
        BatchPlace { last_offset, position }
    }

    /// The process that wrote the entries died when their sync had failed: they were in memory alone.
    #[test]
    fn what_was_taken_over_is_durable_when_it_is_closed_and_synced() {
        let (disk, log) = memory();
        let mut index = OffsetIndex::empty(log.file("/index".into()), 0, 1 << 10);
        index.append(place(4, 90)).unwrap();
        index.close().unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        disk.fail_nth_sync(1);
        index.file().unwrap().sync_data().unwrap_err();
        let mut index = OffsetIndex::resume(log.file("/index".into()), 0, 1 << 10, |_| true).unwrap();
        index.append(place(9, 180)).unwrap();
        index.close().unwrap();
        index.file().unwrap().sync_data().unwrap();
        disk.crash(Tear::None);
        let log = log_in(Arc::new(disk), Path::new("/"));
        let found = opened::<BatchPlace>(&log, 0).unwrap();
        assert_eq!(found.place_for_offset(8).unwrap(), Some(place(4, 90)));
        assert_eq!(found.last(), Some(place(9, 180)));
    }

    fn time(timestamp: i64, last_offset: i64) -> MaxTimestamp {
        MaxTimestamp { timestamp, last_offset }
    }

    fn opened<E: IndexEntry>(log: &Arc<LogFiles>, base: i64) -> Option<Index<E>> {
        Index::open(log.file("/index".into()), base, |_| true).unwrap()
    }

    proptest! {
        /// Entries in memory, in a file that grows, and in a file that was closed and opened again: a lookup agrees
        /// with looking at every entry, before and after a part is forgotten.
        #[test]
        fn lookups_agree_with_looking_at_every_entry(
            steps in prop::collection::vec((1..50_i64, 1..9_000_u64, 0..40_i64), 1..600),
            base in prop_oneof![Just(0_i64), Just(1_i64 << 40)],
            probes in prop::collection::vec(0..16_000_i64, 8),
            cut in any::<prop::sample::Index>(),
            real in any::<bool>(),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let (_, log) = memory();
            let log = if real { log_in(Arc::new(FileDisk::new()), dir.path()) } else { log };
            let path = |name: &str| log.dir().join(name);
            let mut index = OffsetIndex::empty(log.file(path("index")), base, 1 << 20);
            let mut times = TimeIndex::empty(log.file(path("times")), base, 1 << 20);
            let (mut at, mut now) = (place(base, 0), 0);
            let (mut all, mut all_times) = (Vec::new(), Vec::<MaxTimestamp>::new());
            for (records, bytes, ms) in &steps {
                at = place(at.last_offset + records, at.position + bytes);
                now += ms - 10;
                index.append(at).unwrap();
                times.note(now, at.last_offset).unwrap();
                all.push(at);
                if now > all_times.last().map_or(-1, |last| last.timestamp) {
                    all_times.push(time(now, at.last_offset));
                }
            }
            for round in 0..3 {
                prop_assert_eq!((index.last(), index.count()), (all.last().copied(), all.len()));
                prop_assert_eq!((times.last(), times.count()), (all_times.last().copied(), all_times.len()));
                for probe in &probes {
                    let offset = base + probe;
                    let naive = all.iter().rev().find(|at| at.last_offset <= offset).map_or(0, |at| at.position);
                    prop_assert_eq!(index.place_for_offset(offset).unwrap().map_or(0, |at| at.position), naive);
                    let position = *probe as u64 * 300;
                    let naive = all.iter().rev().find(|at| at.position <= position).map_or(0, |at| at.position);
                    prop_assert_eq!(index.place_before(position).unwrap().map_or(0, |at| at.position), naive);
                    let naive = all_times.iter().rev().find(|at| at.timestamp < *probe);
                    prop_assert_eq!(times.entry_before(*probe).unwrap(), naive.copied());
                }
                if round == 0 {
                    index.close().unwrap();
                    times.close().unwrap();
                    prop_assert_eq!(index.file().unwrap().size().unwrap(), (all.len() * BatchPlace::BYTES) as u64);
                    prop_assert!(index.is_full(), "a closed index takes no more");
                    index = OffsetIndex::open(log.file(path("index")), base, |_| true).unwrap().unwrap();
                    times = TimeIndex::open(log.file(path("times")), base, |_| true).unwrap().unwrap();
                } else {
                    let from = all.get(cut.index(all.len().max(1))).map_or(base, |at| at.last_offset);
                    index.truncate(from).unwrap();
                    times.truncate(from).unwrap();
                    all.retain(|at| at.last_offset < from);
                    all_times.retain(|at| at.last_offset < from);
                }
            }
        }
    }

    #[test]
    fn entries_are_those_of_kafka() {
        let (disk, log) = memory();
        let mut index = OffsetIndex::empty(log.file("/index".into()), 100, 1_024);
        index.append(place(103, 258)).unwrap();
        index.close().unwrap();
        assert_eq!(disk.read_to_vec(Path::new("/index")).unwrap(), [0, 0, 0, 3, 0, 0, 1, 2]);
        let mut times = TimeIndex::empty(log.file("/times".into()), 100, 1_024);
        times.note(257, 103).unwrap();
        times.close().unwrap();
        assert_eq!(disk.read_to_vec(Path::new("/times")).unwrap(), [0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 3]);
    }

    #[test]
    fn indexes_that_cannot_be_right_are_not_opened() {
        let (disk, log) = memory();
        let bytes = |entries: &[(i32, i32)]| -> Vec<u8> {
            entries.iter().flat_map(|(a, b)| [a.to_be_bytes(), b.to_be_bytes()].concat()).collect()
        };
        let sound = |content: &[u8]| {
            disk.create(Path::new("/index")).unwrap().write_all_at(content, 0).unwrap();
            opened::<BatchPlace>(&log, 100).is_some()
        };
        assert!(opened::<BatchPlace>(&log, 100).is_none(), "missing");
        assert!(sound(&[]) && sound(&bytes(&[(0, 0)])) && sound(&bytes(&[(10, 50), (11, 51)])));
        assert!(!sound(&bytes(&[(0, 0)])[..7]), "half an entry");
        assert!(!sound(&bytes(&[(-1, 0)])), "below the segment's base");
        assert!(!sound(&bytes(&[(10, 50), (11, 50)])) && !sound(&bytes(&[(10, 50), (10, 60)])));
        let last = |wanted: Option<BatchPlace>| {
            Index::open(log.file("/index".into()), 100, |last| last == wanted).unwrap().is_some()
        };
        assert!(sound(&bytes(&[(7, 40)])) && last(Some(place(107, 40))) && !last(None));
    }

    #[test]
    fn time_entries_ascend_in_time_and_not_back_in_offsets() {
        assert!(time(2, 10).may_follow(&time(1, 10)) && time(2, 11).may_follow(&time(1, 10)));
        assert!(!time(1, 11).may_follow(&time(1, 10)) && !time(2, 9).may_follow(&time(1, 10)));
    }

    #[test]
    fn the_time_index_keeps_growing_timestamps_only() {
        let (_, log) = memory();
        let mut index = TimeIndex::empty(log.file("/times".into()), 0, 1_024);
        for (timestamp, offset) in [(-1, 5), (1_000, 10), (1_000, 20), (900, 30), (2_000, 40)] {
            index.note(timestamp, offset).unwrap();
        }
        assert_eq!((index.last(), index.count()), (Some(time(2_000, 40)), 2));
        assert_eq!(index.entry_before(1_000).unwrap(), None);
        assert_eq!(index.entry_before(1_001).unwrap().map(|at| at.last_offset), Some(10));
    }

    #[test]
    fn an_index_is_full_when_its_room_is_used() {
        let (_, log) = memory();
        let mut index = OffsetIndex::empty(log.file("/index".into()), 100, 3 * 8 + 7);
        for at in 1..=3 {
            assert!(!index.is_full());
            index.append(place(100 + at, at as u64 * 10)).unwrap();
        }
        assert!(index.is_full());
        index.grow(5 * 8);
        index.append(place(104, 40)).unwrap();
        assert!(!index.is_full());
        index.grow(8);
        assert!(!index.is_full(), "there is always room for one more");
        assert!(!OffsetIndex::empty(log.file("/index".into()), 0, 0).is_full());

        // One entry's room is kept for the largest timestamp at the segment's end.
        let mut times = TimeIndex::empty(log.file("/times".into()), 100, 3 * 12 + 11);
        for at in 1..=2 {
            assert!(!times.is_full());
            times.note(at * 1_000, 100 + at).unwrap();
        }
        assert!(times.is_full());
        assert!(!TimeIndex::empty(log.file("/times".into()), 0, 0).is_full());
    }

    /// Entries hold 32 bits. What does not fit is an error, not an entry that leads somewhere else.
    #[test]
    fn what_an_entry_cannot_hold_is_refused() {
        let (_, log) = memory();
        let base = 1_i64 << 40;
        let far = base + i64::from(i32::MAX);
        let mut index = OffsetIndex::empty(log.file("/index".into()), base, 1_024);
        let mut times = TimeIndex::empty(log.file("/times".into()), base, 1_024);
        assert!(index.append(place(far + 1, 0)).is_err() && index.append(place(base, 1 << 31)).is_err());
        assert!(times.note(1, far + 1).is_err());
        assert_eq!((index.last(), times.last()), (None, None));
        index.append(place(far, (1 << 31) - 1)).unwrap();
        times.note(1, far).unwrap();
        assert_eq!((index.last(), times.last()), (Some(place(far, (1 << 31) - 1)), Some(time(1, far))));
    }

    /// A full disk costs lookups nothing: entries wait in memory for better times.
    #[test]
    fn entries_that_cannot_be_written_are_kept_and_tried_again() {
        let (disk, log) = memory();
        let mut index = OffsetIndex::empty(log.file("/index".into()), 0, 1 << 20);
        disk.fail(Calls::of(&[DiskCall::Write, DiskCall::Create]).and_all_after(), Failure::Os(28));
        let count = GATHERED_ENTRIES as i64 + 5;
        (1..=count).for_each(|at| index.append(place(at, at as u64)).unwrap());
        assert_eq!(
            (index.gathered.len() as i64, index.place_for_offset(3).unwrap().map_or(0, |at| at.position)),
            (count, 3)
        );
        assert!(index.close().is_err());
        disk.clear_faults();
        index.append(place(count + 1, 9_000)).unwrap();
        assert_eq!((index.written as i64, index.gathered.len()), (count + 1, 0));
        assert_eq!(index.place_for_offset(3).unwrap().map_or(0, |at| at.position), 3);
        index.close().unwrap();
        assert_eq!(opened::<BatchPlace>(&log, 0).unwrap().count() as i64, count + 1);
        disk.fail(Calls::of(&[DiskCall::Read]), Failure::Os(5));
        assert_eq!(index.place_for_offset(3).unwrap_err().raw_os_error(), Some(5), "an error of this lookup");
        assert_eq!(index.place_for_offset(3).unwrap().map_or(0, |at| at.position), 3);
    }

    #[test]
    fn what_a_dead_broker_left_of_an_index_is_used_as_far_as_it_goes() {
        let (disk, log) = memory();
        let resume = |known: i64| {
            Index::<BatchPlace>::resume(log.file("/index".into()), 0, 1 << 20, |at| at.last_offset < known)
                .unwrap()
        };
        assert_eq!(resume(1_000).count(), 0, "there is none");
        let mut index = OffsetIndex::empty(log.file("/index".into()), 0, 1 << 20);
        let count = 2 * BLOCK_ENTRIES as i64;
        (1..=count).for_each(|at| index.append(place(at * 10, at as u64)).unwrap());
        index.close().unwrap();
        assert_eq!(resume(i64::MAX).count() as i64, count);
        let mut some = resume(301);
        assert_eq!((some.count(), some.last()), (30, Some(place(300, 30))));
        // A page that never reached the disk.
        disk.open(Path::new("/index")).unwrap().write_all_at(&[0; 8 * 10], 8 * 300).unwrap();
        assert_eq!(resume(i64::MAX).count(), 300);
        // What is written next replaces what does not count.
        some.append(place(5_000, 99)).unwrap();
        some.close().unwrap();
        assert_eq!(opened::<BatchPlace>(&log, 0).unwrap().last(), Some(place(5_000, 99)));
    }
}
