//! Queries over instances: answered here, by the owner, by a standby; over HTTP; and what attackers send.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use klamm::client::Record;
use klamm::store::StoreError;
use klamm::streams::{
    Consumed, Materialized, PositionBound, QueryError, SessionWindows, StreamsApp, StreamsBuilder,
    StreamsConfig, StreamsError, Topology, TumblingWindows, Window, Windowed,
};
use klamm::testing::TestKit;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::pipeline::{Pipeline, caught_up, text, topology, until};

pub(crate) fn served(pipeline: &Pipeline, instance: usize) -> StreamsConfig {
    pipeline.config(instance).query_server("127.0.0.1:0")
}

/// Keys of all partitions: those of the pipeline are in some.
pub(crate) async fn feed_others(pipeline: &Pipeline) {
    let producer = pipeline.kit.client().producer().build().unwrap();
    for key in others() {
        producer.send(Record::to("in").key(key).value("v")).await.unwrap();
    }
}

fn others() -> impl Iterator<Item = String> {
    (0..20).map(|number| format!("other-{number:02}"))
}

/// The true counts.
pub(crate) fn counts_of(pipeline: &Pipeline) -> BTreeMap<String, i64> {
    pipeline.counts().into_iter().chain(others().map(|key| (key, 1))).collect()
}

/// Two instances that have two tasks each, and know it of each other.
pub(crate) async fn two(
    pipeline: &mut Pipeline,
    configure: fn(StreamsConfig) -> StreamsConfig,
) -> [StreamsApp; 2] {
    let configs = [configure(served(pipeline, 1)), configure(served(pipeline, 2))];
    let [one, two] = configs;
    let apps = [topology().start(one).await.unwrap(), topology().start(two).await.unwrap()];
    pipeline.feed(500).await;
    feed_others(pipeline).await;
    until(|| apps.iter().all(|app| app.metrics().tasks == 2)).await;
    for app in &apps {
        caught_up(app).await;
    }
    apps
}

async fn close(apps: impl IntoIterator<Item = StreamsApp>) {
    for app in apps {
        app.close().await.unwrap();
    }
}

#[klamm::test]
async fn complaint_20_every_key_is_answered_wherever_one_asks(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let apps = two(&mut pipeline, |config| config).await;
    let addresses: Vec<&str> = apps.iter().map(|app| app.query_address().unwrap()).collect();
    for app in &apps {
        let counts = app.query::<String, i64>("counts").unwrap();
        let mut hosts = BTreeMap::<String, usize>::new();
        for (key, count) in counts_of(&pipeline) {
            let answer = counts.key(&*key).await.unwrap();
            assert_eq!(answer.value, Some(count), "{key}");
            assert!(!answer.from[0].standby && answer.from[0].behind == Some(0));
            *hosts.entry(answer.from[0].host.as_deref().unwrap().to_owned()).or_default() += 1;
            let known = app.store::<String, i64>("counts").unwrap().hosts_of(&*key).await.unwrap();
            assert_eq!(
                (known.partition, known.active.as_deref()),
                (answer.from[0].partition, answer.from[0].host.as_deref())
            );
        }
        assert!(hosts.keys().all(|host| addresses.contains(&&**host)) && hosts.len() == 2, "{hosts:?}");
        assert_eq!(counts.key("never").await.unwrap().value, None);
        let all = counts.all().await.unwrap();
        assert_eq!(all.from.iter().map(|by| by.partition).collect::<Vec<_>>(), [0, 1, 2, 3]);
        let rows: BTreeMap<_, _> = all.value.rows.into_iter().map(|row| (row.key, row.value)).collect();
        assert_eq!(rows, counts_of(&pipeline));
        assert_eq!(app.instances().len(), 2);
        assert_eq!(app.hosts_of_store("counts").await.unwrap().len(), 4);
        let here = counts.clone().here().within(Duration::ZERO).all().await.unwrap_err();
        assert!(matches!(&here, QueryError::NotHere { .. }), "{here}");
    }
    pages_are_the_whole(&counts_of(&pipeline), &apps[0]).await;
    close(apps).await;
}

