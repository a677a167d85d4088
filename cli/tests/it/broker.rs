//! `klamm broker` as a process: its settings are those of the table.
//!
//! It ran with `group.initial.rebalance.delay.ms=0`, the default of a broker inside a program, while the table said
//! 3000: a fleet that started against it rebalanced once for each of its members.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than any answer here takes.
const DEADLINE: Duration = Duration::from_secs(60);
/// `group.initial.rebalance.delay.ms` in the table.
const DELAY: Duration = Duration::from_secs(3);

/// A broker in memory that is killed at the end.
pub(crate) struct Broker {
    child: Child,
    pub(crate) address: String,
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Broker {
    pub(crate) fn start(settings: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_klamm"))
            .args(["broker", "--ephemeral", "--listen", "127.0.0.1:0"])
            .args(settings.iter().flat_map(|setting| ["--set", setting]))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("klamm runs");
        let mut ready = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut ready).expect("a ready line");
        let address = ready.split_whitespace().nth(1).expect("a ready line has an address").to_owned();
        Self { child, address }
    }

    /// How long the first member of a group waits for the answer to its join.
    fn first_join(&self) -> Duration {
        let mut stream = TcpStream::connect(&self.address).expect("the broker listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a deadline can be set");
        let found = ask(&mut stream, 10, &string("g"));
        assert_eq!(found[4..6], [0, 0], "a coordinator");
        let session_timeout_ms = 10_000_i32.to_be_bytes();
        let protocols = [&1_i32.to_be_bytes()[..], &string("range"), &0_i32.to_be_bytes()].concat();
        let join =
            [&string("g")[..], &session_timeout_ms, &string(""), &string("consumer"), &protocols].concat();
        let start = Instant::now();
        let joined = ask(&mut stream, 11, &join);
        assert_eq!(joined[4..6], [0, 0], "a member");
        start.elapsed()
    }
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

/// Asks in version 0; the answer begins with the correlation id.
fn ask(stream: &mut TcpStream, api: u8, body: &[u8]) -> Vec<u8> {
    let header = [0, api, 0, 0, 0, 0, 0, 7, 0xff, 0xff];
    let length = (header.len() + body.len()) as u32;
    stream.write_all(&[&length.to_be_bytes()[..], &header, body].concat()).expect("the broker reads");
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("an answer in time");
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).expect("a whole answer");
    answer
}

#[test]
fn an_empty_group_waits_for_more_members_as_the_table_says() {
    let waited = Broker::start(&[]).first_join();
    assert!(waited >= DELAY, "{waited:?}");
    let waited = Broker::start(&["group.initial.rebalance.delay.ms=0"]).first_join();
    assert!(waited < DELAY, "{waited:?}");
}
