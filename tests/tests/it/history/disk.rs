//! The file system below a broker, and what can go wrong with it: it gets full, and it fails to sync.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use klamm_tests::{Signal, signal, skip};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// What a run and the segments that it has not rolled yet come to, many times.
const MOUNTED_BYTES: u64 = 96 << 20;
/// So much is left to a broker while its disk is full.
const LEFT_BYTES: u64 = 20 << 10;
const BALLAST: &str = "ballast";
const DATA: &str = "data";

/// A folder for one broker; gone when dropped.
#[derive(Debug)]
pub(super) struct Disk {
    dir: tempfile::TempDir,
    mounted: bool,
}

impl Disk {
    /// One of its own size where `own` says so and the machine lets us.
    pub(super) fn new(own: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mounted = own && mount(dir.path());
        std::fs::create_dir(dir.path().join(DATA)).unwrap();
        Self { dir, mounted }
    }

    /// Where the broker has its files.
    pub(super) fn data(&self) -> PathBuf {
        self.dir.path().join(DATA)
    }

    pub(super) fn can_be_full(&self) -> bool {
        self.mounted
    }

    /// Leaves hardly any room.
    pub(super) fn fill(&self) {
        let ballast = std::fs::File::create(self.dir.path().join(BALLAST)).unwrap();
        // The broker writes meanwhile, and what was free before may not be.
        for _ in 0..5 {
            let space = rustix::fs::statvfs(self.dir.path()).unwrap();
            let ballast_bytes = ballast.metadata().unwrap().len();
            let more = (space.f_bavail * space.f_frsize).saturating_sub(LEFT_BYTES);
            let none = rustix::fs::FallocateFlags::empty();
            if more == 0 || rustix::fs::fallocate(&ballast, none, 0, ballast_bytes + more).is_ok() {
                return;
            }
        }
    }

    /// Makes room again.
    pub(super) fn free(&self) {
        std::fs::remove_file(self.dir.path().join(BALLAST)).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            let _ = std::process::Command::new("umount").arg("--lazy").arg(self.dir.path()).output();
        }
    }
}

fn mount(path: &Path) -> bool {
    let options = format!("size={MOUNTED_BYTES},mode=0700");
    let mut mount = std::process::Command::new("mount");
    let why = match mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).output() {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    skip("a disk that gets full under recorded histories", &why, "be root");
    false
}

/// For so long every sync of a process, from one of the next on, fails with EIO. Whether that was possible.
pub(super) async fn fail_syncs(process: u32, from: u64, so_long: Duration) -> bool {
    let mut trace = Command::new("strace");
    let inject = format!("inject=fsync,fdatasync:error=EIO:when={from}+");
    trace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", &inject]);
    trace
        .args(["-p", &process.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let why = match trace.kill_on_drop(true).spawn() {
        Err(error) => error.to_string(),
        Ok(mut child) => match tokio::time::timeout(so_long, child.wait()).await {
            // What it was attached to may have ended.
            Ok(Ok(status)) if status.success() => return true,
            Err(_) => {
                // Asked politely it lets go of the process.
                child.id().into_iter().for_each(|id| signal(id, Signal::INT));
                let _ = tokio::time::timeout(Duration::from_secs(5), child.wait()).await;
                return true;
            }
            Ok(_) => {
                let mut told = String::new();
                if let Some(mut stderr) = child.stderr.take() {
                    let _ = stderr.read_to_string(&mut told).await;
                }
                // It ends as that ended to which it was attached.
                if !told.contains("ptrace") {
                    return true;
                }
                told.trim().to_owned()
            }
        },
    };
    skip("syncs that fail under recorded histories", &why, "install strace and be root");
    false
}
