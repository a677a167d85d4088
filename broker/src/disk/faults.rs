//! What a disk in memory can be told to do at a call: fail, hang, or lose its power.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::Tear;

/// The calls of a disk that can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskCall {
    /// Opening a file that is there.
    Open,
    /// Creating or emptying a file.
    Create,
    /// Creating directories.
    CreateDir,
    /// Listing a directory.
    ReadDir,
    /// Reading from a file.
    Read,
    /// Writing to a file. One that fails leaves half of its bytes.
    Write,
    /// Cutting or extending a file.
    SetLen,
    /// Making a file's bytes durable. What was pending when it fails never becomes durable, unless it is written again.
    Sync,
    /// Giving a file or directory a new name.
    Rename,
    /// Removing a file.
    Remove,
    /// Removing a directory with all that is in it.
    RemoveDir,
    /// Making the names in a directory durable.
    SyncDir,
}

/// Which calls are meant: of which kinds, on which paths, and from the how-manyth on. Those before are counted from
/// the moment at which the fault is ordered.
#[derive(Debug, Clone)]
pub struct Calls {
    kinds: Vec<DiskCall>,
    path: Option<String>,
    first: u64,
    times: u64,
}

impl Calls {
    /// The next call, whatever it is.
    pub fn any() -> Self {
        Self { kinds: Vec::new(), path: None, first: 1, times: 1 }
    }

    /// The next call of one of these kinds.
    pub fn of(kinds: &[DiskCall]) -> Self {
        Self { kinds: kinds.to_vec(), ..Self::any() }
    }

    /// Only calls on paths that contain `part`. A file's path is the one that it was opened or created with.
    pub fn on(mut self, part: &str) -> Self {
        self.path = Some(part.to_owned());
        self
    }

    /// The `n`-th such call instead of the next; 1 is the next.
    pub fn nth(mut self, n: u64) -> Self {
        self.first = n.max(1);
        self
    }

    /// Every such call from the first that is meant on, until the faults are cleared.
    pub fn and_all_after(mut self) -> Self {
        self.times = u64::MAX;
        self
    }

    fn include(&self, kind: DiskCall, path: &Path) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&kind))
            && self.path.as_ref().is_none_or(|part| path.to_string_lossy().contains(part.as_str()))
    }
}

/// The error that a call fails with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// An error of this kind.
    Kind(io::ErrorKind),
    /// The operating system's error of this number, for instance 28 for `ENOSPC`.
    Os(i32),
}

impl From<io::ErrorKind> for Failure {
    fn from(kind: io::ErrorKind) -> Self {
        Self::Kind(kind)
    }
}

impl Failure {
    pub(super) fn error(self, kind: DiskCall) -> io::Error {
        match self {
            Self::Kind(error) => io::Error::new(error, format!("injected failure of a {kind:?}")),
            Self::Os(number) => io::Error::from_raw_os_error(number),
        }
    }
}

/// Calls that hang until they are released, by [`Hang::release`] or by dropping this value. It takes a disk whose calls
/// may block ([`super::MemoryDisk::on_threads`]): one whose work runs in place would hold up the test as well.
pub struct Hang {
    gate: Arc<Gate>,
}

impl Hang {
    /// How many calls hang now.
    pub fn waiting(&self) -> usize {
        self.gate.state().waiting
    }

    /// Lets the calls go on, and those that would have hung later.
    pub fn release(&self) {
        self.gate.state().open = true;
        self.gate.opened.notify_all();
    }
}

impl Drop for Hang {
    fn drop(&mut self) {
        self.release();
    }
}

impl fmt::Debug for Hang {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hang").field("waiting", &self.waiting()).finish()
    }
}

#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<GateState>,
    opened: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    open: bool,
    waiting: usize,
}

impl Gate {
    fn state(&self) -> std::sync::MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait(&self) {
        let mut state = self.state();
        state.waiting += 1;
        while !state.open {
            state = self.opened.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
    }
}

/// What happens at a call.
#[derive(Debug, Clone)]
pub(super) enum Effect {
    Fail(Failure),
    Hang(Arc<Gate>),
    CutPower(Tear),
}

/// The faults that were ordered, and what was called so far.
#[derive(Debug, Default)]
pub(super) struct Faults {
    ordered: Vec<Ordered>,
    syncs: u64,
    journal: Option<Vec<(DiskCall, PathBuf)>>,
}

#[derive(Debug)]
struct Ordered {
    calls: Calls,
    seen: u64,
    effect: Effect,
}

impl Faults {
    pub(super) fn order(&mut self, calls: Calls, effect: Effect) {
        self.ordered.push(Ordered { calls, seen: 0, effect });
    }

    pub(super) fn order_hang(&mut self, calls: Calls) -> Hang {
        let gate = Arc::<Gate>::default();
        self.order(calls, Effect::Hang(gate.clone()));
        Hang { gate }
    }

    pub(super) fn clear(&mut self) {
        self.ordered.clear();
    }

    pub(super) fn start_journal(&mut self) {
        self.journal = Some(Vec::new());
    }

    pub(super) fn journal(&self) -> Vec<(DiskCall, PathBuf)> {
        self.journal.clone().unwrap_or_default()
    }

    pub(super) fn syncs(&self) -> u64 {
        self.syncs
    }

    /// Counts a call and says what shall happen at it: what was ordered first wins.
    pub(super) fn at_call(&mut self, kind: DiskCall, path: &Path) -> Option<Effect> {
        if matches!(kind, DiskCall::Sync | DiskCall::SyncDir) {
            self.syncs += 1;
        }
        if let Some(journal) = &mut self.journal {
            journal.push((kind, path.to_owned()));
        }
        let mut due = None;
        for ordered in self.ordered.iter_mut().filter(|ordered| ordered.calls.include(kind, path)) {
            ordered.seen += 1;
            let past = ordered.seen.checked_sub(ordered.calls.first);
            if due.is_none() && past.is_some_and(|past| past < ordered.calls.times) {
                due = Some(ordered.effect.clone());
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_kind_and_path_from_the_order_on() {
        let mut faults = Faults::default();
        let path = Path::new("/data/clicks-0/00.log");
        assert!(faults.at_call(DiskCall::Write, path).is_none());
        let writes = Calls::of(&[DiskCall::Write, DiskCall::Sync]).on("clicks-0").nth(2);
        faults.order(writes, Effect::Fail(Failure::Os(28)));
        assert!(faults.at_call(DiskCall::Write, path).is_none(), "the first");
        assert!(faults.at_call(DiskCall::Read, path).is_none(), "another kind");
        assert!(faults.at_call(DiskCall::Sync, Path::new("/data/other-0")).is_none(), "another path");
        assert!(matches!(faults.at_call(DiskCall::Sync, path), Some(Effect::Fail(Failure::Os(28)))));
        assert!(faults.at_call(DiskCall::Sync, path).is_none(), "once");
        assert_eq!(faults.syncs(), 3);
        assert_eq!(Failure::Os(28).error(DiskCall::Write).kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_fault_may_stay_until_it_is_cleared() {
        let mut faults = Faults::default();
        faults.order(Calls::any().nth(2).and_all_after(), Effect::Fail(io::ErrorKind::Other.into()));
        let path = Path::new("/a");
        let due: Vec<bool> = (0..4).map(|_| faults.at_call(DiskCall::Open, path).is_some()).collect();
        assert_eq!(due, [false, true, true, true]);
        faults.clear();
        assert!(faults.at_call(DiskCall::Open, path).is_none());
    }
}
