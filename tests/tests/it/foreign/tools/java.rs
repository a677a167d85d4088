//! Kafka's tools, one after the other in one process of Java (tests/foreign/java/Tools.java).

use std::fmt;
use std::process::Stdio;
use std::time::Duration;

use klamm_tests::repository;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// The slowest waits for a group to be over.
const CALL: Duration = Duration::from_secs(60);

/// What a tool printed and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Said {
    pub(super) out: Vec<String>,
    pub(super) err: Vec<String>,
    pub(super) exit: i32,
}

impl Said {
    /// Whether a line has this in it.
    pub(super) fn has(&self, text: &str) -> bool {
        self.out.iter().chain(&self.err).any(|line| line.contains(text))
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit {}", self.exit)?;
        self.out.iter().try_for_each(|line| write!(f, "\n    {line}"))?;
        self.err.iter().try_for_each(|line| write!(f, "\n    err: {line}"))
    }
}

/// The process. Dropping it kills it.
pub(super) struct Tools {
    _child: Child,
    calls: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
}

impl Tools {
    pub(super) fn start(jars: &str) -> Self {
        let mut java = Command::new("java");
        java.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m"]);
        java.args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=off", "-cp", jars]);
        java.arg("tests/foreign/java/Tools.java").current_dir(repository()).kill_on_drop(true);
        java.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = java.spawn().unwrap();
        let calls = child.stdin.take().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { _child: child, calls, said }
    }

    /// One call: the class and its arguments, with tabs between.
    pub(super) async fn call(&mut self, line: &str) -> Said {
        self.calls.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        let mut said = Said::default();
        loop {
            let next = timeout(CALL, self.said.next_line()).await;
            let next = next.unwrap_or_else(|_| panic!("{line} does not end; so far it said {said}"));
            let next = next.unwrap().unwrap_or_else(|| panic!("Java is gone at {line}"));
            let (kind, text) = next.split_once(' ').unwrap_or((&next, ""));
            match kind {
                "out" => said.out.push(text.to_owned()),
                "err" => said.err.push(text.to_owned()),
                _ => {
                    said.exit = text.parse().unwrap();
                    return said;
                }
            }
        }
    }
}
