//! The command line as a user meets it: here without a broker (help, wrong usage, exit codes, words on standard error),
//! in `broker` as one.
#![allow(clippy::disallowed_methods)]

mod broker;
mod dlt;
mod produce;
mod streams;
mod transactions;
mod verbs;

use std::io::Write;
use std::process::{Command, Output, Stdio};

fn klamm(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_klamm"))
        .args(arguments)
        .env_remove("KLAMM_BOOTSTRAP")
        .stdin(Stdio::null())
        .output()
        .expect("klamm runs")
}

/// `klamm ARGUMENTS --bootstrap ADDRESS` with this on standard input.
fn klamm_at(address: &str, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_klamm"))
        .args(arguments)
        .args(["--bootstrap", address])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("klamm runs");
    // A command that ends early does not read it all.
    let _ = child.stdin.take().expect("stdin is piped").write_all(input);
    child.wait_with_output().expect("klamm ends")
}

/// As [`klamm_at`]; it must succeed. Gives standard output.
#[track_caller]
fn succeeds(address: &str, arguments: &[&str], input: &[u8]) -> String {
    let output = klamm_at(address, arguments, input);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    String::from_utf8(output.stdout).expect("text")
}

/// As [`klamm_at`]; it must fail with exit code 1. Gives standard error.
#[track_caller]
fn fails_at(address: &str, arguments: &[&str], input: &[u8]) -> String {
    let output = klamm_at(address, arguments, input);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
    stderr
}

/// Runs to exit code `code`, with nothing on standard output and `said` on standard error.
#[track_caller]
fn fails(arguments: &[&str], code: i32, said: &str) {
    let output = klamm(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{arguments:?}: standard output is for data");
    assert!(stderr.contains(said), "{arguments:?}: no {said:?} in {stderr}");
}

/// A loopback address where nobody listens.
fn closed_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").to_string()
}

#[test]
fn help_and_version_are_data() {
    for (arguments, said) in [
        (&["--help"][..], "Usage: klamm"),
        (&["--version"], "klamm 0."),
        (&["help", "broker"], "--ephemeral"),
        (&["consume", "--help"], "--until-end"),
        (&["topic", "create", "--help"], "--partitions"),
        (&["perf", "produce", "--help"], "--linger"),
    ] {
        let output = klamm(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(stdout.contains(said), "{arguments:?}: no {said:?} in {stdout}");
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    fails(&[], 2, "Usage: klamm");
    fails(&["serve"], 2, "serve");
    fails(&["consume"], 2, "TOPIC");
    fails(&["consume", "t", "--from", "yesterday"], 2, "beginning, end, an offset, or @TIME");
    fails(&["consume", "t", "--format", "%q"], 2, "no placeholder %q");
    fails(&["broker"], 2, "--data-dir");
    fails(&["broker", "--data-dir", "d", "--ephemeral"], 2, "cannot be used with");
    fails(&["broker", "--config", "/nowhere/server.properties"], 2, "/nowhere/server.properties");
    fails(
        &["topic", "list", "--command-config", "/nowhere/client.properties"],
        2,
        "/nowhere/client.properties",
    );
}

#[test]
fn settings_of_a_file_are_checked() {
    let folder = std::env::temp_dir().join(format!("klamm-cli-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("client.properties");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "request.timeout.ms=soon\n").unwrap();
    fails(
        &["topic", "list", "--command-config", path],
        2,
        "setting `request.timeout.ms`: `soon` must be a whole number",
    );

    let address = closed_address();
    std::fs::write(&file, "client.idd=me\n").unwrap();
    fails(&["topic", "list", "--command-config", path], 2, "did you mean `client.id`?");
    let settings = format!("socket.connection.setup.timeout.ms=300\nbootstrap.servers={address}\n");
    std::fs::write(&file, settings).unwrap();
    fails(&["topic", "list", "--command-config", path], 1, &address);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn no_broker_is_exit_code_1_and_names_address_and_setting() {
    let folder = std::env::temp_dir().join(format!("klamm-cli-none-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("client.properties");
    std::fs::write(&file, "socket.connection.setup.timeout.ms=300\n").unwrap();
    let (path, address) = (file.to_str().unwrap(), closed_address());
    for command in [
        &["topic", "list"][..],
        &["group", "list"],
        &["produce", "t"],
        &["consume", "t"],
        &["perf", "produce", "t"],
    ] {
        let arguments = [command, &["--bootstrap", &address, "--command-config", path]].concat();
        fails(&arguments, 1, &address);
        fails(&arguments, 1, "--bootstrap or KLAMM_BOOTSTRAP");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
