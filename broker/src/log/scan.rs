//! Walking the batches of a segment file: headers only for lookups, with checksums for recovery, and
//! the search behind damage.

use std::io;

use bytes::Bytes;
use klamm_protocol::records::{BATCH_HEADER_LEN, BatchHeader, RecordBatch};

use crate::disk::DiskFile;

/// How much a header walk reads at once: about an index interval, so that most lookups are one read.
const WINDOW_BYTES: u64 = 4_096;
/// How much a recovery scan reads at once, unless a batch is larger.
const CHUNK_BYTES: u64 = 1 << 20;
/// The unit that a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;
/// Base offset and length: a lost piece of a batch that covers them is recognised without looking further.
const LENGTH_END: u64 = 12;

/// A batch's header and where in the file it starts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchAt {
    pub(crate) position: u64,
    pub(crate) header: BatchHeader,
}

impl BatchAt {
    /// Where the batch ends.
    pub(crate) fn end(&self) -> u64 {
        self.position + self.header.total_len() as u64
    }
}

/// Reads the headers of successive batches between a batch start and `end`. The bytes were checked when they were
/// appended or recovered, so anything that does not parse is an error.
pub(crate) struct HeaderWalk<'a> {
    file: &'a dyn DiskFile,
    position: u64,
    end: u64,
    window: Vec<u8>,
    window_position: u64,
}

impl<'a> HeaderWalk<'a> {
    pub(crate) fn new(file: &'a dyn DiskFile, position: u64, end: u64) -> Self {
        Self { file, position, end, window: Vec::new(), window_position: position }
    }

    /// The next header, `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<BatchAt>> {
        if self.position >= self.end {
            return Ok(None);
        }
        let position = self.position;
        let header = BatchHeader::parse(self.header_bytes()?)
            .map_err(|error| damaged(format!("no batch at position {position}: {error}")))?;
        let batch = BatchAt { position, header };
        if batch.end() > self.end {
            return Err(damaged(format!(
                "the batch at position {position} ends at {}, past {}",
                batch.end(),
                self.end
            )));
        }
        self.position = batch.end();
        Ok(Some(batch))
    }

    fn header_bytes(&mut self) -> io::Result<&[u8]> {
        let start = usize::try_from(self.position - self.window_position).map_err(io::Error::other)?;
        if self.window.len() < start + BATCH_HEADER_LEN {
            let len = (self.end - self.position).min(WINDOW_BYTES);
            self.window.resize(len as usize, 0);
            self.file.read_exact_at(&mut self.window, self.position)?;
            self.window_position = self.position;
            return Ok(&self.window);
        }
        Ok(&self.window[start..])
    }
}

/// What a recovery scan found next.
#[derive(Debug)]
pub(crate) enum Scanned {
    /// A batch whose checksum is right.
    Batch(u64, RecordBatch),
    /// The end of the file, right after a batch.
    End,
    /// What starts at this position is not a whole, right batch.
    Damage(u64, String),
}

/// Reads and checks the batches of a file one after the other.
pub(crate) struct BatchScan<'a> {
    file: &'a dyn DiskFile,
    position: u64,
    end: u64,
    chunk: Bytes,
    chunk_position: u64,
}

impl<'a> BatchScan<'a> {
    pub(crate) fn new(file: &'a dyn DiskFile, position: u64, end: u64) -> Self {
        Self { file, position, end, chunk: Bytes::new(), chunk_position: position }
    }

    pub(crate) fn next(&mut self) -> io::Result<Scanned> {
        let position = self.position;
        let left = self.end - position;
        if left == 0 {
            return Ok(Scanned::End);
        }
        let header = match BatchHeader::parse(&self.bytes(left.min(BATCH_HEADER_LEN as u64))?) {
            Ok(header) => header,
            Err(error) => return Ok(Scanned::Damage(position, error.to_string())),
        };
        let len = header.total_len() as u64;
        if len > left {
            let what = format!("the batch is {len} bytes long, and the file ends after {left}");
            return Ok(Scanned::Damage(position, what));
        }
        let checked =
            RecordBatch::parse(self.bytes(len)?).and_then(|batch| batch.verify_crc().map(|()| batch));
        match checked {
            Ok(batch) => {
                self.position += len;
                Ok(Scanned::Batch(position, batch))
            }
            Err(error) => Ok(Scanned::Damage(position, error.to_string())),
        }
    }

