//! Runs a command to its end under a deadline, with everything it printed.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The repository's root folder. Cargo says at run time where it is; what was compiled in may be another checkout that
/// shares the build output, and may be gone.
pub fn repository() -> PathBuf {
    let told = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let crate_folder = told.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    crate_folder.parent().map(PathBuf::from).unwrap_or(crate_folder)
}

/// A command that ended by itself.
#[derive(Debug)]
pub struct Finished {
    /// Whether it exited with 0.
    pub success: bool,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

/// Runs `program` with `arguments` from the repository's root; kills it and panics when `deadline` passes.
pub async fn run<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = S>,
    deadline: Duration,
) -> Finished {
    run_with_input(program, arguments, Vec::new(), deadline).await
}

/// Like [`run`], with `input` on standard input.
pub async fn run_with_input<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = S>,
    input: Vec<u8>,
    deadline: Duration,
) -> Finished {
    let mut command = Command::new(program);
    command.args(arguments);
    run_to_end(command, input, deadline).await
}

/// Like [`run`], for a command that has more than arguments: a variable of its environment, say.
pub async fn run_command(command: Command, deadline: Duration) -> Finished {
    run_to_end(command, Vec::new(), deadline).await
}

async fn run_to_end(mut command: Command, input: Vec<u8>, deadline: Duration) -> Finished {
    let program = command.as_std().get_program().to_owned();
    command.current_dir(repository()).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        command.spawn().unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
    let stdin = child.stdin.take();
    let feed = async move {
        if let Some(mut stdin) = stdin {
            // A command that ends without reading its input is no failure of ours.
            let _ = stdin.write_all(&input).await;
        }
    };
    let (_, output) = tokio::time::timeout(deadline, async { tokio::join!(feed, child.wait_with_output()) })
        .await
        .unwrap_or_else(|_| panic!("{} did not end within {deadline:?}", program.display()));
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    Finished {
        success: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
