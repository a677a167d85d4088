//! Windows, joins of streams and foreign-key joins while instances come, go, vanish and are cut off: what comes out in
//! the end is what comes out of a calm run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use klamm::client::testing::Answer;
use klamm::client::{ApiKey, Record, TopicPartition};
use klamm::streams::{
    JoinWindows, SessionWindows, StreamsApp, StreamsBuilder, StreamsConfig, Topology, TopologyTestDriver,
    TumblingWindows, Windowed,
};
use klamm::testing::TestKit;

use crate::pipeline::{APPLICATION, Pipeline, SESSION, text};

const PARTITIONS: i32 = 3;
const KEYS: u64 = 9;
const ROUNDS: u64 = 8;
const ROUND_MS: i64 = 1_000;
const PER_ROUND: u64 = 60;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Joins of `L` and `R`, windows over `L`, and orders with their users.
fn everything() -> Topology {
    let mut streams = StreamsBuilder::new();
    let left = streams.stream::<String, String>("L");
    let right = streams.stream::<String, String>("R");
    let near = JoinWindows::of(ms(20)).grace(ms(4_000));
    let both = left.outer_join_within(&right, "both", near, |l, r| {
        let side = |side: Option<&String>| side.map_or("none", String::as_str).to_owned();
        format!("{}+{}", side(l), side(r))
    });
    both.to("pairs");
    let show = |key: &Windowed<String>, count: &Option<i64>| {
        (key.key.clone(), format!("{}-{}:{count:?}", key.window.start_ms, key.window.end_ms))
    };
    let windows = TumblingWindows::of(ms(250)).grace(ms(4_000));
    let counts = left.group_by_key().windowed_by(windows).emit_on_window_close().count("counts");
    counts.to_stream().map(show).to("finals");
    let sessions = SessionWindows::of(ms(30)).grace(ms(4_000));
    let counts = left.group_by_key().windowed_by(sessions).emit_on_window_close().count("sessions");
    counts.to_stream().map(show).to("sessions-out");
    let orders = streams.table::<String, String>("orders");
    let users = streams.table::<String, String>("users");
    let joined = orders.left_foreign_key_join(
        &users,
        "owned",
        |_, user| user.clone(),
        |order, user| format!("{order} of {user:?}"),
    );
    joined.to_stream().to("owned-out");
    let totals = orders.group_by(|order, user| (user.clone(), order.clone())).count("orders-of");
    totals.to_stream().to("orders-of-out");
    streams.build().unwrap()
}

#[derive(Debug, Clone)]
struct Fed {
    topic: &'static str,
    key: String,
    value: Option<String>,
    at: i64,
}

/// What is fed in a round, in this order.
fn fed(round: u64) -> Vec<Fed> {
    let mut all = Vec::new();
    for n in 0..PER_ROUND {
        let at = ROUND_MS * round as i64 + (n * 16) as i64;
        let key = format!("k{}", (n * 7 + round) % KEYS);
        if !n.is_multiple_of(4) {
            all.push(Fed { topic: "L", key: key.clone(), value: Some(format!("l{round}.{n}")), at });
        }
        if !n.is_multiple_of(3) {
            all.push(Fed { topic: "R", key, value: Some(format!("r{round}.{n}")), at: at + 5 });
        }
        let order = format!("o{}", n % 20);
        let user = format!("u{}", (n * 3 + round * 5) % 7);
        let gone = (n + round).is_multiple_of(9);
        all.push(Fed { topic: "orders", key: order, value: (!gone).then_some(user), at });
        if n.is_multiple_of(5) {
            let gone = (n / 5 + round).is_multiple_of(4);
            let value = (!gone).then(|| format!("city{round}.{n}"));
            all.push(Fed { topic: "users", key: format!("u{}", n / 5 % 7), value, at });
        }
    }
    all
}

/// Of what comes out: all of what is told once, and the last of what is told again and again.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    once: BTreeMap<String, u32>,
    last: BTreeMap<String, Option<String>>,
}

impl Told {
    fn once(&mut self, topic: &str, key: &str, value: &str) {
        // Those of the records that close everything are not part of it.
        if !key.starts_with("end") {
            *self.once.entry(format!("{topic} {key} {value}")).or_default() += 1;
        }
    }

    fn last(&mut self, topic: &str, key: &str, value: Option<String>) {
        let key = format!("{topic} {key}");
        match value {
            Some(value) => self.last.insert(key, Some(value)),
            None => self.last.remove(&key),
        };
    }
}

const ONCE: [&str; 3] = ["pairs", "finals", "sessions-out"];
const LONG_AFTER_MS: i64 = ROUND_MS * ROUNDS as i64 + 60_000;

