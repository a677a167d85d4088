//! A disk that fails while the metadata is written down as a snapshot: the log has all of it, so the broker goes on as
//! long as the disk takes anything else.

use std::time::Duration;

use klamm_broker::disk::{Calls, DiskCall, Failure, Tear};

use super::metadata_snapshots::{Told, World, check, work};

const IO_ERROR: Failure = Failure::Os(5);
const SNAPSHOT: &str = ".checkpoint.tmp";

/// It was a warning, and tried again with every kilobyte of metadata.
#[tokio::test(start_paused = true)]
async fn a_snapshot_that_fails_on_the_disk_is_the_last_and_everything_else_goes_on() {
    let (world, mut told) = (World::default(), Told::default());
    let (broker, mut wire) = world.start().await;
    world.disk.fail(Calls::of(&[DiskCall::Write]).on(SNAPSHOT).and_all_after(), IO_ERROR);
    world.disk.start_journal();
    work(&mut wire, &mut told, 0..60).await;
    assert!(told.open.is_empty(), "commands go on: {told:?}");
    let begun = || {
        let calls = world.disk.journal().into_iter();
        calls
            .filter(|(call, path)| *call == DiskCall::Create && path.to_string_lossy().ends_with(SNAPSHOT))
            .count()
    };
    assert_eq!((begun(), world.files(".checkpoint").len()), (1, 0));
    world.disk.clear_faults();
    work(&mut wire, &mut told, 60..90).await;
    assert_eq!(begun(), 1, "not before the next start");
    drop((wire, broker));
    tokio::time::sleep(Duration::from_millis(1)).await;
    world.disk.crash(Tear::None);
    let (_broker, mut wire) = world.start().await;
    check(&mut wire, &told, "without snapshots").await;
    work(&mut wire, &mut told, 200..230).await;
    assert_eq!(world.files(".checkpoint").len(), 2);
}

/// Nothing else of the directory need be written at that moment: it is asked.
#[tokio::test(start_paused = true)]
async fn a_snapshot_that_fails_on_a_failed_disk_takes_its_directory_offline() {
    let rarely = Some(3_600_000);
    let (world, mut told) = (World { housekeeping_ms: rarely, ..World::default() }, Told::default());
    let (broker, mut wire) = world.start().await;
    for path in [SNAPSHOT, "log-start-offset-checkpoint"] {
        world.disk.fail(Calls::of(&[DiskCall::Write]).on(path).and_all_after(), IO_ERROR);
    }
    let gave_up = tokio::select! {
        biased;
        () = broker.gave_up() => true,
        () = work(&mut wire, &mut told, 0..60) => {
            tokio::time::timeout(Duration::from_secs(1), broker.gave_up()).await.is_ok()
        }
    };
    assert!(gave_up, "the only directory is offline, and the broker stops");
    let _ = broker.shutdown().await;
    drop((wire, broker));
    tokio::time::sleep(Duration::from_millis(1)).await;
    world.disk.crash(Tear::None);
    let (_broker, mut wire) = world.start().await;
    check(&mut wire, &told, "after the repair").await;
}
