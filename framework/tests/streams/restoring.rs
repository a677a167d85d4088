//! Stores that lack so much that they are written in pieces, past the thread that has their task.

use std::collections::BTreeMap;
use std::time::Duration;

use klamm::client::testing::Answer;
use klamm::client::{ApiKey, Assignor, NewTopic, OffsetReset, Record};
use klamm::streams::{
    AppState, Consumed, Materialized, SessionWindows, StreamsApp, StreamsBuilder, StreamsConfig, TaskState,
    Topology, TumblingWindows, Windowed,
};
use klamm::testing::TestKit;
use klamm_runtime::{Rng, SeededRng};

use crate::pipeline::{SESSION, caught_up, on_real_time, until};

pub(crate) const APPLICATION: &str = "restoring";
pub(crate) const CHANGELOG: &str = "restoring-rows-changelog";
pub(crate) const PARTITIONS: i32 = 2;
/// More than a store has to lack to be written in pieces.
pub(crate) const RECORDS: usize = 22_000;
const KEYS: u64 = 7_000;
/// Not long before the broker's clock.
const FIRST_MS: i64 = 999_999_000_000;

pub(crate) type Model = BTreeMap<String, String>;

pub(crate) fn rows() -> Topology {
    let mut streams = StreamsBuilder::new();
    streams.table_with::<String, String>("in", Consumed::default(), Materialized::named("rows"));
    streams.build().unwrap()
}

/// A changelog, and the directories of instances.
pub(crate) struct Rig {
    pub(crate) kit: TestKit,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) model: Model,
    pub(crate) written: u64,
}

impl Rig {
    pub(crate) async fn new(kit: &TestKit) -> Self {
        on_real_time(kit);
        kit.create_topic("in", PARTITIONS).await;
        let changelog = NewTopic::new(CHANGELOG).partitions(PARTITIONS).config("cleanup.policy", "compact");
        kit.client().admin().create_topics(&[changelog]).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        Self { kit: kit.clone(), directory, model: Model::new(), written: 0 }
    }

    pub(crate) fn config(&self, instance: usize) -> StreamsConfig {
        StreamsConfig::new(APPLICATION, self.kit.bootstrap())
            .client(self.kit.client().clone())
            .state_dir(self.directory.path().join(instance.to_string()))
            .linger(Duration::from_millis(1))
            .commit_interval(Duration::from_millis(100))
            .session_timeout(SESSION)
    }

    /// Updates and deletions of keys that come again: in the same piece, in others, or never.
    fn changes(&mut self, rng: &SeededRng, records: usize, value_bytes: usize) -> Vec<Record> {
        let mut changes = Vec::new();
        for _ in 0..records {
            let key = rng.below(KEYS);
            let record = Record::to(CHANGELOG)
                .partition((key % PARTITIONS as u64) as i32)
                .key(format!("key-{key:09}"));
            let key = format!("key-{key:09}");
            changes.push(match rng.below(8) {
                0 => {
                    self.model.remove(&key);
                    record
                }
                _ => {
                    let value = format!("{:>value_bytes$}", rng.next_u64());
                    self.model.insert(key, value.clone());
                    record.value(value)
                }
            });
        }
        self.written += records as u64;
        changes
    }

    pub(crate) async fn write(&mut self, rng: &SeededRng, records: usize, value_bytes: usize) {
        let changes = self.changes(rng, records, value_bytes);
        let producer = self.kit.client().producer().linger(Duration::from_millis(5)).build().unwrap();
        for change in changes {
            drop(producer.enqueue(change).await.unwrap());
        }
        producer.close().await.unwrap();
    }

    pub(crate) async fn start(&self, instance: usize) -> StreamsApp {
        rows().start(self.config(instance)).await.unwrap()
    }

