//! The two sparse indexes of a segment: offset to file position, and timestamp to offset. Entries
//! are Kafka's, byte for byte.

use std::io;
use std::sync::Arc;

use super::index_file::IndexFile;
use crate::disk::DiskFile;

/// Offset relative to the segment's base (i32) and file position (i32).
pub(crate) const OFFSET_ENTRY_BYTES: usize = 8;
/// Timestamp (i64) and offset relative to the segment's base (i32).
pub(crate) const TIME_ENTRY_BYTES: usize = 12;

/// The number of the last of `count` entries whose key is at most `target`; keys ascend.
pub(crate) fn last_at_most(count: usize, key: impl Fn(usize) -> i64, target: i64) -> Option<usize> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if key(middle) <= target {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low.checked_sub(1)
}

/// `.index`: the last offset of a batch, and where that batch starts.
#[derive(Debug)]
pub(crate) struct OffsetIndex {
    file: IndexFile,
    base_offset: i64,
    count: usize,
    capacity: usize,
}

impl OffsetIndex {
    /// An empty index with room for `max_bytes` of entries.
    pub(crate) fn create(file: Arc<dyn DiskFile>, base_offset: i64, max_bytes: u32) -> io::Result<Self> {
        let capacity = (max_bytes as usize / OFFSET_ENTRY_BYTES).max(1);
        let file = IndexFile::new(file, capacity * OFFSET_ENTRY_BYTES)?;
        Ok(Self { file, base_offset, count: 0, capacity })
    }

    /// An index that was trimmed when its segment was closed. `None` when it cannot be right for
    /// a log file of `log_bytes`.
    pub(crate) fn open(
        file: Arc<dyn DiskFile>,
        base_offset: i64,
        log_bytes: u64,
    ) -> io::Result<Option<Self>> {
        let len = file.size()? as usize;
        if !len.is_multiple_of(OFFSET_ENTRY_BYTES) {
            return Ok(None);
        }
        let count = len / OFFSET_ENTRY_BYTES;
        let index = Self { file: IndexFile::new(file, len)?, base_offset, count, capacity: count };
        let sound = match index.last() {
            None => true,
            Some((offset, position)) => {
                offset >= base_offset
                    && position < log_bytes
                    && (count < 2 || index.entry(count - 2).1 < position)
            }
        };
        Ok(sound.then_some(index))
    }

    fn entry(&self, number: usize) -> (i64, u64) {
        let bytes: [u8; OFFSET_ENTRY_BYTES] = self.file.read(number * OFFSET_ENTRY_BYTES);
        let (offset, position) = bytes.split_at(4);
        (self.base_offset + i64::from(be_i32(offset)), u64::from(be_i32(position).cast_unsigned()))
    }

    /// Where to start looking for the batch that holds `offset`: at or before it.
    pub(crate) fn position_for_offset(&self, offset: i64) -> u64 {
        last_at_most(self.count, |number| self.entry(number).0, offset)
            .map_or(0, |number| self.entry(number).1)
    }

    /// The last known batch start that is at most `position`.
    pub(crate) fn batch_start_before(&self, position: u64) -> u64 {
        let target = i64::try_from(position).unwrap_or(i64::MAX);
        last_at_most(self.count, |number| self.entry(number).1.cast_signed(), target)
            .map_or(0, |number| self.entry(number).1)
    }

    /// The last entry.
    pub(crate) fn last(&self) -> Option<(i64, u64)> {
        self.count.checked_sub(1).map(|number| self.entry(number))
    }

    pub(crate) fn is_full(&self) -> bool {
        self.count >= self.capacity
    }

    pub(crate) fn append(&mut self, last_offset: i64, position: u64) -> io::Result<()> {
        let mut entry = [0; OFFSET_ENTRY_BYTES];
        entry[..4].copy_from_slice(&relative(last_offset, self.base_offset)?.to_be_bytes());
        entry[4..].copy_from_slice(&i32::try_from(position).map_err(io::Error::other)?.to_be_bytes());
        self.file.write(self.count * OFFSET_ENTRY_BYTES, &entry)?;
        self.count += 1;
        Ok(())
    }

