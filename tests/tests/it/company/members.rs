//! Members of a group, each a process of its own: of this client, and of three that we did not write. A member prints
//! one line for each thing that it does, is told to leave by the end of its standard input, and can be killed.
//!
//! A line is `TIME_US EVENT ARGUMENTS`: `assigned P,P`, `revoked P,P`, `lost P,P`, `record P OFFSET VALUE`, `commit P
//! OFFSET` before and `committed P OFFSET` after the group has taken it. tests/foreign/README.md tells the rest.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm_tests::repository;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::group_history::{Entry, Event};
use super::{STUCK, klamm_member, now_us};
use crate::foreign::{go_build, java_build, java_jars, python};

/// How a group shares its partitions, as the programs are told.
pub(super) const RANGE: &str = "range";
pub(super) const COOPERATIVE: &str = "cooperative-sticky";
/// KIP-848: the coordinator does it.
pub(super) const CONSUMER: &str = "consumer";

/// The group that a member is of.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) bootstrap: String,
    pub(super) topic: String,
    pub(super) name: String,
    pub(super) protocol: &'static str,
    pub(super) partitions: i32,
    pub(super) log: Arc<Mutex<Log>>,
}

/// What the members of a group have said.
#[derive(Debug, Default)]
pub(super) struct Log {
    entries: Vec<Entry>,
    owned: BTreeMap<String, BTreeSet<i32>>,
    /// How many records of each partition were processed.
    pub(super) processed: BTreeMap<i32, u64>,
    /// Which.
    pub(super) values: HashSet<String>,
}

/// The programs of other makes.
pub(super) struct Programs {
    /// A class path.
    pub(super) java: String,
    pub(super) python: PathBuf,
    pub(super) go: PathBuf,
}

/// Whose client a member uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Make {
    Klamm,
    Java,
    Librdkafka,
    FranzGo,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    reading: JoinHandle<()>,
    said: tempfile::NamedTempFile,
}

impl Log {
    fn note(&mut self, entry: Entry) {
        let owned = self.owned.entry(entry.member.clone()).or_default();
        match &entry.event {
            Event::Assigned(partitions) => owned.extend(partitions),
            Event::Revoked(partitions) | Event::Lost(partitions) => {
                owned.retain(|partition| !partitions.contains(partition));
            }
            Event::Gone => drop(self.owned.remove(&entry.member)),
            Event::Record { partition, value, .. } => {
                *self.processed.entry(*partition).or_default() += 1;
                self.values.insert(value.clone());
            }
            Event::Commit { .. } | Event::Committed { .. } => {}
        }
        self.entries.push(entry);
    }
}

impl Group {
    pub(super) fn new(bootstrap: &str, topic: &str, partitions: i32, protocol: &'static str) -> Self {
        let (bootstrap, topic, name) = (bootstrap.to_owned(), topic.to_owned(), format!("{topic}-group"));
        Self { bootstrap, topic, name, protocol, partitions, log: Arc::default() }
    }

