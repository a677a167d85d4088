//! Kafka's own log dumper reads the segments and indexes that our broker wrote.

use std::time::Duration;

use klamm_tests::{BrokerProcess, run};

use super::installed::java_jars;
use super::scenario::write_with_every_codec;

const DUMP: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafkas_own_dumper_reads_our_segments() {
    let Some(jars) = java_jars("Kafka's log dumper") else { return };
    let data = tempfile::tempdir().unwrap();
    let settings = ["num.partitions=1", "log.segment.bytes=1048576"];
    let broker = BrokerProcess::start_with(data.path(), "127.0.0.1:0", &settings).await;
    write_with_every_codec(broker.bootstrap(), "dumped").await;
    broker.stop(Duration::from_secs(10)).await;

    let folder = data.path().join("dumped-0");
    let log = folder.join("00000000000000000000.log");
    let files = [log.clone(), log.with_extension("index"), log.with_extension("timeindex")];
    let files = files.map(|file| file.display().to_string()).join(",");
    let arguments = [
        "-XX:TieredStopAtLevel=1",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-cp",
        &jars,
        "org.apache.kafka.tools.DumpLogSegments",
        "--deep-iteration",
        "--print-data-log",
        "--files",
        &files,
    ];
    let finished = run("java", arguments, DUMP).await;
    assert!(finished.success, "{}\n{}", finished.stdout, finished.stderr);
    let records = finished.stdout.lines().filter(|line| line.contains("payload: value-")).count();
    assert_eq!(records, 500, "{}", finished.stdout);
    for complaint in ["isvalid: false", "Mismatches", "Non-consecutive", "Exception", "error", "Invalid"] {
        assert!(!finished.stdout.contains(complaint), "{complaint}: {}", finished.stdout);
        assert!(!finished.stderr.contains(complaint), "{complaint}: {}", finished.stderr);
    }
}
