//! Where users go when one machine is too small: the same listener, pipeline and command line,
//! unchanged, on Apache Kafka.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use klamm_client::Client;
use klamm_tests::{klamm_binary, run, run_with_input};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::foreign::java_jars;
use crate::job::shout_and_hear;

const STEP: Duration = Duration::from_secs(60);
/// A JVM on a busy machine takes its time.
const START: Duration = Duration::from_secs(120);

/// One Kafka node, broker and controller in one; killed when dropped.
async fn start(folder: &Path, jars: &str) -> (Child, String) {
    let [port, controller_port] = free_ports();
    let data = folder.join("data");
    let properties = folder.join("server.properties");
    let settings = format!(
        "process.roles=broker,controller\nnode.id=1\n\
         controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n\
         offsets.topic.replication.factor=1\ngroup.initial.rebalance.delay.ms=0\nlog.dirs={}\n",
        data.display()
    );
    std::fs::write(&properties, settings).unwrap();
    let java =
        ["-Xmx512m", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", jars];
    let properties = properties.to_str().unwrap();
    let format = [
        "kafka.tools.StorageTool",
        "format",
        "--standalone",
        "-t",
        "4L6g3nShT-eMCtK--X86sw",
        "-c",
        properties,
    ];
    let formatted = run("java", java.into_iter().chain(format), STEP).await;
    assert!(formatted.success, "{}{}", formatted.stdout, formatted.stderr);

    let mut node = Command::new("java");
    node.args(java).args(["kafka.Kafka", properties]);
    let node = node
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let bootstrap = format!("127.0.0.1:{port}");
    let answers = async { while Client::connect(&bootstrap).await.is_err() {} };
    timeout(START, answers).await.expect("Kafka starts");
    (node, bootstrap)
}

fn free_ports() -> [u16; 2] {
    let held = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_a_pipeline_and_the_command_line_run_on_apache_kafka() {
    let Some(jars) = java_jars("the same job on Apache Kafka") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (mut node, bootstrap) = start(folder.path(), &jars).await;
    shout_and_hear(&bootstrap).await;

    let klamm = klamm_binary().await;
    let input = b"one\ntwo\nthree\n".to_vec();
    let produced = run_with_input(klamm, ["produce", "words", "--bootstrap", &bootstrap], input, STEP).await;
    assert!(produced.success, "{}", produced.stderr);
    let arguments = ["consume", "words", "--from", "beginning", "--until-end", "--bootstrap", &bootstrap];
    let consumed = run(klamm, arguments, STEP).await;
    assert!(consumed.success, "{}", consumed.stderr);
    assert_eq!(consumed.stdout, "one\ntwo\nthree\n");
    node.kill().await.unwrap();
}
