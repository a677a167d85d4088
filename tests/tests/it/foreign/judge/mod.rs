//! Kafka Streams as a judge: the same pipelines over the same records in both test drivers, and every record that comes out is equal, in
//! its order and with its timestamp.
//!
//! `pipelines` has Klamm's, tests/foreign/java/Judge.java has Java's, under the same names; `records` makes what they are fed.

mod pipelines;
mod records;

use std::fmt::Write as _;
use std::process::Stdio;
use std::time::Duration;

use klamm::streams::{StreamsBuilder, TopologyTestDriver};
use klamm_runtime::{Rng, SeededRng};
use klamm_tests::{repository, seed};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use self::records::{Row, Shape};
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
    let mut wrong = String::new();
    for (case, theirs) in cases.iter().zip(&theirs) {
        let ours = run(case);
        let different =
            (0..ours.len().max(theirs.len())).find(|place| ours.get(*place) != theirs.get(*place));
        if let Some(place) = different
            && !wrong.contains(&format!("\n{}:", case.pipeline.name))
        {
            let (ours, theirs) = (from(&ours, place), from(theirs, place));
            let (name, seed, fed) = (case.pipeline.name, case.seed, case.rows.len());
            write!(
                wrong,
                "\n{name}: seed {seed}, {fed} records, output {place}\n  Klamm: {ours:?}\n  Kafka: {theirs:?}"
            )
            .unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    let told: usize = theirs.iter().map(Vec::len).sum();
    assert!(told > cases.len() * 10, "hardly anything was told: {told} records in {} cases", cases.len());
}

fn from(told: &[String], place: usize) -> &[String] {
    &told[place.saturating_sub(2).min(told.len())..told.len().min(place + 3)]
}

/// What Klamm tells of a case, line by line as the judge says it.
fn run(case: &Case) -> Vec<String> {
    let mut streams = StreamsBuilder::new();
    (case.pipeline.build)(&mut streams);
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    for row in &case.rows {
        let input = driver.input::<String, String>(row.topic);
        input.pipe_nullable(row.key.map(str::to_owned), row.value.clone()).at(row.timestamp_ms);
    }
    let told = driver.output::<Option<String>, Option<String>>("out").read_all();
    let shown = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    told.into_iter()
        .map(|told| format!("{}\t{}\t{}", shown(told.key), shown(told.value), told.timestamp_ms))
        .collect()
}

/// What Kafka Streams tells of each case.
async fn judge(classes: &str, cases: &[Case]) -> Vec<Vec<String>> {
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
    let mut told = Vec::<Vec<String>>::new();
    for line in said.lines() {
        match line.strip_prefix("case ") {
            Some(_) => told.push(Vec::new()),
            None => told.last_mut().expect("a case first").push(line.to_owned()),
        }
    }
    told
}
