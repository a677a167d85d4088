//! The files of a partition, each read as what it is.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use klamm_protocol::records::RecordBatch;

use crate::disk::{Disk, DiskFile, FileDisk};
use crate::log::{AbortedTransaction, raw};
use crate::partition::decode_snapshot;

/// Indexes go up to `segment.index.bytes`, producers to their limit: both are far below.
const READ_BYTES_MAX: usize = 1 << 30;

/// What the suffix of a file's name says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// `.log`: batches of records.
    Records,
    /// `.index`: where offsets are.
    BatchIndex,
    /// `.timeindex`: where times are.
    TimeIndex,
    /// `.txnindex`: which transactions were aborted.
    TransactionIndex,
    /// `.snapshot`: the producers.
    Producers,
}

impl FileKind {
    /// The kind of a file; nothing when it is none of these.
    pub fn of(path: &Path) -> Option<Self> {
        Some(match path.extension()?.to_str()? {
            "log" => Self::Records,
            "index" => Self::BatchIndex,
            "timeindex" => Self::TimeIndex,
            "txnindex" => Self::TransactionIndex,
            "snapshot" => Self::Producers,
            _ => return None,
        })
    }
}

/// The directories of partitions that a directory holds, by name: itself, if it has segments, or else those below it
/// that have.
///
/// # Errors
/// What the operating system says.
pub fn partitions(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = FileDisk.read_dir(dir)?;
    if entries.iter().any(|entry| is_segment(&entry.name)) {
        return Ok(vec![dir.to_owned()]);
    }
    for entry in entries.into_iter().filter(|entry| entry.is_dir) {
        let path = dir.join(entry.name);
        if FileDisk.read_dir(&path)?.iter().any(|entry| is_segment(&entry.name)) {
            found.push(path);
        }
    }
    Ok(found)
}

/// The `.log` files of a partition's directory, in the order of their offsets.
///
/// # Errors
/// What the operating system says.
pub fn segments(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = FileDisk.read_dir(dir)?.into_iter();
    Ok(entries.filter(|entry| is_segment(&entry.name)).map(|entry| dir.join(entry.name)).collect())
}

fn is_segment(name: &str) -> bool {
    raw::base_offset_of(name, raw::LOG).is_some()
}

/// What comes next in a `.log` file.
#[derive(Debug)]
pub enum Found {
    /// A batch whose checksum is right.
    Batch {
        /// Where in the file it starts.
        position: u64,
        /// The batch.
        batch: RecordBatch,
    },
    /// No whole and right batch. What is behind it is not looked at.
    Damage {
        /// Where in the file it starts.
        position: u64,
        /// What is wrong with it.
        what: String,
        /// How many bytes there are from here to the file's end.
        rest_bytes: u64,
    },
}

/// The batches of a `.log` file, one after the other.
#[derive(Debug)]
pub struct BatchScan {
    file: Arc<dyn DiskFile>,
    size: u64,
    /// Nothing behind damage.
    rest: Option<raw::BatchScan<Arc<dyn DiskFile>>>,
}

impl BatchScan {
    /// From the start of a file.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = FileDisk.open_to_read(path)?;
        let size = file.size()?;
        Ok(Self { file: file.clone(), size, rest: Some(raw::BatchScan::new(file, 0, size)) })
    }

    fn find_next(&mut self) -> io::Result<Option<Found>> {
        let Some(rest) = &mut self.rest else { return Ok(None) };
        Ok(match rest.next()? {
            raw::Scanned::End => None,
            raw::Scanned::Batch(position, batch) => Some(Found::Batch { position, batch }),
            raw::Scanned::Damage(position, what) => {
                self.rest = None;
                // Kafka preallocates where it is told to.
                let unwritten = is_zero(&*self.file, position, self.size)?;
                let rest_bytes = self.size - position;
                (!unwritten).then_some(Found::Damage { position, what, rest_bytes })
            }
        })
    }
}

/// Ends at the end of the file, and behind damage.
impl Iterator for BatchScan {
    type Item = io::Result<Found>;

    fn next(&mut self) -> Option<Self::Item> {
        self.find_next().transpose()
    }
}

/// Whether there is nothing but zeros between two positions.
fn is_zero(file: &dyn DiskFile, position: u64, end: u64) -> io::Result<bool> {
    const CHUNK: u64 = 1 << 16;
    let mut at = position;
    while at < end {
        let mut chunk = vec![0; (end - at).min(CHUNK) as usize];
        file.read_exact_at(&mut chunk, at)?;
        if chunk.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += chunk.len() as u64;
    }
    Ok(true)
}