    /// Forgets the entries of `offset` and above.
    pub(crate) fn truncate(&mut self, offset: i64) {
        self.count =
            last_at_most(self.count, |number| self.entry(number).0, offset - 1).map_or(0, |last| last + 1);
    }

    /// Cuts the unused room off; the segment is closed.
    pub(crate) fn trim(&mut self) -> io::Result<()> {
        self.capacity = self.count;
        self.file.trim(self.count * OFFSET_ENTRY_BYTES)
    }

    /// Makes room for more entries: a closed segment becomes the active one after a restart.
    pub(crate) fn grow(&mut self, max_bytes: u32) -> io::Result<()> {
        self.capacity = (max_bytes as usize / OFFSET_ENTRY_BYTES).max(self.count + 1);
        self.file.resize(self.capacity * OFFSET_ENTRY_BYTES)
    }

    pub(crate) fn file(&self) -> Arc<dyn DiskFile> {
        self.file.file()
    }
}

/// `.timeindex`: the largest timestamp so far, and the last offset of the batch that has it.
#[derive(Debug)]
pub(crate) struct TimeIndex {
    file: IndexFile,
    base_offset: i64,
    count: usize,
    capacity: usize,
}

impl TimeIndex {
    /// An empty index with room for `max_bytes` of entries.
    pub(crate) fn create(file: Arc<dyn DiskFile>, base_offset: i64, max_bytes: u32) -> io::Result<Self> {
        let capacity = (max_bytes as usize / TIME_ENTRY_BYTES).max(2);
        let file = IndexFile::new(file, capacity * TIME_ENTRY_BYTES)?;
        Ok(Self { file, base_offset, count: 0, capacity })
    }

    /// An index that was trimmed when its segment was closed. `None` when it cannot be right: a closed segment that has
    /// batches has at least one entry, and both columns ascend.
    pub(crate) fn open(
        file: Arc<dyn DiskFile>,
        base_offset: i64,
        log_bytes: u64,
    ) -> io::Result<Option<Self>> {
        let len = file.size()? as usize;
        if !len.is_multiple_of(TIME_ENTRY_BYTES) {
            return Ok(None);
        }
        let count = len / TIME_ENTRY_BYTES;
        let index = Self { file: IndexFile::new(file, len)?, base_offset, count, capacity: count };
        let sound = match index.last() {
            None => log_bytes == 0,
            Some((timestamp, offset)) => {
                offset >= base_offset && (count < 2 || index.entry(count - 2).0 < timestamp)
            }
        };
        Ok(sound.then_some(index))
    }

    fn entry(&self, number: usize) -> (i64, i64) {
        let bytes: [u8; TIME_ENTRY_BYTES] = self.file.read(number * TIME_ENTRY_BYTES);
        let (timestamp, offset) = bytes.split_at(8);
        let mut eight = [0; 8];
        eight.copy_from_slice(timestamp);
        (i64::from_be_bytes(eight), self.base_offset + i64::from(be_i32(offset)))
    }

    /// An offset at or before the first record whose timestamp is at least `timestamp`.
    pub(crate) fn offset_before(&self, timestamp: i64) -> i64 {
        last_at_most(self.count, |number| self.entry(number).0, timestamp - 1)
            .map_or(self.base_offset, |number| self.entry(number).1)
    }

    /// The last entry: timestamp and offset.
    pub(crate) fn last(&self) -> Option<(i64, i64)> {
        self.count.checked_sub(1).map(|number| self.entry(number))
    }

    /// Whether the only room left is the one kept for the entry at the segment's end.
    pub(crate) fn is_full(&self) -> bool {
        self.count + 1 >= self.capacity
    }

