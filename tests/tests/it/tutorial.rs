//! The tutorial in `docs/` does what it says: its programs are written to an empty folder outside of the workspace, its
//! commands are run there one after the other, and what they print is what the page shows. The README's programs are
//! compiled the same way.
//!
//! A comment on the line above a block says what the block is; a block without one is a mistake.
//!
//! | comment | the block |
//! |---|---|
//! | `file: PATH`, `append: PATH` | a file, or its end; the commands that follow run in that crate's folder |
//! | `run` | commands (`$ ...`), each followed by all that it prints |
//! | `run, lines among others` | the same, where it prints more |
//! | `start: NAME` | a command that goes on running |
//! | `shows: NAME` | what that command prints sooner or later |
//! | `stop: NAME` | (no block) Ctrl-C; it must end well |
//! | `not run: REASON` | a command for the reader only |

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use klamm_tests::{BrokerProcess, Signal, klamm_binary, repository, signal};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

/// Long enough to compile everything below `klamm` on a machine that has other things to do.
const DEADLINE: Duration = Duration::from_secs(600);
/// How long a program that is to show something may say nothing; the largest crate compiles in less.
const SILENCE_DEADLINE: Duration = Duration::from_secs(150);
/// How long a program may take to end after Ctrl-C.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Whose turn it is to compile into the folder of these programs: a command that waits for another to end says nothing.
pub(super) static COMPILING: Mutex<()> = Mutex::const_new(());

/// The pages, in reading order; `docs/README.md` and what is for looking up have no programs.
const PAGES: &[&str] = &[
    "1-cargo-toml.md",
    "2-first-listener.md",
    "3-first-failure.md",
    "4-first-test.md",
    "5-first-stream.md",
    "6-production.md",
];

/// The Cargo.toml around the README's programs.
const README_CARGO_TOML: &str = r#"
[package]
name = "readme"
version = "0.1.0"
edition = "2024"

[dependencies]
klamm = { version = "0.1", features = ["streams-core", "testing"] }
serde = { version = "1", features = ["derive"] }
serde_json = "1"
thiserror = "2"
tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
"#;

/// What the README's listener and test leave to the reader.
const README_ITEMS: &str = r#"
#[derive(Clone)]
struct Ledger;

#[derive(Debug, thiserror::Error)]
#[error("the ledger is closed")]
struct LedgerError;

impl Ledger {
    fn open() -> Result<Self, LedgerError> {
        Ok(Self)
    }

    async fn charge(&self, _id: u64, _cents: i64) -> Result<(), LedgerError> {
        Ok(())
    }
}

#[cfg(test)]
use klamm::testing::TestKit;

#[cfg(test)]
impl Ledger {
    fn fake() -> Self {
        Self
    }
}

#[cfg(test)]
fn order(id: u64) -> serde_json::Value {
    serde_json::json!({ "id": id, "cents": 250 })
}
"#;

/// What the README's stream leaves to the reader.
const README_STREAM: [&str; 2] = [
    r#"
use klamm::streams::{StreamsBuilder, StreamsConfig};

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

#[tokio::main]
async fn main() -> klamm::Result<()> {
"#,
    r#"
    println!("{seen:?}");
    Ok(())
}
"#,
];

#[tokio::test]
async fn the_tutorial_does_what_it_says() {
    let _turn = COMPILING.lock().await;
    let data = tempfile::tempdir().unwrap();
    let broker = BrokerProcess::start(data.path()).await;
    let mut reader = Reader::new(Some(broker.bootstrap())).await;
    for page in PAGES {
        let text = std::fs::read_to_string(repository().join("docs").join(page)).unwrap();
        let steps = steps(&text).unwrap_or_else(|fault| panic!("docs/{page}: {fault}"));
        for step in steps {
            reader.follow(page, step).await;
        }
        assert!(
            reader.running.is_empty(),
            "docs/{page} leaves programs running: {:?}",
            reader.running.keys()
        );
    }
    reader.clean(&["billing", "counting"]).await;
    broker.stop(STOP_DEADLINE).await;
}

