//! How a partition comes to be: made new, or found in its directory.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use klamm_protocol::Uuid;

use super::handle::{Home, Opened, Partition, Unopened};
use super::loading::{FoundProducers, load_producers};
use super::marks::Marks;
use super::writer::Writer;
use crate::disk::Disk;
use crate::log::checkpoint::{EpochCache, LEADER_EPOCHS};
use crate::log::metadata::{PARTITION_METADATA, parse_topic_id, print_topic_id};
use crate::log::recovery::{Known, RecoveryReport, load};
use crate::log::{FlushMode, IoContext, Log, LogConfig, LogError, StorageError};

impl Partition {
    /// A partition that is new: makes its directory and first segment, durable with the first flush. Blocks on the
    /// disk.
    pub(super) fn create(
        home: Home,
        topic_id: Uuid,
        config: LogConfig,
        now_ms: i64,
    ) -> Result<Arc<Self>, LogError> {
        let config = Arc::new(config);
        let Home { disk, dir, .. } = &home;
        disk.create_dir_all(dir).at("create", dir)?;
        let files = home.open_files.of_log(dir);
        let mut log = Log::create(files, config.clone(), 0, now_ms).at("create a log in", dir)?;
        let path = dir.join(PARTITION_METADATA);
        let metadata = disk.create(&path).at("create", &path)?;
        metadata.write_all_at(print_topic_id(topic_id).as_bytes(), 0).at("write", &path)?;
        log.unsynced().file(&metadata);
        if let Some(parent) = dir.parent() {
            log.unsynced().dir(parent);
        }
        let made = opened(log, FoundProducers::default(), EpochCache::default(), false);
        let partition = Self::assemble(home, config);
        partition.learn_topic_id(topic_id);
        partition.install(made, 0);
        let partition = Arc::new(partition);
        partition.enqueue_flush();
        Ok(partition)
    }

    /// A partition whose directory exists. One that cannot be opened is there too, but offline: every call says why.
    /// Blocks on the disk.
    pub(super) fn open(home: Home, config: LogConfig, known: Known) -> Arc<Self> {
        let partition = Self::assemble(home, Arc::new(config));
        partition.try_to_open(known);
        Arc::new(partition)
    }

    /// Tries once more to open a log that could not be opened for a reason that passes; says whether it is to be tried
    /// again. Blocks on the disk.
    pub(super) fn open_again(&self) -> bool {
        // Closing waits for this, and deletion; after them there is nothing to be opened any more.
        let Ok(_not_closed) = self.flushing.lock() else { return false };
        let Ok(_not_deleted) = self.names() else { return false };
        let Some(known) = self.to_be_opened() else { return false };
        self.try_to_open(known);
        if self.is_open() {
            tracing::info!(topic = %self.topic(), partition = self.index(), "the partition could be opened");
        }
        self.comes_back()
    }

    fn try_to_open(&self, known: Known) {
        match self.find_all(known) {
            Ok((opened, leader_epoch)) => self.install(opened, leader_epoch),
            Err(error) if error.may_pass() => {
                let why = format!("{error}. It is tried again until it can be opened; no restart is needed");
                let (why, clean) = (StorageError::new(why), known.clean);
                self.put_off(Unopened { why, again: Some(known), lost_start: None, clean });
            }
            Err(error) => {
                let lost_start = match &error {
                    LogError::LostStart { expected, .. } => Some(*expected),
                    _ => None,
                };
                self.put_off(Unopened { why: error.into(), again: None, lost_start, clean: known.clean });
            }
        }
    }

    fn find_all(&self, known: Known) -> Result<(Opened, i32), LogError> {
        let text = read_if_there(self.disk(), &self.dir().join(PARTITION_METADATA))?;
        let topic_id = text.as_deref().and_then(parse_topic_id);
        self.learn_topic_id(topic_id.unwrap_or(Uuid::ZERO));
        let (mut opened, leader_epoch) = find(self.disk(), &self.home, &self.config(), known)?;
        // The file is there and was never written to the disk, nor was anything that was promised.
        opened.unfinished = text.is_some() && topic_id.is_none() && opened.report.vouched_offset == 0;
        Ok((opened, leader_epoch))
    }
}

fn opened(mut log: Log, found: FoundProducers, epochs: EpochCache, epochs_changed: bool) -> Opened {
    let FoundProducers { producers, transactions, snapshots, replayed_bytes } = found;
    let mut marks = Marks::of(&log, transactions, epochs, epochs_changed);
    marks.snapshots = snapshots;
    marks.note_unsynced(log.take_unsynced());
    let report = RecoveryReport::default();
    Opened {
        writer: Mutex::new(Writer { log, producers, bytes_since_snapshot: replayed_bytes }),
        marks: Mutex::new(marks),
        report,
        unfinished: false,
    }
}