    /// Many rows are restored, which is broken off some times; gives the application that has them.
    pub(crate) async fn restored_in_pieces(
        &mut self,
        kit: &TestKit,
        rng: &SeededRng,
        start: impl AsyncFn(&Self) -> StreamsApp,
    ) -> StreamsApp {
        self.write(rng, 2 * RECORDS, 1_500).await;
        for _ in 0..2 {
            kit.faults().next(ApiKey::Fetch, 200, Answer::Delayed(Duration::from_millis(60)));
            let app = start(self).await;
            until(|| app.metrics().restored > 0).await;
            assert!(left(&app) > 0, "it is to be in the middle");
            drop(app);
            kit.faults().behave();
        }
        let app = start(self).await;
        caught_up(&app).await;
        self.is_right(&[&app]).await;
        app
    }

    pub(crate) async fn is_right(&self, apps: &[&StreamsApp]) {
        let mut found = Model::new();
        for app in apps {
            found.extend(app.store::<String, String>("rows").unwrap().all().await.unwrap());
        }
        let wrong = found.iter().find(|(key, value)| self.model.get(*key) != Some(value));
        assert_eq!((found.len(), wrong), (self.model.len(), None));
    }
}

pub(crate) fn left(app: &StreamsApp) -> u64 {
    app.tasks().iter().flat_map(|task| &task.stores).map(|store| store.left_to_restore).sum()
}

/// In several pieces; what is restored is on disk at once.
#[klamm::test]
async fn a_store_of_many_rows_is_what_its_changelog_says(kit: TestKit) {
    let (mut rig, rng) = (Rig::new(&kit).await, SeededRng::new(1));
    rig.write(&rng, 2 * RECORDS, 1_200).await;
    let app = rig.start(1).await;
    caught_up(&app).await;
    rig.is_right(&[&app]).await;
    assert_eq!((app.metrics().restored, left(&app)), (rig.written, 0));
    drop(app);
    let app = rig.start(1).await;
    caught_up(&app).await;
    assert_eq!(app.metrics().restored, 0);
    rig.is_right(&[&app]).await;
    // What comes later is newer than all of that.
    kit.send_record(Record::to("in").partition(1).key("key-000000007").value("new")).await;
    kit.send_record(Record::to("in").partition(0).key("key-000000008")).await;
    rig.model.insert("key-000000007".to_owned(), "new".to_owned());
    rig.model.remove("key-000000008");
    caught_up(&app).await;
    rig.is_right(&[&app]).await;
    app.close().await.unwrap();
}

/// Each crash costs a piece at most; and progress is told.
#[klamm::test]
async fn a_restore_in_pieces_goes_on_where_a_crash_left_it(kit: TestKit) {
    let (mut rig, rng) = (Rig::new(&kit).await, SeededRng::new(2));
    rig.write(&rng, 2 * RECORDS, 2_000).await;
    let mut restored = 0;
    for _ in 0..2 {
        kit.faults().next(ApiKey::Fetch, 200, Answer::Delayed(Duration::from_millis(60)));
        let app = rig.start(1).await;
        let before = || app.metrics().restored;
        until(|| before() > 0).await;
        let tasks = app.tasks();
        let task = tasks.iter().find(|task| task.stores[0].restored > 0).unwrap();
        let store = &task.stores[0];
        if task.state == TaskState::Restoring && store.left_to_restore > 0 {
            assert!(store.restored_per_second > 0, "{store:?}");
            assert!(store.restore_time_left().unwrap() > Duration::ZERO, "{store:?}");
        }
        assert!(restored + before() < rig.written, "the crash is to come in the middle");
        restored += before();
        drop(app);
        kit.faults().behave();
    }
    let app = rig.start(1).await;
    caught_up(&app).await;
    rig.is_right(&[&app]).await;
    let rest = app.metrics().restored;
    assert!(rest < rig.written - restored + 1, "{rest} of {}, {restored} were there", rig.written);
    app.close().await.unwrap();
}

