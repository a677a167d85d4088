//! What a start finds after crashes and damage: torn tails are cut, indexes rebuilt, damage in
//! acknowledged records refused.

use std::path::{Path, PathBuf};

use klamm_broker::disk::{Calls, Disk, DiskCall, MemoryDisk, Tear};
use klamm_broker::log::LogError;
use klamm_broker::partition::{AppendOrigin, Isolation, LogManagerOptions};
use klamm_protocol::records::BatchOptions;
use klamm_protocol::{ErrorCode, Uuid};

use super::support::*;

/// A directory with 30 acknowledged records in several segments, left by a crash or by a clean shutdown.
struct Left {
    _dir: tempfile::TempDir,
    data: Data,
    expected: Vec<(i64, String)>,
}

impl Left {
    async fn behind(clean: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = Data::in_files(dir.path());
        let (manager, partition) = data.open_partition().await;
        for number in 0..30 {
            produce(&partition, batch(&[&format!("{number:04}{}", "x".repeat(400))])).await;
        }
        let expected = read_all(&partition).await;
        assert_eq!(expected.len(), 30);
        if clean {
            manager.shutdown().await.unwrap();
        }
        Self { _dir: dir, data, expected }
    }

    fn disk(&self) -> &dyn Disk {
        &*self.data.disk
    }

    fn logs(&self) -> Vec<PathBuf> {
        let dir = self.data.partition_dir();
        files(self.disk(), &dir, ".log").iter().map(|name| dir.join(name)).collect()
    }

    fn last_log(&self) -> PathBuf {
        self.logs().pop().unwrap()
    }

    /// Puts the first bytes of a batch behind the acknowledged records: all but the last `torn`.
    fn append_torn(&self, torn: usize) {
        let file = self.disk().open(&self.last_log()).unwrap();
        let mut bytes = batch(&[&"y".repeat(400)]).to_vec();
        bytes[..8].copy_from_slice(&30_i64.to_be_bytes());
        file.write_all_at(&bytes[..bytes.len() - torn], file.size().unwrap()).unwrap();
    }

    /// Opens, expects the first `count` records, and that appends and reads go on from there.
    async fn expect(&self, count: usize) {
        let (_manager, partition) = self.data.open_partition().await;
        assert!(partition.offline().is_none(), "{:?}", partition.offline());
        assert_eq!(read_all(&partition).await, self.expected[..count]);
        for (offset, value) in &self.expected[..count] {
            let read = partition.read(*offset, 1, true, Isolation::ReadUncommitted).await.unwrap();
            let found = values(&whole_batches(read.slice.read_bytes().unwrap())[0]);
            assert!(found.contains(&(*offset, value.clone())));
        }
        let appended = produce(&partition, batch(&["next"])).await;
        assert_eq!(appended.base_offset, count as i64);
        assert_eq!(read_all(&partition).await.len(), count + 1);
    }

