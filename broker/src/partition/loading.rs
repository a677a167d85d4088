//! What a start knows of producers and transactions: from the snapshots, and from the log behind them. With it the
//! indexes of aborted transactions are built anew that are not to be believed.

use std::io;
use std::path::Path;

use klamm_protocol::records::BatchHeader;

use super::batch::end_txn_marker;
use super::error::is_passing;
use super::kept_snapshots::KeptSnapshots;
use super::producer_state::ProducerStates;
use super::snapshot::{self, SNAPSHOT, snapshot_path};
use super::transactions::{TransactionStep, Transactions};
use crate::disk::Disk;
use crate::log::{Log, Rebuild};

/// What is known of a log's producers when it is opened.
#[derive(Default)]
pub(super) struct FoundProducers {
    pub(super) producers: ProducerStates,
    pub(super) transactions: Transactions,
    pub(super) snapshots: KeptSnapshots,
    /// How much of the log came after the snapshot.
    pub(super) replayed_bytes: u64,
}

/// Takes the newest snapshot that is whole and not ahead of the log, and replays what came after it. Snapshots ahead of
/// the log belong to records that were lost. With one from before the first record that is left, producers would be
/// taken for being further behind than they are.
///
/// Everything below `synced` was synced at some time.
pub(super) fn load_producers(
    disk: &dyn Disk,
    log: &mut Log,
    synced: i64,
    now_ms: i64,
) -> io::Result<FoundProducers> {
    let mut offsets: Vec<i64> = snapshot_offsets(disk, log.dir())?.collect();
    let mut producers = ProducerStates::default();
    let bases = log.segment_bases();
    let mut from = bases.first().copied().unwrap_or(log.start_offset());
    let known = from..=log.next_offset();
    let mut snapshot = None;
    while let Some(offset) = offsets.pop() {
        let path = snapshot_path(log.dir(), offset);
        let decoded = match disk.read_to_vec(&path) {
            _ if !known.contains(&offset) => None,
            Ok(bytes) => snapshot::decode(&bytes),
            Err(error) if is_passing(&error) => return Err(error),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a snapshot of the producers cannot be read");
                continue;
            }
        };
        if let Some(decoded) = decoded {
            producers = decoded;
            (from, snapshot) = (offset, Some(offset));
            break;
        }
        disk.remove(&path)?;
        // Or a power cut brings it back when the log has grown to where it was.
        disk.sync_dir(log.dir())?;
    }
    producers.expire(now_ms, log.config().producer_id_expiration_ms);
    let mut transactions = Transactions::default();
    producers.open_transactions().for_each(|began| transactions.apply(began));
    let mut rebuild = log.begin_rebuild()?;
    // Otherwise the whole segment would be walked over for nothing after every crash.
    let nothing_to_build = from <= synced && rebuild.is_of_one_without_files()?;
    let rebuilt = !nothing_to_build && rebuild_from_before(disk, log, &offsets, from, &mut rebuild)?;
    let after = (from, i64::MAX);
    let not_rebuilt = Some(&mut rebuild).filter(|_| !rebuilt);
    let replayed_bytes =
        replay(log, after, &mut producers, now_ms, not_rebuilt, |step| transactions.apply(step))?;
    log.finish_rebuild(rebuild)?;
    // Snapshots that are neither the newest nor at a segment's start serve nothing.
    for offset in offsets.into_iter().filter(|offset| bases.binary_search(offset).is_err()) {
        disk.remove(&snapshot_path(log.dir(), offset))?;
    }
    let at_segment = snapshot.is_some_and(|offset| bases.binary_search(&offset).is_ok());
    let snapshots = KeptSnapshots::found(snapshot, at_segment);
    Ok(FoundProducers { producers, transactions, snapshots, replayed_bytes })
}

/// An index that begins before the newest snapshot takes an older one, or all of the log. Says whether that was so; all
/// indexes are built then.
fn rebuild_from_before(
    disk: &dyn Disk,
    log: &Log,
    older: &[i64],
    newest: i64,
    rebuild: &mut Rebuild,
) -> io::Result<bool> {
    let Some((first, end)) = rebuild.range().filter(|(first, _)| *first < newest) else { return Ok(false) };
    let mut producers = ProducerStates::default();
    let mut from = log.segment_bases().first().copied().unwrap_or(log.start_offset());
    for offset in older.iter().rev().filter(|offset| (from..=first).contains(*offset)) {
        let path = snapshot_path(log.dir(), *offset);
        let decoded = match disk.read_to_vec(&path) {
            Err(error) if is_passing(&error) => return Err(error),
            read => read.ok().as_deref().and_then(snapshot::decode),
        };
        if let Some(decoded) = decoded {
            (producers, from) = (decoded, *offset);
            break;
        }
    }
    replay(log, (from, end), &mut producers, 0, Some(rebuild), |_| {})?;
    Ok(true)
}

/// Shows the batches between two offsets to the producers, and the transactions that they abort to the indexes. Says
/// how many bytes these were.
fn replay(
    log: &Log,
    (from, end): (i64, i64),
    producers: &mut ProducerStates,
    now_ms: i64,
    mut rebuild: Option<&mut Rebuild>,
    mut apply: impl FnMut(TransactionStep),
) -> io::Result<u64> {
    let limit = log.config().producer_ids_max;
    let mut bytes = 0;
    log.replay(from, end, BatchHeader::is_control, |header, batch| {
        bytes += header.total_len() as u64;
        let marker = batch.as_ref().and_then(end_txn_marker);
        // Too many cannot be refused any more.
        let _ = producers.make_room(header, limit);
        if let (Some(rebuild), Some(marker)) = (&mut rebuild, marker)
            && let Some(aborted) = producers.aborted_by(header, marker)
        {
            rebuild.note(&aborted);
        }
        if let Some(step) = producers.appended(header, marker, now_ms) {
            apply(step);
        }
    })?;
    Ok(bytes)
}

/// The offsets of the snapshots in a directory, ascending.
pub(super) fn snapshot_offsets(disk: &dyn Disk, dir: &Path) -> io::Result<impl Iterator<Item = i64> + use<>> {
    let names = disk.read_dir(dir)?;
    Ok(names.into_iter().filter_map(|entry| entry.name.strip_suffix(SNAPSHOT)?.parse().ok()))
}
