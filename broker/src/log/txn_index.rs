//! The `.txnindex` of a segment: the transactions whose abort markers lie in it, in Kafka's format.
//!
//! The file is made with the first entry. An entry is written before its marker, so that no marker is in the log whose
//! entry could not be written; when a segment is closed, a `.txnsum` beside it vouches for the entries, which have no
//! checksums of their own. Kafka leaves that file alone. What nobody vouches for after a crash, and what is not as the
//! `.txnsum` says, is built anew from the log.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::aborted::{AbortedTransaction, ENTRY_BYTES, Summary};
use super::names::{TXN_INDEX, TXN_SUM, segment_path};
use super::open_files::{LogFile, LogFiles};
use super::scan::damaged;
use crate::disk::DiskFile;

/// How many entries are read at once.
const CHUNK: u64 = 512;

/// See the top of the file.
#[derive(Debug)]
pub(crate) struct TxnIndex {
    files: Arc<LogFiles>,
    base_offset: i64,
    /// What the names of the files end with beside what they always do.
    name_end: &'static str,
    /// Once there is one.
    file: Option<LogFile>,
    /// Nothing as long as the file is not to be believed.
    known: Option<Summary>,
}

impl TxnIndex {
    /// Of a new segment.
    pub(crate) fn empty(files: &Arc<LogFiles>, base_offset: i64) -> Self {
        let (name_end, known) = ("", Some(Summary::default()));
        Self { files: files.clone(), base_offset, name_end, file: None, known }
    }

    /// Of a new segment whose files have names that end with this until [`Self::rename`].
    pub(crate) fn provisional(files: &Arc<LogFiles>, base_offset: i64, name_end: &'static str) -> Self {
        Self { name_end, ..Self::empty(files, base_offset) }
    }

    /// The files have their names now, or will have when they are opened next.
    pub(crate) fn rename(&mut self) {
        self.name_end = "";
        if self.file.is_some() {
            self.file = Some(self.files.file(self.path(TXN_INDEX)));
        }
    }

    /// Of a segment whose records are being recovered: to be rebuilt.
    pub(crate) fn unknown(files: &Arc<LogFiles>, base_offset: i64) -> Self {
        Self { known: None, ..Self::empty(files, base_offset) }
    }

    /// Of a segment that was closed in an orderly way. What is not as it was left then has to be rebuilt. An index of
    /// Kafka's, for which nothing vouches, is taken if it can be right.
    pub(crate) fn open(files: &Arc<LogFiles>, base_offset: i64) -> io::Result<Self> {
        let mut index = Self::unknown(files, base_offset);
        let sum = if_there(files.disk().read_to_vec(&index.path(TXN_SUM)))?;
        let Some(file) = index.find()? else {
            if sum.is_none() {
                index.known = Some(Summary::default());
            }
            return Ok(index);
        };
        index.known = index
            .read_all(&*file)?
            .filter(|found| sum.as_ref().is_none_or(|sum| found.print().as_bytes() == sum.as_slice()));
        if index.known.is_none() {
            tracing::warn!(
                path = %index.path(TXN_INDEX).display(),
                "the index of aborted transactions is damaged: it is built anew from the log"
            );
        }
        Ok(index)
    }

    /// The segment is known to have aborted something: without a file the index is to be rebuilt.
    pub(super) fn expect_file(&mut self) {
        if self.file.is_none() && self.known.take().is_some() {
            tracing::warn!(
                path = %self.path(TXN_INDEX).display(),
                "the index of aborted transactions is missing: it is built anew from the log"
            );
        }
    }

    /// Whether it can be used as it is.
    pub(crate) fn is_known(&self) -> bool {
        self.known.is_some()
    }

    /// Whether it has a file.
    pub(crate) fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// Whether there is neither a file nor anything that vouched for one.
    pub(super) fn has_no_files(&self) -> io::Result<bool> {
        let sum = if_there(self.files.disk().read_to_vec(&self.path(TXN_SUM)))?;
        Ok(self.file.is_none() && sum.is_none())
    }