fn calm() -> Told {
    let driver = TopologyTestDriver::new(everything());
    for round in 0..ROUNDS {
        for Fed { topic, key, value, at } in fed(round) {
            driver.input::<String, String>(topic).pipe_nullable(Some(key), value).at(at);
        }
    }
    for topic in ["L", "R", "L", "R"] {
        driver.input::<String, String>(topic).pipe("end", "end").at(LONG_AFTER_MS);
    }
    let mut told = Told::default();
    for topic in ONCE {
        for record in driver.output::<String, String>(topic).read_all() {
            told.once(topic, &record.key, &record.value);
        }
    }
    for record in driver.output::<String, Option<String>>("owned-out").read_all() {
        told.last("owned-out", &record.key, record.value);
    }
    for record in driver.output::<String, Option<i64>>("orders-of-out").read_all() {
        told.last("orders-of-out", &record.key, record.value.map(|count| count.to_string()));
    }
    told
}

async fn found(pipeline: &Pipeline) -> Told {
    let mut told = Told::default();
    for topic in ONCE {
        for record in pipeline.read(topic).await {
            told.once(topic, &text(&record.key.unwrap()), &text(&record.value.unwrap()));
        }
    }
    for record in pipeline.read("owned-out").await {
        told.last("owned-out", &text(&record.key.unwrap()), record.value.map(|value| text(&value)));
    }
    for record in pipeline.read("orders-of-out").await {
        let count = record.value.map(|value| i64::from_be_bytes(value[..].try_into().unwrap()).to_string());
        told.last("orders-of-out", &text(&record.key.unwrap()), count);
    }
    told
}

async fn feed(kit: &TestKit, records: Vec<Fed>) {
    let producer = kit.client().producer().build().unwrap();
    let mut sent = Vec::new();
    for Fed { topic, key, value, at } in records {
        let record = Record::to(topic).key(key).timestamp_ms(at);
        let record = match value {
            Some(value) => record.value(value),
            None => record,
        };
        sent.push(producer.enqueue(record).await.unwrap());
    }
    for sent in sent {
        sent.await.unwrap();
    }
}

/// What happens to the instances while a round is processed.
#[derive(Debug, Clone, Copy)]
enum Turn {
    /// One more comes.
    Comes,
    /// One closes.
    Closes,
    /// One is dropped, and its disk stays.
    Vanishes,
    /// All are expelled.
    Expelled,
    /// One rests for a while.
    Rests,
    /// All connections are cut.
    Cut,
    /// Nobody's heartbeats are answered for longer than a session.
    Silence,
    /// The broker is started again.
    Broker,
}

struct Crowd<'a> {
    pipeline: &'a Pipeline,
    exactly_once: bool,
    apps: Vec<(usize, StreamsApp)>,
    next: usize,
}

impl Crowd<'_> {
    fn config(&self, instance: usize) -> StreamsConfig {
        // Every other one has to look for rows on its disk again and again.
        let cache_bytes = [1_000, 10 * 1024 * 1024][instance % 2];
        let config = self.pipeline.config(instance).threads(1 + instance / 2 % 2).cache_bytes(cache_bytes);
        if self.exactly_once { config.exactly_once() } else { config }
    }

    async fn comes(&mut self) {
        // Disks of those that are gone are used again.
        let used: BTreeSet<usize> = self.apps.iter().map(|(disk, _)| *disk).collect();
        let disk = (0..4).map(|n| (self.next + n) % 4).find(|disk| !used.contains(disk)).unwrap();
        self.next += 1;
        self.apps.push((disk, everything().start(self.config(disk)).await.unwrap()));
    }

    async fn caught_up(&self) {
        let app = &self.apps[0].1;
        if tokio::time::timeout(Duration::from_secs(90), app.caught_up()).await.is_ok_and(|done| done.is_ok())
        {
            return;
        }
        let kit = &self.pipeline.kit;
        let mut left = Vec::new();
        for topic in kit.client().admin().list_topics().await.unwrap() {
            let count = kit.client().partition_count(&topic.name).await.unwrap();
            let all: Vec<_> = (0..count).map(|n| TopicPartition::new(topic.name.clone(), n)).collect();
            let reader = kit.client().consumer().assign(all.clone()).start().await.unwrap();
            let ends = reader.handle().end_offsets(&all).await.unwrap();
            for partition in all {
                let committed = kit.committed(APPLICATION, &partition.topic, partition.partition).await;
                let end = ends[&partition];
                if committed.is_some_and(|committed| committed < end) {
                    left.push(format!("{partition}: {committed:?} of {end}"));
                }
            }
        }
        let apps: Vec<_> =
            self.apps.iter().map(|(disk, app)| format!("{disk}: {app:?} {:?}", app.failure())).collect();
        panic!("not caught up: {}\n{}", apps.join("\n"), left.join("\n"));
    }

    async fn turn(&mut self, turn: Turn) {
        let kit = &self.pipeline.kit.clone();
        match turn {
            Turn::Comes => self.comes().await,
            Turn::Closes => {
                let (_, app) = self.apps.remove(0);
                app.close().await.unwrap();
            }
            Turn::Vanishes => drop(self.apps.remove(0)),
            Turn::Expelled => kit.expel(APPLICATION).await,
            Turn::Rests => {
                self.apps[0].1.pause();
                tokio::time::sleep(ms(400)).await;
                self.apps[0].1.resume();
            }
            Turn::Cut => drop(kit.faults().disconnect()),
            Turn::Silence => {
                kit.faults().always(ApiKey::Heartbeat, Answer::Hang);
                tokio::time::sleep(SESSION + ms(500)).await;
                kit.faults().behave().disconnect();
            }
            Turn::Broker => kit.restart_broker().await,
        }
        if self.apps.is_empty() {
            self.comes().await;
        }
    }
}

