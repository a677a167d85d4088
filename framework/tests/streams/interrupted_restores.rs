//! Restores that lose the ground under them: what they are about to read is deleted, or their disk takes nothing.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use klamm::client::admin::{ConfigChange, ConfigResource};
use klamm::client::testing::Answer;
use klamm::client::{ApiKey, ErrorCode, Record, TopicPartition};
use klamm::streams::{AfterFailure, StreamsApp, StreamsError};
use klamm::testing::TestKit;
use klamm_protocol::Records;
use klamm_protocol::messages::FetchRequest;
use klamm_protocol::messages::fetch::PartitionData;
use klamm_protocol::records::{BatchBuilder, BatchHeader, BatchOptions};
use klamm_runtime::SeededRng;

use crate::pipeline::{caught_up, until};
use crate::restoring::{APPLICATION, CHANGELOG, Model, PARTITIONS, RECORDS, Rig, left, rows};

/// Deletes what is in the changelog before the last `kept` records of each partition.
async fn delete_all_but(kit: &TestKit, kept: i64) {
    let changes =
        [(ConfigResource::topic(CHANGELOG), vec![ConfigChange::set("cleanup.policy", "compact,delete")])];
    let changed = kit.client().admin().alter_configs(&changes.into()).await.unwrap();
    assert!(changed.values().all(Result::is_ok), "{changed:?}");
    let partitions: Vec<_> = (0..PARTITIONS).map(|number| TopicPartition::new(CHANGELOG, number)).collect();
    let reader = kit.client().consumer().assign(partitions.clone()).start().await.unwrap();
    let ends = reader.handle().end_offsets(&partitions).await.unwrap();
    reader.close().await.unwrap();
    let before = ends.into_iter().map(|(partition, end)| (partition, end - kept)).collect();
    let deleted = kit.client().admin().delete_records(&before).await.unwrap();
    assert!(deleted.values().all(Result::is_ok), "{deleted:?}");
}

/// The last record of each partition stays, or nothing at all.
async fn what_is_deleted_meanwhile(kit: &TestKit, records: usize, value_bytes: usize, kept: i64) {
    let (mut rig, rng) = (Rig::new(kit).await, SeededRng::new(11));
    rig.write(&rng, records, value_bytes).await;
    let mut rest = Model::new();
    // What was fetched before is restored all the same.
    let delay = Duration::from_millis(if records < RECORDS { 300 } else { 80 });
    for partition in 0..PARTITIONS {
        let key = format!("last-{partition}");
        kit.send_record(Record::to(CHANGELOG).partition(partition).key(key.clone()).value("1")).await;
        rest.insert(key, "1".to_owned());
    }
    kit.faults().next(ApiKey::Fetch, 500, Answer::Delayed(delay));
    let app = rig.start(1).await;
    until(|| app.metrics().restored > 0).await;
    assert!(left(&app) > 0, "it is to be in the middle");
    delete_all_but(kit, kept).await;
    kit.faults().behave();
    caught_up(&app).await;
    rig.model = if kept > 0 { rest } else { Model::new() };
    rig.is_right(&[&app]).await;
    app.close().await.unwrap();
}

/// The restore went on where the changelog began by then: rows stayed whose deletions it had not read.
#[klamm::test]
async fn a_store_has_nothing_of_what_was_deleted_while_it_was_restored(kit: TestKit) {
    what_is_deleted_meanwhile(&kit, 2 * RECORDS, 2_000, 1).await;
}

#[klamm::test]
async fn a_store_that_is_written_row_by_row_has_nothing_of_it_either(kit: TestKit) {
    what_is_deleted_meanwhile(&kit, 8_000, 1_000, 1).await;
}

/// The restore waited for records that never came.
#[klamm::test]
async fn a_restore_ends_though_all_is_deleted_meanwhile(kit: TestKit) {
    what_is_deleted_meanwhile(&kit, 2 * RECORDS, 2_000, 0).await;
}