    /// Adds an entry unless the last one has this timestamp or a later one.
    pub(crate) fn append(&mut self, timestamp: i64, last_offset: i64) -> io::Result<()> {
        // -1 is "no timestamp" and never gets an entry.
        if timestamp <= self.last().map_or(-1, |(last, _)| last) {
            return Ok(());
        }
        let mut entry = [0; TIME_ENTRY_BYTES];
        entry[..8].copy_from_slice(&timestamp.to_be_bytes());
        entry[8..].copy_from_slice(&relative(last_offset, self.base_offset)?.to_be_bytes());
        self.file.write(self.count * TIME_ENTRY_BYTES, &entry)?;
        self.count += 1;
        Ok(())
    }

    /// Forgets the entries of `offset` and above.
    pub(crate) fn truncate(&mut self, offset: i64) {
        self.count =
            last_at_most(self.count, |number| self.entry(number).1, offset - 1).map_or(0, |last| last + 1);
    }

    /// Cuts the unused room off; the segment is closed.
    pub(crate) fn trim(&mut self) -> io::Result<()> {
        self.capacity = self.count;
        self.file.trim(self.count * TIME_ENTRY_BYTES)
    }

    /// Makes room for more entries: a closed segment becomes the active one after a restart.
    pub(crate) fn grow(&mut self, max_bytes: u32) -> io::Result<()> {
        self.capacity = (max_bytes as usize / TIME_ENTRY_BYTES).max(self.count + 1);
        self.file.resize(self.capacity * TIME_ENTRY_BYTES)
    }

    pub(crate) fn file(&self) -> Arc<dyn DiskFile> {
        self.file.file()
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

    use super::*;
    use crate::disk::{Disk, FileDisk, MemoryDisk};

    proptest! {
        #[test]
        fn the_search_agrees_with_looking_at_every_entry(
            mut keys in prop::collection::vec(-50..50_i64, 0..40), target in -60..60_i64,
        ) {
            keys.sort_unstable();
            let expected = keys.iter().rposition(|key| *key <= target);
            prop_assert_eq!(last_at_most(keys.len(), |number| keys[number], target), expected);
        }

        #[test]
        fn offsets_are_found_in_memory_and_in_files(
            steps in prop::collection::vec((1..50_i64, 1..9_000_u64), 1..60),
            base_offset in prop_oneof![Just(0_i64), Just(1_i64 << 40)],
            probe in 0..4_000_i64,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let memory = MemoryDisk::new().create(Path::new("/index")).unwrap();
            let real = FileDisk::new().create(&dir.path().join("index")).unwrap();
            for file in [memory, real] {
                let mut index = OffsetIndex::create(file.clone(), base_offset, 1_024).unwrap();
                let (mut offset, mut position) = (base_offset, 0);
                let mut entries = Vec::new();
                for (records, bytes) in &steps {
                    offset += records;
                    position += bytes;
                    index.append(offset, position).unwrap();
                    entries.push((offset, position));
                }
                let check = |index: &OffsetIndex| {
                    let target = base_offset + probe;
                    let naive = entries.iter().rev().find(|(offset, _)| *offset <= target).map_or(0, |entry| entry.1);
                    assert_eq!(index.position_for_offset(target), naive);
                    let place = probe as u64 * 100;
                    let naive = entries.iter().rev().find(|(_, at)| *at <= place).map_or(0, |entry| entry.1);
                    assert_eq!(index.batch_start_before(place), naive);
                };
                check(&index);
                index.trim().unwrap();
                prop_assert_eq!(file.size().unwrap(), (entries.len() * OFFSET_ENTRY_BYTES) as u64);
                let opened = OffsetIndex::open(file, base_offset, position + 1).unwrap().unwrap();
                check(&opened);
            }
        }
    }

    #[test]
    fn indexes_that_cannot_be_right_are_not_opened() {
        let disk = MemoryDisk::new();
        let file = disk.create(Path::new("/index")).unwrap();
        let mut index = OffsetIndex::create(file.clone(), 100, 1_024).unwrap();
        index.append(120, 5_000).unwrap();
        index.append(140, 9_000).unwrap();
        assert!(OffsetIndex::open(file.clone(), 100, 9_001).unwrap().is_some());
        assert!(OffsetIndex::open(file.clone(), 100, 9_000).unwrap().is_none(), "it points behind the log");
        file.set_len(12).unwrap();
        assert!(OffsetIndex::open(file.clone(), 100, 9_001).unwrap().is_none(), "half an entry");
        file.set_len(1_024).unwrap();
        assert!(OffsetIndex::open(file, 100, 9_001).unwrap().is_none(), "not trimmed");
    }

    #[test]
    fn the_time_index_keeps_growing_timestamps_only() {
        let file = MemoryDisk::new().create(Path::new("/timeindex")).unwrap();
        let mut index = TimeIndex::create(file.clone(), 0, 1_024).unwrap();
        for (timestamp, offset) in [(-1, 5), (1_000, 10), (1_000, 20), (900, 30), (2_000, 40)] {
            index.append(timestamp, offset).unwrap();
        }
        assert_eq!(index.last(), Some((2_000, 40)));
        assert_eq!(index.offset_before(1_000), 0);
        assert_eq!(index.offset_before(1_001), 10);
        assert_eq!(index.offset_before(9_000), 40);
        index.truncate(40);
        assert_eq!(index.last(), Some((1_000, 10)));
        assert!(TimeIndex::open(file, 0, 1).unwrap().is_some());
    }

    fn memory() -> Arc<dyn DiskFile> {
        MemoryDisk::new().create(Path::new("/index")).unwrap()
    }

    /// On a real file, because only there room is taken in advance.
    #[test]
    fn an_offset_index_is_full_when_its_room_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let file = FileDisk::new().create(&dir.path().join("index")).unwrap();
        let mut index = OffsetIndex::create(file.clone(), 100, 3 * 8 + 7).unwrap();
        assert_eq!((file.size().unwrap(), index.last()), (24, None));
        for at in 1..=3 {
            assert!(!index.is_full());
            index.append(100 + at, at as u64 * 10).unwrap();
        }
        assert!(index.is_full());
        index.grow(5 * 8).unwrap();
        assert_eq!(file.size().unwrap(), 40);
        index.append(104, 40).unwrap();
        assert!(!index.is_full());
        index.trim().unwrap();
        assert_eq!((file.size().unwrap(), index.last(), index.is_full()), (32, Some((104, 40)), true));
        index.grow(8).unwrap();
        assert!(!index.is_full(), "there is always room for one more");
        assert_eq!(file.size().unwrap(), 40);
        assert!(Arc::ptr_eq(&index.file(), &file));

        let mut least = OffsetIndex::create(memory(), 0, 0).unwrap();
        assert!(!least.is_full());
        least.append(1, 1).unwrap();
        assert!(least.is_full());
    }