    /// Waits until the partitions are shared by all of these members, and nobody else.
    pub(super) async fn settled(&self, members: &[Member]) {
        let began = Instant::now();
        loop {
            let owned = self.log.lock().unwrap().owned.clone();
            let all: Vec<i32> = owned.values().flatten().copied().collect();
            let each_once = all.iter().collect::<BTreeSet<_>>().len() == all.len();
            let busy =
                members.iter().filter(|m| owned.get(&m.name).is_some_and(|has| !has.is_empty())).count();
            let partitions = usize::try_from(self.partitions).unwrap();
            if each_once && all.len() == partitions && busy == members.len().min(partitions) {
                return;
            }
            let said = || members.iter().map(Member::said).collect::<Vec<_>>().join("\n");
            assert!(began.elapsed() < STUCK, "B7: the group does not settle: {owned:?}\n{}", said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The history so far, in the order of its times.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let mut entries = self.log.lock().unwrap().entries.clone();
        entries.sort_by_key(|entry| entry.at_us);
        entries
    }
}

impl Programs {
    /// All of them, where they are installed; what is missing was said.
    pub(super) async fn find() -> Option<Self> {
        let what = "groups of clients of four makes";
        let java = java_build(&java_jars(what)?, "Member", "member").await;
        let python = python(what, "confluent-kafka-2.16.1")?;
        Some(Self { java, python, go: go_build(what, "franz-go-member").await? })
    }

    fn command(&self, make: Make) -> Command {
        match make {
            Make::Klamm => klamm_member::command(),
            Make::Java => {
                let mut java = Command::new("java");
                java.args(["-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]);
                java.args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", &self.java, "Member"]);
                java
            }
            Make::Librdkafka => {
                let mut python = Command::new(&self.python);
                python.arg("tests/foreign/python/member.py").env("PYTHONDONTWRITEBYTECODE", "1");
                python
            }
            Make::FranzGo => Command::new(&self.go),
        }
    }
}

impl Member {
    /// A member of this client.
    pub(super) fn join_klamm(group: &Group, name: String) -> Self {
        Self::start(klamm_member::command(), group, name)
    }

    /// A member of any make.
    pub(super) fn join(programs: &Programs, make: Make, group: &Group, name: String) -> Self {
        Self::start(programs.command(make), group, name)
    }

    fn start(mut command: Command, group: &Group, name: String) -> Self {
        let said = tempfile::NamedTempFile::new().unwrap();
        let arguments = [&group.bootstrap, &group.topic, &group.name, group.protocol];
        command.args(arguments).env(klamm_member::VARIABLE, arguments.join(" "));
        command.current_dir(repository()).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(said.reopen().unwrap());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (log, member) = (Arc::clone(&group.log), name.clone());
        let reading = tokio::task::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some((at_us, event)) = parse(&line) {
                    log.lock().unwrap().note(Entry { at_us, member: member.clone(), event });
                }
            }
        });
        let stdin = child.stdin.take();
        Self { name, child, stdin, reading, said }
    }

    /// Leaves the group and ends.
    pub(super) async fn leave(mut self, group: &Group) {
        drop(self.stdin.take());
        let ended = timeout(STUCK, self.child.wait()).await;
        let ended = ended.unwrap_or_else(|_| panic!("B7: {} does not leave: {}", self.name, self.said()));
        assert!(ended.unwrap().success(), "{} failed: {}", self.name, self.said());
        self.gone(group).await;
    }

    /// `kill -9`.
    pub(super) async fn kill(mut self, group: &Group) {
        self.child.kill().await.unwrap();
        self.gone(group).await;
    }

    async fn gone(self, group: &Group) {
        let Self { name, reading, .. } = self;
        timeout(STUCK, reading).await.expect("the last lines").unwrap();
        group.log.lock().unwrap().note(Entry { at_us: now_us(), member: name, event: Event::Gone });
    }

    /// The end of what it wrote to standard error.
    pub(super) fn said(&self) -> String {
        let said = std::fs::read_to_string(self.said.path()).unwrap_or_default();
        let lines: Vec<&str> = said.lines().rev().take(8).collect();
        format!("{}: {}", self.name, lines.into_iter().rev().collect::<Vec<_>>().join("\n  "))
    }
}

fn parse(line: &str) -> Option<(i64, Event)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let numbers =
        |list: &str| list.split(',').map(|number| number.parse().ok()).collect::<Option<Vec<i32>>>();
    let at_us = words.first()?.parse().ok()?;
    let event = match words[1..] {
        ["assigned", list] => Event::Assigned(numbers(list)?),
        ["revoked", list] => Event::Revoked(numbers(list)?),
        ["lost", list] => Event::Lost(numbers(list)?),
        ["record", partition, offset, value] => Event::Record {
            partition: partition.parse().ok()?,
            offset: offset.parse().ok()?,
            value: value.to_owned(),
        },
        ["commit", partition, offset] => {
            Event::Commit { partition: partition.parse().ok()?, offset: offset.parse().ok()? }
        }
        ["committed", partition, offset] => {
            Event::Committed { partition: partition.parse().ok()?, offset: offset.parse().ok()? }
        }
        _ => return None,
    };
    Some((at_us, event))
}

#[test]
fn lines_of_members_are_read() {
    assert_eq!(parse("7 assigned 0,2"), Some((7, Event::Assigned(vec![0, 2]))));
    assert_eq!(parse("8 lost 1"), Some((8, Event::Lost(vec![1]))));
    let record = Event::Record { partition: 1, offset: 5, value: "v".into() };
    assert_eq!(parse("9 record 1 5 v"), Some((9, record)));
    assert_eq!(parse("9 committed 1 6"), Some((9, Event::Committed { partition: 1, offset: 6 })));
    for noise in ["", "running 1 test", "7", "7 assigned", "7 assigned x", "7 record 1 5"] {
        assert_eq!(parse(noise), None, "{noise:?}");
    }
}
