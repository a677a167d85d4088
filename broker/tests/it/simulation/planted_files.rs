//! What planted bugs do to the files of a broker while it does not run.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use klamm_broker::disk::{Disk, DiskFile, MemoryDisk};
use klamm_protocol::records::patch::set_base_offset;
use klamm_protocol::records::{BatchBuilder, BatchOptions, RecordBatch, batches, crc32c};

use super::DATA_DIR;
use super::planted::{CRC_AT, CRC_FROM};

/// Changes the last segment of each log whose directory's name is one of these.
pub(super) fn change_last_segments(disk: &MemoryDisk, of: impl Fn(&str) -> bool, change: fn(&dyn DiskFile)) {
    for (dir, logs) in logs(disk, of) {
        let file = disk.open(&dir.join(logs.last().unwrap())).unwrap();
        change(&*file);
        file.sync_data().unwrap();
    }
}

/// Removes the first segment of each log of several.
pub(super) fn remove_first_segments(disk: &MemoryDisk, of: impl Fn(&str) -> bool) {
    for (dir, logs) in logs(disk, of).into_iter().filter(|(_, logs)| logs.len() > 1) {
        disk.remove(&dir.join(&logs[0])).unwrap();
        disk.sync_dir(&dir).unwrap();
    }
}

/// The directories of partitions with their segments.
fn logs(disk: &MemoryDisk, of: impl Fn(&str) -> bool) -> Vec<(PathBuf, Vec<String>)> {
    let root = Path::new(DATA_DIR);
    let entries = disk.read_dir(root).unwrap_or_default();
    let dirs = entries.into_iter().filter(|entry| entry.is_dir && of(&entry.name));
    let logs = |dir: PathBuf| {
        let names = disk.read_dir(&dir).unwrap().into_iter().map(|entry| entry.name);
        let logs: Vec<String> = names.filter(|name| name.ends_with(".log")).collect();
        (dir, logs)
    };
    dirs.map(|entry| logs(root.join(entry.name))).filter(|(_, logs)| !logs.is_empty()).collect()
}

/// The whole batches of a segment and where they stand.
fn whole_batches(file: &dyn DiskFile) -> Vec<(u64, RecordBatch)> {
    let mut bytes = vec![0; usize::try_from(file.size().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let mut position = 0;
    let mut whole = Vec::new();
    for batch in batches(Bytes::from(bytes)) {
        let Ok(batch) = batch else { break };
        if batch.verify_crc().is_err() {
            break;
        }
        let len = batch.bytes().len() as u64;
        whole.push((position, batch));
        position += len;
    }
    whole
}

fn last_batch(file: &dyn DiskFile) -> Option<(u64, RecordBatch)> {
    whole_batches(file).pop()
}

pub(super) fn append_stray_batch(file: &dyn DiskFile) {
    let Some((position, last)) = last_batch(file) else { return };
    let header = last.header();
    let options = BatchOptions {
        base_offset: header.next_offset(),
        leader_epoch: header.partition_leader_epoch,
        ..BatchOptions::default()
    };
    let mut stray = BatchBuilder::new(options);
    stray.append(header.max_timestamp, None, Some(b"half of a record"), []).unwrap();
    file.write_all_at(&stray.build().unwrap(), position + last.bytes().len() as u64).unwrap();
}

pub(super) fn change_last_batch(file: &dyn DiskFile) {
    let Some((position, last)) = last_batch(file) else { return };
    let mut bytes = last.bytes().to_vec();
    let byte = bytes.len() - 3;
    bytes[byte] ^= 1;
    let crc = crc32c(&bytes[CRC_FROM..]);
    bytes[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    file.write_all_at(&bytes, position).unwrap();
}

pub(super) fn cut_last_batch(file: &dyn DiskFile) {
    if let Some((position, _)) = last_batch(file) {
        file.set_len(position).unwrap();
    }
}

/// The last marker that follows records of its own transaction changes places with them.
pub(super) fn put_marker_before_records(file: &dyn DiskFile) {
    let whole = whole_batches(file);
    let ends = |pair: &&[(u64, RecordBatch)]| {
        let (records, marker) = (pair[0].1.header(), pair[1].1.header());
        let own = records.producer_id == marker.producer_id;
        own && records.is_transactional() && !records.is_control() && marker.is_control()
    };
    let Some(pair) = whole.windows(2).rfind(ends) else { return };
    let ((position, records), (_, marker)) = (&pair[0], &pair[1]);
    let (mut first, mut second) = (marker.bytes().to_vec(), records.bytes().to_vec());
    set_base_offset(&mut first, records.header().base_offset).unwrap();
    set_base_offset(&mut second, records.header().base_offset + 1).unwrap();
    file.write_all_at(&[first, second].concat(), *position).unwrap();
}

pub(super) fn remove_transaction_indexes(disk: &MemoryDisk) {
    let root = Path::new(DATA_DIR);
    for dir in disk.read_dir(root).unwrap_or_default().into_iter().filter(|entry| entry.is_dir) {
        let dir = root.join(dir.name);
        let names = disk.read_dir(&dir).unwrap().into_iter().map(|entry| entry.name);
        for name in names.filter(|name| name.ends_with(".txnsum")) {
            let index = dir.join(name.replace(".txnsum", ".txnindex"));
            if disk.exists(&index) {
                disk.remove(&index).unwrap();
            }
        }
        disk.sync_dir(&dir).unwrap();
    }
}