/// An entry of `.index`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchIndexEntry {
    /// The last offset of a batch.
    pub last_offset: i64,
    /// Where that batch starts in the `.log` file.
    pub position: u64,
}

/// An entry of `.timeindex`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeIndexEntry {
    /// The largest timestamp so far, in milliseconds.
    pub timestamp_ms: i64,
    /// The last offset of the batch that has it, or, written by Kafka, the offset of the record.
    pub offset: i64,
}

/// The entries of an `.index` file, as far as they ascend: a file that Kafka is writing, or did not close, has zeros
/// behind them.
///
/// # Errors
/// What the operating system says, or that the file's name is none of an index.
pub fn batch_index(path: &Path) -> io::Result<Vec<BatchIndexEntry>> {
    let entries = entries::<raw::BatchPlace>(path, raw::INDEX)?;
    Ok(entries
        .into_iter()
        .map(|entry| BatchIndexEntry { last_offset: entry.last_offset, position: entry.position })
        .collect())
}

/// The entries of a `.timeindex` file, as far as they ascend.
///
/// # Errors
/// What the operating system says, or that the file's name is none of an index.
pub fn time_index(path: &Path) -> io::Result<Vec<TimeIndexEntry>> {
    let entries = entries::<raw::MaxTimestamp>(path, raw::TIME_INDEX)?;
    Ok(entries
        .into_iter()
        .map(|entry| TimeIndexEntry { timestamp_ms: entry.timestamp, offset: entry.last_offset })
        .collect())
}

fn entries<E: raw::IndexEntry>(path: &Path, suffix: &str) -> io::Result<Vec<E>> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some(base_offset) = raw::base_offset_of(name, suffix) else {
        return Err(wrong(format!("{name}: an index is called as its segment, with {suffix}")));
    };
    let bytes = read(path)?;
    let mut found: Vec<E> = Vec::new();
    for entry in bytes.chunks_exact(E::BYTES) {
        let entry = E::read(base_offset, entry);
        let follows = found.last().is_none_or(|before| entry.may_follow(before));
        // One of zeros alone says nothing.
        if !follows || (found.is_empty() && bytes.iter().all(|byte| *byte == 0)) {
            break;
        }
        found.push(entry);
    }
    Ok(found)
}

/// The entries of a `.txnindex` file.
///
/// # Errors
/// What the operating system says, or `InvalidData` when the file holds something else.
pub fn aborted_transactions(path: &Path) -> io::Result<Vec<AbortedTransaction>> {
    let bytes = read(path)?;
    let (entries, rest) = bytes.as_chunks::<{ raw::ABORTED_ENTRY_BYTES }>();
    if !rest.is_empty() {
        return Err(wrong(format!("{} bytes at the end are no entry", rest.len())));
    }
    let parsed = entries.iter().zip(0_usize..).map(|(entry, index)| {
        AbortedTransaction::parse(entry).ok_or_else(|| wrong(format!("entry {index} cannot be right")))
    });
    parsed.collect()
}

/// What a `.snapshot` file says of a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerEntry {
    /// Its id.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// The sequence number of its last record, or -1.
    pub last_sequence: i32,
    /// The offset of its last record, or -1.
    pub last_offset: i64,
    /// When it wrote last, in milliseconds.
    pub last_timestamp_ms: i64,
    /// The epoch of the coordinator that ended its last transaction, or -1.
    pub coordinator_epoch: i32,
    /// The offset at which its open transaction starts, if it has one.
    pub transaction_start: Option<i64>,
}

/// The producers in a `.snapshot` file, by id.
///
/// # Errors
/// What the operating system says, or `InvalidData` when the file is damaged.
pub fn producers(path: &Path) -> io::Result<Vec<ProducerEntry>> {
    let states = decode_snapshot(&read(path)?).ok_or_else(|| wrong("its checksum is wrong".to_owned()))?;
    let mut found: Vec<_> = states
        .iter()
        .map(|(producer_id, producer)| ProducerEntry {
            producer_id,
            producer_epoch: producer.epoch,
            last_sequence: producer.batches.back().map_or(-1, |batch| batch.last_sequence),
            last_offset: producer.batches.back().map_or(-1, |batch| batch.last_offset),
            last_timestamp_ms: producer.seen_ms,
            coordinator_epoch: producer.coordinator_epoch,
            transaction_start: producer.txn_start,
        })
        .collect();
    found.sort_by_key(|producer| producer.producer_id);
    Ok(found)
}

/// All of a file that is no `.log`.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = FileDisk.open_to_read(path)?;
    let size = usize::try_from(file.size()?).map_err(io::Error::other)?;
    if size > READ_BYTES_MAX {
        return Err(wrong(format!("{size} bytes are more than any such file has")));
    }
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn wrong(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