    /// Begins it anew, to be filled with [`Self::append`] and closed. The file is written over, which needs no space.
    pub(crate) fn begin_anew(&mut self) -> io::Result<()> {
        self.find()?;
        self.known = Some(Summary::default());
        Ok(())
    }

    /// Adds a transaction. Gives what takes it back, if its marker cannot be written.
    pub(crate) fn append(&mut self, entry: &AbortedTransaction) -> io::Result<TakeBack> {
        let before =
            self.known.ok_or_else(|| damaged("the index of aborted transactions is unknown".into()))?;
        let after = before.with(entry).ok_or_else(|| {
            damaged(format!("the transaction aborted at offset {} is out of order", entry.last_offset))
        })?;
        let path = self.path(TXN_INDEX);
        let file = match &self.file {
            Some(file) => file.open()?,
            None => {
                let file = self.files.file(path);
                let made = file.create()?;
                self.file = Some(file);
                made
            }
        };
        file.write_all_at(&entry.to_bytes(), before.len())?;
        self.known = Some(after);
        Ok(TakeBack(before))
    }

    /// Takes the last entry back. Its bytes are written over by the next, or cut off when the segment is closed.
    pub(crate) fn take_back(&mut self, before: TakeBack) {
        self.known = Some(before.0);
    }

    /// Leaves the files as the entries are, with what vouches for them. Doing it again is fine.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        let Some(known) = self.known else { return Ok(()) };
        let Some(file) = &self.file else { return Ok(()) };
        if known.count == 0 {
            for suffix in [TXN_SUM, TXN_INDEX] {
                if_there(self.files.disk().remove(&self.path(suffix)))?;
            }
            self.file = None;
            return Ok(());
        }
        let file = file.open()?;
        if file.size()? != known.len() {
            file.set_len(known.len())?;
        }
        self.files.file(self.path(TXN_SUM)).create()?.write_all_at(known.print().as_bytes(), 0)
    }

    /// What a closed segment has to sync.
    pub(crate) fn files(&self) -> io::Result<Vec<Arc<dyn DiskFile>>> {
        match &self.file {
            Some(file) if self.known.is_some_and(|known| known.count > 0) => {
                Ok(vec![file.open()?, self.files.file(self.path(TXN_SUM)).open()?])
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Forgets the transactions that ended at `offset` or later: their markers are gone.
    pub(crate) fn truncate(&mut self, offset: i64) -> io::Result<()> {
        let (Some(known), Some(file)) = (self.known, &self.file) else { return Ok(()) };
        if known.last_offset < offset {
            return Ok(());
        }
        let file = file.open()?;
        let mut kept = Summary::default();
        self.walk(&*file, 0, known.count, |entry| {
            let keep = entry.last_offset < offset;
            if keep {
                kept = kept.with(&entry).unwrap_or(kept);
            }
            keep
        })?;
        file.set_len(kept.len())?;
        self.known = Some(kept);
        Ok(())
    }

    /// Adds those to `found` that overlap with what lies from `from` up to `end`. Says whether those that ended later
    /// may do so, too.
    pub(crate) fn collect(
        &self,
        from: i64,
        end: i64,
        found: &mut Vec<AbortedTransaction>,
    ) -> io::Result<bool> {
        let Some(known) = self.known else {
            return Err(damaged("the index of aborted transactions is unknown".into()));
        };
        if let Some(file) = &self.file
            && known.last_offset >= from
            && known.first_offset_min < end
        {
            let file = file.open()?;
            let first = self.first_ended_at(&*file, known.count, from)?;
            self.walk(&*file, first, known.count, |entry| {
                if entry.overlaps(from, end) {
                    found.push(entry);
                }
                entry.last_stable_offset < end
            })?;
        }
        Ok(known.last_stable_offset < end)
    }

    /// The number of the first entry whose marker is at `offset` or behind.
    fn first_ended_at(&self, file: &dyn DiskFile, count: u64, offset: i64) -> io::Result<u64> {
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low + (high - low) / 2;
            let mut entry = None;
            self.walk(file, middle, middle + 1, |found| {
                entry = Some(found);
                false
            })?;
            match entry {
                Some(entry) if entry.last_offset < offset => low = middle + 1,
                _ => high = middle,
            }
        }
        Ok(low)
    }

    /// Shows the entries from number `first` up to `end`, as long as `visit` wants more.
    fn walk(
        &self,
        file: &dyn DiskFile,
        first: u64,
        end: u64,
        mut visit: impl FnMut(AbortedTransaction) -> bool,
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        let mut at = first;
        while at < end {
            let count = (end - at).min(CHUNK);
            bytes.resize(count as usize * ENTRY_BYTES, 0);
            file.read_exact_at(&mut bytes, at * ENTRY_BYTES as u64)?;
            for entry in bytes.as_chunks::<ENTRY_BYTES>().0 {
                let entry = AbortedTransaction::parse(entry).ok_or_else(|| {
                    damaged(format!(
                        "{} is damaged, and built anew at the next start",
                        self.path(TXN_INDEX).display()
                    ))
                })?;
                if !visit(entry) {
                    return Ok(());
                }
            }
            at += count;
        }
        Ok(())
    }

    /// What the file holds, if all of it can be right.
    fn read_all(&self, file: &dyn DiskFile) -> io::Result<Option<Summary>> {
        let size = file.size()?;
        if size % ENTRY_BYTES as u64 != 0 {
            return Ok(None);
        }
        let mut found = Some(Summary::default());
        let walked = self.walk(file, 0, size / ENTRY_BYTES as u64, |entry| {
            let in_segment = entry.last_offset >= self.base_offset;
            found = found.and_then(|found| found.with(&entry)).filter(|_| in_segment);
            found.is_some()
        });
        match walked {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
            walked => walked.map(|()| found),
        }
    }

    /// The file, if there is one.
    fn find(&mut self) -> io::Result<Option<Arc<dyn DiskFile>>> {
        let file = self.files.file(self.path(TXN_INDEX));
        let opened = if_there(file.open())?;
        self.file = opened.as_ref().map(|_| file);
        Ok(opened)
    }

    fn path(&self, suffix: &str) -> PathBuf {
        segment_path(self.files.dir(), self.base_offset, &format!("{suffix}{}", self.name_end))
    }
}

/// What the index was like before its last entry.
#[derive(Debug)]
pub(crate) struct TakeBack(Summary);

fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::open_files::OpenFiles;
    use super::*;
    use crate::disk::{Calls, Disk, DiskCall, Failure, MemoryDisk};

    const DIR: &str = "/t-0";

    fn files(disk: &MemoryDisk) -> Arc<LogFiles> {
        disk.create_dir_all(Path::new(DIR)).unwrap();
        OpenFiles::new(Arc::new(disk.clone()), 10).of_log(Path::new(DIR))
    }

    /// Of a transaction that begins at `first_offset` and ends with the marker at `last_offset`; the oldest that was
    /// open then begins at `stable`.
    fn aborted(first_offset: i64, last_offset: i64, last_stable_offset: i64) -> AbortedTransaction {
        AbortedTransaction { producer_id: first_offset, first_offset, last_offset, last_stable_offset }
    }

    /// Of a segment that begins at 100.
    fn filled(disk: &MemoryDisk) -> TxnIndex {
        let mut index = TxnIndex::empty(&files(disk), 100);
        for entry in [aborted(101, 110, 50), aborted(50, 115, 105), aborted(105, 120, 121)] {
            index.append(&entry).unwrap();
        }
        index
    }

    fn collected(index: &TxnIndex, from: i64, end: i64) -> (Vec<i64>, bool) {
        let mut found = Vec::new();
        let goes_on = index.collect(from, end, &mut found).unwrap();
        (found.iter().map(|entry| entry.first_offset).collect(), goes_on)
    }

    #[test]
    fn readers_get_what_overlaps_and_know_when_there_is_no_more() {
        let disk = MemoryDisk::new();
        let index = filled(&disk);
        for (from, end, found, goes_on) in [
            (100, 104, vec![101, 50], false),
            (100, 101, vec![50], false),
            (111, 106, vec![50, 105], false),
            (115, 121, vec![50, 105], false),
            (116, 122, vec![105], true),
            (120, 122, vec![105], true),
            (121, 130, vec![], true),
            (0, 50, vec![], false),
            (0, 51, vec![50], false),
        ] {
            assert_eq!(collected(&index, from, end), (found, goes_on), "{from} {end}");
        }
        let empty = TxnIndex::empty(&files(&disk), 100);
        assert_eq!(collected(&empty, 0, 1_000), (vec![], true));
        assert!(!empty.has_file() && index.has_file());
    }

    #[test]
    fn what_was_closed_is_opened_and_what_is_unknown_is_not_used() {
        let disk = MemoryDisk::new();
        let mut index = filled(&disk);
        let known = index.known;
        assert_eq!(index.files().unwrap_err().kind(), io::ErrorKind::NotFound, "no sum yet");
        index.close().unwrap();
        index.close().unwrap();
        assert_eq!(index.files().unwrap().len(), 2);
        let opened = TxnIndex::open(&files(&disk), 100).unwrap();
        assert!(opened.is_known() && opened.known == known && opened.has_file());
        assert_eq!(collected(&opened, 100, 200), (vec![101, 50, 105], true));
        let later = TxnIndex::open(&files(&disk), 111).unwrap();
        assert!(later.is_known() && !later.has_file(), "there is none of that segment");

        let mut unknown = TxnIndex::unknown(&files(&disk), 100);
        assert!(!unknown.is_known());
        assert!(unknown.append(&aborted(1, 200, 3)).is_err());
        assert!(unknown.collect(0, 1, &mut Vec::new()).is_err());
        unknown.close().unwrap();
        unknown.truncate(0).unwrap();
        assert!(unknown.files().unwrap().is_empty());
        assert_eq!(TxnIndex::open(&files(&disk), 100).unwrap().known, known, "it was left alone");
        unknown.begin_anew().unwrap();
        unknown.close().unwrap();
        assert!(!disk.exists(&unknown.path(TXN_INDEX)) && !disk.exists(&unknown.path(TXN_SUM)));
        assert!(!unknown.has_file() && unknown.files().unwrap().is_empty());
    }

    /// Otherwise it would be one of a segment in which nothing was aborted.
    #[test]
    fn an_index_that_has_to_be_there_is_unknown_without_its_file() {
        let disk = MemoryDisk::new();
        filled(&disk).close().unwrap();
        for (base_offset, known) in [(100, true), (200, false)] {
            let mut index = TxnIndex::open(&files(&disk), base_offset).unwrap();
            assert!(index.is_known(), "{base_offset}");
            index.expect_file();
            assert_eq!(index.is_known(), known, "{base_offset}");
        }
    }

    /// The entries are right, and of a segment before.
    #[test]
    fn an_index_of_another_segment_is_not_believed() {
        let disk = MemoryDisk::new();
        filled(&disk).close().unwrap();
        let bytes = disk.read_to_vec(&segment_path(Path::new(DIR), 100, TXN_INDEX)).unwrap();
        for (base_offset, believed) in [(110, true), (111, false)] {
            let path = segment_path(Path::new(DIR), base_offset, TXN_INDEX);
            disk.create(&path).unwrap().write_all_at(&bytes, 0).unwrap();
            let opened = TxnIndex::open(&files(&disk), base_offset).unwrap();
            assert_eq!(opened.is_known(), believed, "{base_offset}");
        }
        let sum = segment_path(Path::new(DIR), 120, TXN_SUM);
        disk.create(&sum).unwrap();
        assert!(!TxnIndex::open(&files(&disk), 120).unwrap().is_known(), "a sum, and nothing that it is of");
    }

    #[test]
    fn an_entry_may_be_taken_back_and_the_end_cut_off() {
        let disk = MemoryDisk::new();
        let mut index = filled(&disk);
        let before = index.known;
        let entry = aborted(121, 130, 131);
        let back = index.append(&entry).unwrap();
        index.take_back(back);
        assert_eq!(index.known, before);
        assert!(index.append(&aborted(1, 120, 121)).is_err() && index.known == before, "not in order");
        index.close().unwrap();
        assert_eq!(disk.read_to_vec(&index.path(TXN_INDEX)).unwrap().len(), 3 * ENTRY_BYTES);
        index.truncate(121).unwrap();
        assert_eq!(index.known, before, "nothing ended there");
        index.truncate(120).unwrap();
        assert_eq!(collected(&index, 100, 200), (vec![101, 50], true));
        assert_eq!(disk.read_to_vec(&index.path(TXN_INDEX)).unwrap().len(), 2 * ENTRY_BYTES);
        index.append(&aborted(105, 119, 120)).unwrap();
        assert_eq!(collected(&index, 116, 200), (vec![105], true));
        index.truncate(0).unwrap();
        assert_eq!((collected(&index, 0, 200), index.known), ((vec![], true), Some(Summary::default())));
        index.close().unwrap();
        assert!(!disk.exists(&index.path(TXN_INDEX)) && !disk.exists(&index.path(TXN_SUM)));
    }

    /// Changed under a running broker: refused, not believed.
    #[test]
    fn an_entry_that_cannot_be_right_is_an_error() {
        let disk = MemoryDisk::new();
        let index = filled(&disk);
        disk.open(&index.path(TXN_INDEX)).unwrap().write_all_at(&[1], 1).unwrap();
        let error = index.collect(0, 200, &mut Vec::new()).unwrap_err();
        assert!(
            error.kind() == io::ErrorKind::InvalidData && error.to_string().contains(TXN_INDEX),
            "{error}"
        );
        assert_eq!(collected(&index, 116, 200), (vec![105], true), "the rest is");
    }

    #[test]
    fn a_call_that_fails_changes_nothing() {
        let disk = MemoryDisk::new();
        let mut index = TxnIndex::empty(&files(&disk), 100);
        for call in [DiskCall::Create, DiskCall::Write] {
            disk.fail(Calls::of(&[call]), Failure::Os(28));
            assert!(index.append(&aborted(101, 110, 105)).is_err());
            assert_eq!(index.known, Some(Summary::default()));
        }
        index.append(&aborted(101, 110, 105)).unwrap();
        assert_eq!(collected(&index, 100, 200), (vec![101], true));
        index.truncate(0).unwrap();
        disk.fail(Calls::of(&[DiskCall::Remove]), Failure::Os(5));
        assert!(index.close().is_err() && index.has_file());
        index.close().unwrap();
        assert!(!disk.exists(&index.path(TXN_INDEX)));
    }

    #[test]
    fn many_entries_are_searched() {
        let disk = MemoryDisk::new();
        let mut index = TxnIndex::empty(&files(&disk), 0);
        let count = 2 * CHUNK as i64 + 7;
        for at in 0..count {
            index.append(&aborted(10 * at, 10 * at + 5, 10 * at + 6)).unwrap();
        }
        for at in [0, 1, CHUNK as i64 - 1, CHUNK as i64, CHUNK as i64 + 1, count - 1] {
            assert_eq!(collected(&index, 10 * at + 5, 10 * at + 6), (vec![10 * at], false), "{at}");
            assert_eq!(collected(&index, 10 * at + 6, 10 * at + 10).0, [0; 0], "{at}");
        }
        assert_eq!(collected(&index, 0, i64::MAX).0.len() as i64, count);
    }
}
