//! Apache Kafka itself: the same listener, pipeline and command line run on it unchanged, where users go when one
//! machine is too small; and the client's own tests against it run here, where there is one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use klamm_tests::{BrokerProcess, klamm_binary, repository, run, run_command, run_with_input};
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::company::Kafka;
use crate::foreign::java_jars;
use crate::job::shout_and_hear;

const STEP: Duration = Duration::from_secs(60);
/// Cold, this compiles the client and its tests.
const BUILD: Duration = Duration::from_secs(600);
/// A filter that matches nothing any more is a failure.
const CLIENT_TESTS_MIN: u32 = 20;
const TRANSACTION_TESTS_MIN: u32 = 12;
const CLIENT_TESTS: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_a_pipeline_and_the_command_line_run_on_apache_kafka() {
    let Some(jars) = java_jars("the same job on Apache Kafka") else { return };
    let kafka = Kafka::start(jars, 1, &[]).await;
    let bootstrap = kafka.bootstrap();
    shout_and_hear(&bootstrap).await;

    let klamm = klamm_binary().await;
    let input = b"one\ntwo\nthree\n".to_vec();
    let produced = run_with_input(klamm, ["produce", "words", "--bootstrap", &bootstrap], input, STEP).await;
    assert!(produced.success, "{}", produced.stderr);
    let arguments = ["consume", "words", "--from", "beginning", "--until-end", "--bootstrap", &bootstrap];
    let consumed = run(klamm, arguments, STEP).await;
    assert!(consumed.success, "{}", consumed.stderr);
    assert_eq!(consumed.stdout, "one\ntwo\nthree\n");
}

/// The tests of client/tests/it that say that they are skipped where `KLAMM_APACHE_KAFKA` names no broker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_own_tests_against_apache_kafka_pass() {
    let Some(jars) = java_jars("the client's tests against Apache Kafka") else { return };
    let (kafka, tests) = tokio::join!(Kafka::start(jars, 1, &[]), client_tests());
    let filters = ["apache_kafka::", "cutting::", "real_broker::"];
    run_client_tests(tests, &kafka.bootstrap(), &filters, CLIENT_TESTS_MIN).await;
}

/// Those of them that need no more than our own broker has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_own_tests_of_transactions_pass_on_klamm() {
    let data = tempfile::tempdir().unwrap();
    let (broker, tests) = tokio::join!(BrokerProcess::start(data.path()), client_tests());
    let filters = ["apache_kafka::", "cutting::"];
    run_client_tests(tests, broker.bootstrap(), &filters, TRANSACTION_TESTS_MIN).await;
    broker.stop(Duration::from_secs(10)).await;
}

async fn run_client_tests(tests: &Path, bootstrap: &str, filters: &[&str], at_least: u32) {
    let mut command = Command::new(tests);
    command.args(filters).arg("--nocapture");
    // Most of them wait for the broker's clock.
    command.arg("--test-threads=6");
    command.env("KLAMM_APACHE_KAFKA", bootstrap);
    let ran = run_command(command, CLIENT_TESTS).await;
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(ran.success, "{said}");
    assert!(!said.contains("skipped"), "{said}");
    let passed =
        said.split_once("test result: ok. ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    assert!(passed >= Some(at_least), "{passed:?} tests ran: are the filters still right?\n{said}");
}

/// The test program of client/tests/it. Who has just built everything needs only its name, and asks with the same
/// features: with others cargo would compile the dependencies again.
async fn client_tests() -> &'static Path {
    // Once: two would build the same at the same time.
    static TESTS: OnceCell<PathBuf> = OnceCell::const_new();
    TESTS.get_or_init(built_client_tests).await
}

async fn built_client_tests() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    // What cargo tells this program about its package would make others' build scripts run again, and with them all of
    // the build: this very program would be replaced while it runs.
    for (name, _) in std::env::vars_os() {
        let of_package = |prefix: &str| name.to_string_lossy().starts_with(prefix);
        if of_package("CARGO_PKG_") || of_package("CARGO_MANIFEST_") || of_package("CARGO_CRATE_") {
            cargo.env_remove(name);
        }
    }
    cargo.args(["test", "--no-run", "--message-format=json-render-diagnostics"]).current_dir(repository());
    if std::env::var_os("KLAMM_PROGRAMS_BUILT").is_some() {
        cargo.args(["--workspace", "--all-features"]);
    } else {
        cargo.args(["-p", "klamm-client", "--test", "it"]);
    }
    let built = run_command(cargo, BUILD).await;
    assert!(built.success, "{}", built.stderr);
    let messages = cargo_metadata::Message::parse_stream(built.stdout.as_bytes());
    let found = messages.filter_map(Result::ok).find_map(|message| match message {
        cargo_metadata::Message::CompilerArtifact(artifact) => {
            let client =
                artifact.manifest_path.ends_with("client/Cargo.toml") && artifact.target.name == "it";
            artifact.executable.filter(|_| client)
        }
        _ => None,
    });
    found.expect("cargo names the client's tests").into_std_path_buf()
}