async fn pages_are_the_whole(counts: &BTreeMap<String, i64>, app: &StreamsApp) {
    let keys: Vec<&String> = counts.keys().collect();
    for reverse in [false, true] {
        let (mut found, mut next) = (Vec::new(), None);
        loop {
            let mut page = app.query::<String, i64>("counts").unwrap().limit(3);
            page = if reverse { page.reverse() } else { page };
            page = if let Some(next) = next { page.after(next) } else { page };
            let rows = page.all().await.unwrap().value;
            assert!(rows.rows.len() <= 3);
            found.extend(rows.rows.into_iter().map(|row| row.key));
            next = rows.next;
            if next.is_none() {
                break;
            }
        }
        if reverse {
            found.reverse();
        }
        assert_eq!(found.iter().collect::<Vec<_>>(), keys);
    }
    let counts = app.query::<String, i64>("counts").unwrap();
    let some = counts.range("k1".to_owned()..="k3".to_owned()).await.unwrap().value;
    assert_eq!(some.rows.iter().map(|row| &*row.key).collect::<Vec<_>>(), ["k1", "k2", "k3"]);
    assert_eq!(counts.prefix("other-0").await.unwrap().value.rows.len(), 10);
}

/// Many keys at once, wherever they are, in the order in which they are asked for; and the keys of a value.
#[klamm::test]
async fn many_keys_are_one_question(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let apps = two(&mut pipeline, |config| config).await;
    let known = counts_of(&pipeline);
    let mut keys: Vec<String> = known.keys().rev().cloned().collect();
    keys.insert(3, "never".to_owned());
    keys.push(keys[0].clone());
    let expected: Vec<_> = keys.iter().map(|key| known.get(key).copied()).collect();
    for app in &apps {
        let counts = app.query::<String, i64>("counts").unwrap();
        let answer = counts.keys(keys.iter().cloned()).await.unwrap();
        assert_eq!(answer.value, expected);
        assert_eq!(answer.from.iter().map(|by| by.partition).collect::<Vec<_>>(), [0, 1, 2, 3]);
        let hosts: BTreeSet<_> = answer.from.iter().map(|by| by.host.clone()).collect();
        assert_eq!(hosts.len(), 2, "{hosts:?}");
        let row = counts.rows(["k1"]).await.unwrap().value.remove(0).unwrap();
        assert_eq!(Some(row), counts.row("k1").await.unwrap().value);
        assert!(counts.keys(Vec::<String>::new()).await.unwrap().value.is_empty());
        assert_eq!(
            counts.clone().in_all_partitions().keys(keys.iter().cloned()).await.unwrap().value,
            expected
        );
        let ones = counts.by_value(1).await.unwrap().value.rows;
        assert_eq!(ones.into_iter().map(|row| row.key).collect::<Vec<_>>(), others().collect::<Vec<_>>());
        let never = PositionBound::new().record("in", 2, 1_000_000);
        let late = counts.clone().at_least(never).within(Duration::ZERO);
        assert_eq!(late.keys(keys.iter().cloned()).await.unwrap_err().code(), "not_up_to_bound");
    }
    let address = apps[0].query_address().unwrap();
    let asked = r#"{"store": "counts", "query": {"kind": "keys", "keys": ["other-03", "never", "k2", {"key": "k1"}]}}"#;
    let (_, answer) = post(address, "application/json", asked).await;
    let keys: Vec<_> = answer.split("\"key\":\"").skip(1).map(|row| row.split('"').next().unwrap()).collect();
    assert_eq!(keys, ["other-03", "k2", "k1"], "{answer}");
    let asked = r#"{"store": "counts", "query": {"kind": "prefix", "prefix": "other-1",
        "value": {"base64": "AAAAAAAAAAE="}}, "limit": 3}"#;
    let (_, answer) = post(address, "application/json", asked).await;
    assert_eq!(answer.matches("\"key\":\"other-1").count(), 3, "{answer}");
    close(apps).await;
}

