//! Stores of processors in applications: they come back from their changelogs as they were, and are asked from outside.

use std::time::Duration;

use klamm::client::Record;
use klamm::streams::{
    InRecord, Materialized, StreamsApp, StreamsBuilder, Topology, VersionedStoreRef, Window, Windowed,
};
use klamm::testing::TestKit;

use crate::pipeline::{Pipeline, caught_up};
use crate::processor_stores::{Closure, Context, counts, sessions};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A store of each kind, whose names are put into `echo` with what the record meets in them.
fn topology() -> Topology {
    let mut streams = StreamsBuilder::new();
    let kept = Materialized::named("windows").retention(ms(100));
    let windows = streams.window_store::<String, i64>(kept, ms(10));
    let gaps = streams.session_store::<String, i64>("sessions", ms(5));
    let versions: VersionedStoreRef<String, String> = streams.versioned_store("versions", ms(50));
    let rows = streams.key_value_store::<String, String>(Materialized::named("rows").time_to_live(ms(30)));
    let global = streams.global_table::<String, String>("totals").store();
    let input = streams.stream::<String, String>("in");
    input.process_values(move || counts(windows.clone())).to("nowhere");
    input.process_values(move || sessions(gaps.clone())).to("nowhere");
    let make = move || {
        let (versions, rows, global) = (versions.clone(), rows.clone(), global.clone());
        let stores = vec![versions.name(), rows.name()];
        Closure(stores, move |context: Context<'_, '_>, record: InRecord<'_, String, String>| {
            let at_ms = record.timestamp_ms;
            context.store(&versions)?.put(record.key, record.value, at_ms)?;
            context.store(&rows)?.put(record.key, record.value)?;
            let was = context.store(&versions)?.get_as_of(record.key, at_ms - 20)?;
            let living = context.store(&rows)?.all().count();
            let named = context.store(&global)?.get(record.key)?;
            context.forward(record.key, &format!("{was:?} {living} {named:?}"))?;
            Ok(())
        })
    };
    input.process_values(make).to("echo");
    streams.build().unwrap()
}

async fn feed(kit: &TestKit, records: &[(&'static str, i64)]) {
    for (key, at) in records {
        let record = Record::to("in").partition(0).key(*key).value(at.to_string()).timestamp_ms(*at);
        kit.send_record(record).await;
    }
}

async fn echoes(pipeline: &Pipeline) -> Vec<String> {
    let text = |bytes: Option<bytes::Bytes>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
    pipeline.read("echo").await.into_iter().map(|record| text(record.value)).collect()
}

/// What is asked from outside, of all stores.
async fn asked(app: &StreamsApp) -> String {
    let windows = app.store::<Windowed<String>, i64>("windows").unwrap();
    let sessions = app.store::<Windowed<String>, i64>("sessions").unwrap();
    let versions = app.store::<String, String>("versions").unwrap();
    let rows = app.store::<String, String>("rows").unwrap();
    let a = || "a".to_owned();
    let fetched = windows.fetch(a(), 0, 200).await.unwrap();
    let counts: Vec<_> = fetched.into_iter().map(|(Window { start_ms, .. }, n)| (start_ms, n)).collect();
    format!(
        "{counts:?} {:?} {:?} {:?} {:?}",
        sessions.fetch(a(), 0, 200).await.unwrap(),
        versions.get_as_of(&a(), 69).await.unwrap(),
        versions.get(&a()).await.unwrap(),
        rows.all().await.unwrap(),
    )
}

async fn comes_back(kit: &TestKit, exactly_once: bool) {
    let pipeline = Pipeline::new(kit).await;
    kit.create_topic("nowhere", 4).await;
    kit.send("totals", "a", "anna".to_owned()).await;
    let config = |disk| match exactly_once {
        true => pipeline.config(disk).exactly_once(),
        false => pipeline.config(disk),
    };
    let app = topology().start(config(1)).await.unwrap();
    feed(kit, &[("a", 5), ("a", 8), ("b", 40), ("a", 60), ("a", 62), ("a", 75), ("b", 76)]).await;
    caught_up(&app).await;
    let before = asked(&app).await;
    let at = |start_ms: i64, end_ms: i64, n: i64| (Window { start_ms, end_ms }, n);
    let sessions = [at(75, 75, 1)];
    assert_eq!(
        before,
        format!(
            "[(0, 2), (60, 2), (70, 1)] {sessions:?} {:?} {:?} {:?}",
            Some("62"),
            Some("75"),
            [("a", "75"), ("b", "76")],
        )
    );
    app.close().await.unwrap();
    // One without a disk has all of it from the changelogs, and goes on.
    let app = topology().start(config(2)).await.unwrap();
    caught_up(&app).await;
    assert_eq!(asked(&app).await, before);
    feed(kit, &[("a", 78), ("a", 140)]).await;
    caught_up(&app).await;
    assert_eq!(
        asked(&app).await,
        format!(
            "[(60, 2), (70, 2), (140, 1)] {:?} {:?} {:?} {:?}",
            [at(140, 140, 1)],
            None::<String>,
            Some("140"),
            [("a", "140")],
        )
    );
    let told = echoes(&pipeline).await;
    assert_eq!(told.last().unwrap(), r#"Some("78") 2 Some("anna")"#, "{told:?}");
    app.close().await.unwrap();
}

#[klamm::test]
async fn stores_of_processors_come_back_from_their_changelogs(kit: TestKit) {
    comes_back(&kit, false).await;
}

#[klamm::test]
async fn stores_of_processors_come_back_from_their_changelogs_exactly_once(kit: TestKit) {
    comes_back(&kit, true).await;
}
