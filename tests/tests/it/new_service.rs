//! What `klamm new` makes: it compiles outside of the workspace, its tests pass, and it handles what is sent to it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use klamm_tests::{BrokerProcess, Signal, klamm_binary, repository, signal};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use super::tutorial::COMPILING;

/// Long enough to compile everything below `klamm` on a machine that has other things to do.
const DEADLINE: Duration = Duration::from_secs(600);
const STEP: Duration = Duration::from_secs(60);

/// A command in the new crate's folder; dependencies are compiled where the tutorial's are.
async fn command(program: &Path, folder: &Path, bootstrap: &str) -> Command {
    let target = klamm_binary().await.ancestors().nth(2).unwrap().join("tutorial");
    let mut command = Command::new(program);
    command.current_dir(folder).kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(Stdio::piped()).env("CARGO_TARGET_DIR", target).env("CARGO_NET_OFFLINE", "true");
    command.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_INCREMENTAL", "0");
    command.env("KLAMM_BOOTSTRAP", bootstrap);
    command
}

/// Runs it to its end; it must succeed.
async fn succeeds(mut command: Command) -> String {
    let output = timeout(DEADLINE, command.output()).await.expect("it does not end").unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

#[tokio::test]
async fn a_new_service_compiles_runs_and_has_tests() {
    let _turn = COMPILING.lock().await;
    let data = tempfile::tempdir().unwrap();
    let broker = BrokerProcess::start(data.path()).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let (klamm, cargo, bootstrap) = (klamm_binary().await, Path::new("cargo"), broker.bootstrap());

    let mut new = command(klamm, elsewhere.path(), bootstrap).await;
    new.args(["new", "corner-shop", "--checkout"]).arg(repository());
    let said = succeeds(new).await;
    assert!(said.contains("cd corner-shop"), "{said}");
    let folder = elsewhere.path().join("corner-shop");
    // The same versions as here, so that nothing has to be downloaded.
    std::fs::copy(repository().join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();

    let mut test = command(cargo, &folder, bootstrap).await;
    test.arg("test");
    let said = succeeds(test).await;
    for name in ["an_order_is_billed", "an_order_that_nobody_pays_becomes_a_dead_letter"] {
        assert!(said.contains(&format!("test tests::{name} ... ok")), "{said}");
    }
    assert!(!said.contains("warning"), "{said}");

    let mut run = command(cargo, &folder, bootstrap).await;
    let mut running = run.args(["run", "--quiet"]).stderr(Stdio::inherit()).spawn().unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    let mut produce = command(klamm, &folder, bootstrap).await;
    produce.args(["produce", "orders"]).stdin(Stdio::piped());
    let mut producing = produce.spawn().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut producing.stdin.take().unwrap(), b"{\"id\":1,\"cents\":250}\n")
        .await
        .unwrap();
    assert!(timeout(STEP, producing.wait()).await.unwrap().unwrap().success());
    let handled = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line == "order 1 costs 250 cents, 250 in all" {
                return;
            }
        }
        panic!("it ended before it handled the order");
    };
    timeout(DEADLINE, handled).await.expect("the order is not handled");
    signal(running.id().unwrap(), Signal::INT);
    assert!(timeout(STEP, running.wait()).await.unwrap().unwrap().success());

    let mut clean = command(cargo, &folder, bootstrap).await;
    clean.args(["clean", "-p", "corner-shop"]);
    succeeds(clean).await;
    broker.stop(STEP).await;
}