/// Rows that are too long for one answer are asked for until all are there.
#[klamm::test]
async fn long_rows_of_many_keys_come_in_several_turns(kit: TestKit) {
    let pipeline = Pipeline::new(&kit).await;
    let mut streams = StreamsBuilder::new();
    streams.table::<String, String>("in");
    let app = streams.build().unwrap().start(served(&pipeline, 1)).await.unwrap();
    let producer = kit.client().producer().build().unwrap();
    let long = |key: &str| key.repeat(300_000 / key.len());
    for key in others() {
        producer.send(Record::to("in").key(key.clone()).value(long(&key))).await.unwrap();
    }
    caught_up(&app).await;
    let answer = app.query::<String, String>("in-table").unwrap().limit(1).keys(others()).await.unwrap();
    assert!(answer.value.iter().map(Option::as_deref).eq(others().map(|key| Some(&*long(&key).leak()))));
    close([app]).await;
}

/// What one has written oneself is in the answer, whoever gives it.
#[klamm::test]
async fn a_record_that_was_just_sent_is_waited_for(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let apps = two(&mut pipeline, |config| config).await;
    let producer = kit.client().producer().build().unwrap();
    let counts = counts_of(&pipeline);
    for (sent, (key, before)) in counts.iter().enumerate() {
        let at = producer.send(Record::to("in").key(key.clone()).value("x")).await.unwrap();
        let bound = PositionBound::new().record("in", at.partition, at.offset);
        let asked = apps[sent % 2].query::<String, i64>("counts").unwrap().at_least(bound);
        let answer = asked.clone().within(Duration::from_secs(20)).key(&**key).await.unwrap();
        assert_eq!(answer.value, Some(before + 1));
        assert!(answer.from[0].inputs.values().all(|reached| *reached > at.offset));
        let never = asked.at_least(PositionBound::new().record("in", at.partition, at.offset + 1_000));
        let error = never.within(Duration::ZERO).key(&**key).await.unwrap_err();
        let code = error.code();
        assert!(code == "not_up_to_bound" && error.is_retriable(), "{error}");
    }
    close(apps).await;
}

/// While its owner is missed only, a key is read from a standby that says how far behind it is.
#[klamm::test]
async fn a_standby_answers_for_an_instance_that_vanished(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let [first, second] = two(&mut pipeline, |config| config.standby_replicas(1)).await;
    until(|| second.standby_tasks().iter().filter(|standby| standby.lag == Some(0)).count() == 2).await;
    let gone = first.query_address().unwrap().to_owned();
    let counts = second.query::<String, i64>("counts").unwrap();
    let mut at_first = BTreeMap::new();
    for (key, count) in counts_of(&pipeline) {
        if counts.key(&*key).await.unwrap().from[0].host.as_deref() == Some(&*gone) {
            at_first.insert(key, count);
        }
    }
    assert!(!at_first.is_empty());
    drop(first);
    let (key, count) = at_first.first_key_value().unwrap();
    let error = counts.clone().within(Duration::from_millis(300)).key(&**key).await.unwrap_err();
    assert!(error.to_string().contains("no answer within") && error.to_string().contains(&gone), "{error}");
    for (key, count) in &at_first {
        let answer = counts.clone().or_standby(100).key(&**key).await.unwrap();
        assert_eq!(answer.value, Some(*count));
        assert!(answer.from[0].behind.is_some_and(|behind| behind <= 100), "{answer:?}");
    }
    // Its session over, the other has it.
    let answer = counts.within(Duration::from_secs(60)).key(&**key).await.unwrap();
    assert_eq!((answer.value, answer.from[0].standby), (Some(*count), false));
    second.close().await.unwrap();
}

/// Instances come, go and vanish under a stream of queries: none is answered with something that never was.
#[klamm::test]
async fn answers_are_right_while_tasks_move(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let asked = topology().start(served(&pipeline, 0)).await.unwrap();
    pipeline.feed(700).await;
    feed_others(&pipeline).await;
    caught_up(&asked).await;
    let counts = asked.query::<String, i64>("counts").unwrap().within(Duration::from_secs(60));
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let asking = tokio::spawn(async move {
        let mut answers = 0;
        while !*stopped.borrow_and_update() {
            for key in 0..7 {
                let answer = counts.key(format!("k{key}")).await.unwrap();
                assert_eq!(answer.value, Some(100), "{answer:?}");
                answers += 1;
            }
            assert_eq!(counts.key("other-07").await.unwrap().value, Some(1));
            assert_eq!(counts.all().await.unwrap().value.rows.len(), 27);
        }
        answers
    });
    for instance in 1..=3 {
        let other = topology().start(served(&pipeline, instance)).await.unwrap();
        until(|| asked.metrics().tasks == 2 && other.metrics().tasks == 2).await;
        caught_up(&other).await;
        match instance {
            2 => drop(other),
            _ => other.close().await.unwrap(),
        }
        until(|| asked.metrics().tasks == 4).await;
        caught_up(&asked).await;
    }
    stop.send_replace(true);
    assert!(asking.await.unwrap() > 20);
    asked.close().await.unwrap();
}

