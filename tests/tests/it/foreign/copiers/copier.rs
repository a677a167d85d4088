//! The copiers: whose client each is on, how its program is started, and what it says while it lives.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use klamm_tests::{Signal, repository, signal};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;

use crate::foreign::installed::{go_build, java_build, java_jars, node_modules, old_java_jars, python};

/// Of what a copier says so much is shown when something fails.
const LINES_SHOWN: usize = 15;

/// Whose client a copier is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Make {
    /// kafka-clients 3.9: transactions as they were before KIP-890.
    OldJava,
    Java,
    Librdkafka,
    FranzGo,
    Aiokafka,
    KafkaJs,
}

impl Make {
    pub(super) const ALL: [Self; 6] =
        [Self::OldJava, Self::Java, Self::Librdkafka, Self::FranzGo, Self::Aiokafka, Self::KafkaJs];
    /// Those that name their membership when they commit offsets (KIP-447) can share a group with others.
    pub(super) const THAT_MIX: [Self; 4] = [Self::OldJava, Self::Java, Self::Librdkafka, Self::FranzGo];

    /// How its copier is started; nothing where this machine does not have it, which was said.
    pub(super) async fn program(self) -> Option<Program> {
        // Built once: a program that runs cannot be written.
        static OLD_JAVA: OnceCell<Option<String>> = OnceCell::const_new();
        static JAVA: OnceCell<Option<String>> = OnceCell::const_new();
        static GO: OnceCell<Option<PathBuf>> = OnceCell::const_new();
        let what = "copiers in transactions";
        let folder = repository().join("tests/foreign");
        let script = |interpreter: PathBuf, script: &str| {
            Some(Program(interpreter, vec![folder.join(script).display().to_string()], None))
        };
        match self {
            Self::OldJava => {
                let build = async || Some(java_build(&old_java_jars(what)?, "Copier", "copier-3.9").await);
                Some(Program::java(OLD_JAVA.get_or_init(build).await.as_ref()?))
            }
            Self::Java => {
                let build = async || Some(java_build(&java_jars(what)?, "Copier", "copier").await);
                Some(Program::java(JAVA.get_or_init(build).await.as_ref()?))
            }
            Self::FranzGo => {
                let program = GO.get_or_init(|| go_build(what, "franz-go-copier")).await.clone()?;
                Some(Program(program, Vec::new(), None))
            }
            // With 2.16 sending offsets did not end after the broker was down; why is not known (its issues 5456 and
            // 5511?).
            Self::Librdkafka => script(python(what, "confluent-kafka-2.11.1")?, "python/confluent_copier.py"),
            Self::Aiokafka => script(python(what, "aiokafka")?, "python/aio_copier.py"),
            Self::KafkaJs => {
                let modules = node_modules(what)?;
                let program = script(PathBuf::from("node"), "node/copier.js")?;
                Some(Program(program.0, program.1, Some(modules)))
            }
        }
    }
}

/// A program, its first arguments, and what Node finds its packages in.
#[derive(Debug, Clone)]
pub(super) struct Program(PathBuf, Vec<String>, Option<PathBuf>);

impl Program {
    fn java(class_path: &str) -> Self {
        let flags = ["-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"];
        let quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=off";
        let all = flags.into_iter().chain([quiet, "-cp", class_path, "Copier"]);
        Self(PathBuf::from("java"), all.map(str::to_owned).collect(), None)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.0);
        command.args(&self.1).env("PYTHONDONTWRITEBYTECODE", "1");
        if let Some(modules) = &self.2 {
            command.env("NODE_PATH", modules);
        }
        command
    }
}

/// A copier that runs. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Copier {
    program: Program,
    arguments: [String; 6],
    child: Child,
    said: Arc<Mutex<Said>>,
    stderr: tempfile::NamedTempFile,
}

/// What a copier has said in all its lives.
#[derive(Debug, Default, Clone)]
pub(super) struct Said {
    pub(super) commits: u64,
    /// In transactions of which it could say that they were committed.
    pub(super) copied: u64,
    pub(super) aborts: u64,
    /// How often it gave its client up and began with a new one.
    pub(super) anew: u64,
    last: VecDeque<String>,
}

impl Said {
    fn line(&mut self, line: String) {
        match line.split_once(' ') {
            Some(("commit", records)) => {
                self.commits += 1;
                self.copied += records.parse::<u64>().unwrap_or(0);
                return;
            }
            Some(("abort", _)) => self.aborts += 1,
            Some(("anew", _)) => self.anew += 1,
            _ => {}
        }
        self.last.truncate(LINES_SHOWN - 1);
        self.last.push_front(line);
    }
}

impl Copier {
    /// Starts one: the broker, its group, its transactional id, from where to where, and a seed.
    pub(super) fn start(program: Program, arguments: [String; 6]) -> Self {
        let (said, stderr) = (Arc::default(), tempfile::NamedTempFile::new().unwrap());
        let child = spawn(&program, &arguments, &said, &stderr);
        Self { program, arguments, child, said, stderr }
    }

    /// `kill -9`, and a new one in its place.
    pub(super) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
        self.said.lock().unwrap().line("killed".to_owned());
        self.child = spawn(&self.program, &self.arguments, &self.said, &self.stderr);
    }

    /// It stands still from `Signal::STOP` to `Signal::CONT`.
    pub(super) fn signal(&self, what: Signal) {
        signal(self.child.id().expect("it runs"), what);
        self.said.lock().unwrap().line(format!("{what:?}"));
    }

    pub(super) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub(super) fn said(&self) -> Said {
        self.said.lock().unwrap().clone()
    }

    /// The last things that it said, for whoever looks why it did not copy.
    pub(super) fn last_words(&self) -> String {
        let said = self.said();
        let stderr = std::fs::read_to_string(self.stderr.path()).unwrap_or_default();
        let stderr: Vec<&str> = stderr.lines().rev().take(LINES_SHOWN).collect();
        let lines: Vec<&str> = said.last.iter().rev().map(String::as_str).collect();
        let stderr = stderr.into_iter().rev().collect::<Vec<_>>().join("\n  ");
        format!("{}: {} commits\n  {}\n  {stderr}", self.arguments[2], said.commits, lines.join("\n  "))
    }
}

fn spawn(
    program: &Program,
    arguments: &[String; 6],
    said: &Arc<Mutex<Said>>,
    stderr: &tempfile::NamedTempFile,
) -> Child {
    let mut command = program.command();
    command.args(arguments).current_dir(repository()).kill_on_drop(true);
    let errors = std::fs::OpenOptions::new().append(true).open(stderr.path()).unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said = Arc::clone(said);
    tokio::task::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            said.lock().unwrap().line(line);
        }
    });
    child
}