async fn run(kit: &TestKit, exactly_once: bool, turns: [Turn; ROUNDS as usize]) {
    let pipeline = Pipeline::new(kit).await;
    for topic in
        ["L", "R", "orders", "users", "pairs", "finals", "sessions-out", "owned-out", "orders-of-out"]
    {
        kit.create_topic(topic, PARTITIONS).await;
    }
    let mut crowd = Crowd { pipeline: &pipeline, exactly_once, apps: Vec::new(), next: 0 };
    crowd.comes().await;
    for (round, turn) in (0..).zip(turns) {
        let records = fed(round);
        let half = records.len() / 2;
        feed(kit, records[..half].to_vec()).await;
        tokio::time::sleep(ms(60 * (round % 4))).await;
        crowd.turn(turn).await;
        feed(kit, records[half..].to_vec()).await;
    }
    crowd.caught_up().await;
    for (topic, partition) in
        ["L", "R", "L", "R"].into_iter().flat_map(|t| (0..PARTITIONS).map(move |p| (t, p)))
    {
        let record = Record::to(topic).partition(partition).key("end").value("end");
        kit.send_record(record.timestamp_ms(LONG_AFTER_MS)).await;
    }
    crowd.caught_up().await;
    let (mut wanted, mut found) = (calm(), found(&pipeline).await);
    if !exactly_once {
        // Some of it may be there twice, and windows that were counted twice have more.
        for told in [&mut wanted, &mut found] {
            told.once.retain(|line, _| line.starts_with("pairs"));
            told.once.values_mut().for_each(|times| *times = 1);
            told.last.retain(|line, _| line.starts_with("owned"));
        }
    }
    let differences = |a: &Told, b: &Told| -> Vec<String> {
        let once = a.once.iter().filter(|(line, times)| b.once.get(*line) != Some(times));
        let last = a.last.iter().filter(|(line, value)| b.last.get(*line) != Some(value));
        let once = once.map(|(line, times)| format!("{times} x {line}"));
        once.chain(last.map(|(line, value)| format!("{line} = {value:?}"))).collect()
    };
    let (missing, mut more) = (differences(&wanted, &found), differences(&found, &wanted));
    if !exactly_once {
        // What is processed again when its window has closed finds no partner any more.
        more.retain(|line| !line.contains("none"));
    }
    assert!(missing.is_empty() && more.is_empty(), "missing: {missing:#?}\nmore: {more:#?}");
    for (_, app) in crowd.apps {
        app.close().await.unwrap();
    }
}

use Turn::{Broker, Closes, Comes, Cut, Expelled, Rests, Silence, Vanishes};

macro_rules! runs {
    ($($name:ident: $exactly_once:literal, $turns:expr;)*) => {$(
        #[klamm::test]
        async fn $name(kit: TestKit) {
            run(&kit, $exactly_once, $turns).await;
        }
    )*};
}

runs! {
    once_as_instances_come_and_go: true,
        [Comes, Rests, Comes, Closes, Comes, Closes, Closes, Comes];
    once_as_instances_vanish: true,
        [Comes, Vanishes, Comes, Vanishes, Comes, Comes, Vanishes, Vanishes];
    once_as_members_are_expelled: true,
        [Comes, Expelled, Rests, Expelled, Cut, Expelled, Broker, Expelled];
    once_as_the_group_hears_nothing: true,
        [Comes, Silence, Comes, Silence, Vanishes, Silence, Rests, Closes];
    joins_at_least_once_as_instances_come_and_go: false,
        [Comes, Rests, Comes, Closes, Comes, Closes, Closes, Comes];
    joins_at_least_once_as_instances_vanish: false,
        [Comes, Vanishes, Comes, Vanishes, Expelled, Comes, Vanishes, Vanishes];
    joins_at_least_once_as_the_group_hears_nothing: false,
        [Comes, Silence, Broker, Cut, Expelled, Comes, Closes, Silence];
}