/// A task that goes to another member in the middle of it leaves what was under way, which touches nothing when it
/// comes back. The member shares out by range: tasks would stay where they are restored otherwise.
#[klamm::test]
async fn tasks_that_go_and_come_back_while_they_are_restored_are_whole(kit: TestKit) {
    let (mut rig, rng) = (Rig::new(&kit).await, SeededRng::new(3));
    rig.write(&rng, 2 * RECORDS, 1_500).await;
    kit.faults().next(ApiKey::Fetch, 10_000, Answer::Delayed(Duration::from_millis(200)));
    let first = rig.start(1).await;
    until(|| left(&first) > 0).await;
    let guest = kit.client().consumer().group(APPLICATION).topics(["in"]).assignor(Assignor::Range);
    let guest = guest.auto_offset_reset(OffsetReset::Earliest).start().await.unwrap();
    until(|| first.metrics().tasks == 1).await;
    assert!(first.metrics().restored < rig.written, "it is to go in the middle");
    rig.write(&rng, 300, 100).await;
    guest.close().await.unwrap();
    kit.faults().behave();
    caught_up(&first).await;
    // What was written by somebody else after the restore is restored by the next start.
    drop(first);
    let first = rig.start(1).await;
    let second = rig.start(2).await;
    until(|| first.metrics().tasks == 1 && second.metrics().tasks == 1).await;
    caught_up(&first).await;
    caught_up(&second).await;
    rig.is_right(&[&first, &second]).await;
    for app in [first, second] {
        app.close().await.unwrap();
    }
}

/// What was aborted is in no store, and markers keep nobody waiting, in the middle or at the end.
#[klamm::test]
async fn a_changelog_of_transactions_is_restored_without_those_that_were_aborted(kit: TestKit) {
    let (mut rig, rng) = (Rig::new(&kit).await, SeededRng::new(4));
    let mut producer = kit.client().producer().transactional_id("writer").build().unwrap();
    for round in 0..30 {
        let is_aborted = round % 5 == 1 || round == 29;
        let before = rig.model.clone();
        let changes = rig.changes(&rng, 1_600, 30);
        let transaction = producer.begin().await.unwrap();
        for change in changes {
            drop(transaction.enqueue(change).await.unwrap());
        }
        match is_aborted {
            true => {
                transaction.abort().await.unwrap();
                (rig.model, rig.written) = (before, rig.written - 1_600);
            }
            false => transaction.commit().await.unwrap(),
        }
    }
    let app = rows().start(rig.config(1).exactly_once()).await.unwrap();
    caught_up(&app).await;
    rig.is_right(&[&app]).await;
    assert_eq!((app.metrics().restored, left(&app)), (rig.written, 0));
    app.close().await.unwrap();
}

/// Compaction takes records before and behind the place where the restore is.
#[klamm::test]
async fn a_changelog_that_is_compacted_meanwhile_is_restored(kit: TestKit) {
    let (mut rig, rng) = (Rig::new(&kit).await, SeededRng::new(5));
    use klamm::client::admin::{ConfigChange, ConfigResource};
    let settings = [("segment.bytes", "400000"), ("min.cleanable.dirty.ratio", "0.01")];
    let settings = settings.map(|(name, value)| ConfigChange::set(name, value));
    let changes = [(ConfigResource::topic(CHANGELOG), settings.to_vec())];
    kit.client().admin().alter_configs(&changes.into()).await.unwrap();
    rig.write(&rng, 3 * RECORDS, 400).await;
    kit.faults().next(ApiKey::Fetch, 60, Answer::Delayed(Duration::from_millis(100)));
    let app = rig.start(1).await;
    caught_up(&app).await;
    rig.is_right(&[&app]).await;
    drop(app);
    let app = rig.start(2).await;
    caught_up(&app).await;
    rig.is_right(&[&app]).await;
    app.close().await.unwrap();
}

