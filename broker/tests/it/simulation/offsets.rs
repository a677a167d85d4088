//! What a committed offset may be: a register that is written by requests of which some are never answered.

use std::collections::BTreeSet;

/// A commit of the run, by its number, which is also the offset that it commits; -1 stands for none.
pub(super) type Commit = i64;

/// The committed offset of a group for one partition.
#[derive(Debug)]
pub(super) struct Register {
    /// It is one of these, unless one of those below was written since.
    possible: BTreeSet<Commit>,
    /// Sent and not answered yet.
    in_flight: BTreeSet<Commit>,
    /// Never answered, or answered with an error that leaves it open.
    open: BTreeSet<Commit>,
    /// Failed at the disk: not to be seen until the next start, which may find them in the log.
    failed: BTreeSet<Commit>,
    /// What it may go back to at a restart, because a topic of the same name was deleted before.
    haunted: BTreeSet<Commit>,
    /// Counts what happens to it: an answer that was asked for before says nothing.
    pub(super) changes: u64,
}

impl Default for Register {
    fn default() -> Self {
        Self {
            possible: BTreeSet::from([-1]),
            in_flight: BTreeSet::new(),
            open: BTreeSet::new(),
            failed: BTreeSet::new(),
            haunted: BTreeSet::new(),
            changes: 0,
        }
    }
}

impl Register {
    /// Of a topic whose name had others, with what was committed for those if that may show.
    pub(super) fn after(former: BTreeSet<Commit>) -> Self {
        let mut register = Self::default();
        register.possible.extend(former.iter());
        register.haunted = former;
        register
    }

    /// Everything that it may ever have been.
    pub(super) fn all(&self) -> BTreeSet<Commit> {
        let sets = [&self.possible, &self.in_flight, &self.open, &self.failed, &self.haunted];
        sets.into_iter().flatten().copied().chain([-1]).collect()
    }

    pub(super) fn is_being_written(&self) -> bool {
        !self.in_flight.is_empty()
    }

    pub(super) fn sent(&mut self, commit: Commit) {
        self.changes += 1;
        self.in_flight.insert(commit);
    }

    pub(super) fn acknowledged(&mut self, commit: Commit) {
        self.changes += 1;
        self.in_flight.remove(&commit);
        self.possible = BTreeSet::from([commit]);
    }

    pub(super) fn refused(&mut self, commit: Commit) {
        self.changes += 1;
        self.in_flight.remove(&commit);
    }

    pub(super) fn failed(&mut self, commit: Commit) {
        self.changes += 1;
        self.in_flight.remove(&commit);
        self.failed.insert(commit);
    }

    pub(super) fn unanswered(&mut self, commit: Commit) {
        self.changes += 1;
        self.in_flight.remove(&commit);
        self.open.insert(commit);
    }

    /// The broker has begun anew: what was open is decided, though nobody knows how.
    pub(super) fn restarted(&mut self) {
        for open in [&mut self.open, &mut self.in_flight, &mut self.failed] {
            self.possible.append(open);
        }
        self.possible.extend(self.haunted.iter());
    }

    /// Says what is wrong with an offset that was read. From now on it is known, if what is read is settled.
    pub(super) fn read(&mut self, found: Commit, settled: bool) -> Result<(), String> {
        let written = self.open.contains(&found) || self.in_flight.contains(&found);
        if !written && !self.possible.contains(&found) {
            return Err(format!("the committed offset is {found}; it may be one of {self:?}"));
        }
        if settled {
            self.open.remove(&found);
            self.possible = BTreeSet::from([found]);
        }
        Ok(())
    }
}

#[test]
fn an_open_commit_is_decided_once() {
    let mut register = Register::default();
    register.sent(1);
    register.acknowledged(1);
    register.sent(2);
    register.unanswered(2);
    register.read(1, true).unwrap();
    register.restarted();
    register.read(2, true).unwrap();
    register.restarted();
    register.read(1, true).unwrap_err();
    register.read(2, true).unwrap();
    register.sent(3);
    register.failed(3);
    register.read(3, true).unwrap_err();
    register.restarted();
    register.read(3, true).unwrap();
    register.sent(4);
    register.refused(4);
    register.read(4, true).unwrap_err();
}
