//! Two log directories: how they are described, and what groups and new topics notice when the disk of one fails.
#![allow(clippy::unwrap_used)] // Helpers of tests fail like tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use klamm_broker::disk::{Calls, Disk, DiskCall};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::create_topics::CreatableTopic;
use klamm_protocol::messages::describe_log_dirs::{DescribableLogDirTopic, DescribeLogDirsResult};
use klamm_protocol::messages::{CreateTopicsRequest, DescribeLogDirsRequest, FindCoordinatorRequest};

use super::failing_directories::*;
use super::groups::commit;
use super::wire::*;

#[tokio::test(start_paused = true)]
async fn groups_that_are_kept_there_are_told_that_there_is_no_coordinator() {
    const UNAVAILABLE: i16 = ErrorCode::CoordinatorNotAvailable.code();
    let place = Place::filled().await;
    let (bad, good) = place.bad_and_good();
    let good_topic = place.in_dir(good).first().unwrap().clone();
    let (broker, mut wire) = place.start().await;
    let groups: Vec<String> = (0..8).map(|number| format!("g{number}")).collect();
    let find = FindCoordinatorRequest { coordinator_keys: vec!["g0".into()], ..Default::default() };
    assert_eq!(wire.ask(&find).await.coordinators[0].error_code, 0);
    for group in &groups {
        let committed = wire.ask_in(&commit(group, &good_topic, 1), 9).await;
        assert_eq!(committed.topics[0].partitions[0].error_code, 0);
    }
    let codes = async |wire: &mut Wire| {
        let mut codes = BTreeMap::new();
        for group in &groups {
            let request = commit(group, &good_topic, 2);
            let answer = wire.ask_in(&request, 9);
            let answer = tokio::time::timeout(Duration::from_secs(5), answer).await.expect("an answer");
            codes.insert(group.as_str(), answer.topics[0].partitions[0].error_code);
        }
        codes
    };
    place.break_down(bad, READ_ONLY);
    let at_run_time = codes(&mut wire).await;
    for code in [0, UNAVAILABLE] {
        assert!(at_run_time.values().any(|found| *found == code), "{at_run_time:?}");
    }
    assert!(at_run_time.values().all(|code| [0, UNAVAILABLE].contains(code)), "{at_run_time:?}");
    stop((broker, wire), false).await;
    place.disk.clear_faults();
    place.die(bad);
    let (broker, mut wire) = place.start().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(codes(&mut wire).await, at_run_time, "as before the start");
    stop((broker, wire), false).await;
    place.disk.clear_faults();
    let (_broker, mut wire) = place.start().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(codes(&mut wire).await.values().all(|code| *code == 0));
}

/// Every version, with what only the newer ones have.
#[tokio::test(start_paused = true)]
async fn log_directories_are_described_in_every_version() {
    let place = Place::filled().await;
    place.disk.limit("/one", 1 << 30);
    let (_broker, mut wire) = place.start().await;
    let bytes = |dir: &DescribeLogDirsResult| (dir.total_bytes, dir.usable_bytes);
    let asked = |name: &str, partitions: Vec<i32>| DescribableLogDirTopic {
        topic: name.into(),
        partitions,
        ..DescribableLogDirTopic::default()
    };
    let named_one = place.in_dir("/one").first().unwrap().clone();
    for version in 1..=5 {
        let all = DescribeLogDirsRequest { topics: None, ..DescribeLogDirsRequest::default() };
        let told = wire.ask_in(&all, version).await;
        assert_eq!(told.results.iter().map(|dir| &*dir.log_dir).collect::<Vec<_>>(), ["/one", "/two"]);
        for dir in &told.results {
            assert!(!dir.is_cordoned);
            assert_eq!((dir.error_code, named(dir)), (0, place.in_dir(&dir.log_dir)), "version {version}");
            for partition in dir.topics.iter().flat_map(|topic| &topic.partitions) {
                assert!(partition.partition_size > 60, "{partition:?}");
                assert_eq!((partition.offset_lag, partition.is_future_key), (0, false));
            }
        }
        let (total, usable) = bytes(&told.results[0]);
        match version {
            4.. => assert!(total == 1 << 30 && (1..total).contains(&usable), "{total} {usable}"),
            _ => assert_eq!((total, usable), (-1, -1)),
        }
        assert_eq!(bytes(&told.results[1]), (-1, -1), "its disk does not say");

        let topics = vec![asked(&named_one, vec![0, 7]), asked("none", vec![0]), asked("t1", vec![])];
        let some = DescribeLogDirsRequest { topics: Some(topics), ..DescribeLogDirsRequest::default() };
        let told = wire.ask_in(&some, version).await;
        let found: Vec<_> = told.results.iter().map(|dir| (named(dir), dir.error_code)).collect();
        assert_eq!(found, [(BTreeSet::from([named_one.clone()]), 0), (BTreeSet::new(), 0)]);
    }
}

/// A topic with many partitions meets the failure in the middle of its making.
#[tokio::test(start_paused = true)]
async fn a_topic_that_is_made_while_a_disk_fails_is_made_where_it_can_be() {
    let place = Place::filled().await;
    let (bad, good) = place.bad_and_good();
    for nth in 1..12 {
        let (broker, mut wire) = place.start().await;
        place.disk.fail(
            Calls::of(&[DiskCall::Create, DiskCall::CreateDir, DiskCall::Write])
                .on(&format!("{bad}/wide"))
                .nth(nth)
                .and_all_after(),
            IO_ERROR,
        );
        let name = format!("wide{nth}");
        let topic = CreatableTopic {
            name: name.as_str().into(),
            num_partitions: 6,
            replication_factor: 1,
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
        assert_eq!(wire.ask(&request).await.topics[0].error_code, 0, "nth {nth}");
        let found = wire.metadata(&[&name]).await.topics.remove(0);
        assert_eq!(found.partitions.len(), 6);
        stop((broker, wire), false).await;
        place.disk.clear_faults();
        // What was begun in the bad directory is not in the way.
        let (broker, mut wire) = place.start().await;
        for index in 0..6 {
            let partition = format!("{name}-{index}");
            let places = [bad, good].map(|dir| place.disk.exists(&Path::new(dir).join(&partition)));
            assert_ne!(places, [true, true], "{partition}, nth {nth}");
        }
        assert_eq!(wire.produce(&name, batch(&["x"])).await.error_code, 0, "nth {nth}");
        stop((broker, wire), true).await;
    }
}