    /// Opens and expects the partition to be refused, with a message that holds these words.
    async fn expect_refused(&self, words: &[&str]) {
        for _ in 0..2 {
            let manager = self.data.open().await;
            let partition = manager.partition(TOPIC, 0).unwrap();
            let why = partition.offline().expect("the partition is offline").to_string();
            for word in words {
                assert!(why.contains(word), "{word:?} is not in {why:?}");
            }
            let append = partition.append(batch(&["x"]), AppendOrigin::Client, NOW_MS).await.unwrap_err();
            assert_eq!(append.error_code(), ErrorCode::KafkaStorageError);
            let read = partition.read(0, 1_000, true, Isolation::ReadUncommitted).await.unwrap_err();
            assert_eq!(read.error_code(), ErrorCode::KafkaStorageError);

            let other = manager.partition("other", 0).unwrap_or_else(|| {
                manager.create_partition("other", 0, Uuid::from_u128(9), self.data.config.clone()).unwrap()
            });
            produce(&other, batch(&["others serve"])).await;
            // Neither a crash nor a clean stop in between makes it forget.
            manager.housekeeping(NOW_MS).await;
            manager.shutdown().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_clean_start_reads_no_data() {
    let left = Left::behind(true).await;
    let (_manager, partition) = left.data.open_partition().await;
    let report = partition.recovery_report();
    assert_eq!((report.rebuilt_indexes, &report.cut), (0, &None));
    assert!(report.scanned_bytes < 1_200, "{report:?}");
    assert_eq!(read_all(&partition).await, left.expected);
    assert_eq!(partition.topic_id(), Uuid::from_u128(7));
}

#[tokio::test]
async fn a_crash_loses_nothing() {
    Left::behind(false).await.expect(30).await;
}

#[tokio::test]
async fn a_torn_tail_is_cut_to_the_last_whole_batch() {
    for torn in [1, 60, 61, 200, 400] {
        let left = Left::behind(false).await;
        left.append_torn(torn);
        left.expect(30).await;
    }
}

/// What was acknowledged is not a torn tail when it is missing.
#[tokio::test]
async fn a_file_that_lost_its_acknowledged_end_is_refused() {
    for clean in [false, true] {
        for lost in [1, 60, 61, 200, 400] {
            let left = Left::behind(clean).await;
            let file = left.disk().open(&left.last_log()).unwrap();
            file.set_len(file.size().unwrap() - lost).unwrap();
            left.expect_refused(&["(offset 29)", "this place had been synced", "synced-end-checkpoint"])
                .await;
        }
    }
}

#[tokio::test]
async fn garbage_and_zeros_behind_the_last_batch_are_cut() {
    for garbage in [vec![0_u8; 3_000], b"not a batch at all".to_vec(), vec![0x5A; 777]] {
        let left = Left::behind(false).await;
        let file = left.disk().open(&left.last_log()).unwrap();
        file.write_all_at(&garbage, file.size().unwrap()).unwrap();
        left.expect(30).await;
    }
}

#[tokio::test]
async fn a_flipped_byte_in_the_last_batch_is_refused() {
    for clean in [false, true] {
        let left = Left::behind(clean).await;
        let size = left.disk().open(&left.last_log()).unwrap().size().unwrap();
        flip(left.disk(), &left.last_log(), size - 100);
        left.expect_refused(&["(offset 29)", "this place had been synced", "backup"]).await;
    }
}

#[tokio::test]
async fn a_flipped_byte_in_the_middle_is_refused() {
    // Payload, checksum, length, base offset, in the last segment and in an earlier one.
    for (segment, within) in [(0, 200), (1, 19), (1, 10), (2, 7), (usize::MAX, 200)] {
        let left = Left::behind(false).await;
        let log = left.logs().get(segment).cloned().unwrap_or(left.last_log());
        if segment != usize::MAX {
            // Segments below the recovery point are not read at a start.
            left.disk().remove(&left.data.dirs[0].join("recovery-point-offset-checkpoint")).unwrap();
            left.disk().remove(&left.data.partition_dir().join("synced-end-checkpoint")).unwrap();
        }
        flip(left.disk(), &log, within);
        let name = log.file_name().unwrap().to_str().unwrap();
        left.expect_refused(&[name, "damaged at position 0", "truncate --size=0", "backup"]).await;
    }
}

#[tokio::test]
async fn a_missing_segment_is_refused() {
    let left = Left::behind(true).await;
    left.disk().remove(&left.logs()[1]).unwrap();
    left.expect_refused(&["missing or misplaced"]).await;

    let left = Left::behind(true).await;
    left.disk().remove(&left.last_log()).unwrap();
    left.expect_refused(&["had been synced up to offset 30"]).await;

    let left = Left::behind(true).await;
    for log in left.logs() {
        left.disk().remove(&log).unwrap();
    }
    left.expect_refused(&["had been synced up to offset 30"]).await;
}

/// A log that Kafka has compacted is opened whatever its topic's settings are today, as in Kafka. What it compacted it
/// has written down; behind that a gap is a segment that is missing.
#[tokio::test]
async fn gaps_of_a_compaction_are_no_damage_and_others_are() {
    // Three records a segment or more: the second one ends below 16.
    for (compacted_to, opens) in [(Some(16), true), (Some(8), false), (None, false)] {
        let left = Left::behind(true).await;
        let logs = left.logs();
        assert!(
            logs[1].ends_with("00000000000000000008.log") && logs[2].ends_with("00000000000000000016.log")
        );
        left.disk().remove(&logs[1]).unwrap();
        if let Some(offset) = compacted_to {
            let path = left.data.dirs[0].join("cleaner-offset-checkpoint");
            left.disk().write_atomically(&path, &format!("0\n1\n{TOPIC} 0 {offset}\n")).unwrap();
        }
        if !opens {
            left.expect_refused(&["00000000000000000016.log", "is missing"]).await;
            continue;
        }
        let (_manager, partition) = left.data.open_partition().await;
        assert!(partition.offline().is_none(), "{:?}", partition.offline());
        let expected: Vec<_> =
            left.expected.iter().filter(|(offset, _)| !(8..16).contains(offset)).cloned().collect();
        assert_eq!(read_all(&partition).await, expected);
    }
}

/// Where gaps are allowed, a damaged base offset made one: what followed was taken for a torn tail behind everything
/// that had been synced, and cut off, or the log went on at a far offset.
#[tokio::test]
async fn a_gap_that_damage_made_is_no_gap() {
    // After a clean shutdown nothing is cut, and not everything is looked at: readers are told then.
    for (clean, back) in [(true, 0), (false, 0), (false, 1), (false, 2)] {
        let dir = tempfile::tempdir().unwrap();
        let mut data = Data::in_files(dir.path());
        data.config.compact = true;
        data.config.index_interval_bytes = 4_096;
        let (manager, partition) = data.open_partition().await;
        let mut positions = Vec::new();
        for number in 0..8 {
            positions.push(partition.size_bytes());
            let record = [(NOW_MS, Some("key"), format!("{number:0100}"))];
            let records = record.iter().map(|(at, key, value)| (*at, *key, value.as_str()));
            produce(&partition, build(BatchOptions::default(), records)).await;
        }
        if clean {
            manager.shutdown().await.unwrap();
        }
        drop((manager, partition));
        // A high bit of a base offset, which no checksum covers.
        let log = data.partition_dir().join("00000000000000000000.log");
        flip(&*data.disk, &log, positions[positions.len() - 1 - back] + 5);
        let (_manager, partition) = data.open_partition().await;
        let refused = partition.offline().map(|why| why.to_string());
        let what =
            format!("clean {clean}, {back} before the last: {refused:?}, end {}", partition.log_end_offset());
        assert!(refused.is_some_and(|why| why.contains("is damaged at position")), "{what}");
    }
}

/// The segments behind it were served as if the log had never begun before.
#[tokio::test]
async fn a_missing_first_segment_is_refused_by_its_name() {
    let left = Left::behind(true).await;
    let first = left.logs().remove(0);
    let bytes = left.disk().read_to_vec(&first).unwrap();
    left.disk().remove(&first).unwrap();
    let words = ["00000000000000000008.log begins at offset 8", "is missing", "begins at offset 0"];
    left.expect_refused(&words).await;
    // Nor does a crash behind a start that was clean.
    for _ in 0..2 {
        let manager = left.data.open().await;
        assert!(manager.partition(TOPIC, 0).unwrap().offline().is_some());
    }
    left.disk().create(&first).unwrap().write_all_at(&bytes, 0).unwrap();
    left.expect(30).await;
    let noted = left.data.dirs[0].join("lost-start-checkpoint");
    assert_eq!(left.disk().read_to_string(&noted).unwrap(), "0\n0\n");

    // Where nobody wrote down where the log starts there is nothing to say: Kafka does so only for some logs.
    for kept in [Some("0\n1\nother 0 5\n"), None] {
        let left = Left::behind(true).await;
        left.disk().remove(&left.logs().remove(0)).unwrap();
        let starts = left.data.dirs[0].join("log-start-offset-checkpoint");
        match kept {
            Some(text) => left.disk().write_atomically(&starts, text).unwrap(),
            None => left.disk().remove(&starts).unwrap(),
        }
        let (_manager, partition) = left.data.open_partition().await;
        assert!(partition.offline().is_none(), "{:?}", partition.offline());
        assert!(partition.log_start_offset() > 0);
    }
}

/// Retention removes the files first and writes down later where the log starts.
#[tokio::test]
async fn a_log_whose_retention_was_cut_off_starts() {
    for (clean_before, deleted_records) in [(true, false), (true, true), (false, false), (false, true)] {
        let disk = MemoryDisk::new();
        let mut data = Data::in_memory(&disk);
        let (manager, partition) = data.open_partition().await;
        for number in 0..40 {
            produce(&partition, batch(&[&format!("{number:0500}")])).await;
        }
        manager.housekeeping(NOW_MS).await;
        if clean_before {
            manager.shutdown().await.unwrap();
        }
        drop((manager, partition));
        let kept_bytes = if deleted_records { -1 } else { 8_192 };
        data.config.retention_bytes = kept_bytes;
        let (manager, partition) = data.open_partition().await;
        if deleted_records {
            partition.delete_records(25).await.unwrap();
        }
        let checkpoint = Calls::of(&[DiskCall::Create]).on("log-start-offset-checkpoint");
        disk.fail(checkpoint.and_all_after(), std::io::ErrorKind::Other);
        manager.housekeeping(NOW_MS).await;
        let start = partition.log_start_offset();
        assert!(start > 0);
        drop((manager, partition));
        disk.crash(Tear::Prefix(1));
        let (_manager, partition) = data.open_partition().await;
        assert!(partition.offline().is_none(), "{:?}", partition.offline());
        let from = read_all(&partition).await.first().unwrap().0;
        assert!(from <= start && partition.log_end_offset() == 40, "{from} {start}");
    }
}

#[tokio::test]
async fn missing_short_and_damaged_indexes_are_rebuilt() {
    for clean in [false, true] {
        for suffix in [".index", ".timeindex"] {
            for damage in ["missing", "short", "empty", "odd", "garbage"] {
                let left = Left::behind(clean).await;
                let dir = left.data.partition_dir();
                for name in files(left.disk(), &dir, suffix) {
                    let path = dir.join(name);
                    let file = left.disk().open(&path).unwrap();
                    let size = file.size().unwrap();
                    match damage {
                        "missing" => left.disk().remove(&path).unwrap(),
                        "short" => file.set_len(size / 24 * 12).unwrap(),
                        "empty" => file.set_len(0).unwrap(),
                        "odd" => file.set_len(size + 3).unwrap(),
                        _ => file.write_all_at(&vec![0xFF; size as usize], 0).unwrap(),
                    }
                }
                left.expect(30).await;
            }
        }
    }
}

#[tokio::test]
async fn the_rebuilt_indexes_are_the_ones_that_were_there() {
    let left = Left::behind(true).await;
    let dir = left.data.partition_dir();
    let read = |suffix| -> Vec<(String, Vec<u8>)> {
        let names = files(left.disk(), &dir, suffix);
        names
            .into_iter()
            .map(|name| (name.clone(), left.disk().read_to_vec(&dir.join(name)).unwrap()))
            .collect()
    };
    let before = (read(".index"), read(".timeindex"));
    for (name, _) in before.0.iter().chain(&before.1) {
        left.disk().remove(&dir.join(name)).unwrap();
    }
    let (manager, _partition) = left.data.open_partition().await;
    manager.shutdown().await.unwrap();
    assert_eq!((read(".index"), read(".timeindex")), before);
}

#[tokio::test]
async fn leftovers_of_deletion_and_compaction_are_tidied() {
    let left = Left::behind(false).await;
    let dir = left.data.partition_dir();
    let bytes = left.disk().read_to_vec(&left.logs()[1]).unwrap();
    let second = left.logs()[1].file_name().unwrap().to_str().unwrap().to_owned();
    let write = |name: &str, bytes: &[u8]| {
        left.disk().create(&dir.join(name)).unwrap().write_all_at(bytes, 0).unwrap();
    };
    write("00000000000000000099.log.deleted", b"old");
    write("00000000000000000099.log.cleaned", b"half");
    write("00000000000000000077.index", b"orphan!!");
    // A compaction that had replaced the second segment, but for the rename.
    write(&format!("{second}.swap"), &bytes);
    left.disk().remove(&left.logs()[1]).unwrap();
    left.expect(30).await;
    for suffix in [".deleted", ".cleaned", ".swap", "77.index"] {
        assert_eq!(files(left.disk(), &dir, suffix), [""; 0], "{suffix}");
    }
}

#[tokio::test]
async fn one_directory_serves_one_broker() {
    let left = Left::behind(true).await;
    let manager = left.data.open().await;
    let error = left.data.try_open().await.unwrap_err();
    assert!(matches!(error, LogError::Locked { .. }), "{error}");
    assert!(error.to_string().contains(".lock"), "{error}");
    drop(manager);
    left.data.open().await;
}

#[tokio::test]
async fn a_directory_of_another_node_or_cluster_is_refused() {
    let disk = MemoryDisk::new();
    let data = Data::in_memory(&disk);
    let first = data.open().await.cluster_id().to_owned();
    assert_eq!(first.len(), 22);
    assert_eq!(data.open().await.cluster_id(), first, "kept over restarts");
    for (node_id, cluster_id) in [(2, None), (1, Some("another"))] {
        let options = LogManagerOptions {
            node_id,
            cluster_id: cluster_id.map(str::to_owned),
            ..LogManagerOptions::new(data.dirs.clone())
        };
        let clock = std::sync::Arc::new(klamm_runtime::TokioClock::starting_at(NOW_MS));
        let rng = std::sync::Arc::new(klamm_runtime::SeededRng::new(1));
        let opened = klamm_broker::partition::LogManager::open(data.disk.clone(), clock, rng, options).await;
        assert!(opened.unwrap_err().to_string().contains("belongs to node 1 of cluster"));
    }
}

#[tokio::test]
async fn several_log_dirs_share_the_partitions_and_a_double_is_refused() {
    let disk = MemoryDisk::new();
    let mut data = Data::in_memory(&disk);
    data.dirs.push("/more".into());
    let manager = data.open().await;
    for index in 0..6 {
        let partition =
            manager.create_partition(TOPIC, index, Uuid::from_u128(1), data.config.clone()).unwrap();
        produce(&partition, batch(&["x"])).await;
    }
    assert!(manager.create_partition(TOPIC, 3, Uuid::from_u128(1), data.config.clone()).is_err());
    for dir in &data.dirs {
        assert_eq!(disk.read_dir(dir).unwrap().iter().filter(|entry| entry.is_dir).count(), 3);
    }
    manager.shutdown().await.unwrap();
    drop(manager);
    let manager = data.open().await;
    let found: Vec<_> = manager.partitions().iter().map(|partition| partition.index()).collect();
    assert_eq!(found, [0, 1, 2, 3, 4, 5]);
    drop(manager);
    // One that never held anything is in nobody's way.
    let names = ["/more/clicks-0", "/data/clicks-0"].map(Path::new);
    names.iter().for_each(|path| disk.create_dir_all(path).unwrap());
    let manager = data.open().await;
    assert_eq!(read_all(&manager.partition(TOPIC, 0).unwrap()).await.len(), 1);
    drop(manager);
    let [kept, gone] = if disk.exists(names[0]) { names } else { [names[1], names[0]] };
    assert!(!disk.exists(gone));
    disk.create_dir_all(gone).unwrap();
    for entry in disk.read_dir(kept).unwrap() {
        let bytes = disk.read_to_vec(&kept.join(&entry.name)).unwrap();
        disk.replace(&gone.join(&entry.name), &bytes).unwrap();
    }
    let refused = data.try_open().await.map(drop).unwrap_err().to_string();
    assert!(refused.contains("is also in"), "{refused}");
}

#[tokio::test]
async fn a_deleted_topic_is_gone_and_its_name_is_free() {
    let disk = MemoryDisk::new();
    let data = Data::in_memory(&disk);
    let (manager, partition) = data.open_partition().await;
    for _ in 0..20 {
        produce(&partition, batch(&["x"])).await;
    }
    manager.housekeeping(NOW_MS).await;
    assert!(manager.delete_partition(TOPIC, 0).unwrap());
    assert!(!manager.delete_partition(TOPIC, 0).unwrap());
    assert!(partition.append(batch(&["x"]), AppendOrigin::Client, NOW_MS).await.is_err());
    assert_eq!(read_all(&partition).await.len(), 20, "a fetch under way may finish");

    let again = manager.create_partition(TOPIC, 0, Uuid::from_u128(8), data.config.clone()).unwrap();
    produce(&again, batch(&["new"])).await;
    // The checkpoint of the deleted topic must not make the new one look short.
    disk.crash(Tear::None);
    drop(manager);
    let (_manager, partition) = data.open_partition().await;
    assert!(partition.offline().is_none(), "{:?}", partition.offline());
    assert_eq!(partition.topic_id(), Uuid::from_u128(8));
    assert_eq!(read_all(&partition).await, [(0, "new".to_owned())]);
    assert_eq!(files(&disk, Path::new("/data"), "-delete"), [""; 0]);
}

#[tokio::test]
async fn the_files_are_those_of_kafka() {
    let left = Left::behind(true).await;
    let dir = left.data.partition_dir();
    let text = |path: &Path| left.disk().read_to_string(path).unwrap();
    assert_eq!(text(&dir.join("leader-epoch-checkpoint")), "0\n1\n0 0\n");
    assert_eq!(
        text(&dir.join("partition.metadata")),
        format!("version: 0\ntopic_id: {}\n", Uuid::from_u128(7))
    );
    let root = &left.data.dirs[0];
    assert_eq!(text(&root.join("recovery-point-offset-checkpoint")), "0\n1\nclicks 0 30\n");
    assert_eq!(text(&root.join("replication-offset-checkpoint")), "0\n1\nclicks 0 30\n");
    assert_eq!(text(&root.join("log-start-offset-checkpoint")), "0\n1\nclicks 0 0\n");
    assert!(left.disk().exists(&root.join(".kafka_cleanshutdown")));
    assert!(text(&root.join("meta.properties")).starts_with("version=1\ncluster.id="));
    let names = files(left.disk(), &dir, "");
    assert_eq!(
        names[..3],
        ["00000000000000000000.index", "00000000000000000000.log", "00000000000000000000.timeindex"]
    );
    assert!(names.contains(&"00000000000000000030.snapshot".to_owned()), "{names:?}");
}