    /// One entry's room is kept for the largest timestamp at the segment's end.
    #[test]
    fn a_time_index_keeps_room_for_its_last_entry() {
        let dir = tempfile::tempdir().unwrap();
        let file = FileDisk::new().create(&dir.path().join("timeindex")).unwrap();
        let mut index = TimeIndex::create(file.clone(), 100, 3 * 12 + 11).unwrap();
        assert_eq!((file.size().unwrap(), index.last()), (36, None));
        for at in 1..=2 {
            assert!(!index.is_full());
            index.append(at * 1_000, 100 + at).unwrap();
        }
        assert!(index.is_full());
        index.append(3_000, 103).unwrap();
        index.trim().unwrap();
        assert_eq!((file.size().unwrap(), index.last()), (36, Some((3_000, 103))));
        index.grow(5 * 12).unwrap();
        assert_eq!((file.size().unwrap(), index.is_full()), (60, false));
        index.trim().unwrap();
        assert_eq!(
            (file.size().unwrap(), index.is_full()),
            (36, true),
            "all room that was not used is given back"
        );
        index.grow(0).unwrap();
        assert_eq!(file.size().unwrap(), 48, "room for one more");
        assert!(index.is_full(), "which is the one that is kept");
        assert!(Arc::ptr_eq(&index.file(), &file));

        let mut least = TimeIndex::create(memory(), 0, 0).unwrap();
        assert!(!least.is_full());
        least.append(1, 1).unwrap();
        assert!(least.is_full());
    }

