//! State directories as a kill leaves them between the slices of a commit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use klamm::client::Record;
use klamm::store::{StateStore, StoreMemory, TaskDatabase};
use klamm::streams::{StreamsApp, StreamsBuilder, StreamsConfig, Topology};
use klamm::testing::TestKit;

use crate::pipeline::{SESSION, caught_up, on_real_time};

const APPLICATION: &str = "cut-off";
const ROWS: u64 = 20_000;

/// A table, and how many of its rows there are of each kind.
fn kinds() -> Topology {
    let mut streams = StreamsBuilder::new();
    let rows = streams.table::<String, String>("rows");
    rows.group_by(|_, value| (value[..1].to_owned(), 1_i64)).count("kinds");
    streams.build().unwrap()
}

fn config(kit: &TestKit, directory: &Path, exactly_once: bool) -> StreamsConfig {
    let config = StreamsConfig::new(APPLICATION, kit.bootstrap())
        .client(kit.client().clone())
        .state_dir(directory)
        .store_memory(StoreMemory::new(3 << 20))
        .cache_bytes(64 << 20)
        .commit_interval(Duration::from_millis(1_500))
        .session_timeout(SESSION);
    if exactly_once { config.exactly_once() } else { config }
}

/// What the rows are after so many changes, and their kinds.
fn row(change: u64) -> (String, Option<String>) {
    let key = format!("key-{:05}", change.wrapping_mul(7_919) % ROWS);
    let mixed = change.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let value = (!mixed.is_multiple_of(5)).then(|| {
        let noise: String =
            (0..12).map(|n| format!("{:016x}", mixed.rotate_left(n * 5) ^ u64::from(n))).collect();
        format!("{}{noise}", mixed % 7)
    });
    (key, value)
}

async fn feed(kit: &TestKit, changes: std::ops::Range<u64>, rows: &mut BTreeMap<String, String>) {
    let producer = kit.client().producer().linger(Duration::from_millis(5)).build().unwrap();
    for change in changes {
        let (key, value) = row(change);
        let record = Record::to("rows").key(key.clone());
        match value {
            Some(value) => {
                drop(producer.enqueue(record.value(value.clone())).await.unwrap());
                rows.insert(key, value);
            }
            None => {
                drop(producer.enqueue(record).await.unwrap());
                rows.remove(&key);
            }
        }
    }
    producer.close().await.unwrap();
}

/// At least once, a member that the group gave up counts changes again; what the rows are is right even so.
async fn is_right(app: &StreamsApp, rows: &BTreeMap<String, String>, exactly_once: bool) {
    let found = app.store::<String, String>("rows-table").unwrap().all().await.unwrap();
    let found: BTreeMap<String, String> = found.into_iter().collect();
    let wrong = found.iter().find(|(key, value)| rows.get(*key) != Some(value));
    assert_eq!((found.len(), wrong), (rows.len(), None));
    if !exactly_once {
        return;
    }
    let mut kinds: BTreeMap<String, i64> = BTreeMap::new();
    rows.values().for_each(|value| *kinds.entry(value[..1].to_owned()).or_default() += 1);
    let found = app.store::<String, i64>("kinds").unwrap().all().await.unwrap();
    let found: BTreeMap<String, i64> = found.into_iter().filter(|(_, count)| *count != 0).collect();
    assert_eq!(found, kinds);
}

/// The manifest first: whatever it names is there, or the copy is no state that a kill leaves. Nothing where the task
/// has not begun yet.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let Ok(files) = std::fs::read_dir(from) else { return };
    let mut files: Vec<PathBuf> = files.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort_by_key(|file| file.extension().is_some_and(|extension| extension == "sst"));
    for file in files {
        let name = file.file_name().unwrap();
        if file.is_file() && name != "LOCK" {
            std::fs::copy(&file, to.join(name)).ok();
        }
    }
}

/// How many rows are there beyond what the position says, if it can be opened.
fn opens(task: &Path) -> Option<(i64, usize)> {
    let probe = task.with_extension("probe");
    copy(task, &probe);
    let stores = ["rows-table", "kinds"];
    let opened = TaskDatabase::open_when_free(&probe, &stores, &StoreMemory::shared());
    let found = opened.ok().and_then(|database| {
        let store = database.store("rows-table").ok()?;
        let all = klamm::store::KeyRange { from: &[], to: None };
        Some((store.position().ok()?.changelog_offset, store.scan(all, usize::MAX).ok()?.len()))
    });
    std::fs::remove_dir_all(&probe).ok();
    found
}

#[klamm::test]
async fn a_kill_between_slices_costs_nothing_but_time(kit: TestKit) {
    on_real_time(&kit);
    for exactly_once in [false, true] {
        let root = tempfile::tempdir().unwrap();
        kit.create_topic("rows", 1).await;
        let mut rows = BTreeMap::new();
        let live = root.path().join("live");
        let app = kinds().start(config(&kit, &live, exactly_once)).await.unwrap();
        let task = live.join(APPLICATION).join("0_0");
        let mut copies = Vec::new();
        let mut fed = 0;
        for round in 0..3 {
            feed(&kit, fed..fed + 15_000, &mut rows).await;
            fed += 15_000;
            if round == 1 {
                kit.expel(APPLICATION).await;
            }
            for _ in 0..12 {
                let to = root.path().join(copies.len().to_string()).join(APPLICATION).join("0_0");
                copy(&task, &to);
                copies.push(to);
                tokio::time::sleep(Duration::from_millis(110)).await;
            }
        }
        caught_up(&app).await;
        is_right(&app, &rows, exactly_once).await;
        app.close().await.unwrap();
        let mut seen = BTreeMap::new();
        for copy in &copies {
            if let Some(found) = opens(copy) {
                seen.entry(found).or_insert(copy);
            }
        }
        assert!(seen.len() > 2, "{:?}", seen.keys());
        for (_, copy) in seen {
            let directory = copy.ancestors().nth(2).unwrap();
            let app = kinds().start(config(&kit, directory, exactly_once)).await.unwrap();
            caught_up(&app).await;
            is_right(&app, &rows, exactly_once).await;
            feed(&kit, fed..fed + 100, &mut rows).await;
            fed += 100;
            caught_up(&app).await;
            is_right(&app, &rows, exactly_once).await;
            app.close().await.unwrap();
        }
        for topic in
            ["rows", "cut-off-rows-table-changelog", "cut-off-kinds-changelog", "cut-off-kinds-repartition"]
        {
            kit.client().admin().delete_topics(&[topic]).await.unwrap();
        }
        kit.client().admin().delete_groups(&[APPLICATION]).await.unwrap();
    }
}