    /// `len` bytes from the current position, which the file has.
    fn bytes(&mut self, len: u64) -> io::Result<Bytes> {
        let start = self.position - self.chunk_position;
        if start + len > self.chunk.len() as u64 {
            let mut chunk = vec![0; (self.end - self.position).min(CHUNK_BYTES.max(len)) as usize];
            self.file.read_exact_at(&mut chunk, self.position)?;
            self.chunk = chunk.into();
            self.chunk_position = self.position;
            return Ok(self.chunk.slice(..len as usize));
        }
        Ok(self.chunk.slice(start as usize..(start + len) as usize))
    }
}

/// The position of a batch with a right checksum and an offset of at least `min_offset` somewhere in `start..end`, if
/// there is one. It is what tells damage in the middle from a torn tail, and it looks at every position, because
/// damage may have hit a length.
pub(crate) fn valid_batch_within(
    file: &dyn DiskFile,
    start: u64,
    end: u64,
    min_offset: i64,
) -> io::Result<Option<u64>> {
    let mut window_position = start;
    while window_position + BATCH_HEADER_LEN as u64 <= end {
        let mut window = vec![0; (end - window_position).min(CHUNK_BYTES) as usize];
        file.read_exact_at(&mut window, window_position)?;
        // Windows overlap by a header, so that one across their border is seen.
        let starts = window.len() - BATCH_HEADER_LEN + 1;
        for start in 0..starts {
            let position = window_position + start as u64;
            if let Some(len) = plausible_len(&window[start..], end - position, min_offset) {
                let mut batch = vec![0; len];
                file.read_exact_at(&mut batch, position)?;
                if RecordBatch::parse(batch.into()).is_ok_and(|batch| batch.verify_crc().is_ok()) {
                    return Ok(Some(position));
                }
            }
        }
        window_position += starts as u64;
    }
    Ok(None)
}

fn plausible_len(bytes: &[u8], left: u64, min_offset: i64) -> Option<usize> {
    let header = BatchHeader::parse(bytes).ok()?;
    let ahead = header.base_offset.checked_sub(min_offset)?;
    let plausible = (0..=i64::from(u32::MAX)).contains(&ahead)
        && header.record_count >= 0
        && header.last_offset_delta >= 0
        && header.total_len() as u64 <= left;
    plausible.then(|| header.total_len())
}

/// Whether a piece of the damaged batch at `position` was never written: some whole sector of it reads as zeros. That
/// is what a power cut leaves of bytes that were not synced; a flipped bit does not look like it.
pub(crate) fn has_unwritten_sector(
    file: &dyn DiskFile,
    position: u64,
    file_end: u64,
    expected_offset: i64,
) -> io::Result<bool> {
    let mut head = vec![0; (file_end - position).min(BATCH_HEADER_LEN as u64) as usize];
    file.read_exact_at(&mut head, position)?;
    let header = BatchHeader::parse(&head).ok().filter(|header| header.base_offset == expected_offset);
    let batch_end = match &header {
        Some(header) => (position + header.total_len() as u64).min(file_end),
        None => position + head.len() as u64,
    };
    let mut sector = position - position % SECTOR_BYTES;
    while sector < batch_end {
        let start = sector.max(position);
        let end = (sector + SECTOR_BYTES).min(file_end);
        let mut bytes = vec![0; (end - start) as usize];
        file.read_exact_at(&mut bytes, start)?;
        // A short piece in front of the length may be zeros by right, unless the header shows that it is not.
        let telling = end - start >= LENGTH_END || header.is_none();
        if telling && bytes.iter().all(|byte| *byte == 0) {
            return Ok(true);
        }
        sector += SECTOR_BYTES;
    }
    Ok(false)
}

/// Whether the file simply ends inside the batch at `position`: its header, as far as it is there, is the expected one.
pub(crate) fn ends_early(
    file: &dyn DiskFile,
    position: u64,
    file_end: u64,
    expected_offset: i64,
) -> io::Result<bool> {
    let left = file_end - position;
    if left < BATCH_HEADER_LEN as u64 {
        return Ok(true);
    }
    let mut head = [0; BATCH_HEADER_LEN];
    file.read_exact_at(&mut head, position)?;
    let header = BatchHeader::parse(&head).ok();
    Ok(header.is_some_and(|header| header.base_offset == expected_offset && header.total_len() as u64 > left))
}

pub(crate) fn damaged(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
