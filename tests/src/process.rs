//! A `klamm broker` in a process of its own: started on a free port, killed or stopped at will, never left behind.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::command::repository;

/// How long a broker may take to say that it serves. Far more than it needs: a loaded machine is not a failure.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// Settings of every test's broker; the test's own come after and win.
const FAST: &[&str] = &["group.initial.rebalance.delay.ms=0"];

static BINARY: OnceCell<PathBuf> = OnceCell::const_new();

/// The `klamm` binary, built from this checkout once for each run of the tests.
pub async fn klamm_binary() -> &'static Path {
    BINARY
        .get_or_init(|| async {
            build_programs("klamm-cli").await;
            // .../<profile>/deps/it-<hash> stands two folders below the binaries of the same build.
            let test = std::env::current_exe().expect("a test knows its own path");
            let binary = test.ancestors().nth(2).expect("a test stands in <profile>/deps").join("klamm");
            assert!(binary.is_file(), "no klamm binary at {}", binary.display());
            binary
        })
        .await
}

/// Sends a signal to a process of the test's own. By system call: a minimal Debian has no program `kill`.
pub fn signal(id: u32, signal: Signal) {
    let id = i32::try_from(id).ok().and_then(Pid::from_raw).expect("the id of a process");
    kill_process(id, signal).expect("a process of our own takes signals");
}

/// Builds the programs of a crate, unless KLAMM_PROGRAMS_BUILT says that somebody just did: `scripts/test` builds all
/// in one go, where cargo needs each dependency with one set of features only.
pub async fn build_programs(package: &str) {
    if std::env::var_os("KLAMM_PROGRAMS_BUILT").is_some() {
        return;
    }
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "-p", package, "--bins"]).current_dir(repository());
    assert!(build.status().await.expect("cargo runs").success(), "{package} does not build");
}

/// A running broker. Dropping it kills it.
#[derive(Debug)]
pub struct BrokerProcess {
    child: Child,
    bootstrap: String,
    ready_line: String,
    log: tempfile::NamedTempFile,
}

impl BrokerProcess {
    /// Starts a broker on `data_dir` at a free port.
    pub async fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, "127.0.0.1:0", &[]).await
    }

    /// Starts a broker on `data_dir` listening on `address`, with `key=value` settings. Groups do not wait for more
    /// members unless a setting says so, because most tests know theirs.
    ///
    /// A broker that comes back to its port may find that a connection of another process was given it as its own end
    /// meanwhile. That passes, so it is tried again.
    pub async fn start_with(data_dir: &Path, address: &str, settings: &[&str]) -> Self {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            match Self::try_start(data_dir, address, settings).await {
                Ok(broker) => return broker,
                Err(stderr) if stderr.contains("ddress already in use") && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(stderr) => panic!("the broker did not start:\n{stderr}"),
            }
        }
    }

    /// Like [`Self::start_with`]; gives the broker's standard error when it ends without ever serving.
    ///
    /// # Errors
    /// With what the broker said when it refused to start.
    pub async fn try_start(data_dir: &Path, address: &str, settings: &[&str]) -> Result<Self, String> {
        let (mut child, log) = Self::spawn(data_dir, address, settings).await;
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut ready_line = String::new();
        let read = tokio::time::timeout(START_DEADLINE, stdout.read_line(&mut ready_line)).await;
        if !matches!(read, Ok(Ok(length)) if length > 0) {
            let _ = child.kill().await;
            return Err(std::fs::read_to_string(log.path()).unwrap_or_default());
        }
        let bootstrap = ready_line
            .strip_prefix("ready ")
            .and_then(|rest| rest.split_whitespace().next())
            .unwrap_or_else(|| panic!("not a ready line: {ready_line:?}"))
            .to_owned();
        Ok(Self { child, bootstrap, ready_line, log })
    }

    /// Starts a broker and kills it after `lifetime`, whether it serves by then or not. Gives what it logged.
    pub async fn start_and_kill(
        data_dir: &Path,
        address: &str,
        settings: &[&str],
        lifetime: Duration,
    ) -> String {
        let (mut child, log) = Self::spawn(data_dir, address, settings).await;
        tokio::time::sleep(lifetime).await;
        let _ = child.kill().await;
        std::fs::read_to_string(log.path()).unwrap_or_default()
    }

    async fn spawn(data_dir: &Path, address: &str, settings: &[&str]) -> (Child, tempfile::NamedTempFile) {
        let mut command = Command::new(klamm_binary().await);
        command.arg("broker").arg("--data-dir").arg(data_dir).args(["--listen", address]);
        for setting in FAST.iter().chain(settings) {
            command.args(["--set", setting]);
        }
        // To a file, not a pipe: nobody has to read along, and it can be shown when something fails.
        let log = tempfile::NamedTempFile::new().expect("a temporary file");
        let log_writer = log.reopen().expect("a temporary file opens twice");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_writer).kill_on_drop(true);
        (command.spawn().expect("the klamm binary starts"), log)
    }

    /// `host:port` that clients connect to.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The one line that the broker prints when it serves.
    pub fn ready_line(&self) -> &str {
        self.ready_line.trim_end()
    }

    /// The process id, for looking at memory and for signals.
    pub fn id(&self) -> u32 {
        self.child.id().expect("the broker runs")
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What the broker has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap_or_default()
    }

    /// Resident memory in KiB, as the kernel counts it.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
        line.trim().trim_end_matches(" kB").trim().parse().unwrap_or(0)
    }

    /// `kill -9`: what a crash is like.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("a running broker can be killed");
    }

    /// SIGTERM, then waits for the graceful end; panics when the broker does not exit 0 within `deadline`.
    pub async fn stop(mut self, deadline: Duration) {
        signal(self.id(), Signal::TERM);
        let status = tokio::time::timeout(deadline, self.child.wait()).await;
        let status =
            status.unwrap_or_else(|_| panic!("the broker did not stop within {deadline:?}:\n{}", self.log()));
        assert!(
            status.expect("the broker is a child").success(),
            "the broker did not exit 0:\n{}",
            self.log()
        );
    }
}