/// Windows, sessions and versions: a new directory has what the one that was written while processing has.
#[klamm::test]
async fn stores_of_every_kind_are_restored_as_they_were(kit: TestKit) {
    on_real_time(&kit);
    kit.create_topic("in", 1).await;
    let topology = || {
        let mut streams = StreamsBuilder::new();
        let input = streams.stream::<String, String>("in");
        let hour = Duration::from_secs(3_600);
        let grouped = input.group_by_key();
        grouped.windowed_by(TumblingWindows::of(hour)).count("windows");
        grouped.windowed_by(SessionWindows::of(Duration::from_millis(5)).grace(hour)).count("sessions");
        grouped.windowed_by(TumblingWindows::of(hour)).emit_on_window_close().count("finals");
        let versions = Materialized::named("versions").versioned(Duration::from_secs(3_600));
        streams.table_with::<String, String>("table", Consumed::default(), versions);
        streams.build().unwrap()
    };
    kit.create_topic("table", 1).await;
    let directory = tempfile::tempdir().unwrap();
    let config = |instance: &str| {
        let config = StreamsConfig::new(APPLICATION, kit.bootstrap()).client(kit.client().clone());
        let config = config.state_dir(directory.path().join(instance)).session_timeout(SESSION);
        config.commit_interval(Duration::from_millis(200)).linger(Duration::from_millis(1))
    };
    let producer = kit.client().producer().linger(Duration::from_millis(5)).build().unwrap();
    let rng = SeededRng::new(6);
    for number in 0..RECORDS as i64 + 3_000 {
        for topic in ["in", "table"] {
            let key = format!("k{}", if topic == "in" { number as u64 } else { rng.below(3_000) });
            let record = Record::to(topic).key(key).timestamp_ms(FIRST_MS + number);
            let record = if topic == "table" && rng.below(9) == 0 { record } else { record.value("v") };
            drop(producer.enqueue(record).await.unwrap());
        }
    }
    producer.close().await.unwrap();
    let mut found = Vec::new();
    for instance in ["worked", "restored"] {
        let app = topology().start(config(instance)).await.unwrap();
        caught_up(&app).await;
        let mut windows = Vec::new();
        for store in ["windows", "sessions", "finals"] {
            windows.push(app.store::<Windowed<String>, i64>(store).unwrap().all().await.unwrap());
        }
        let versions = app.store::<String, String>("versions").unwrap();
        let mut rows = versions.all().await.unwrap();
        for key in 0..3_000 {
            let past = versions.get_as_of(format!("k{key}"), FIRST_MS + 12_000).await.unwrap();
            rows.push((format!("k{key} before"), past.unwrap_or_default()));
        }
        assert_eq!(app.metrics().restored > 3 * RECORDS as u64, instance == "restored");
        found.push((windows, rows));
        app.close().await.unwrap();
    }
    let restored = found.pop().unwrap();
    assert!(
        restored.0.iter().all(|windows| windows.len() > 20_000),
        "{:?}",
        restored.0.iter().map(Vec::len).collect::<Vec<_>>()
    );
    assert!(found.pop().unwrap() == restored, "not as it was");
}

/// Broken off between pieces, and before it is listed which versions end.
#[klamm::test]
async fn versions_are_restored_in_pieces_though_crashes_come_between(kit: TestKit) {
    let (mut rig, rng) = (Rig::new(&kit).await, SeededRng::new(9));
    let start = async |rig: &Rig| {
        let mut streams = StreamsBuilder::new();
        let rows = Materialized::named("rows").versioned(Duration::from_secs(3_600));
        streams.table_with::<String, String>("in", Consumed::default(), rows);
        streams.build().unwrap().start(rig.config(1)).await.unwrap()
    };
    let app = rig.restored_in_pieces(&kit, &rng, start).await;
    kit.send_record(Record::to("in").partition(1).key("key-000000007").value("new")).await;
    rig.model.insert("key-000000007".to_owned(), "new".to_owned());
    caught_up(&app).await;
    rig.is_right(&[&app]).await;
    app.close().await.unwrap();
}

