//! A partition as a whole: each batch can be read, and everything that lies beside the batches agrees with them.

use std::io;
use std::path::{Path, PathBuf};

use klamm_protocol::records::{ControlRecord, RecordBatch};

use super::agree::{Aborts, OpenTransactions, Places, Times};
use super::files::{self, BatchIndexEntry, BatchScan, FileKind, Found, TimeIndexEntry};
use crate::disk::{Disk, FileDisk};
use crate::log::raw;

/// Into how much a batch may decompress.
const DECOMPRESSED_BYTES_MAX: usize = 1 << 30;

/// Something that is not as it should be, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

/// What a partition holds, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Partition {
    /// Its segments.
    pub segments: usize,
    /// Their batches.
    pub batches: u64,
    /// Their records, control records not counted.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The first offset.
    pub start_offset: i64,
    /// The offset behind the last record.
    pub end_offset: i64,
    /// How many offsets in between have no record: compaction leaves such gaps, and so does a lost segment.
    pub missing_offsets: u64,
    /// Where the oldest open transaction starts.
    pub open_transaction: Option<i64>,
    /// What is wrong. Empty when all is sound.
    pub findings: Vec<Finding>,
}

/// Looks at all of a partition's directory. What is there of it is read, decompressed and compared.
///
/// # Errors
/// What the operating system says. What is wrong with the files is no error but a finding.
pub fn verify(dir: &Path) -> io::Result<Partition> {
    let names: Vec<String> = FileDisk.read_dir(dir)?.into_iter().map(|entry| entry.name).collect();
    let bases: Vec<i64> = names.iter().filter_map(|name| raw::base_offset_of(name, raw::LOG)).collect();
    let mut walk = Walk { dir: dir.to_owned(), ..Walk::default() };
    walk.found.start_offset = bases.first().copied().unwrap_or(0);
    walk.found.end_offset = walk.found.start_offset;
    for base_offset in bases {
        walk.segment(base_offset)?;
    }
    for name in names {
        walk.beside(&name)?;
    }
    walk.found.open_transaction = walk.open.first();
    Ok(walk.found)
}

/// What is known while the segments are walked through.
#[derive(Default)]
struct Walk {
    dir: PathBuf,
    found: Partition,
    open: OpenTransactions,
}

/// What lies beside the batches of a segment.
struct Beside {
    places: Places,
    times: Times,
    aborts: Aborts,
}

impl Walk {
    fn note(&mut self, file: &Path, what: impl Into<String>) {
        self.found.findings.push(Finding { file: file.to_owned(), what: what.into() });
    }

    fn segment(&mut self, base_offset: i64) -> io::Result<()> {
        let path = raw::segment_path(&self.dir, base_offset, raw::LOG);
        if base_offset < self.found.end_offset {
            let end = self.found.end_offset;
            self.note(&path, format!("the segment before goes up to offset {end}"));
        }
        let mut beside = self.read_beside(base_offset)?;
        self.found.segments += 1;
        for next in BatchScan::open(&path)? {
            match next? {
                Found::Batch { position, batch } => self.batch(&path, position, &batch, &mut beside),
                Found::Damage { position, what, rest_bytes } => {
                    let what = format!("at position {position}, {rest_bytes} bytes before the end: {what}");
                    self.note(&path, what);
                }
            }
        }
        self.note_disagreements(base_offset, beside);
        Ok(())
    }

    fn read_beside(&mut self, base_offset: i64) -> io::Result<Beside> {
        let path = |suffix| raw::segment_path(&self.dir, base_offset, suffix);
        let (index, time_index, txn_index) = (path(raw::INDEX), path(raw::TIME_INDEX), path(raw::TXN_INDEX));
        let places = self.readable(&index, files::batch_index(&index))?;
        let times = self.readable(&time_index, files::time_index(&time_index))?;
        let aborts = self.readable(&txn_index, files::aborted_transactions(&txn_index))?;
        Ok(Beside {
            places: Places::of(places.unwrap_or_default()),
            times: Times::of(times.unwrap_or_default()),
            aborts: Aborts::of(aborts.unwrap_or_default()),
        })
    }