#[klamm::test]
async fn a_restore_row_by_row_ends_though_all_is_deleted_meanwhile(kit: TestKit) {
    what_is_deleted_meanwhile(&kit, 8_000, 1_000, 0).await;
}

/// Leaders that had ten other records at the beginning of their partition, and were followed by one that had not heard
/// of them; nor had its log come that far when it was asked for the next, but it has since.
fn lost_beginnings() -> Answer {
    let answered = Mutex::new(BTreeMap::new());
    let edit = move |part: &mut PartitionData| {
        let bytes = part.records.as_ref().and_then(Records::as_bytes);
        let Some(header) = bytes.and_then(|bytes| BatchHeader::parse(bytes).ok()) else { return };
        let mut answered = answered.lock().unwrap();
        let times: &mut u32 = answered.entry(part.partition_index).or_default();
        *times += 1;
        let mut batch = BatchBuilder::new(BatchOptions::default());
        match *times {
            1 => {
                for number in 0..10 {
                    let key = format!("lost-{number}");
                    batch.append(header.base_timestamp, Some(key.as_bytes()), Some(b"1"), []).unwrap();
                }
                part.records = Some(Records::Bytes(batch.build().unwrap()));
            }
            2 => {
                part.error_code = ErrorCode::OffsetOutOfRange.code();
                part.records = Some(Records::Bytes(Bytes::new()));
            }
            _ => {}
        }
    };
    Answer::edited::<FetchRequest>(move |answer| {
        answer.responses.iter_mut().flat_map(|topic| &mut topic.partitions).for_each(&edit);
    })
}

/// The restore went on behind the place that was not there for a moment, with rows that the changelog never had, and
/// without those that it has in their place.
#[klamm::test]
async fn a_store_has_nothing_of_what_its_changelog_lost_while_it_was_restored(kit: TestKit) {
    let (mut rig, rng) = (Rig::new(&kit).await, SeededRng::new(13));
    rig.write(&rng, 2_000, 10).await;
    kit.faults().always(ApiKey::Fetch, lost_beginnings());
    let app = rig.start(1).await;
    caught_up(&app).await;
    rig.is_right(&[&app]).await;
    app.close().await.unwrap();
}

/// Takes the names that files of rows are about to have.
fn block(rig: &Rig) {
    for partition in 0..PARTITIONS {
        let task = rig.directory.path().join("1").join(APPLICATION).join(format!("0_{partition}"));
        for number in 0..3_000 {
            std::fs::create_dir_all(task.join(format!("load-{number}.rows"))).unwrap();
        }
    }
}

/// Whatever `on_task_failure` said, a disk that took nothing during a restore ended the instance.
#[klamm::test]
async fn a_restore_that_cannot_be_written_is_a_failure_of_its_task(kit: TestKit) {
    let (mut rig, rng) = (Rig::new(&kit).await, SeededRng::new(12));
    rig.write(&rng, 2 * RECORDS, 10).await;
    block(&rig);
    let stopped = rig.start(1).await;
    let failure = tokio::time::timeout(Duration::from_secs(20), stopped.ended()).await.unwrap().unwrap_err();
    assert!(matches!(&*failure, StreamsError::Task { .. }), "{failure}");
    drop(stopped);
    let config = rig.config(1).on_task_failure(|_| AfterFailure::RestartTask(Duration::from_millis(100)));
    let app = rows().start(config).await.unwrap();
    let has_failed = |app: &StreamsApp, times| {
        let failing = app.failing_tasks();
        failing.len() == PARTITIONS as usize && failing.iter().all(|task| task.attempts >= times)
    };
    until(|| has_failed(&app, 2)).await;
    for partition in 0..PARTITIONS {
        let task = rig.directory.path().join("1").join(APPLICATION).join(format!("0_{partition}"));
        for number in 0..3_000 {
            std::fs::remove_dir(task.join(format!("load-{number}.rows"))).unwrap();
        }
    }
    caught_up(&app).await;
    rig.is_right(&[&app]).await;
    app.close().await.unwrap();
}
