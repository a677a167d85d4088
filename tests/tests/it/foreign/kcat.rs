//! The scenario by Debian's kcat, which carries an older librdkafka than any wheel here. It is no library, so its
//! program is this file.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use klamm_client::{Client as Klamm, NewTopic, Record};
use klamm_tests::{BrokerProcess, run, run_with_input, skip};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, timeout};

use super::clients::{CLIENTS, Kind};
use super::scenario::{CODECS, broker, conclude};
use super::steps::{Outcome, Report};

const STEP: Duration = Duration::from_secs(30);
const PREFIX: &str = "kcat";
const LACKS: &[(&str, &str)] = &[
    ("create-topic", "no such command"),
    ("delete-topic", "no such command"),
    ("record-errors", "a batch fails as a whole"),
    ("list-groups", "no such command"),
    ("describe-group", "no such command"),
    ("group-offsets", "no such command"),
    ("delete-group", "no such command"),
    ("delete-group-offsets", "no such command"),
    ("describe-cluster", "no such command"),
    ("describe-configs", "no such command"),
    ("alter-configs", "no such command"),
    ("create-partitions", "no such command"),
    ("delete-records", "no such command"),
    ("describe-acls", "no such command"),
    ("consumer-protocol", "classic groups only"),
    ("transaction-offsets", "no such command"),
];

type Step = Result<(), String>;

pub(super) async fn passes() {
    let client =
        CLIENTS.iter().find(|client| matches!(client.kind, Kind::Kcat)).expect("kcat is in the table");
    if Command::new("kcat").arg("-V").output().await.is_err() {
        return skip(&client.label(), "kcat is not installed", "scripts/setup test");
    }
    let (broker, _data) = broker(PREFIX).await;
    let kcat = Kcat { bootstrap: broker.bootstrap().to_owned() };
    let mut report = Report::default();
    report.line(&format!("client kcat {}", version().await), Duration::ZERO);
    for (step, why) in LACKS {
        report.step(step, Outcome::Unsupported((*why).to_owned()), Duration::ZERO);
    }
    kcat.all_steps(&mut report, &broker).await;
    let bootstrap = kcat.bootstrap;
    conclude(client, report, broker, &bootstrap, PREFIX, "").await;
}

/// The second word of the line `Version 1.7.1 (...)`.
async fn version() -> String {
    let said = run("kcat", ["-V"], STEP).await.stdout;
    let line = said.lines().find_map(|line| line.strip_prefix("Version ")).unwrap_or_default();
    line.split_whitespace().next().unwrap_or_default().to_owned()
}

/// One step, timed.
async fn step(report: &mut Report, name: &str, action: impl Future<Output = Step>) {
    let begun = Instant::now();
    let outcome = match action.await {
        Ok(()) => Outcome::Ok,
        Err(why) => Outcome::Failed(why),
    };
    report.step(name, outcome, begun.elapsed());
}

fn check(holds: bool, what: impl FnOnce() -> String) -> Step {
    if holds { Ok(()) } else { Err(what()) }
}

fn lines(text: &str) -> BTreeSet<String> {
    text.lines().map(str::to_owned).collect()
}

fn values(range: std::ops::Range<u32>) -> BTreeSet<String> {
    range.map(|number| format!("value-{number}")).collect()
}

struct Kcat {
    bootstrap: String,
}

impl Kcat {
    async fn all_steps(&self, report: &mut Report, broker: &BrokerProcess) {
        step(report, "connect", async { self.says(&["-L"], "1 brokers").await }).await;
        for (codec, _) in CODECS {
            let name = format!("produce-{codec}");
            step(report, &name, self.produce(&format!("kcat-{codec}"), 0..100, &["-z", codec])).await;
        }
        for acks in ["0", "1", "all"] {
            let setting = format!("acks={acks}");
            let topic = format!("kcat-acks-{acks}");
            step(report, &format!("acks-{acks}"), self.produce(&topic, 0..10, &["-X", &setting])).await;
        }
        let idempotent = ["-X", "enable.idempotence=true"];
        step(report, "idempotence", self.produce("kcat-idempotence", 0..10, &idempotent)).await;
        step(report, "metadata-all", self.says(&["-L"], "topic \"kcat-from-klamm\" with 4 partitions")).await;
        step(
            report,
            "metadata-one",
            self.says(&["-L", "-t", "kcat-none"], "topic \"kcat-none\" with 4 partitions"),
        )
        .await;
        step(report, "list-offsets", self.list_offsets()).await;
        step(report, "read-klamm", async {
            let said = self.run(&["-C", "-t", "kcat-from-klamm", "-e", "-q", "-f", "%s\\n"]).await?;
            check(lines(&said) == values(0..500), || said)
        })
        .await;
        step(report, "subscribe-pattern", async {
            let said = self.member("kcat-pattern", "500", "^kcat-from-.*").await?;
            check(lines(&said) == values(0..500), || said)
        })
        .await;
        step(report, "group-of-two", self.group_of_two(broker)).await;
        self.commit_and_resume(report).await;
        step(report, "transaction", self.transactions()).await;
    }

    /// It commits at the end of its input; there is no way to have it abort.
    async fn transactions(&self) -> Step {
        let transactional = ["-X", "transactional.id=kcat-tx", "-X", "socket.timeout.ms=10000"];
        for range in [0..3, 3..6] {
            self.produce("kcat-tx", range, &transactional).await?;
        }
        let committed = ["-X", "isolation.level=read_committed"];
        let said =
            self.run(&[&["-C", "-t", "kcat-tx", "-e", "-q", "-f", "%s\\n"], &committed[..]].concat()).await?;
        check(lines(&said) == values(0..6), || said)
    }