#[klamm::test]
async fn windows_sessions_and_versions_are_typed(kit: TestKit) {
    let pipeline = Pipeline::new(&kit).await;
    let mut streams = StreamsBuilder::new();
    let input = streams.stream::<String, String>("in").group_by_key();
    let hour = Duration::from_secs(3_600);
    let kept = |name| Materialized::named(name).retention(hour);
    input.windowed_by(TumblingWindows::of(Duration::from_millis(10))).count(kept("windows"));
    input.windowed_by(SessionWindows::of(Duration::from_millis(20))).count(kept("sessions"));
    streams.table_with::<String, String>(
        "echo",
        Consumed::default(),
        Materialized::named("rows").versioned(hour),
    );
    let app = streams.build().unwrap().start(served(&pipeline, 1)).await.unwrap();
    let producer = kit.client().producer().build().unwrap();
    for (topic, value, at) in [
        ("in", "a", 5),
        ("in", "b", 7),
        ("in", "c", 25),
        ("in", "d", 60),
        ("echo", "x", 10),
        ("echo", "y", 30),
    ] {
        producer.send(Record::to(topic).key("k").value(value).timestamp_ms(at)).await.unwrap();
    }
    caught_up(&app).await;

    let windows = app.query::<Windowed<String>, i64>("windows").unwrap();
    let counted = |rows: klamm::streams::Rows<Windowed<String>, i64>| -> Vec<_> {
        rows.rows.into_iter().map(|row| (row.key.window.start_ms, row.key.window.end_ms, row.value)).collect()
    };
    assert_eq!(counted(windows.windows("k", 0..=20).await.unwrap().value), [(0, 10, 2), (20, 30, 1)]);
    assert_eq!(
        counted(windows.clone().reverse().windows("k", 5..).await.unwrap().value),
        [(60, 70, 1), (20, 30, 1)]
    );
    assert_eq!(counted(windows.windows_of_all(..=0).await.unwrap().value), [(0, 10, 2)]);
    let one = Windowed { key: "k".to_owned(), window: Window { start_ms: 20, end_ms: 30 } };
    let row = windows.row(one).await.unwrap();
    assert_eq!((row.value.unwrap().timestamp_ms, row.from[0].stream_time_ms), (25, 60));
    let error = windows.all().await.unwrap_err();
    assert!(error.to_string().contains("ask for windows"), "{error}");

    let sessions = app.query::<Windowed<String>, i64>("sessions").unwrap();
    assert_eq!(counted(sessions.windows("k", 10..=20).await.unwrap().value), [(5, 25, 3)]);
    assert_eq!(counted(sessions.windows_of_all(..).await.unwrap().value), [(5, 25, 3), (60, 60, 1)]);

    let rows = app.query::<String, String>("rows").unwrap();
    assert_eq!(rows.key("k").await.unwrap().value.as_deref(), Some("y"));
    assert_eq!(rows.as_of("k", 29).await.unwrap().value.as_deref(), Some("x"));
    let versions = rows.versions("k", ..).await.unwrap().value.rows;
    let versions: Vec<_> = versions.iter().map(|row| (&*row.value, row.timestamp_ms, row.until_ms)).collect();
    assert_eq!(versions, [("y", 30, None), ("x", 10, Some(30))]);
    assert_eq!(rows.versions("k", 12..15).await.unwrap().value.rows[0].until_ms, Some(30));
    assert_eq!(rows.prefix("k").await.unwrap().value.rows.len(), 1);
    let wrong = app.query::<String, i64>("rows").unwrap_err();
    assert!(matches!(wrong, StoreError::Types { .. }), "{wrong}");
    app.close().await.unwrap();
}