    #[test]
    fn what_is_truncated_is_written_over() {
        let mut index = OffsetIndex::create(memory(), 100, 1_024).unwrap();
        let mut times = TimeIndex::create(memory(), 100, 1_024).unwrap();
        for at in 1..=3 {
            index.append(100 + at * 10, at as u64 * 50).unwrap();
            times.append(at * 1_000, 100 + at * 10).unwrap();
        }
        index.truncate(121);
        times.truncate(121);
        assert_eq!((index.last(), times.last()), (Some((120, 100)), Some((2_000, 120))));
        index.truncate(120);
        times.truncate(120);
        assert_eq!((index.last(), times.last()), (Some((110, 50)), Some((1_000, 110))));
        index.append(115, 70).unwrap();
        times.append(1_500, 115).unwrap();
        assert_eq!((index.position_for_offset(119), times.offset_before(1_501)), (70, 115));
        index.truncate(0);
        times.truncate(0);
        assert_eq!((index.last(), times.last()), (None, None));
        assert_eq!((index.position_for_offset(119), times.offset_before(9_999)), (0, 100));
    }

    /// Entries hold 32 bits. What does not fit is an error, not an entry that leads somewhere else.
    #[test]
    fn what_an_entry_cannot_hold_is_refused() {
        let base = 1_i64 << 40;
        let mut index = OffsetIndex::create(memory(), base, 1_024).unwrap();
        let mut times = TimeIndex::create(memory(), base, 1_024).unwrap();
        let far = base + i64::from(i32::MAX);
        assert!(index.append(far + 1, 0).is_err() && index.append(base, 1 << 31).is_err());
        assert!(times.append(1, far + 1).is_err());
        assert_eq!((index.last(), times.last()), (None, None));
        index.append(far, (1 << 31) - 1).unwrap();
        times.append(1, far).unwrap();
        assert_eq!((index.last(), times.last()), (Some((far, (1 << 31) - 1)), Some((1, far))));
    }

    #[test]
    fn offset_indexes_whose_entries_do_not_ascend_are_not_opened() {
        let opened = |base: i64, entries: &[(i64, u64)]| {
            let file = memory();
            let mut index = OffsetIndex::create(file.clone(), 100, 1_024).unwrap();
            entries.iter().for_each(|(offset, position)| index.append(*offset, *position).unwrap());
            OffsetIndex::open(file, base, 1_000).unwrap().is_some()
        };
        assert!(opened(100, &[]));
        assert!(opened(100, &[(100, 0)]) && opened(100, &[(110, 50), (120, 51)]));
        assert!(!opened(100, &[(99, 0)]), "below the segment's base");
        assert!(!opened(100, &[(110, 50), (120, 50)]) && !opened(100, &[(110, 50), (120, 40)]));
    }

    #[test]
    fn time_indexes_that_cannot_be_right_are_not_opened() {
        let file = memory();
        let open = |log_bytes: u64| TimeIndex::open(file.clone(), 100, log_bytes).unwrap().is_some();
        assert!(open(0) && !open(1), "a segment with batches has an entry");
        let mut index = TimeIndex::create(file.clone(), 100, 1_024).unwrap();
        index.append(2_000, 100).unwrap();
        assert!(open(1));
        index.append(3_000, 120).unwrap();
        assert!(open(1));
        file.set_len(25).unwrap();
        assert!(!open(1), "half an entry");
        file.set_len(24).unwrap();
        for (first, sound) in [(2_999, true), (3_000, false), (5_000, false)] {
            index.truncate(0);
            index.append(first, 110).unwrap();
            assert_eq!(open(1), sound, "{first}, then 3000");
        }
        let below = memory();
        TimeIndex::create(below.clone(), 100, 1_024).unwrap().append(1, 99).unwrap();
        assert!(TimeIndex::open(below, 100, 1).unwrap().is_none(), "below the segment's base");
    }
}