    /// Runs kcat; what it printed, or what was wrong.
    async fn run(&self, arguments: &[&str]) -> Result<String, String> {
        self.run_with_input(arguments, String::new()).await
    }

    async fn run_with_input(&self, arguments: &[&str], input: String) -> Result<String, String> {
        let arguments = ["-b", &self.bootstrap].into_iter().chain(arguments.iter().copied());
        let finished = run_with_input("kcat", arguments, input.into_bytes(), STEP).await;
        if finished.success { Ok(finished.stdout) } else { Err(finished.stderr) }
    }

    async fn says(&self, arguments: &[&str], wanted: &str) -> Step {
        let said = self.run(arguments).await?;
        check(said.contains(wanted), || said)
    }

    async fn produce(&self, topic: &str, range: std::ops::Range<u32>, more: &[&str]) -> Step {
        let input = range.map(|number| format!("key-{number}:value-{number}\n")).collect();
        let arguments = [&["-P", "-t", topic, "-K", ":", "-X", "linger.ms=50"], more].concat();
        self.run_with_input(&arguments, input).await.map(drop)
    }

    async fn list_offsets(&self) -> Step {
        let partitions: Vec<_> = (0..4).map(|partition| format!("kcat-none:{partition}:-1")).collect();
        let mut arguments = vec!["-Q"];
        arguments.extend(partitions.iter().flat_map(|partition| ["-t", partition.as_str()]));
        let said = self.run(&arguments).await?;
        let ends = said.lines().filter_map(|line| line.rsplit(' ').next()?.parse::<u32>().ok());
        check(ends.sum::<u32>() == 100, || said.clone())
    }

    /// What a member of `group` reads of `topic` before it leaves after `count` records.
    async fn member(&self, group: &str, count: &str, topic: &str) -> Result<String, String> {
        self.run(&[&["-c", count], &member_arguments(group, topic)[..]].concat()).await
    }

    /// A member stops after sixty records; the next one begins where it had committed, also with what was written in
    /// between.
    async fn commit_and_resume(&self, report: &mut Report) {
        let mut seen = BTreeSet::new();
        step(report, "commit", async {
            seen = lines(&self.member("kcat-group", "60", "kcat-none").await?);
            let admin = Klamm::connect(&self.bootstrap).await.map_err(|error| error.to_string())?.admin();
            let committed = admin.committed_offsets("kcat-group").await.map_err(|error| error.to_string())?;
            check(committed.values().sum::<i64>() == 60, || format!("{committed:?}"))
        })
        .await;
        step(report, "resume", async {
            self.produce("kcat-none", 100..110, &[]).await?;
            let after = lines(&self.member("kcat-group", "50", "kcat-none").await?);
            check(seen.is_disjoint(&after), || "a record twice".to_owned())?;
            seen.extend(after);
            check(seen == values(0..110), || format!("{} seen", seen.len()))
        })
        .await;
    }

    async fn group_of_two(&self, broker: &BrokerProcess) -> Step {
        let client = Klamm::connect(broker.bootstrap()).await.map_err(|error| error.to_string())?;
        client.admin().create_topics(&[NewTopic::new("kcat-shared").partitions(4)]).await.unwrap();
        let (heard, mut hearing) = unbounded_channel();
        let _members = [0, 1].map(|member| self.listen(member, heard.clone()));
        timeout(STEP, both_own_two(&client))
            .await
            .map_err(|_| "two members never own two partitions each")?;
        let producer = client.producer().build().unwrap();
        for number in 0..100 {
            let record =
                Record::to("kcat-shared").key(format!("key-{number}")).value(format!("value-{number}"));
            producer.send(record).await.unwrap();
        }
        let by_member =
            timeout(STEP, hear(&mut hearing, 100)).await.map_err(|_| "the group misses records")??;
        check(by_member.iter().all(|seen| !seen.is_empty()), || "one member had no work".to_owned())?;
        let all: BTreeSet<_> = by_member.into_iter().flatten().collect();
        check(all == values(0..100), || "not the values that were written".to_owned())
    }

    /// A member that goes on until it is dropped, and tells each line.
    fn listen(&self, member: usize, heard: UnboundedSender<(usize, String)>) -> Child {
        let mut command = Command::new("kcat");
        command.args(["-b", &self.bootstrap]).args(member_arguments("kcat-pair", "kcat-shared"));
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        tokio::task::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let _ = heard.send((member, line));
            }
        });
        child
    }
}

/// The arguments of a kcat that joins `group` and prints the values of `topic`, unbuffered.
fn member_arguments<'a>(group: &'a str, topic: &'a str) -> [&'a str; 11] {
    let (reset, heartbeat) = ("auto.offset.reset=earliest", "heartbeat.interval.ms=500");
    ["-G", group, "-q", "-u", "-f", "%s\\n", "-X", reset, "-X", heartbeat, topic]
}

async fn both_own_two(client: &Klamm) {
    loop {
        let described = client.admin().describe_groups(&["kcat-pair"]).await.unwrap();
        let members = described.values().flatten().flat_map(|group| &group.members);
        let owned: Vec<_> = members.map(|member| member.assignment.len()).collect();
        if owned == [2, 2] {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The next `count` lines, by member; none may come twice.
async fn hear(
    hearing: &mut UnboundedReceiver<(usize, String)>,
    count: usize,
) -> Result<[BTreeSet<String>; 2], String> {
    let mut by_member = [BTreeSet::new(), BTreeSet::new()];
    while by_member.iter().map(BTreeSet::len).sum::<usize>() < count {
        let (member, line) = hearing.recv().await.ok_or("both members ended")?;
        if let Some(twice) = by_member[member].replace(line) {
            return Err(format!("twice: {twice}"));
        }
    }
    Ok(by_member)
}
