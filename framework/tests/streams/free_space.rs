//! A disk that is almost full: nothing is processed and nothing fails.

use std::time::Duration;

use klamm::streams::{PauseReason, StreamsApp};
use klamm::testing::TestKit;

use crate::pipeline::{Pipeline, caught_up, topology, until};

#[klamm::test]
async fn nothing_is_processed_while_the_disk_is_almost_full(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    pipeline.feed(100).await;
    let first = topology().start(pipeline.config(1)).await.unwrap();
    caught_up(&first).await;
    first.close().await.unwrap();
    // No disk is that large.
    let full = topology().start(pipeline.config(1).min_free_bytes(u64::MAX)).await.unwrap();
    let reason = full.pause_reason().unwrap();
    let PauseReason::DiskFull { directory, free_bytes, min_free_bytes: u64::MAX } = &reason else {
        panic!("{reason}")
    };
    assert!(full.is_paused() && *free_bytes > 0);
    assert!(reason.to_string().contains(&directory.display().to_string()), "{reason}");
    pipeline.feed(100).await;
    full.resume();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(full.metrics().processed, 0, "whoever asks for it");
    full.close().await.unwrap();
    let off = topology().start(pipeline.config(1).min_free_bytes(0)).await.unwrap();
    caught_up(&off).await;
    assert_eq!(off.pause_reason(), None);
    off.pause();
    assert_eq!(off.pause_reason(), Some(PauseReason::Asked));
    pipeline.is_exact(&[&off]).await;
    off.close().await.unwrap();
}

/// A restore fills the disk as well as anything.
#[klamm::test]
async fn nothing_is_restored_while_the_disk_is_almost_full(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    pipeline.feed(100).await;
    let first = topology().start(pipeline.config(1)).await.unwrap();
    caught_up(&first).await;
    first.close().await.unwrap();
    let full = topology().start(pipeline.config(2).min_free_bytes(u64::MAX)).await.unwrap();
    until(|| full.tasks().iter().flat_map(|task| &task.stores).any(|store| store.left_to_restore > 0)).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(full.metrics().restored, 0);
    full.close().await.unwrap();
    let roomy = topology().start(pipeline.config(2)).await.unwrap();
    caught_up(&roomy).await;
    assert!(roomy.metrics().restored > 0);
    pipeline.is_exact(&[&roomy]).await;
    roomy.close().await.unwrap();
}

/// Only restores and records waited: what follows for others filled the disk to the last byte.
#[klamm::test]
async fn no_standby_is_written_while_the_disk_is_almost_full(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let configs = [1, 2, 2].map(|instance| pipeline.config(instance).standby_replicas(1).acceptable_lag(0));
    let [one, two, two_again] = configs;
    let first = topology().start(one).await.unwrap();
    pipeline.feed(500).await;
    caught_up(&first).await;
    let lacks = |app: &StreamsApp| app.standby_tasks().iter().filter_map(|standby| standby.lag).sum::<u64>();
    let full = topology().start(two.min_free_bytes(u64::MAX)).await.unwrap();
    until(|| lacks(&full) > 0).await;
    let before = lacks(&full);
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert!(lacks(&full) >= before, "{:?}", full.standby_tasks());
    full.close().await.unwrap();
    let roomy = topology().start(two_again).await.unwrap();
    until(|| roomy.standby_tasks().len() == 2 && lacks(&roomy) == 0).await;
    for app in [&first, &roomy] {
        caught_up(app).await;
    }
    pipeline.is_exact(&[&first, &roomy]).await;
    for app in [first, roomy] {
        app.close().await.unwrap();
    }
}