    /// What a file holds; nothing when there is none, or it holds something else, which is noted.
    fn readable<T>(&mut self, path: &Path, read: io::Result<T>) -> io::Result<Option<T>> {
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                self.note(path, error.to_string());
                Ok(None)
            }
            read => read.map(Some),
        }
    }

    fn note_disagreements(&mut self, base_offset: i64, Beside { places, times, aborts }: Beside) {
        let path = |suffix| raw::segment_path(&self.dir, base_offset, suffix);
        let (index, time_index, txn_index) = (path(raw::INDEX), path(raw::TIME_INDEX), path(raw::TXN_INDEX));
        if let Some(BatchIndexEntry { last_offset, position }) = places.wrong() {
            let what = format!("no batch that ends at offset {last_offset} starts at position {position}");
            self.note(&index, what);
        }
        if let Some(TimeIndexEntry { timestamp_ms, offset }) = times.wrong() {
            self.note(
                &time_index,
                format!("{timestamp_ms} is not the greatest timestamp up to offset {offset}"),
            );
        }
        for what in aborts.wrong() {
            self.note(&txn_index, what);
        }
    }

    fn batch(&mut self, path: &Path, position: u64, batch: &RecordBatch, beside: &mut Beside) {
        let header = *batch.header();
        let (offset, expected) = (header.base_offset, self.found.end_offset);
        if offset < expected {
            self.note(
                path,
                format!("at position {position}: offset {offset} where {expected} or more comes next"),
            );
        }
        let found = &mut self.found;
        found.missing_offsets += offset.saturating_sub(expected).max(0).unsigned_abs();
        found.end_offset = expected.max(header.next_offset());
        found.batches += 1;
        found.bytes += batch.bytes().len() as u64;
        beside.places.batch(position, &header);
        beside.times.batch(&header);
        self.open.batch(&header);
        match records(batch) {
            Err(what) => self.note(path, format!("at position {position}, offset {offset}: {what}")),
            Ok(Records { committed: Some(committed), .. }) => {
                let first_offset = self.open.ended(&header);
                if !committed {
                    beside.aborts.marker(&header, first_offset);
                }
            }
            Ok(Records { count, .. }) if !header.is_control() => {
                self.found.records += count;
                let offsets = u64::from(header.last_offset_delta.unsigned_abs()) + 1;
                self.found.missing_offsets += offsets.saturating_sub(count);
            }
            Ok(_) => {}
        }
    }

    /// What is not of a segment.
    fn beside(&mut self, name: &str) -> io::Result<()> {
        let path = self.dir.join(name);
        match name {
            raw::LEADER_EPOCHS => self.text(&path, |text| raw::EpochCache::parse(text).is_some()),
            raw::PARTITION_METADATA => self.text(&path, |text| raw::parse_topic_id(text).is_some()),
            _ if FileKind::of(&path) == Some(FileKind::Producers) => self.producers(&path),
            _ => Ok(()),
        }
    }

    fn text(&mut self, path: &Path, sound: impl Fn(&str) -> bool) -> io::Result<()> {
        let bytes = self.readable(path, files::read(path))?;
        if bytes.is_some_and(|bytes| !std::str::from_utf8(&bytes).is_ok_and(sound)) {
            self.note(path, "cannot be understood");
        }
        Ok(())
    }

    fn producers(&mut self, path: &Path) -> io::Result<()> {
        let Some(producers) = self.readable(path, files::producers(path))? else { return Ok(()) };
        let end = self.found.end_offset;
        if let Some(ahead) = producers.iter().find(|producer| producer.last_offset >= end) {
            let (producer_id, offset) = (ahead.producer_id, ahead.last_offset);
            let what =
                format!("producer {producer_id} wrote up to offset {offset}, and the log ends at {end}");
            self.note(path, what);
        }
        Ok(())
    }
}

/// What is in a batch.
struct Records {
    count: u64,
    /// Of a marker: whether it commits.
    committed: Option<bool>,
}

fn records(batch: &RecordBatch) -> Result<Records, String> {
    let header = batch.header();
    let set = batch.records(DECOMPRESSED_BYTES_MAX).map_err(|error| error.to_string())?;
    let (mut count, mut committed, mut last_delta) = (0, None, -1);
    for record in set.iter() {
        let record = record.map_err(|error| format!("record {count}: {error}"))?;
        if record.offset_delta <= last_delta || record.offset_delta > header.last_offset_delta {
            return Err(format!("record {count} has offset delta {}", record.offset_delta));
        }
        last_delta = record.offset_delta;
        if header.is_control() {
            let control =
                ControlRecord::parse(record.key, record.value).map_err(|error| error.to_string())?;
            committed = match control {
                ControlRecord::EndTxn(marker) => Some(marker.committed),
                ControlRecord::Other { .. } => None,
            };
        }
        count += 1;
    }
    match i64::from(header.record_count) == i64::try_from(count).unwrap_or(i64::MAX) {
        true => Ok(Records { count, committed }),
        false => Err(format!("it holds {count} records and says {}", header.record_count)),
    }
}
