//! Writes down what clients do while they do it, and makes the records that can be told from all others.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use klamm_client::ProduceError;
use klamm_protocol::records::crc32c;
use tokio::time::Instant;

use super::operation::{Micros, Number, Operation, Outcome, What};

/// The most that a record carries behind its number.
const FILL_BYTES: u64 = 300;
const CHECKSUM_DIGITS: usize = 8;
const NUMBER_DIGITS: usize = 16;

#[derive(Debug)]
pub(super) struct Recorder {
    began: Instant,
    state: Mutex<State>,
    numbers: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    operations: Vec<Operation>,
    /// When each client got something done for the last time.
    done: BTreeMap<String, Micros>,
    /// What went wrong last, for whoever looks at a run that went wrong.
    troubles: BTreeMap<String, String>,
    /// Calls that did not come back by any deadline of theirs.
    hung: Vec<String>,
}

/// An operation that was begun. Left alone, nobody knows what came of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket(usize);

impl Recorder {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), state: Mutex::default(), numbers: AtomicU64::new(1) }
    }

    pub(super) fn now(&self) -> Micros {
        u64::try_from(self.began.elapsed().as_micros()).unwrap()
    }

    /// One that nobody else has: for records, transactions, sessions and producers.
    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn begin(&self, client: &str, what: What) -> Ticket {
        let mut state = self.state();
        let operation =
            Operation { client: client.to_owned(), begun: self.now(), outcome: Outcome::Info, what };
        state.operations.push(operation);
        Ticket(state.operations.len() - 1)
    }

    /// It was done.
    pub(super) fn done(&self, ticket: Ticket) {
        self.done_with(ticket, |_| {});
    }

    /// It was done, and something was told.
    pub(super) fn done_with(&self, ticket: Ticket, change: impl FnOnce(&mut What)) {
        let mut state = self.state();
        let now = self.now();
        let operation = &mut state.operations[ticket.0];
        change(&mut operation.what);
        operation.outcome = Outcome::Ok(now);
        if operation.what.is_progress() {
            let client = operation.client.clone();
            state.done.insert(client, now);
        }
    }

    /// It was not done and will not be.
    pub(super) fn failed(&self, ticket: Ticket) {
        self.state().operations[ticket.0].outcome = Outcome::Fail;
    }

    /// Something that is done and known at once, and was begun then.
    pub(super) fn note(&self, client: &str, begun: Micros, what: What) {
        let mut state = self.state();
        let now = self.now();
        if what.is_progress() {
            state.done.insert(client.to_owned(), now);
        }
        state.operations.push(Operation {
            client: client.to_owned(),
            begun,
            outcome: Outcome::Ok(now),
            what,
        });
    }

    /// What became of a record.
    pub(super) fn delivered(&self, ticket: Ticket, told: Result<i64, &ProduceError>) {
        match told {
            Ok(offset) => self.done_with(ticket, |what| {
                if let What::Send(send) = what {
                    send.offset = Some(offset).filter(|offset| *offset >= 0);
                }
            }),
            // If it is in the log, then as part of an aborted transaction.
            Err(ProduceError::TransactionBroken { .. }) => {}
            Err(error) if error.may_have_been_written() => {}
            Err(_) => self.failed(ticket),
        }
    }

    /// Who got something done since.
    pub(super) fn busy_since(&self, since: Micros) -> Vec<String> {
        let state = self.state();
        state.done.iter().filter(|(_, at)| **at > since).map(|(client, _)| client.clone()).collect()
    }

    pub(super) fn trouble(&self, client: &str, what: &dyn std::fmt::Display) {
        let told = format!("at {}: {what}", self.now());
        self.state().troubles.insert(client.to_owned(), told);
    }

    pub(super) fn troubles(&self) -> BTreeMap<String, String> {
        self.state().troubles.clone()
    }

    pub(super) fn hung(&self, client: &str, what: &str) {
        let told = format!("{client} waited in vain for {what} at {}", self.now());
        self.state().hung.push(told);
    }

    pub(super) fn all_hung(&self) -> Vec<String> {
        self.state().hung.clone()
    }

    pub(super) fn operations(&self) -> Vec<Operation> {
        self.state().operations.clone()
    }
}

/// What a record carries: a checksum, its number, and more or less behind it.
pub(super) fn payload(number: Number) -> Vec<u8> {
    let fill = usize::try_from(number.wrapping_mul(7_919) % FILL_BYTES).unwrap();
    let checked = format!("{number:0NUMBER_DIGITS$x}{}", "f".repeat(fill));
    format!("{:0CHECKSUM_DIGITS$x}{checked}", crc32c(checked.as_bytes())).into_bytes()
}

/// The number of a record; nothing where it is damaged.
pub(super) fn number_of(payload: Option<&[u8]>) -> Option<Number> {
    let text = std::str::from_utf8(payload?).ok()?;
    let (checksum, checked) = text.split_at_checked(CHECKSUM_DIGITS)?;
    let whole = u32::from_str_radix(checksum, 16).ok()? == crc32c(checked.as_bytes());
    whole.then(|| Number::from_str_radix(checked.get(..NUMBER_DIGITS)?, 16).ok())?
}

#[test]
fn a_record_is_known_by_its_number_and_damage_by_its_checksum() {
    for number in [1, 77, u64::MAX] {
        let whole = payload(number);
        assert_eq!(number_of(Some(&whole)), Some(number));
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert_eq!(number_of(Some(&damaged)), None);
        }
        assert_eq!(number_of(Some(&whole[..whole.len() - 1])), None);
    }
    assert_eq!(number_of(None), None);
    assert_eq!(number_of(Some(b"short")), None);
}
