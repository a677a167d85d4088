//! What is left of a state directory after somebody, or the disk, was at it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use klamm::client::testing::Answer;
use klamm::client::{ApiKey, Record};
use klamm::streams::{Consumed, Materialized, StreamsApp, StreamsBuilder, Topology};
use klamm::testing::TestKit;
use klamm_runtime::{Rng, SeededRng};

use crate::pipeline::{APPLICATION, PARTITIONS, Pipeline, active, caught_up, topology, until};

/// The files of one task's database.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.is_file());
    files.sort();
    files
}

type Harm = (&'static str, fn(&Path));

/// What may have happened to a file.
const HARMS: [Harm; 5] = [
    ("is gone", |file| std::fs::remove_file(file).unwrap()),
    ("is empty", |file| std::fs::write(file, "").unwrap()),
    ("is cut in half", |file| {
        let content = std::fs::read(file).unwrap();
        std::fs::write(file, &content[..content.len() / 2]).unwrap();
    }),
    ("has other bytes in the beginning", |file| {
        let mut content = std::fs::read(file).unwrap();
        content.iter_mut().take(64).for_each(|byte| *byte ^= 0x55);
        std::fs::write(file, content).unwrap();
    }),
    ("is something else", |file| {
        let content = std::fs::read(file).unwrap();
        std::fs::write(file, vec![0x55; content.len()]).unwrap();
    }),
];

/// Only what RocksDB calls a corruption was put aside: without its manifest, or with half of it, the application did
/// not start any more.
#[klamm::test]
async fn whatever_file_is_damaged_the_state_is_built_anew(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let app = topology().start(pipeline.config(1)).await.unwrap();
    pipeline.feed(100).await;
    caught_up(&app).await;
    app.close().await.unwrap();
    let states = pipeline.directory.path().join("1").join(APPLICATION);
    let whole = pipeline.directory.path().join("whole");
    copy(&states, &whole);
    let task =
        std::fs::read_dir(&states).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir());
    let task = task.unwrap();
    let mut wrong = Vec::new();
    for file in files(&task) {
        for (what, harm) in HARMS {
            std::fs::remove_dir_all(&states).unwrap();
            copy(&whole, &states);
            harm(&file);
            let case = format!("{} {what}", file.file_name().unwrap().display());
            let app = topology().start(pipeline.config(1)).await.unwrap();
            // What is damaged inside is found when it is read.
            pipeline.feed(7).await;
            let outcome = tokio::time::timeout(Duration::from_secs(20), app.caught_up()).await;
            match outcome {
                Err(_) => wrong.push(format!("{case}: stuck, {app:?}")),
                Ok(Err(error)) => wrong.push(format!("{case}: {error}")),
                Ok(Ok(())) => {
                    let store = app.store::<String, i64>("counts").unwrap();
                    let found = store.all().await.map(|all| all.into_iter().collect());
                    match found {
                        Ok(found) if pipeline.counts() == found => {}
                        other => wrong.push(format!("{case}: {other:?}")),
                    }
                }
            }
            app.close().await.ok();
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

/// A table that is joined when another one's cache is flushed: only damage that was found by a record was put aside.
#[klamm::test]
async fn damage_that_a_flush_finds_is_put_aside_too(kit: TestKit) {
    let pipeline = Pipeline::new(&kit).await;
    for topic in ["L", "R"] {
        kit.create_topic(topic, 1).await;
    }
    let tables = || {
        let mut streams = StreamsBuilder::new();
        let left = streams.table::<String, String>("L");
        let right = streams.table::<String, String>("R");
        left.join(&right, |l, r| format!("{l}{r}")).materialize("joined").to_stream().to("echo");
        streams.build().unwrap()
    };
    let app = tables().start(pipeline.config(1)).await.unwrap();
    for topic in ["L", "R"] {
        kit.send(topic, "k", "1").await;
    }
    caught_up(&app).await;
    app.close().await.unwrap();
    let task = pipeline.directory.path().join("1").join(APPLICATION).join("0_0");
    for file in files(&task) {
        if file.extension().is_some_and(|extension| extension == "sst") {
            HARMS[3].1(&file);
        }
    }
    let app = tables().start(pipeline.config(1)).await.unwrap();
    kit.send("L", "k", "2").await;
    caught_up(&app).await;
    let joined = app.store::<String, String>("joined").unwrap();
    assert_eq!(joined.get("k".to_owned()).await.unwrap(), Some("21".to_owned()));
    app.close().await.unwrap();
}

#[klamm::test]
async fn an_application_is_closed_in_the_middle_of_a_restore(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let app = topology().start(pipeline.config(1)).await.unwrap();
    pipeline.feed(100).await;
    caught_up(&app).await;
    app.close().await.unwrap();
    for exactly_once in [false, true] {
        let config = || match exactly_once {
            true => pipeline.config(2).exactly_once(),
            false => pipeline.config(2),
        };
        kit.faults().always(ApiKey::Fetch, Answer::Hang);
        let app = topology().start(config()).await.unwrap();
        until(|| app.metrics().tasks == 4).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let closed = tokio::time::timeout(Duration::from_secs(30), app.close()).await;
        closed.expect("it is closed").unwrap();
        kit.faults().behave().disconnect();
        let app = topology().start(config()).await.unwrap();
        caught_up(&app).await;
        pipeline.counts_are_right(&[&app]).await;
        app.close().await.unwrap();
        std::fs::remove_dir_all(pipeline.directory.path().join("2")).unwrap();
    }
}

/// Versions of rows are looked up when another one comes.
fn versions() -> Topology {
    let mut streams = StreamsBuilder::new();
    let versions = Materialized::named("versions").versioned(Duration::from_secs(3_600));
    streams.table_with::<String, String>("users", Consumed::default(), versions);
    streams.build().unwrap()
}

/// What is inside of a file is looked at by nobody when it is opened: a standby that met damage later was opened again
/// as it was, and met it again, for ever.
#[klamm::test]
async fn a_standby_that_meets_damage_is_built_anew(kit: TestKit) {
    let pipeline = Pipeline::new(&kit).await;
    kit.create_topic("users", 1).await;
    let rng = SeededRng::new(13);
    let write = async || {
        let producer = kit.client().producer().linger(Duration::from_millis(5)).build().unwrap();
        for number in 0..2_000 {
            let value: String = (0..12).map(|_| format!("{:x}", rng.next_u64())).collect();
            let record = Record::to("users").key(format!("k{number}")).value(value);
            drop(producer.enqueue(record).await.unwrap());
        }
        producer.close().await.unwrap();
    };
    let start =
        async |instance| versions().start(pipeline.config(instance).standby_replicas(1)).await.unwrap();
    let follows = |app: &StreamsApp| app.standby_tasks().iter().any(|standby| standby.lag == Some(0));
    let first = start(1).await;
    write().await;
    caught_up(&first).await;
    let second = start(2).await;
    until(|| follows(&second)).await;
    second.close().await.unwrap();
    let states = pipeline.directory.path().join("2").join(APPLICATION);
    for file in files(&states.join("0_0")) {
        if file.extension().is_some_and(|extension| extension == "sst") {
            let mut content = std::fs::read(&file).unwrap();
            let middle = content.len() / 4..content.len() / 2;
            content[middle].iter_mut().for_each(|byte| *byte ^= 0x55);
            std::fs::write(&file, content).unwrap();
        }
    }
    write().await;
    caught_up(&first).await;
    let second = start(2).await;
    until(|| follows(&second)).await;
    assert!(states.join("0_0.damaged-1").exists());
    first.close().await.unwrap();
    until(|| second.metrics().tasks > 0).await;
    caught_up(&second).await;
    let found = second.store::<String, String>("versions").unwrap().all().await.unwrap();
    assert_eq!(found.len(), 2_000);
    second.close().await.unwrap();
}

/// What was deleted by hand under a running application is there again, from the changelogs.
#[klamm::test]
async fn a_state_directory_that_is_deleted_under_an_application_is_built_anew(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let app = topology().start(pipeline.config(1)).await.unwrap();
    pipeline.feed(100).await;
    caught_up(&app).await;
    std::fs::remove_dir_all(pipeline.directory.path().join("1")).unwrap();
    pipeline.feed(100).await;
    caught_up(&app).await;
    // Tasks that go to another one and come back are flushed meanwhile.
    let other = topology().start(pipeline.config(2)).await.unwrap();
    until(|| app.metrics().tasks == 2 && other.metrics().tasks == 2).await;
    pipeline.feed(100).await;
    caught_up(&app).await;
    caught_up(&other).await;
    other.close().await.unwrap();
    pipeline.feed(100).await;
    caught_up(&app).await;
    pipeline.is_exact(&[&app]).await;
    app.close().await.unwrap();
    let app = topology().start(pipeline.config(1)).await.unwrap();
    caught_up(&app).await;
    pipeline.is_exact(&[&app]).await;
    app.close().await.unwrap();
}

/// State that could not say how far it is was told of as if it were all there, and tasks moved to it at once.
#[klamm::test]
async fn damaged_state_is_not_preferred(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let first = topology().start(pipeline.config(1)).await.unwrap();
    pipeline.feed(500).await;
    caught_up(&first).await;
    first.close().await.unwrap();
    for task in 0..PARTITIONS {
        let task = pipeline.directory.path().join("1").join(APPLICATION).join(format!("0_{task}"));
        for file in std::fs::read_dir(task).unwrap().map(|entry| entry.unwrap().path()) {
            if file.extension().is_some_and(|extension| extension == "sst") {
                let mut content = std::fs::read(&file).unwrap();
                content.iter_mut().take(64).for_each(|byte| *byte ^= 0x55);
                std::fs::write(&file, content).unwrap();
            }
        }
    }
    let other = topology().start(pipeline.config(2).acceptable_lag(0).max_warmup_replicas(4)).await.unwrap();
    caught_up(&other).await;
    let again = topology().start(pipeline.config(1).acceptable_lag(0).max_warmup_replicas(4)).await.unwrap();
    until(|| active(&again) == 2 && active(&other) == 2).await;
    caught_up(&again).await;
    caught_up(&other).await;
    assert_eq!(again.metrics().restored, 0, "it was read before the tasks moved");
    pipeline.is_exact(&[&again, &other]).await;
    again.close().await.unwrap();
    other.close().await.unwrap();
}