/// A position is stamped with the time when the store had all of its changelog for sure. In the middle of a restore
/// that is long ago: tombstones of what it has may go before the rest is read.
#[klamm::test]
async fn a_store_that_was_not_restored_to_the_end_is_as_old_as_its_beginning(kit: TestKit) {
    use klamm::store::{StateStore, StoreMemory, TaskDatabase};
    let (mut rig, rng) = (Rig::new(&kit).await, SeededRng::new(7));
    rig.write(&rng, 2 * RECORDS, 2_000).await;
    let stamps = || {
        (0..PARTITIONS).filter_map(|partition| {
            let path = rig.directory.path().join("1").join(APPLICATION).join(format!("0_{partition}"));
            let database = TaskDatabase::open_when_free(&path, &["rows"], &StoreMemory::shared()).ok()?;
            let store = database.store("rows").unwrap();
            (store.position().unwrap().changelog_offset > 0)
                .then(|| store.last_written_ms().unwrap().unwrap())
        })
    };
    kit.faults().next(ApiKey::Fetch, 200, Answer::Delayed(Duration::from_millis(60)));
    let app = rig.start(1).await;
    until(|| app.metrics().restored > 0).await;
    drop(app);
    let first: Vec<i64> = stamps().collect();
    assert!(!first.is_empty());
    let app = rig.start(1).await;
    until(|| app.metrics().restored > 0).await;
    assert_ne!(app.state(), AppState::Running, "the crash is to come in the middle");
    drop(app);
    let again: Vec<i64> = stamps().collect();
    assert!(first.iter().all(|stamp| again.contains(stamp)), "{first:?} became {again:?}");
    kit.faults().behave();
    let app = rig.start(1).await;
    caught_up(&app).await;
    app.close().await.unwrap();
    assert!(stamps().all(|stamp| stamp > *again.iter().max().unwrap()), "it is whole now");
}

/// The group waits for nobody: who comes back on the same directory is the member that was killed.
#[klamm::test]
async fn an_instance_that_vanished_is_back_before_its_session_ends(kit: TestKit) {
    let (mut rig, rng) = (Rig::new(&kit).await, SeededRng::new(8));
    rig.write(&rng, 50, 10).await;
    let long = Duration::from_secs(300);
    for exactly_once in [false, true] {
        let config = || match exactly_once {
            true => rig.config(1).session_timeout(long).exactly_once(),
            false => rig.config(1).session_timeout(long),
        };
        for _ in 0..3 {
            let app = rows().start(config()).await.unwrap();
            caught_up(&app).await;
            rig.is_right(&[&app]).await;
            drop(app);
        }
        // One that closes is gone: another one has its partitions at once.
        let app = rows().start(config()).await.unwrap();
        caught_up(&app).await;
        app.close().await.unwrap();
    }
    let other = rig.start(2).await;
    caught_up(&other).await;
    rig.is_right(&[&other]).await;
    other.close().await.unwrap();
}

/// The group leaves its assignment as it is when a member comes back: what reads other topics by then is another
/// member.
#[klamm::test]
async fn an_instance_that_is_back_with_other_topics_gets_them(kit: TestKit) {
    let (rig, more) = (Rig::new(&kit).await, "more");
    kit.create_topic(more, PARTITIONS).await;
    let app = rig.start(1).await;
    caught_up(&app).await;
    drop(app);
    let mut streams = StreamsBuilder::new();
    streams.table_with::<String, String>("in", Consumed::default(), Materialized::named("rows"));
    streams.table::<String, String>(more);
    let app = streams.build().unwrap().start(rig.config(1)).await.unwrap();
    kit.send(more, "a", "1").await;
    caught_up(&app).await;
    let found = app.store::<String, String>("more-table").unwrap().get("a").await.unwrap();
    assert_eq!(found.as_deref(), Some("1"));
    app.close().await.unwrap();
}
