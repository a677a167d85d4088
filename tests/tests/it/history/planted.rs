//! Bugs planted on purpose in the files of a broker that was killed, which make it behave as it would with the bug, to
//! see that the checks find them. More of them, those of syncs above all, are planted in the broker's simulation.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use klamm_protocol::records::patch::set_base_offset;
use klamm_protocol::records::{RecordBatch, batches};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Planted {
    /// Records are acknowledged before they are appended.
    AcknowledgesBeforeAppend,
    /// A committed offset is acknowledged before it is appended.
    CommitsOffsetsBeforeAppend,
    /// So is the end of a transaction.
    CommitsTransactionsBeforeAppend,
    /// A marker is written before the records that it ends.
    WritesMarkersBeforeRecords,
}

impl Planted {
    pub(super) const ALL: [Self; 4] = [
        Self::AcknowledgesBeforeAppend,
        Self::CommitsOffsetsBeforeAppend,
        Self::CommitsTransactionsBeforeAppend,
        Self::WritesMarkersBeforeRecords,
    ];

    /// Does it to the files in this folder, while no broker runs.
    pub(super) fn between_lives(self, data: &Path) {
        let change: fn(Vec<u8>) -> Vec<u8> = match self {
            Self::WritesMarkersBeforeRecords => put_marker_before_records,
            _ => cut_last_batch,
        };
        for folder in folders(data).into_iter().filter(|folder| self.is_about(folder)) {
            if let Some(segment) = last_segment(&folder) {
                let bytes = std::fs::read(&segment).unwrap();
                std::fs::write(&segment, change(bytes)).unwrap();
            }
        }
    }

    fn is_about(self, folder: &Path) -> bool {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        match self {
            Self::AcknowledgesBeforeAppend => name.starts_with(super::world::INPUT),
            Self::CommitsOffsetsBeforeAppend => name.starts_with("__consumer_offsets"),
            Self::CommitsTransactionsBeforeAppend => name.starts_with("__transaction_state"),
            Self::WritesMarkersBeforeRecords => {
                name.starts_with(super::world::MOVED) || name.starts_with(super::world::COPIES)
            }
        }
    }
}

fn folders(data: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

fn last_segment(folder: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|end| end == "log")).max()
}

/// The whole batches of a segment and where they stand.
fn whole_batches(bytes: &[u8]) -> Vec<(usize, RecordBatch)> {
    let mut position = 0;
    let mut whole = Vec::new();
    for batch in batches(Bytes::copy_from_slice(bytes)).map_while(Result::ok) {
        let len = batch.bytes().len();
        whole.push((position, batch));
        position += len;
    }
    whole
}

fn cut_last_batch(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some((position, _)) = whole_batches(&bytes).last() {
        bytes.truncate(*position);
    }
    bytes
}

fn put_marker_before_records(mut bytes: Vec<u8>) -> Vec<u8> {
    let whole = whole_batches(&bytes);
    let ends = |pair: &&[(usize, RecordBatch)]| {
        let (records, marker) = (pair[0].1.header(), pair[1].1.header());
        let own = records.producer_id == marker.producer_id;
        own && records.is_transactional() && !records.is_control() && marker.is_control()
    };
    let Some(pair) = whole.windows(2).rfind(ends) else { return bytes };
    let ((position, records), (_, marker)) = (&pair[0], &pair[1]);
    let (mut first, mut second) = (marker.bytes().to_vec(), records.bytes().to_vec());
    set_base_offset(&mut first, records.header().base_offset).unwrap();
    set_base_offset(&mut second, records.header().base_offset + 1).unwrap();
    let both = [first, second].concat();
    bytes[*position..*position + both.len()].copy_from_slice(&both);
    bytes
}
