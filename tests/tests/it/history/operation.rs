//! What a run is written down as: who asked for what and when, what came of it, and what was there in the end. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// Since the run began, in microseconds.
pub(super) type Micros = u64;

/// A partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) topic: &'static str,
    pub(super) partition: i32,
}

/// Of the run: every record has another one.
pub(super) type Number = u64;

/// One run of all clients.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    pub(super) operations: Vec<Operation>,
    /// What readers found from the start to the end, when nobody wrote any more.
    pub(super) finals: BTreeMap<(Place, Isolation), FinalRead>,
    /// What stands in the files after the last stop.
    pub(super) logs: BTreeMap<Place, Vec<Entry>>,
    /// The committed offsets in the end.
    pub(super) committed: BTreeMap<(&'static str, Place), i64>,
    /// When the last fault was over.
    pub(super) healed: Option<Micros>,
    /// Clients that were there then, which have to get on.
    pub(super) alive: BTreeSet<String>,
    pub(super) rules: Rules,
}

/// What differs between runs.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// So soon after the last fault everybody has got something done (B7).
    pub(super) progress: Micros,
    /// So long may a transaction keep readers of committed records waiting (C7).
    pub(super) transaction: Micros,
    /// Whose offsets are committed after the records were processed (B6).
    pub(super) at_least_once: BTreeSet<&'static str>,
    /// Whose offsets are committed in the transactions that their copies are in (C8).
    pub(super) exactly_once: BTreeSet<&'static str>,
}

impl Default for Rules {
    fn default() -> Self {
        let (at_least_once, exactly_once) = (BTreeSet::from(["readers"]), BTreeSet::from(["copiers"]));
        Self { progress: 30_000_000, transaction: 31_000_000, at_least_once, exactly_once }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Operation {
    pub(super) client: String,
    pub(super) begun: Micros,
    pub(super) outcome: Outcome,
    pub(super) what: What,
}

/// What came of it, as far as the client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was done, and this is when the client knew.
    Ok(Micros),
    /// It was not done, nor will it be.
    Fail,
    /// Nobody can say; it may be done at any time, even now. A timeout is this.
    Info,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum What {
    Send(Send),
    /// A producer with a transactional id begins a transaction.
    Begin(Transaction),
    End {
        transaction: Transaction,
        commit: bool,
    },
    /// Offsets within a transaction.
    SendOffsets {
        transaction: Transaction,
        group: &'static str,
        offsets: Vec<(Place, i64)>,
    },
    Read(Read),
    /// A member was told what is its own.
    Own {
        group: &'static str,
        generation: i32,
        member: String,
        places: Vec<Place>,
    },
    Commit {
        group: &'static str,
        generation: i32,
        member: String,
        place: Place,
        offset: i64,
        /// Whether it may have been sent more than once: the first of them may be done long after the last.
        again: bool,
    },
    FetchOffset {
        group: &'static str,
        place: Place,
        found: Option<i64>,
    },
    Look {
        place: Place,
        end: End,
        found: i64,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Send {
    pub(super) place: Place,
    pub(super) number: Number,
    /// Whether what is sent again is known as that.
    pub(super) idempotent: bool,
    pub(super) transaction: Option<Transaction>,
    /// What it is a copy of.
    pub(super) source: Option<(Place, i64)>,
    /// Where it is, by its acknowledgement.
    pub(super) offset: Option<i64>,
}

/// A transaction, its transactional id, and which of the producers with that id has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Transaction {
    pub(super) id: String,
    pub(super) instance: u64,
    /// Of the run: every transaction has another one, and of one producer the later has the higher.
    pub(super) number: u64,
}

/// What a reader got at once.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Read {
    pub(super) place: Place,
    pub(super) isolation: Isolation,
    /// From one assignment to its end, or from a start to a stop. Of the run.
    pub(super) session: u64,
    pub(super) group: Option<&'static str>,
    pub(super) records: Vec<Found>,
    /// Where it goes on.
    pub(super) next: i64,
}

/// A record as a reader gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) offset: i64,
    /// Nothing where it is not what anybody could have sent.
    pub(super) number: Option<Number>,
    pub(super) epoch: i32,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct FinalRead {
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) records: BTreeMap<i64, Found>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Isolation {
    Uncommitted,
    Committed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    LogStart,
    LastStable,
    HighWatermark,
}

/// One offset of a log's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) offset: i64,
    pub(super) producer_id: i64,
    pub(super) holds: Holds,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// A record, of a transaction or not.
    Record { number: Option<Number>, transactional: bool },
    /// A transaction ends.
    Marker { commit: bool },
}

/// The anomalies of reference/reliability.md, section 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Check {
    /// What was acknowledged is missing.
    A1,
    /// One record at two offsets with idempotence.
    A2,
    /// Two records at one offset.
    A3,
    /// What was sent later stands earlier.
    A4,
    /// A record that nobody sent.
    A5,
    /// An end of the log, or its epoch, goes back.
    A6,
    /// A gap that nothing explains.
    A7,
    /// What failed is there.
    A8,
    /// A record is passed over within an assignment.
    B1,
    /// A step back within an assignment.
    B2,
    /// A committed offset goes back.
    B3,
    /// Two members own a partition in one generation.
    B4,
    /// Nought, where something else was known.
    B5,
    /// Committed and never processed.
    B6,
    /// Nothing goes on after the faults.
    B7,
    /// A record of an aborted transaction is read.
    C1,
    /// A record of an open transaction is read.
    C2,
    /// Some of a transaction is there and the rest is not.
    C3,
    /// Of a committed transaction something is missing.
    C4,
    /// A producer is served that was fenced.
    C5,
    /// What comes late ends or joins a later transaction.
    C6,
    /// Readers of committed records wait for too long.
    C7,
    /// A copy without the offset of what it is a copy of, or the other way round.
    C8,
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Violation {
    pub(super) check: Check,
    pub(super) what: String,
}

impl Violation {
    pub(super) fn new(check: Check, what: String) -> Self {
        Self { check, what }
    }
}

impl What {
    /// Whether a client that gets this done gets on.
    pub(super) fn is_progress(&self) -> bool {
        !matches!(self, Self::Begin(_) | Self::Own { .. })
    }
}

impl Operation {
    /// When it was known to be done.
    pub(super) fn ended(&self) -> Option<Micros> {
        match self.outcome {
            Outcome::Ok(at) => Some(at),
            Outcome::Fail | Outcome::Info => None,
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}