fn find(
    disk: &dyn Disk,
    home: &Home,
    config: &Arc<LogConfig>,
    known: Known,
) -> Result<(Opened, i32), LogError> {
    let dir = &home.dir;
    let written = read_if_there(disk, &dir.join(LEADER_EPOCHS))?;
    let mut epochs = written.as_deref().and_then(EpochCache::parse).unwrap_or_default();
    let (mut log, report) = load(&home.open_files.of_log(dir), config, known, |header| {
        epochs.assign(header.partition_leader_epoch, header.base_offset);
    })?;
    if epochs.latest().is_none() && log.next_offset() > log.start_offset() {
        let rebuilt = log.replay(
            log.start_offset(),
            i64::MAX,
            |_| false,
            |header, _| {
                epochs.assign(header.partition_leader_epoch, header.base_offset);
            },
        );
        rebuilt.at("read", dir)?;
    }
    epochs.truncate_end(log.next_offset());
    let epochs_changed = written.as_deref() != Some(epochs.print().as_str()) && epochs.latest().is_some();

    let found = load_producers(disk, &mut log, report.vouched_offset, known.now_ms)
        .at("rebuild the producer state from", dir);
    let mut found = found?;
    found.transactions.advance_high_watermark(log.next_offset());
    if config.flush == FlushMode::Sync {
        // Everything that was not trusted was synced by recovery; what it noted beside that can
        // wait for the first flush.
        log.unsynced().dir(dir);
    }
    let leader_epoch = epochs.latest().unwrap_or(0);
    let opened = opened(log, found, epochs, epochs_changed);
    Ok((Opened { report, ..opened }, leader_epoch))
}

/// The text of a file; nothing when there is none or it is no text.
fn read_if_there(disk: &dyn Disk, path: &Path) -> Result<Option<String>, LogError> {
    match disk.read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
            Ok(None)
        }
        Err(error) => Err(error).at("read", path),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use klamm_protocol::records::{BatchBuilder, BatchOptions};
    use klamm_runtime::{SeededRng, TokioClock};

    use super::super::AppendOrigin;
    use super::*;
    use crate::disk::MemoryDisk;
    use crate::partition::{LogManager, LogManagerOptions};

    async fn open(disk: &MemoryDisk) -> LogManager {
        let clock = Arc::new(TokioClock::starting_at(0));
        let options = LogManagerOptions::new(vec!["/data".into()]);
        LogManager::open(Arc::new(disk.clone()), clock, Arc::new(SeededRng::new(1)), options).await.unwrap()
    }

    fn batch() -> Bytes {
        let mut batch = BatchBuilder::new(BatchOptions::default());
        batch.append(0, None, Some(b"value"), []).unwrap();
        batch.build().unwrap()
    }

    /// What is left of a partition with a record when the power went before its first flush was over, and what looks
    /// like it.
    #[tokio::test(start_paused = true)]
    async fn a_partition_is_unfinished_as_long_as_nothing_of_it_was_promised() {
        for (metadata, acknowledged, unfinished) in [
            (Some(""), false, true),
            (Some("\0\0\0\0"), false, true),
            (Some("version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAABw\n"), false, false),
            (Some(""), true, false),
            (None, false, false),
        ] {
            let disk = MemoryDisk::new();
            let manager = open(&disk).await;
            let partition =
                manager.create_partition("clicks", 0, Uuid::from_u128(7), LogConfig::default()).unwrap();
            let appended = partition.append(batch(), AppendOrigin::Client, 0).await.unwrap();
            if acknowledged {
                partition.wait_durable(appended.last_offset).await.unwrap();
            }
            drop((manager, partition));
            disk.kill();
            let path = Path::new("/data/clicks-0").join(PARTITION_METADATA);
            match metadata {
                Some(text) => disk.create(&path).unwrap().write_all_at(text.as_bytes(), 0).unwrap(),
                None => disk.remove(&path).unwrap(),
            }
            let manager = open(&disk).await;
            let partition = manager.partition("clicks", 0).unwrap();
            assert_eq!(partition.log_end_offset(), 1);
            assert_eq!(partition.is_unfinished(), unfinished, "{metadata:?} {acknowledged}");
            // Nothing is promised by looking at it.
            drop((manager, partition));
            disk.kill();
            let partition = open(&disk).await.partition("clicks", 0).unwrap();
            assert_eq!(partition.is_unfinished(), unfinished, "{metadata:?} {acknowledged}, again");
        }
    }
}
