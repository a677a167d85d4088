//! Where the last batches of a log lie: what consumers who keep up ask for is found without a look at the disk. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::disk::DiskFile;
use crate::log::{LogPosition, LogSlice};

/// How many batches are known. A consumer that is further behind costs a trip to the disk's threads.
pub(super) const BATCHES_MAX: usize = 128;

/// The last batches of the segment that is appended to.
#[derive(Debug, Clone)]
pub(super) struct Tail {
    file: Arc<dyn DiskFile>,
    end: LogPosition,
    /// Where each begins: offset and position.
    batches: VecDeque<(i64, u64)>,
}

impl Tail {
    /// Nothing is known of what lies before `end`, which is in `file`.
    pub(super) fn new(file: Arc<dyn DiskFile>, end: LogPosition) -> Self {
        Self { file, end, batches: VecDeque::new() }
    }

    /// The place behind the last batch.
    pub(super) fn end(&self) -> LogPosition {
        self.end
    }

    /// A batch was appended at the end.
    pub(super) fn push(&mut self, end: LogPosition) {
        if self.batches.len() == BATCHES_MAX {
            self.batches.pop_front();
        }
        self.batches.push_back((self.end.offset, self.end.position));
        self.end = end;
    }

    /// Nothing, at the end.
    pub(super) fn nothing(&self) -> LogSlice {
        LogSlice { file: self.file.clone(), position: self.end.position, len: 0, end_offset: self.end.offset }
    }

    /// The place in front of the batch that begins with `offset`, if that is known.
    pub(super) fn position_of(&self, offset: i64) -> Option<LogPosition> {
        if offset == self.end.offset {
            return Some(self.end);
        }
        let at = self.batches.binary_search_by_key(&offset, |(offset, _)| *offset).ok()?;
        let (offset, position) = self.batches[at];
        Some(LogPosition { offset, position, ..self.end })
    }

    /// As [`Log::read`](crate::log::Log::read), if it is known where the batch is that holds `offset`.
    pub(super) fn read(
        &self,
        offset: i64,
        end: LogPosition,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Option<LogSlice> {
        if offset >= end.offset {
            return Some(self.nothing());
        }
        let first = self.batches.partition_point(|(begin, _)| *begin <= offset).checked_sub(1)?;
        if end.segment != self.end.segment {
            return None;
        }
        let begin = self.batches[first].1;
        let limit = begin.saturating_add(max_bytes as u64).min(end.position);
        // Where the batch behind each begins is where it ends.
        let end_of =
            |number| self.batches.get(number).copied().unwrap_or((self.end.offset, self.end.position));
        let behind = match self.end.position <= limit {
            true => self.batches.len(),
            false => self.batches.partition_point(|(_, position)| *position <= limit).max(first + 1) - 1,
        };
        let behind = if behind == first && at_least_one { first + 1 } else { behind };
        let (end_offset, slice_end) = end_of(behind);
        let len = usize::try_from(slice_end - begin).ok()?;
        Some(LogSlice { file: self.file.clone(), position: begin, len, end_offset })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::disk::{Disk, MemoryDisk};

    fn at(offset: i64, position: u64) -> LogPosition {
        LogPosition { offset, segment: 100, position }
    }

    /// Batches of two records and ten bytes from offset 110 on, which is at position 50.
    fn tail(batches: usize) -> Tail {
        let file = MemoryDisk::new().create(Path::new("/log")).unwrap();
        let mut tail = Tail::new(file, at(110, 50));
        (1..=batches).for_each(|count| tail.push(at(110 + 2 * count as i64, 50 + 10 * count as u64)));
        tail
    }

    fn found(slice: Option<LogSlice>) -> Option<(u64, usize)> {
        slice.map(|slice| (slice.position, slice.len))
    }

    #[test]
    fn whole_batches_are_found_from_the_one_that_holds_the_offset() {
        let tail = tail(5);
        let read =
            |offset, max_bytes, at_least_one| found(tail.read(offset, tail.end(), max_bytes, at_least_one));
        assert_eq!(tail.end(), at(120, 100));
        assert_eq!(read(109, 100, true), None, "not known");
        assert_eq!((read(110, 100, true), read(111, 100, true)), (Some((50, 50)), Some((50, 50))));
        assert_eq!(read(112, usize::MAX, false), Some((60, 40)));
        for (max_bytes, len) in [(9, 0), (10, 10), (19, 10), (20, 20), (29, 20), (40, 40), (41, 40)] {
            assert_eq!(read(113, max_bytes, false), Some((60, len)), "{max_bytes}");
            assert_eq!(read(113, max_bytes, true), Some((60, len.max(10))), "{max_bytes}");
        }
        assert_eq!((read(120, 9, true), read(121, 9, true)), (Some((100, 0)), Some((100, 0))));
        let end_offset =
            |offset, max_bytes| tail.read(offset, tail.end(), max_bytes, true).map(|slice| slice.end_offset);
        for (max_bytes, end) in [(9, 114), (10, 114), (19, 114), (20, 116), (39, 118), (40, 120), (99, 120)] {
            assert_eq!(end_offset(113, max_bytes), Some(end), "{max_bytes}");
        }
        assert_eq!(end_offset(120, 99), Some(120));
    }

    #[test]
    fn readers_see_as_far_as_they_may() {
        let tail = tail(5);
        let read = |offset, end| found(tail.read(offset, end, 1_000, true));
        assert_eq!((read(110, at(114, 70)), read(112, at(114, 70))), (Some((50, 20)), Some((60, 10))));
        assert_eq!(read(114, at(114, 70)), Some((100, 0)), "nothing that may be seen");
        let in_the_segment_before = LogPosition { offset: 114, segment: 90, position: 7 };
        assert_eq!(read(110, in_the_segment_before), None);
    }

    #[test]
    fn places_are_known_where_batches_begin() {
        let tail = tail(2);
        assert_eq!(tail.position_of(110), Some(at(110, 50)));
        assert_eq!(tail.position_of(112), Some(at(112, 60)));
        assert_eq!(tail.position_of(114), Some(at(114, 70)));
        assert_eq!((tail.position_of(109), tail.position_of(111), tail.position_of(115)), (None, None, None));
        assert_eq!(found(Some(tail.nothing())), Some((70, 0)));
    }

    #[test]
    fn so_many_batches_are_known() {
        let tail = tail(BATCHES_MAX + 3);
        assert_eq!(tail.batches.len(), BATCHES_MAX);
        assert!(tail.read(115, tail.end(), 10, true).is_none());
        assert_eq!(found(tail.read(116, tail.end(), 10, true)), Some((80, 10)));
    }
}
