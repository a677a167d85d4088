//! A process that gets SIGTERM drains and exits with 0. On real sockets and real time, because a process is real.

use std::env;
use std::process::Stdio;
use std::time::Duration;

use klamm::broker::Broker;
use klamm::prelude::*;
use klamm::testing::TestKit;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

/// Makes this test binary, started once more, the process under test.
const BOOTSTRAP: &str = "KLAMM_SIGNAL_TEST_BOOTSTRAP";
const TEST: &str = "signals::a_process_that_gets_sigterm_drains";

async fn takes_a_while(Value(text): Value<String>) {
    println!("begin {text}");
    sleep(Duration::from_millis(500)).await;
    println!("end {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_gets_sigterm_drains() {
    if let Ok(bootstrap) = env::var(BOOTSTRAP) {
        let listener = Listener::on("t").group("g").handle(takes_a_while);
        App::new(bootstrap).listener(listener).run().await.unwrap();
        println!("drained");
        return;
    }
    timeout(Duration::from_secs(60), terminate_a_child()).await.unwrap();
}

async fn terminate_a_child() {
    let broker = Broker::builder().ephemeral().listen("127.0.0.1:0").start().await.unwrap();
    // The kit on a real address, as with KLAMM_TEST.
    let kit = TestKit::on(broker.bootstrap()).await;
    kit.create_topic("t", 1).await;
    for text in ["a", "b", "c"] {
        kit.send("t", "k", text).await;
    }

    let mut child = Command::new(env::current_exe().unwrap())
        .args([TEST, "--exact", "--nocapture"])
        .env(BOOTSTRAP, broker.bootstrap())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = Vec::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.ends_with("begin a") {
            let process = child.id().unwrap().to_string();
            let sent =
                Command::new("sh").args(["-c", &format!("kill -TERM {process}")]).status().await.unwrap();
            assert!(sent.success());
        }
        said.push(line);
    }
    assert!(child.wait().await.unwrap().success(), "{said:#?}");
    let position = |text: &str| said.iter().position(|line| line.contains(text));
    assert!(position("end a").unwrap() < position("drained").unwrap(), "{said:#?}");
    assert_eq!(position("begin b"), None, "nothing is begun after the signal: {said:#?}");
    assert_eq!(kit.committed("g", "t", 0).await, Some(1));
    broker.shutdown().await.unwrap();
}