/// Every page is in the list above, and the table of contents links to each.
#[test]
fn no_page_is_left_out() {
    let docs = repository().join("docs");
    let contents = std::fs::read_to_string(docs.join("README.md")).unwrap();
    for page in PAGES {
        assert!(contents.contains(&format!("]({page})")), "docs/README.md does not link to {page}");
    }
    for entry in std::fs::read_dir(docs).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let numbered = name.starts_with(|first: char| first.is_ascii_digit());
        assert!(!numbered || PAGES.contains(&name.as_str()), "docs/{name} is a page that no test follows");
    }
}

/// The page that says which Rust is needed says what the workspace states.
#[test]
fn the_stated_rust_version_is_the_one_on_the_page() {
    let workspace = std::fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let stated = workspace.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap();
    let said = format!("Klamm needs Rust {}.", stated.trim_matches('"'));
    let page = std::fs::read_to_string(repository().join("docs/1-cargo-toml.md")).unwrap();
    assert!(page.contains(&said), "docs/1-cargo-toml.md does not say {said:?}");
}

/// Its listener with its test, and its stream: compiled, and the test run.
#[tokio::test]
async fn the_programs_of_the_readme_compile_and_its_test_passes() {
    let _turn = COMPILING.lock().await;
    let text = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let [listener, stream, test] = &rust_blocks(&text)[..] else {
        panic!("README.md has another number of Rust blocks: say in this file what goes around them");
    };
    let mut reader = Reader::new(None).await;
    reader.write("readme/Cargo.toml", README_CARGO_TOML);
    reader.write("readme/src/bin/listener.rs", &format!("{listener}{README_ITEMS}{test}"));
    reader.write("readme/src/bin/stream.rs", &README_STREAM.join(stream.as_str()));
    let (status, said) = reader.shell("cargo test --bins").await;
    assert!(status.success(), "{}", said.join("\n"));
    let passed = "test charges_every_order_once ... ok";
    assert!(said.iter().any(|line| line == passed), "no {passed:?} in\n{}", said.join("\n"));
    reader.clean(&["readme"]).await;
}

/// Somebody who does what a page says.
struct Reader {
    folder: tempfile::TempDir,
    /// Where the crate lies that the page is about, below `folder`.
    place: PathBuf,
    environment: Vec<(&'static str, String)>,
    running: HashMap<String, Running>,
}

impl Reader {
    async fn new(bootstrap: Option<&str>) -> Self {
        let klamm = klamm_binary().await;
        // .../<target>/<profile>/klamm: the programs' dependencies are compiled once for all runs of this test.
        let target = klamm.ancestors().nth(2).unwrap().join("tutorial");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut environment = vec![
            ("PATH", format!("{}:{path}", klamm.parent().unwrap().display())),
            ("CARGO_TARGET_DIR", target.display().to_string()),
            ("CARGO_NET_OFFLINE", "true".to_owned()),
            // Nobody debugs these programs or changes them by a line.
            ("CARGO_PROFILE_DEV_DEBUG", "0".to_owned()),
            ("CARGO_INCREMENTAL", "0".to_owned()),
        ];
        environment.extend(bootstrap.map(|bootstrap| ("KLAMM_BOOTSTRAP", bootstrap.to_owned())));
        let folder = tempfile::tempdir().unwrap();
        Self { place: folder.path().to_owned(), folder, environment, running: HashMap::new() }
    }

    async fn follow(&mut self, page: &str, step: Step) {
        match step {
            Step::File(path, text) => self.write(&path, &text),
            Step::Append(path, text) => {
                let before = std::fs::read_to_string(self.folder.path().join(&path)).unwrap();
                self.write(&path, &format!("{before}\n{text}"));
            }
            Step::Run { commands, among_others } => {
                for (command, shown) in commands {
                    let (status, said) = self.shell(&command).await;
                    let all = said.join("\n");
                    assert!(status.success(), "docs/{page}: `{command}` failed:\n{all}");
                    let right = if among_others { missing(&said, &shown).is_empty() } else { said == shown };
                    assert!(
                        right,
                        "docs/{page}: `{command}` prints\n{all}\nand the page shows\n{}",
                        shown.join("\n")
                    );
                }
            }
            Step::Start(name, command) => {
                let running = Running::start(self.command(&format!("exec {command}")));
                assert!(self.running.insert(name, running).is_none(), "docs/{page}: it runs already");
            }
            Step::Shows(name, shown) => {
                let running =
                    self.running.get_mut(&name).unwrap_or_else(|| panic!("docs/{page}: no {name} runs"));
                running.wait_for(page, &shown).await;
            }
            Step::Stop(name) => {
                let running =
                    self.running.remove(&name).unwrap_or_else(|| panic!("docs/{page}: no {name} runs"));
                running.interrupt(page).await;
            }
        }
    }

