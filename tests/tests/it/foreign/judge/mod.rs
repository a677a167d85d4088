//! Kafka Streams as a judge: the same pipelines over the same records in both test drivers, and what comes of each
//! record is equal, in its order and with its timestamps.
//!
//! `pipelines` has Klamm's, tests/foreign/java/Judge.java has Java's, under the same names; `records` makes what they
//! are fed.

mod pipelines;
mod records;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Stdio;
use std::time::Duration;

use klamm::streams::{StreamsBuilder, TopologyTestDriver};
use klamm_runtime::{Rng, SeededRng};
use klamm_tests::{repository, seed};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use self::pipelines::Order;
use self::records::Row;
use super::installed::{java_build, java_jars};

const ALL: Duration = Duration::from_secs(240);
const CASES_OF_EACH: u64 = 40;
const RECORDS: u64 = 60;

struct Case {
    pipeline: &'static pipelines::Pipeline,
    seed: u64,
    rows: Vec<Row>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_streams_tells_the_same() {
    let Some(jars) = java_jars("Kafka Streams as a judge") else { return };
    let classes = java_build(&jars, "Judge", "judge").await;
    let rng = SeededRng::new(seed(20_261_123));
    let mut cases = Vec::new();
    for pipeline in &pipelines::ALL {
        for _ in 0..CASES_OF_EACH {
            let seed = rng.next_u64();
            cases.push(Case { pipeline, seed, rows: pipeline.shape.rows(&SeededRng::new(seed), RECORDS) });
        }
    }
    let theirs = judge(&classes, &cases).await;
    assert_eq!(theirs.len(), cases.len());
    let mut wrong = BTreeMap::new();
    for (case, theirs) in cases.iter().zip(&theirs) {
        if let Some(difference) = difference(case, &run(case), theirs) {
            wrong.entry(case.pipeline.name).or_insert(difference);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.into_values().collect::<String>());
    let told: usize = theirs.iter().flatten().map(Vec::len).sum();
    assert!(told > cases.len() * 10, "hardly anything was told: {told} records in {} cases", cases.len());
}

/// What came of each record of a case.
type Told = Vec<Vec<String>>;

/// The first record of which something else came, and all before it.
fn difference(case: &Case, ours: &Told, theirs: &Told) -> Option<String> {
    let of_each_key = |told: &Vec<String>| {
        let mut told = told.clone();
        told.sort_by(|one, other| one.split('\t').next().cmp(&other.split('\t').next()));
        told
    };
    let whole = |told: &Told| {
        let mut whole: Vec<String> = told.iter().flatten().cloned().collect();
        whole.sort();
        whole
    };
    let place = match case.pipeline.order {
        Order::Any if whole(ours) == whole(theirs) => None,
        Order::Any => Some(case.rows.len() - 1),
        order => (0..case.rows.len()).find(|place| match (order, ours.get(*place), theirs.get(*place)) {
            (Order::OfEachKey, Some(ours), Some(theirs)) => of_each_key(ours) != of_each_key(theirs),
            (_, ours, theirs) => ours != theirs,
        }),
    }?;
    let mut text = format!("\n{}, seed {}, after these records:", case.pipeline.name, case.seed);
    for ((row, theirs), ours) in case.rows[..=place].iter().zip(theirs).zip(ours) {
        write!(text, "\n  {row} -> {theirs:?}").unwrap();
        if ours != theirs {
            write!(text, "\n    with Klamm {ours:?}").unwrap();
        }
    }
    text.push('\n');
    Some(text)
}

/// What Klamm tells of a case, line by line as the judge says it.
fn run(case: &Case) -> Told {
    let mut streams = StreamsBuilder::new();
    (case.pipeline.build)(&mut streams);
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    let shown = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let told = case.rows.iter().map(|row| {
        let input = driver.input::<String, String>(row.topic);
        input.pipe_nullable(row.key.map(str::to_owned), row.value.clone()).at(row.timestamp_ms);
        let told = driver.output::<Option<String>, Option<String>>("out").read_all();
        let told = told.into_iter();
        told.map(|told| format!("{}\t{}\t{}", shown(told.key), shown(told.value), told.timestamp_ms))
            .collect()
    });
    told.collect()
}

/// What Kafka Streams tells of each case.
async fn judge(classes: &str, cases: &[Case]) -> Vec<Told> {
    let state = tempfile::tempdir().unwrap();
    let mut java = Command::new("java");
    java.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx384m"]);
    java.args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=off", "-cp", classes, "Judge"]).arg(state.path());
    java.current_dir(repository()).kill_on_drop(true);
    java.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut java = java.spawn().unwrap();
    let mut input = java.stdin.take().unwrap();
    let mut text = String::new();
    for case in cases {
        writeln!(text, "case {}", case.pipeline.name).unwrap();
        case.rows.iter().for_each(|row| writeln!(text, "{row}").unwrap());
    }
    let feed = tokio::spawn(async move { input.write_all(text.as_bytes()).await });
    let output = timeout(ALL, java.wait_with_output()).await.expect("the judge ends").unwrap();
    let (said, complained) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{complained}");
    feed.await.unwrap().unwrap();
    let mut told = Vec::<Told>::new();
    for line in said.lines() {
        match (line, told.last_mut()) {
            (line, _) if line.starts_with("case ") => told.push(Told::new()),
            ("record", Some(case)) => case.push(Vec::new()),
            (line, Some(case)) => case.last_mut().expect("a record first").push(line.to_owned()),
            (line, None) => panic!("not asked for: {line}"),
        }
    }
    told
}
