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
    /// Once there is one.
    file: Option<LogFile>,
    /// Nothing as long as the file is not to be believed.
    known: Option<Summary>,
}

impl TxnIndex {
    /// Of a new segment.
    pub(crate) fn empty(files: &Arc<LogFiles>, base_offset: i64) -> Self {
        Self { files: files.clone(), base_offset, file: None, known: Some(Summary::default()) }
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

    /// Whether it can be used as it is.
    pub(crate) fn is_known(&self) -> bool {
        self.known.is_some()
    }

    /// Whether it has a file.
    pub(crate) fn has_file(&self) -> bool {
        self.file.is_some()
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
        segment_path(self.files.dir(), self.base_offset, suffix)
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