    /// Writes a file of a crate, which is where the following commands run.
    fn write(&mut self, path: &str, text: &str) {
        let file = self.folder.path().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        self.place = self.folder.path().join(path.split('/').next().unwrap());
        if path.ends_with("Cargo.toml") {
            std::fs::write(&file, from_this_checkout(text)).unwrap();
            // The same versions as here, so that nothing has to be downloaded.
            std::fs::copy(repository().join("Cargo.lock"), self.place.join("Cargo.lock")).unwrap();
        } else {
            std::fs::write(&file, text).unwrap();
        }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(line).current_dir(&self.place).kill_on_drop(true).stdin(Stdio::null());
        command
            .env_remove("KLAMM_BOOTSTRAP")
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command to its end; gives the lines of both its outputs.
    async fn shell(&self, line: &str) -> (ExitStatus, Vec<String>) {
        let mut command = self.command(&format!("{{ {line}\n}} 2>&1"));
        let output = timeout(DEADLINE, command.output()).await;
        let output = output.unwrap_or_else(|_| panic!("`{line}` does not end")).unwrap();
        let said = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
        (output.status, said)
    }

    /// Removes what was compiled of these crates, which the next run would compile in another folder.
    async fn clean(&mut self, crates: &[&str]) {
        for name in crates {
            self.place = self.folder.path().join(name);
            let (status, said) = self.shell(&format!("cargo clean -p {name}")).await;
            assert!(status.success(), "{}", said.join("\n"));
        }
    }
}

/// A program that runs on while the reader reads on.
struct Running {
    child: Child,
    said: watch::Receiver<Vec<String>>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, said) = watch::channel(Vec::new());
        tokio::spawn(collect(child.stdout.take().unwrap(), sender.clone()));
        tokio::spawn(collect(child.stderr.take().unwrap(), sender));
        Self { child, said }
    }

    /// Waits until every one of these lines was said.
    async fn wait_for(&mut self, page: &str, shown: &[String]) {
        loop {
            let said = self.said.borrow_and_update().clone();
            let missing = missing(&said, shown);
            if missing.is_empty() {
                return;
            }
            // Both outputs closed is an error too: the program ended.
            if !matches!(timeout(SILENCE_DEADLINE, self.said.changed()).await, Ok(Ok(()))) {
                let (missing, said) = (missing.join("\n"), said.join("\n"));
                panic!("docs/{page} shows\n{missing}\nand what was printed is\n{said}");
            }
        }
    }

    /// Ctrl-C.
    async fn interrupt(mut self, page: &str) {
        signal(self.child.id().expect("it runs"), Signal::INT);
        let ended = timeout(STOP_DEADLINE, self.child.wait()).await;
        let said = self.said.borrow().join("\n");
        let status =
            ended.unwrap_or_else(|_| panic!("docs/{page}: Ctrl-C does not end it:\n{said}")).unwrap();
        assert!(status.success(), "docs/{page}: it ended with {status} on Ctrl-C:\n{said}");
    }
}

async fn collect(from: impl AsyncRead + Unpin, to: watch::Sender<Vec<String>>) {
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        to.send_modify(|said| said.push(line));
    }
}

/// The lines of `shown` that are not among `said`.
fn missing(said: &[String], shown: &[String]) -> Vec<String> {
    let said = |line: &&String| said.iter().any(|said| said.trim_end() == line.trim_end());
    shown.iter().filter(|line| !line.is_empty() && !said(line)).cloned().collect()
}