/// Status and body of an answer.
async fn exchange(address: &str, request: &[u8]) -> (u16, String) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    // Whoever is refused may not have been read to the end.
    let _ = socket.write_all(request).await;
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await;
    let answer = text(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

async fn post(address: &str, kind: &str, body: &str) -> (u16, String) {
    let head = format!(
        "POST /v1/query HTTP/1.1\r\nhost: {address}\r\ncontent-type: {kind}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    exchange(address, format!("{head}{body}").as_bytes()).await
}

#[klamm::test]
async fn the_endpoint_answers_people_and_refuses_what_is_wrong(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let apps = two(&mut pipeline, |config| config).await;
    let address = apps[0].query_address().unwrap();
    let json = |body: &'static str| post(address, "application/json", body);
    for key in counts_of(&pipeline).keys().filter(|key| key.starts_with('k')) {
        let body = format!(r#"{{"store": "counts", "query": {{"kind": "key", "key": "{key}"}}}}"#);
        let (status, body) = post(address, "application/json; charset=utf-8", &body).await;
        // 500 records, seven keys: 71 or 72 of each, big-endian.
        assert!(status == 200 && body.contains(&format!(r#""key":"{key}""#)), "{body}");
        assert!(body.contains(r#"{"base64":"AAAAAAAAAE"#) && body.contains(r#""standby":false"#), "{body}");
    }
    let (status, body) =
        json(r#"{"store": "counts", "query": {"kind": "prefix", "prefix": "k"}, "limit": 2}"#).await;
    assert!(status == 200 && body.contains(r#""next":{"place":"k1""#), "{body}");
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
    let (status, body) = exchange(address, get("/v1/stores/counts").as_bytes()).await;
    assert!(status == 200 && body.contains(apps[1].query_address().unwrap()), "{body}");

    let cases = [
        (404, "unknown_store", r#"{"store": "no", "query": {"kind": "range"}}"#),
        (400, "wrong_query", r#"{"store": "counts", "query": {"kind": "windows"}}"#),
        (400, "wrong_query", r#"{"store": "counts", "query": {"kind": "range"}, "partitions": [99]}"#),
        (400, "wrong_query", r#"{"store": "counts", "query": {"kind": "range"}, "lmit": 1}"#),
        (400, "wrong_query", "not json"),
        (409, "differs", r#"{"store": "counts", "query": {"kind": "range"}, "form": "0123456789abcdef"}"#),
        (503, "not_here", r#"{"store": "counts", "query": {"kind": "range"}, "here": true, "within_ms": 0}"#),
        (
            504,
            "timed_out",
            r#"{"store": "counts", "query": {"kind": "key", "key": "k"}, "within_ms": 30,
            "at_least": [{"topic": "in", "partition": 0, "offset": 999999},
            {"topic": "in", "partition": 1, "offset": 999999}, {"topic": "in", "partition": 2, "offset": 999999},
            {"topic": "in", "partition": 3, "offset": 999999}]}"#,
        ),
    ];
    for (wanted, code, request) in cases {
        let (status, body) = json(request).await;
        assert!(
            status == wanted && body.contains(&format!(r#""code":"{code}""#)),
            "{request}: {status} {body}"
        );
    }
    let (status, body) = post(address, "text/plain", "{}").await;
    assert!(status == 415 && body.contains("application/json"), "{body}");
    let long = format!(r#"{{"store": "{}"}}"#, "x".repeat(11 * 1024 * 1024));
    let (status, body) = post(address, "application/json", &long).await;
    assert!(status == 413 && body.contains("too_large"), "{status} {body}");
    close(apps).await;
}

#[klamm::test]
async fn keys_may_be_anything(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let apps = two(&mut pipeline, |config| config).await;
    let keys = ["a/b/../c", "nul\0nul", "", "ü\u{7f}\r\n\"\\", &"x".repeat(100_000)].map(str::to_owned);
    let producer = kit.client().producer().build().unwrap();
    for key in &keys {
        producer.send(Record::to("in").key(key.clone()).value("v")).await.unwrap();
    }
    for app in &apps {
        caught_up(app).await;
    }
    for app in &apps {
        let counts = app.query::<String, i64>("counts").unwrap();
        for key in &keys {
            let answer = counts.key(key.clone()).await.unwrap();
            assert_eq!(answer.value, Some(1), "{key:.20}");
        }
        assert_eq!(counts.all().await.unwrap().value.rows.len(), 27 + keys.len());
    }
    close(apps).await;
}

/// They hold up nobody, and not the end of the application.
#[klamm::test]
async fn slow_askers_hold_up_nobody(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let [first, second] = two(&mut pipeline, |config| config).await;
    let address = first.query_address().unwrap().to_owned();
    let mut slow = Vec::new();
    for sent in [
        "",
        "POST /v1/qu",
        "POST /v1/query HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{",
    ] {
        for _ in 0..20 {
            let mut socket = TcpStream::connect(&address).await.unwrap();
            socket.write_all(sent.as_bytes()).await.unwrap();
            slow.push(socket);
        }
    }
    let counts = second.query::<String, i64>("counts").unwrap();
    assert_eq!(counts.all().await.unwrap().value.rows.len(), 27);
    tokio::time::timeout(Duration::from_secs(20), first.close()).await.unwrap().unwrap();
    // Its directory is free again.
    let again = topology().start(served(&pipeline, 1)).await.unwrap();
    drop(slow);
    close([again, second]).await;
}

/// A version of the application in which the store holds something else.
fn changed() -> Topology {
    let mut streams = StreamsBuilder::new();
    let input = streams.stream::<String, String>("in");
    input.to("echo");
    let input = input.group_by_key();
    input.aggregate("counts", String::new, |_, value, all| format!("{all}{value}")).to_stream().to("totals");
    streams.build().unwrap()
}

#[klamm::test]
async fn an_instance_of_another_version_is_not_believed(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let old = topology().start(served(&pipeline, 1)).await.unwrap();
    until(|| old.metrics().tasks == 4).await;
    let new = changed().start(served(&pipeline, 2)).await.unwrap();
    until(|| old.metrics().tasks == 2 && new.metrics().tasks == 2).await;
    pipeline.feed(70).await;
    feed_others(&pipeline).await;
    let counts = old.query::<String, i64>("counts").unwrap().within(Duration::from_secs(5));
    let mut differs = 0;
    for key in counts_of(&pipeline).keys() {
        if let Err(error) = counts.key(&**key).await {
            assert!(matches!(&error, QueryError::Differs { .. }), "{error}");
            assert!(error.to_string().contains("different versions"), "{error}");
            differs += 1;
        }
    }
    assert!(differs > 0);
    drop((old, new));
}

#[klamm::test]
async fn the_endpoint_is_for_this_machine_unless_it_is_said(kit: TestKit) {
    let pipeline = Pipeline::new(&kit).await;
    let open = pipeline.config(1).query_server("0.0.0.0:0");
    let error = topology().start(open.clone()).await.unwrap_err();
    assert!(matches!(&error, StreamsError::OpenQueries { .. }), "{error}");
    assert!(error.to_string().contains("danger_open_queries"), "{error}");
    let error = topology().start(open.clone().danger_open_queries()).await.unwrap_err();
    assert!(matches!(&error, StreamsError::NoApplicationServer { .. }), "{error}");
    let open = open.danger_open_queries().application_server("this.example:7");
    let app = topology().start(open).await.unwrap();
    assert!(app.query_address().unwrap().starts_with("0.0.0.0:"));
    app.close().await.unwrap();
}

/// A task that comes knows from the group what its stores have: it need not commit anything here before.
#[klamm::test]
async fn what_was_written_before_a_task_came_is_known_of_it(kit: TestKit) {
    let mut pipeline = Pipeline::new(&kit).await;
    let first = topology().start(served(&pipeline, 1)).await.unwrap();
    pipeline.feed(100).await;
    feed_others(&pipeline).await;
    caught_up(&first).await;
    first.commit().await;
    let second = topology().start(served(&pipeline, 2)).await.unwrap();
    until(|| first.metrics().tasks == 2 && second.metrics().tasks == 2).await;
    caught_up(&second).await;
    let old = (0..4).fold(PositionBound::new(), |bound, partition| bound.record("in", partition, 0));
    for (key, count) in counts_of(&pipeline) {
        let asked = first.query::<String, i64>("counts").unwrap().at_least(old.clone());
        assert_eq!(asked.key(key.clone()).await.unwrap().value, Some(count), "{key}");
    }
    close([first, second]).await;
}
