//! The `klamm` command against a broker in a process of its own: what scripts rely on.

use std::process::Stdio;
use std::time::Duration;

use klamm_tests::{BrokerProcess, Finished, Signal, klamm_binary, run_with_input, signal};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

const DEADLINE: Duration = Duration::from_secs(60);

/// Runs `klamm ARGUMENTS --bootstrap ...` to its end.
async fn klamm_with_input(broker: &BrokerProcess, arguments: &[&str], input: &str) -> Finished {
    let arguments = [arguments, &["--bootstrap", broker.bootstrap()]].concat();
    run_with_input(klamm_binary().await, arguments, input.as_bytes().to_vec(), DEADLINE).await
}

/// As [`klamm_with_input`], and it must succeed; gives standard output.
#[track_caller]
fn succeeded(finished: Finished) -> String {
    assert!(finished.success, "failed:\n{}", finished.stderr);
    finished.stdout
}

async fn klamm(broker: &BrokerProcess, arguments: &[&str]) -> String {
    succeeded(klamm_with_input(broker, arguments, "").await)
}

async fn json(broker: &BrokerProcess, arguments: &[&str]) -> Value {
    let stdout = klamm(broker, &[arguments, &["--output", "json"]].concat()).await;
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {stdout}"))
}

#[tokio::test]
async fn what_is_produced_is_consumed() {
    let data = tempfile::tempdir().unwrap();
    let broker = BrokerProcess::start(data.path()).await;
    assert!(broker.ready_line().ends_with(" ms"), "{}", broker.ready_line());

    let produced = klamm_with_input(&broker, &["produce", "numbers"], "1\n2\n3\n").await;
    assert_eq!(succeeded(produced), "", "standard output is for data");
    let consume = ["consume", "numbers", "--from", "beginning", "--until-end"];
    assert_eq!(klamm(&broker, &consume).await, "1\n2\n3\n");
    assert_eq!(klamm(&broker, &[&consume[..], &["--max", "2"]].concat()).await, "1\n2\n");
    assert_eq!(klamm(&broker, &["consume", "numbers", "--from", "1", "--until-end"]).await, "2\n3\n");
    assert_eq!(klamm(&broker, &["consume", "numbers", "--from", "end", "--until-end"]).await, "");
    assert_eq!(klamm(&broker, &["consume", "numbers", "--from", "@-1h", "--until-end"]).await, "1\n2\n3\n");
    assert_eq!(klamm(&broker, &["consume", "numbers", "--from", "@2100-01-01", "--until-end"]).await, "");
    broker.stop(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn keys_headers_compressions_and_formats() {
    let data = tempfile::tempdir().unwrap();
    let broker = BrokerProcess::start(data.path()).await;
    for (compression, acks) in
        [("none", "all"), ("gzip", "1"), ("snappy", "0"), ("lz4", "all"), ("zstd", "1")]
    {
        let settings =
            ["--compression", compression, "--acks", acks, "--header", "h=1", "--key-separator", ":"];
        let arguments = [&["produce", compression][..], &settings].concat();
        succeeded(klamm_with_input(&broker, &arguments, "k:v:w\nnokey\n").await);
        let consume = ["consume", compression, "--from", "beginning", "--max", "2"];
        let text = klamm(&broker, &[&consume[..], &["--format", "%p %o %k=%v [%h]"]].concat()).await;
        assert_eq!(text, "0 0 k=v:w [h=1]\n0 1 =nokey [h=1]\n", "{compression}");
        let lines = klamm(&broker, &[&consume[..], &["--format", "json"]].concat()).await;
        let records: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(records[0]["key"], "k");
        assert_eq!(records[0]["headers"][0]["name"], "h");
        assert_eq!(records[1]["key"], Value::Null);
        assert_eq!(records[1]["offset"], 1);
    }
}

#[tokio::test]
async fn topics_are_created_described_listed_and_deleted() {
    let data = tempfile::tempdir().unwrap();
    let broker = BrokerProcess::start(data.path()).await;
    klamm(&broker, &["topic", "create", "t", "--partitions", "3", "--config", "retention.ms=60000"]).await;
    let again = klamm_with_input(&broker, &["topic", "create", "t"], "").await;
    assert!(!again.success);
    assert!(again.stderr.contains("TOPIC_ALREADY_EXISTS"), "{}", again.stderr);

    let listed = json(&broker, &["topic", "list"]).await;
    assert_eq!(listed[0]["topic"], "t");
    assert_eq!(listed[0]["partitions"], 3);
    succeeded(klamm_with_input(&broker, &["produce", "t", "--key-separator", ":"], "a:1\nb:2\n").await);
    let described = json(&broker, &["topic", "describe", "t"]).await;
    let partitions = described[0]["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 3);
    assert_eq!(partitions.iter().map(|partition| partition["end_offset"].as_i64().unwrap()).sum::<i64>(), 2);
    assert!(klamm(&broker, &["topic", "describe", "t"]).await.starts_with("TOPIC  PARTITION  LEADER"));

    let half = klamm_with_input(&broker, &["topic", "delete", "t", "missing"], "").await;
    assert!(!half.success, "one of two failed");
    assert!(half.stderr.contains("missing") && half.stderr.contains("1 of 2 failed"), "{}", half.stderr);
    assert_eq!(json(&broker, &["topic", "list"]).await, Value::Array(Vec::new()));
    let gone = klamm_with_input(&broker, &["consume", "t", "--from", "beginning", "--until-end"], "").await;
    assert!(!gone.success && gone.stderr.contains("topic t: UNKNOWN_TOPIC_OR_PARTITION"), "{}", gone.stderr);
}

#[tokio::test]
async fn a_group_remembers_what_it_read() {
    let data = tempfile::tempdir().unwrap();
    let broker = BrokerProcess::start(data.path()).await;
    klamm(&broker, &["topic", "create", "t", "--partitions", "2"]).await;
    succeeded(
        klamm_with_input(&broker, &["produce", "t", "--key-separator", ":"], "a:1\nb:2\nc:3\nd:4\n").await,
    );
    let consume = ["consume", "t", "--group", "readers", "--from", "beginning", "--until-end"];
    let mut first: Vec<String> = klamm(&broker, &consume).await.lines().map(str::to_owned).collect();
    first.sort();
    assert_eq!(first, ["1", "2", "3", "4"]);
    succeeded(klamm_with_input(&broker, &["produce", "t"], "5\n").await);
    assert_eq!(lag(&broker).await, 1);
    assert_eq!(klamm(&broker, &consume).await, "5\n");
    assert_eq!(lag(&broker).await, 0);

    let listed = json(&broker, &["group", "list"]).await;
    assert_eq!(listed[0]["group"], "readers");
    let described = json(&broker, &["group", "describe", "readers"]).await;
    assert_eq!(described[0]["state"], "Empty", "the member left when it ended");
    let unknown = klamm_with_input(&broker, &["group", "describe", "nobody"], "").await;
    assert!(!unknown.success && unknown.stderr.contains("nobody"), "{}", unknown.stderr);
}

async fn lag(broker: &BrokerProcess) -> i64 {
    let described = json(broker, &["group", "describe", "readers"]).await;
    let partitions = described[0]["partitions"].as_array().unwrap();
    partitions.iter().map(|partition| partition["lag"].as_i64().unwrap_or(0)).sum()
}

#[tokio::test]
async fn perf_measures_both_directions() {
    let data = tempfile::tempdir().unwrap();
    let broker = BrokerProcess::start(data.path()).await;
    let arguments =
        ["perf", "produce", "p", "--records", "5000", "--size", "50", "--partitions", "2", "--linger", "1"];
    let produced = json(&broker, &arguments).await;
    assert_eq!(produced["records"], 5_000);
    assert_eq!(produced["bytes"], 250_000);
    assert!(produced["latency_ms"]["p99"].as_f64().unwrap() > 0.0);
    let consumed = json(&broker, &["perf", "consume", "p"]).await;
    assert_eq!(consumed["records"], 5_000);
    assert!(consumed["records_per_s"].as_f64().unwrap() > 0.0);
}

/// `klamm consume t | head -1`: the reader goes away, and that is nobody's fault.
#[tokio::test]
async fn a_closed_standard_output_is_a_quiet_end() {
    let data = tempfile::tempdir().unwrap();
    let broker = BrokerProcess::start(data.path()).await;
    let input: String = (0..50_000).map(|number| format!("a line with the number {number}\n")).collect();
    succeeded(klamm_with_input(&broker, &["produce", "t"], &input).await);
    let mut consume = Command::new(klamm_binary().await)
        .args(["consume", "t", "--from", "beginning", "--bootstrap", broker.bootstrap()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(consume.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).await.unwrap();
    assert_eq!(line, "a line with the number 0\n");
    drop(stdout);
    let status = tokio::time::timeout(DEADLINE, consume.wait()).await.expect("it ends").unwrap();
    let mut stderr = String::new();
    consume.stderr.take().unwrap().read_to_string(&mut stderr).await.unwrap();
    assert!(status.success() && stderr.is_empty(), "{status}: {stderr}");
}

#[tokio::test]
async fn a_broker_says_what_is_wrong_with_its_settings() {
    let data = tempfile::tempdir().unwrap();
    let refused = BrokerProcess::try_start(data.path(), "127.0.0.1:0", &["num.partitions=many"]).await;
    let said = refused.map(|_| "it started").unwrap_err();
    assert!(said.contains("num.partitions"), "{said}");
    let refused = BrokerProcess::try_start(data.path(), "0.0.0.0:0", &[]).await;
    let said = refused.map(|_| "it started").unwrap_err();
    assert!(said.contains("danger_plaintext_network"), "{said}");

    let broker = BrokerProcess::start_with(data.path(), "127.0.0.1:0", &["no.such.setting=1"]).await;
    assert!(broker.log().contains("no.such.setting"), "an unknown key is a warning that names it");
    let second = BrokerProcess::try_start(data.path(), "127.0.0.1:0", &[]).await;
    assert!(second.is_err(), "two brokers on one data directory");
    broker.stop(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn a_server_properties_file_is_read() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("server.properties");
    let log_dirs = data.path().join("logs");
    let text = format!(
        "# a comment\nlog.dirs={}\nlisteners=PLAINTEXT://127.0.0.1:0\nnum.partitions=3\n",
        log_dirs.display()
    );
    std::fs::write(&file, text).unwrap();
    let mut broker = Command::new(klamm_binary().await)
        .arg("broker")
        .arg("--config")
        .arg(&file)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(broker.stdout.take().unwrap());
    let mut ready = String::new();
    tokio::time::timeout(DEADLINE, stdout.read_line(&mut ready)).await.expect("it starts").unwrap();
    let address =
        ready.split_whitespace().nth(1).unwrap_or_else(|| panic!("not a ready line: {ready:?}")).to_owned();
    let produce = ["produce", "auto", "--bootstrap", &address];
    succeeded(run_with_input(klamm_binary().await, produce, b"1\n".to_vec(), DEADLINE).await);
    let list = ["topic", "list", "--output", "json", "--bootstrap", &address];
    let listed = succeeded(run_with_input(klamm_binary().await, list, Vec::new(), DEADLINE).await);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["partitions"], 3);
    assert!(log_dirs.join("auto-0").is_dir());

    // SIGINT is as good as SIGTERM, and nothing more is printed.
    signal(broker.id().unwrap(), Signal::INT);
    let status =
        tokio::time::timeout(Duration::from_secs(10), broker.wait()).await.expect("it drains").unwrap();
    assert!(status.success());
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "", "one line is all there is on standard output");
}

#[tokio::test]
async fn what_consume_writes_as_json_produce_reads() {
    let data = tempfile::tempdir().unwrap();
    let broker = BrokerProcess::start(data.path()).await;
    let produce = ["produce", "from", "--key-separator", ":", "--null-marker", "NULL", "--timestamp", "7"];
    let lines = "k:v\nk:NULL\nno key\n";
    succeeded(klamm_with_input(&broker, &[&produce[..], &["--header", "h=1"]].concat(), lines).await);
    let consume = ["--from", "beginning", "--until-end"];
    let json = klamm(&broker, &[&["consume", "from", "--format", "json"], &consume[..]].concat()).await;
    let first = concat!(
        r#"{"topic":"from","partition":0,"offset":0,"timestamp_ms":7,"key":"k","value":"v","#,
        r#""headers":[{"name":"h","value":"1"}]}"#
    );
    let same = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    assert_eq!(same(json.lines().next().unwrap()), same(first));

    succeeded(klamm_with_input(&broker, &["produce", "to", "--input", "json"], &json).await);
    let copied = klamm(&broker, &[&["consume", "to", "--format", "json"], &consume[..]].concat()).await;
    assert_eq!(copied, json.replace(r#""topic":"from""#, r#""topic":"to""#));

    let both =
        klamm(&broker, &[&["consume", "from", "to", "--format", "%T %k"], &consume[..]].concat()).await;
    let mut both: Vec<&str> = both.lines().collect();
    both.sort_unstable();
    assert_eq!(both, ["from ", "from k", "from k", "to ", "to k", "to k"]);

    let wrong = klamm_with_input(&broker, &["produce", "to", "--input", "json"], "{\"valeu\":1}\n").await;
    assert!(!wrong.success && wrong.stderr.contains("line 1: there is no field `valeu`"), "{}", wrong.stderr);
}

#[tokio::test]
async fn latency_is_measured_from_end_to_end() {
    let data = tempfile::tempdir().unwrap();
    let broker = BrokerProcess::start(data.path()).await;
    let measured = json(&broker, &["perf", "latency", "t", "--records", "50", "--rate", "500"]).await;
    assert_eq!(measured["records"], 50);
    let p50_ms = measured["latency_ms"]["p50"].as_f64().unwrap();
    assert!(p50_ms > 0.0 && p50_ms < 10_000.0, "{measured}");
}

#[tokio::test]
async fn shells_and_man_are_told_of_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = klamm_tests::run(klamm_binary().await, ["completions", shell], DEADLINE).await;
        assert!(script.success && script.stdout.contains("until-end"), "{shell}: {}", script.stderr);
    }
    let folder = tempfile::tempdir().unwrap();
    let pages =
        klamm_tests::run(klamm_binary().await, ["man".as_ref(), folder.path().as_os_str()], DEADLINE).await;
    assert!(pages.success, "{}", pages.stderr);
    for page in ["klamm.1", "klamm-consume.1", "klamm-topic-create.1", "klamm-perf-latency.1"] {
        assert!(folder.path().join(page).is_file(), "{page}");
    }
}