/// A reader's Cargo.toml with this checkout's crate in the place of the published one.
fn from_this_checkout(cargo_toml: &str) -> String {
    let path = format!("path = \"{}\"", repository().join("framework").display());
    let lines = cargo_toml.lines().map(|line| match line.strip_prefix("klamm = ") {
        None => line.to_owned(),
        Some("\"0.1\"") => format!("klamm = {{ {path} }}"),
        Some(rest) if rest.contains("version = \"0.1\"") => {
            format!("klamm = {}", rest.replace("version = \"0.1\"", &path))
        }
        Some(rest) => panic!("how does {rest} name this checkout?"),
    });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

/// What a page tells its reader to do.
#[derive(Debug, PartialEq)]
enum Step {
    File(String, String),
    Append(String, String),
    Run { commands: Vec<(String, Vec<String>)>, among_others: bool },
    Start(String, String),
    Shows(String, Vec<String>),
    Stop(String),
}

/// Reads a page.
fn steps(page: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut lines = page.lines();
    let mut comment: Option<&str> = None;
    while let Some(line) = lines.next() {
        if let Some(inner) = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")) {
            if let Some(unused) = comment.replace(inner) {
                return Err(format!("no block follows `{unused}`"));
            }
            if let Some(name) = inner.strip_prefix("stop: ") {
                steps.push(Step::Stop(name.to_owned()));
                comment = None;
            }
        } else if line.starts_with("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            let comment = comment
                .take()
                .ok_or_else(|| format!("no comment says what this block is:\n{}", block.join("\n")))?;
            steps.extend(step(comment, &block)?);
        } else if let Some(unused) = comment {
            return Err(format!("no block follows `{unused}`"));
        }
    }
    comment.map_or(Ok(steps), |unused| Err(format!("no block follows `{unused}`")))
}

fn step(comment: &str, block: &[&str]) -> Result<Option<Step>, String> {
    let text = || block.join("\n") + "\n";
    let owned = || block.iter().map(|line| (*line).to_owned()).collect();
    let (word, rest) = comment.split_once(": ").unwrap_or((comment, ""));
    Ok(Some(match word {
        "not run" => return Ok(None),
        "file" => Step::File(rest.to_owned(), text()),
        "append" => Step::Append(rest.to_owned(), text()),
        "shows" => Step::Shows(rest.to_owned(), owned()),
        "start" => match block {
            [line] => Step::Start(rest.to_owned(), line.trim_start_matches("$ ").to_owned()),
            _ => return Err(format!("`{comment}` takes one command")),
        },
        "run" | "run, lines among others" => {
            Step::Run { commands: commands(block)?, among_others: word != "run" }
        }
        _ => return Err(format!("`{comment}` is no word for a block")),
    }))
}

/// Lines of a session: commands after `$ `, each with what it prints.
fn commands(block: &[&str]) -> Result<Vec<(String, Vec<String>)>, String> {
    let mut commands: Vec<(String, Vec<String>)> = Vec::new();
    for line in block {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command.to_owned(), Vec::new())),
            (None, Some((_, shown))) => shown.push((*line).to_owned()),
            (None, None) => return Err(format!("{line:?} comes before any command")),
        }
    }
    Ok(commands)
}

fn rust_blocks(page: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            if language.starts_with("rust") {
                blocks.push(block.join("\n") + "\n");
            }
        }
    }
    blocks
}

#[test]
fn a_page_is_read_and_a_block_that_nobody_checks_is_found() {
    let read = |page: &str| steps(&page.replace("'''", "```"));
    let run = "text\n<!-- run -->\n'''console\n$ echo a\na\n$ true\n'''\n<!-- stop: x -->\n";
    let commands = vec![("echo a".to_owned(), vec!["a".to_owned()]), ("true".to_owned(), Vec::new())];
    let expected = [Step::Run { commands, among_others: false }, Step::Stop("x".to_owned())];
    assert_eq!(read(run).unwrap(), expected);
    let file = "<!-- file: a/b.rs -->\n'''rust\nfn b() {}\n'''\n";
    assert_eq!(read(file).unwrap(), [Step::File("a/b.rs".to_owned(), "fn b() {}\n".to_owned())]);
    for wrong in
        ["'''rust\nfn a() {}\n'''", "<!-- run -->\ntext", "<!-- rnu -->\n'''\n$ a\n'''", "<!-- run -->"]
    {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}
