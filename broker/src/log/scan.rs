//! Walking the batches of a segment file: headers only for lookups, with checksums for recovery.

use std::io;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use klamm_protocol::records::{BATCH_HEADER_LEN, BatchHeader, RecordBatch};

use crate::disk::DiskFile;

/// How much a header walk reads at once: about an index interval, so that most lookups are one read.
const WINDOW_BYTES: u64 = 4_096;
/// How much a recovery scan reads at once, unless a batch is larger.
const CHUNK_BYTES: u64 = 1 << 20;
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
pub(crate) struct HeaderWalk {
    file: Arc<dyn DiskFile>,
    position: u64,
    end: u64,
    window: Vec<u8>,
    window_position: u64,
}

impl HeaderWalk {
    pub(crate) fn new(file: Arc<dyn DiskFile>, position: u64, end: u64) -> Self {
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
#[derive(Debug)]
pub(crate) struct BatchScan<F> {
    file: F,
    position: u64,
    end: u64,
    chunk: Bytes,
    chunk_position: u64,
    chunk_bytes: u64,
}

impl<F: Deref<Target: DiskFile>> BatchScan<F> {
    pub(crate) fn new(file: F, position: u64, end: u64) -> Self {
        let (chunk, chunk_position, chunk_bytes) = (Bytes::new(), position, CHUNK_BYTES);
        Self { file, position, end, chunk, chunk_position, chunk_bytes }
    }

    /// Reads so much at once instead, unless a batch is larger.
    pub(crate) fn in_chunks(self, chunk_bytes: usize) -> Self {
        Self { chunk_bytes: chunk_bytes as u64, ..self }
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
            let mut chunk = vec![0; (self.end - self.position).min(self.chunk_bytes.max(len)) as usize];
            self.file.read_exact_at(&mut chunk, self.position)?;
            self.chunk = chunk.into();
            self.chunk_position = self.position;
            return Ok(self.chunk.slice(..len as usize));
        }
        Ok(self.chunk.slice(start as usize..(start + len) as usize))
    }
}

pub(crate) fn damaged(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
