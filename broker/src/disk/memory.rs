//! A disk in memory that knows which bytes and names are durable, and can crash, tear, hang and fail on command.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use klamm_runtime::{Clock, Rng, SeededRng};
use rpds::RedBlackTreeMapSync;

use super::faults::{Calls, DiskCall, Effect, Failure, Faults, Hang};
use super::{DirEntry, Disk, DiskFile, DiskLock, FileTimes, Space};

/// What a disk sector is: the unit that is written whole or not at all.
const SECTOR_BYTES: u64 = 512;

/// Files in memory. Clones share them; each [`MemoryDisk::new`] is a separate disk.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk {
    shared: Arc<Mutex<Shared>>,
    /// See [`MemoryDisk::on_threads`].
    blocking: bool,
}

/// What a crash does to bytes that were appended to a file and not yet synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tear {
    /// They are gone.
    None,
    /// A part of them, from the front, survives in each file; how much is drawn from the seed.
    Prefix(u64),
    /// The file keeps its length, but some sectors were not written and read as zeros; which
    /// ones is drawn from the seed.
    Holes(u64),
}

#[derive(Debug, Default)]
struct Shared {
    root: Directory,
    locks: BTreeSet<PathBuf>,
    /// Handles opened before the last crash or kill belong to a dead process.
    generation: u64,
    /// The power was cut by a fault and is not on again.
    off: bool,
    /// Tells when files are made and written; without it nobody knows.
    clock: Option<Arc<dyn Clock>>,
    faults: Faults,
    /// See [`MemoryDisk::limit`].
    limits: BTreeMap<PathBuf, u64>,
}

#[derive(Debug, Clone)]
enum Node {
    File(Arc<Mutex<Contents>>),
    Directory(Arc<Mutex<Directory>>),
}

/// The names in a directory. A copy costs nothing: a directory of ten thousand partitions is synced for each new one.
type Names = RedBlackTreeMapSync<String, Node>;

/// Names now, and names that survive a crash.
#[derive(Debug, Default)]
struct Directory {
    live: Names,
    durable: Names,
}

/// Bytes now, and how to get back to what survives a crash.
#[derive(Debug, Default)]
struct Contents {
    live: Vec<u8>,
    durable_len: usize,
    /// Durable bytes that were overwritten or cut since the last sync, in order.
    undo: Vec<(usize, Vec<u8>)>,
    /// Since a sync failed: what is durable is no longer the front part of what is there.
    split: Option<Split>,
    times: FileTimes,
}

/// A file of which a sync failed. What was pending then is in memory and counts as written: no later sync makes it
/// durable. What is written again from then on is.
#[derive(Debug)]
struct Split {
    durable: Vec<u8>,
    /// What was written since, as places in the bytes of now.
    written: Vec<Range<usize>>,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the disk remember when files were made and written.
    pub fn set_clock(&self, clock: Arc<dyn Clock>) {
        self.shared().clock = Some(clock);
    }

    fn now_ms(&self) -> Option<i64> {
        let clock = self.shared().clock.clone();
        clock.map(|clock| clock.now_ms())
    }

    /// The same files, with calls that may block the thread: what storage code does on threads of its own for a real
    /// disk it does for this one too. For tests with calls that hang.
    pub fn on_threads(&self) -> Self {
        Self { shared: self.shared.clone(), blocking: true }
    }

    /// Pulls the plug: names and bytes that were not synced are lost (`tear` says how), locks are free again, handles
    /// opened before fail from now on, and faults are forgotten.
    pub fn crash(&self, tear: Tear) {
        self.shared().crash(tear);
    }

    /// The process that uses the disk dies and the machine lives on: all that was written is there, locks are free,
    /// nothing can be written through handles that were opened before, and faults are forgotten.
    pub fn kill(&self) {
        self.shared().forget_process();
    }

    /// Pulls the plug as [`Self::crash`] does when the call is made, before it has any effect. From then on everything
    /// fails, so that the broker that was running can do no more, until [`Self::power_on`].
    pub fn cut_power(&self, calls: Calls, tear: Tear) {
        self.shared().faults.order(calls, Effect::CutPower(tear));
    }

    /// Ends what [`Self::cut_power`] began; to be called when the broker that was running is gone. Says whether the
    /// power had been cut.
    pub fn power_on(&self) -> bool {
        let mut shared = self.shared();
        shared.faults.clear();
        std::mem::take(&mut shared.off)
    }

    /// Lets these calls fail.
    pub fn fail(&self, calls: Calls, failure: impl Into<Failure>) {
        self.shared().faults.order(calls, Effect::Fail(failure.into()));
    }

    /// Makes a directory one of a file system of so many bytes: a write that does not fit fails with
    /// `StorageFull` and writes nothing.
    pub fn limit(&self, dir: impl Into<PathBuf>, total_bytes: u64) {
        self.shared().limits.insert(dir.into(), total_bytes);
    }

    /// The size of the file system that a path is in and what is taken of it, if it has a limit.
    fn taken(&self, path: &Path) -> Option<(u64, u64)> {
        let shared = self.shared();
        let (dir, total_bytes) = shared.limits.iter().find(|(dir, _)| path.starts_with(dir))?;
        let taken = find(&shared.root, dir).map_or(0, |node| live_bytes(&node));
        Some((*total_bytes, taken))
    }

    /// Whether a file may be so much longer.
    fn has_room(&self, path: &Path, growth: u64) -> bool {
        growth == 0 || self.taken(path).is_none_or(|(total, taken)| growth <= total.saturating_sub(taken))
    }

    /// Lets these calls hang, before they have any effect, until they are released.
    pub fn hang(&self, calls: Calls) -> Hang {
        self.shared().faults.order_hang(calls)
    }

    /// Forgets the faults that were ordered; calls that hang stay where they are.
    pub fn clear_faults(&self) {
        self.shared().faults.clear();
    }

    /// Lets the `n`-th sync from now fail (1 is the next one), of a file or a directory. The bytes that are pending
    /// then can be read until the power goes and become durable only when they are written again.
    pub fn fail_nth_sync(&self, n: u64) {
        self.fail(Calls::of(&[DiskCall::Sync, DiskCall::SyncDir]).nth(n), io::ErrorKind::Other);
    }

    /// Lets the `n`-th write from now fail (1 is the next one) after half of its bytes.
    pub fn fail_nth_write(&self, n: u64, kind: io::ErrorKind) {
        self.fail(Calls::of(&[DiskCall::Write]).nth(n), kind);
    }

    /// How many syncs of files and directories there were.
    pub fn sync_count(&self) -> u64 {
        self.shared().faults.syncs()
    }

    /// Begins to note every call, so that a test can go through them one by one.
    pub fn start_journal(&self) {
        self.shared().faults.start_journal();
    }

    /// The calls since [`Self::start_journal`], in order.
    pub fn journal(&self) -> Vec<(DiskCall, PathBuf)> {
        self.shared().faults.journal()
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }

    fn handle(&self, contents: Arc<Mutex<Contents>>, path: &Path, generation: u64) -> Arc<dyn DiskFile> {
        Arc::new(MemoryFile { disk: self.clone(), contents, path: path.to_owned(), generation })
    }

    /// To be called first by every call: what was ordered for it happens. The error inside is one to fail with after
    /// the effects that a failed call of this kind has.
    fn begin(&self, kind: DiskCall, path: &Path) -> io::Result<Option<io::Error>> {
        let mut shared = self.shared();
        if shared.off {
            return Err(no_power());
        }
        match shared.faults.at_call(kind, path) {
            None => Ok(None),
            Some(Effect::Fail(failure)) => Ok(Some(failure.error(kind))),
            Some(Effect::CutPower(tear)) => {
                shared.crash(tear);
                shared.off = true;
                Err(no_power())
            }
            Some(Effect::Hang(gate)) => {
                let generation = shared.generation;
                drop(shared);
                gate.wait();
                let shared = self.shared();
                if shared.off || shared.generation != generation { Err(no_power()) } else { Ok(None) }
            }
        }
    }

    /// As [`Self::begin`] for calls that have no effect when they fail.
    fn begin_or_fail(&self, kind: DiskCall, path: &Path) -> io::Result<()> {
        self.begin(kind, path)?.map_or(Ok(()), Err)
    }
}

fn no_power() -> io::Error {
    io::Error::other("the power was cut")
}

impl Shared {
    fn forget_process(&mut self) {
        self.generation += 1;
        self.locks.clear();
        self.faults.clear();
    }

    fn crash(&mut self, tear: Tear) {
        self.forget_process();
        let rng = match tear {
            Tear::None => SeededRng::new(0),
            Tear::Prefix(seed) | Tear::Holes(seed) => SeededRng::new(seed),
        };
        crash_directory(&mut self.root, tear, &rng);
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.begin_or_fail(DiskCall::Open, path)?;
        let shared = self.shared();
        match find(&shared.root, path)? {
            Node::File(contents) => Ok(self.handle(contents, path, shared.generation)),
            Node::Directory(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.begin_or_fail(DiskCall::Create, path)?;
        let now_ms = self.now_ms();
        let mut shared = self.shared();
        let generation = shared.generation;
        let contents = with_parent(&mut shared.root, path, |parent, name| match parent.live.get(name) {
            Some(Node::Directory(_)) => Err(io::ErrorKind::IsADirectory.into()),
            Some(Node::File(contents)) => {
                lock(contents).set_len(0);
                Ok(contents.clone())
            }
            None => {
                let times = FileTimes { created_ms: now_ms, modified_ms: now_ms };
                let contents = Arc::new(Mutex::new(Contents { times, ..Contents::default() }));
                parent.live.insert_mut(name.to_owned(), Node::File(contents.clone()));
                Ok(contents)
            }
        })?;
        Ok(self.handle(contents, path, generation))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.begin_or_fail(DiskCall::CreateDir, path)?;
        let mut shared = self.shared();
        create_dirs(&mut shared.root, &names(path))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.begin_or_fail(DiskCall::ReadDir, path)?;
        let mut shared = self.shared();
        with_directory(&mut shared.root, &names(path), |directory| {
            let entry = |(name, node): (&String, &Node)| DirEntry {
                name: name.clone(),
                is_dir: matches!(node, Node::Directory(_)),
            };
            Ok(directory.live.iter().map(entry).collect())
        })
    }

    fn exists(&self, path: &Path) -> bool {
        find(&self.shared().root, path).is_ok()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.begin_or_fail(DiskCall::Rename, from)?;
        let mut shared = self.shared();
        let node = with_parent(&mut shared.root, from, |parent, name| {
            let node = parent.live.get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
            parent.live.remove_mut(name);
            Ok(node)
        })?;
        with_parent(&mut shared.root, to, |parent, name| {
            parent.live.insert_mut(name.to_owned(), node);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.begin_or_fail(DiskCall::Remove, path)?;
        let mut shared = self.shared();
        with_parent(&mut shared.root, path, |parent, name| match parent.live.get(name) {
            Some(Node::File(_)) => {
                parent.live.remove_mut(name);
                Ok(())
            }
            Some(Node::Directory(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        })
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.begin_or_fail(DiskCall::RemoveDir, path)?;
        let mut shared = self.shared();
        with_parent(&mut shared.root, path, |parent, name| {
            if parent.live.remove_mut(name) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.begin_or_fail(DiskCall::SyncDir, path)?;
        let mut shared = self.shared();
        with_directory(&mut shared.root, &names(path), |directory| {
            directory.durable = directory.live.clone();
            Ok(())
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Option<DiskLock>> {
        if !self.exists(path) {
            self.create(path)?;
        }
        let mut shared = self.shared();
        if shared.off {
            return Err(no_power());
        }
        let generation = shared.generation;
        if !shared.locks.insert(path.to_owned()) {
            return Ok(None);
        }
        Ok(Some(DiskLock::new(HeldLock { disk: self.clone(), path: path.to_owned(), generation })))
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let (total_bytes, taken) = self.taken(path).ok_or(io::ErrorKind::Unsupported)?;
        Ok(Space { total_bytes, free_bytes: total_bytes.saturating_sub(taken) })
    }

    fn is_blocking(&self) -> bool {
        self.blocking
    }
}

struct HeldLock {
    disk: MemoryDisk,
    path: PathBuf,
    generation: u64,
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        let mut shared = self.disk.shared();
        // After a crash the lock may already be somebody else's.
        if shared.generation == self.generation {
            shared.locks.remove(&self.path);
        }
    }
}

#[derive(Debug)]
struct MemoryFile {
    disk: MemoryDisk,
    contents: Arc<Mutex<Contents>>,
    /// What it was opened as.
    path: PathBuf,
    generation: u64,
}

impl MemoryFile {
    fn check_alive(&self) -> io::Result<()> {
        if self.disk.shared().generation == self.generation {
            Ok(())
        } else {
            Err(io::Error::other("this handle was opened by a process that died"))
        }
    }
}

impl DiskFile for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        Ok(lock(&self.contents).live.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.disk.begin_or_fail(DiskCall::Read, &self.path)?;
        let contents = lock(&self.contents);
        let start = usize::try_from(position).unwrap_or(usize::MAX).min(contents.live.len());
        let available = &contents.live[start..];
        let read = available.len().min(buffer.len());
        buffer[..read].copy_from_slice(&available[..read]);
        Ok(read)
    }

    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.check_alive()?;
        let failure = self.disk.begin(DiskCall::Write, &self.path)?;
        let position = usize::try_from(position).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let growth = (position + bytes.len()).saturating_sub(lock(&self.contents).live.len()) as u64;
        let is_full = !self.disk.has_room(&self.path, growth);
        let failure = failure.or_else(|| is_full.then(|| io::ErrorKind::StorageFull.into()));
        let written = match (is_full, &failure) {
            (true, _) => &bytes[..0],
            (false, Some(_)) => &bytes[..bytes.len() / 2],
            (false, None) => bytes,
        };
        let now_ms = self.disk.now_ms();
        let mut contents = lock(&self.contents);
        contents.write(position, written);
        contents.times.modified_ms = now_ms.or(contents.times.modified_ms);
        drop(contents);
        failure.map_or(Ok(()), Err)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_alive()?;
        self.disk.begin_or_fail(DiskCall::SetLen, &self.path)?;
        lock(&self.contents).set_len(usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?);
        Ok(())
    }

    fn set_aside(&self, len: u64) -> io::Result<()> {
        self.check_alive()?;
        let growth = len.saturating_sub(lock(&self.contents).live.len() as u64);
        if self.disk.has_room(&self.path, growth) { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check_alive()?;
        let failure = self.disk.begin(DiskCall::Sync, &self.path)?;
        let mut contents = lock(&self.contents);
        if let Some(error) = failure {
            contents.sync_fails();
            return Err(error);
        }
        contents.sync();
        Ok(())
    }

    fn times(&self) -> FileTimes {
        lock(&self.contents).times
    }
}

impl Contents {
    fn write(&mut self, position: usize, bytes: &[u8]) {
        let end = position + bytes.len();
        self.remember(position, end);
        if self.live.len() < end {
            self.live.resize(end, 0);
        }
        self.live[position..end].copy_from_slice(bytes);
        self.changed(position..end);
    }

    fn set_len(&mut self, len: usize) {
        self.remember(len, self.live.len());
        let before = self.live.len();
        self.live.resize(len, 0);
        self.changed(before..len);
    }

    /// Keeps the durable bytes in `start..end`, which are about to change.
    fn remember(&mut self, start: usize, end: usize) {
        let end = end.min(self.durable_len).min(self.live.len());
        if start < end && self.split.is_none() {
            self.undo.push((start, self.live[start..end].to_vec()));
        }
    }

    fn changed(&mut self, place: Range<usize>) {
        if let Some(split) = self.split.as_mut().filter(|_| !place.is_empty()) {
            split.written.push(place);
        }
    }

    fn sync(&mut self) {
        if let Some(split) = &mut self.split {
            split.settle(&self.live);
            return;
        }
        self.undo.clear();
        self.durable_len = self.live.len();
    }

    /// What is pending counts as written, and is not.
    fn sync_fails(&mut self) {
        match &mut self.split {
            Some(split) => split.written.clear(),
            None => self.split = Some(Split { durable: self.durable(), written: Vec::new() }),
        }
    }

    /// What a power cut would leave at least.
    fn durable(&mut self) -> Vec<u8> {
        let mut durable = self.live.clone();
        durable.resize(self.durable_len, 0);
        for (position, bytes) in self.undo.drain(..).rev() {
            durable[position..position + bytes.len()].copy_from_slice(&bytes);
        }
        durable
    }

    fn crash(&mut self, tear: Tear, rng: &SeededRng) {
        let (durable, pending) = match self.split.take() {
            Some(split) => {
                let pending = split.pending(&self.live);
                (split.durable, pending)
            }
            None => {
                let pending = self.live.get(self.durable_len..).map(<[u8]>::to_vec).unwrap_or_default();
                (self.durable(), pending)
            }
        };
        self.live = durable;
        match tear {
            Tear::None => {}
            Tear::Prefix(_) => {
                let kept = rng.below(pending.len() as u64 + 1) as usize;
                self.live.extend_from_slice(&pending[..kept]);
            }
            Tear::Holes(_) => self.extend_with_holes(&pending, rng),
        }
        self.durable_len = self.live.len();
    }

    fn extend_with_holes(&mut self, pending: &[u8], rng: &SeededRng) {
        let mut sector_missing = false;
        for (index, byte) in pending.iter().enumerate() {
            if index == 0 || (self.live.len() as u64).is_multiple_of(SECTOR_BYTES) {
                sector_missing = rng.below(4) == 0;
            }
            self.live.push(if sector_missing { 0 } else { *byte });
        }
    }
}

impl Split {
    /// Makes durable what was written since the sync that failed, and the length of a file that was cut.
    fn settle(&mut self, live: &[u8]) {
        for place in self.written.drain(..) {
            let place = place.start.min(live.len())..place.end.min(live.len());
            if self.durable.len() < place.end {
                self.durable.resize(place.end, 0);
            }
            self.durable[place.clone()].copy_from_slice(&live[place]);
        }
        self.durable.truncate(live.len());
    }

    /// What was appended since that sync; what had failed to be written in front of it reads as zeros.
    fn pending(&self, live: &[u8]) -> Vec<u8> {
        let mut whole = vec![0; live.len()];
        let mut end = 0;
        for place in &self.written {
            let place = place.start.min(live.len())..place.end.min(live.len());
            whole[place.clone()].copy_from_slice(&live[place.clone()]);
            end = end.max(place.end);
        }
        whole.get(self.durable.len()..end).map(<[u8]>::to_vec).unwrap_or_default()
    }
}

fn live_bytes(node: &Node) -> u64 {
    match node {
        Node::File(contents) => lock(contents).live.len() as u64,
        Node::Directory(directory) => lock(directory).live.values().map(live_bytes).sum(),
    }
}

fn crash_directory(directory: &mut Directory, tear: Tear, rng: &SeededRng) {
    directory.live = directory.durable.clone();
    for node in directory.live.values() {
        match node {
            Node::File(contents) => lock(contents).crash(tear, rng),
            Node::Directory(inner) => crash_directory(&mut lock(inner), tear, rng),
        }
    }
}

fn names(path: &Path) -> Vec<String> {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    };
    path.components().filter_map(name).collect()
}

fn find(root: &Directory, path: &Path) -> io::Result<Node> {
    let names = names(path);
    let (last, parents) = names.split_last().ok_or(io::ErrorKind::IsADirectory)?;
    let mut found = None;
    for name in parents.iter().chain([last]) {
        let next = match &found {
            None => root.live.get(name).cloned(),
            Some(Node::Directory(directory)) => lock(directory).live.get(name).cloned(),
            Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
        };
        found = Some(next.ok_or(io::ErrorKind::NotFound)?);
    }
    found.ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn with_directory<T>(
    directory: &mut Directory,
    names: &[String],
    work: impl FnOnce(&mut Directory) -> io::Result<T>,
) -> io::Result<T> {
    let Some((name, rest)) = names.split_first() else { return work(directory) };
    match directory.live.get(name) {
        Some(Node::Directory(inner)) => {
            let inner = inner.clone();
            with_directory(&mut lock(&inner), rest, work)
        }
        Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
        None => Err(io::ErrorKind::NotFound.into()),
    }
}

fn with_parent<T>(
    root: &mut Directory,
    path: &Path,
    work: impl FnOnce(&mut Directory, &str) -> io::Result<T>,
) -> io::Result<T> {
    let names = names(path);
    let (name, parents) = names.split_last().ok_or(io::ErrorKind::InvalidInput)?;
    with_directory(root, parents, |parent| work(parent, name))
}

fn create_dirs(directory: &mut Directory, names: &[String]) -> io::Result<()> {
    let Some((name, rest)) = names.split_first() else { return Ok(()) };
    if !directory.live.contains_key(name) {
        directory.live.insert_mut(name.clone(), Node::Directory(Arc::default()));
    }
    match directory.live.get(name) {
        Some(Node::Directory(inner)) => {
            let inner = inner.clone();
            create_dirs(&mut lock(&inner), rest)
        }
        _ => Err(io::ErrorKind::NotADirectory.into()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic of a test thread says nothing about these plain bytes.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk_with(path: &str, durable: &[u8]) -> (MemoryDisk, Arc<dyn DiskFile>) {
        let disk = MemoryDisk::new();
        let file = disk.create(Path::new(path)).unwrap();
        file.write_all_at(durable, 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        (disk, file)
    }

    #[test]
    fn a_crash_forgets_what_was_not_synced() {
        let (disk, file) = disk_with("/log", b"durable");
        file.write_all_at(b"DUR", 0).unwrap();
        file.write_all_at(b" and pending", 7).unwrap();
        file.set_len(5).unwrap();
        disk.create(Path::new("/never synced")).unwrap();
        disk.crash(Tear::None);
        assert_eq!(disk.read_to_vec(Path::new("/log")).unwrap(), b"durable");
        assert!(!disk.exists(Path::new("/never synced")));
        assert!(file.write_all_at(b"ghost", 0).is_err());
    }

    #[test]
    fn a_kill_takes_the_process_and_nothing_else() {
        let (disk, file) = disk_with("/log", b"durable");
        file.write_all_at(b" and pending", 7).unwrap();
        let _held = disk.lock(Path::new("/.lock")).unwrap().unwrap();
        disk.kill();
        assert_eq!(disk.read_to_vec(Path::new("/log")).unwrap(), b"durable and pending");
        assert!(
            file.write_all_at(b"ghost", 0).is_err() && file.set_len(0).is_err() && file.sync_data().is_err()
        );
        assert!(disk.lock(Path::new("/.lock")).unwrap().is_some());
        disk.crash(Tear::None);
        assert_eq!(disk.read_to_vec(Path::new("/log")).unwrap(), b"durable");
    }

    #[test]
    fn a_tear_keeps_a_prefix_of_what_was_pending() {
        let (disk, file) = disk_with("/log", b"ab");
        file.write_all_at(b"cdefgh", 2).unwrap();
        disk.crash(Tear::Prefix(3));
        let left = disk.read_to_vec(Path::new("/log")).unwrap();
        assert!(b"abcdefgh".starts_with(&left) && left.len() >= 2);
    }

    #[test]
    fn a_failed_sync_is_never_made_good_by_the_next_one() {
        let (disk, file) = disk_with("/log", b"ab");
        file.write_all_at(b"cd", 2).unwrap();
        disk.fail_nth_sync(1);
        file.sync_data().unwrap_err();
        file.sync_data().unwrap();
        disk.crash(Tear::None);
        assert_eq!(disk.read_to_vec(Path::new("/log")).unwrap(), b"ab");
    }

    #[test]
    fn what_is_written_again_after_a_failed_sync_becomes_durable_and_nothing_else() {
        let (disk, file) = disk_with("/log", b"abc");
        file.write_all_at(b"B", 1).unwrap();
        file.write_all_at(b"de", 3).unwrap();
        disk.fail_nth_sync(1);
        file.sync_data().unwrap_err();
        assert_eq!(disk.read_to_vec(Path::new("/log")).unwrap(), b"aBcde", "as any process sees it");
        file.write_all_at(b"e", 4).unwrap();
        file.sync_data().unwrap();
        file.write_all_at(b"f", 5).unwrap();
        disk.fail_nth_sync(1);
        file.sync_data().unwrap_err();
        file.write_all_at(b"g", 6).unwrap();
        disk.crash(Tear::None);
        assert_eq!(disk.read_to_vec(Path::new("/log")).unwrap(), b"abc\0e");

        let file = disk.open(Path::new("/log")).unwrap();
        disk.fail_nth_sync(1);
        file.sync_data().unwrap_err();
        file.set_len(2).unwrap();
        file.write_all_at(b"xyz", 2).unwrap();
        file.set_len(4).unwrap();
        file.sync_data().unwrap();
        file.write_all_at(b"!", 4).unwrap();
        disk.crash(Tear::Holes(1));
        let left = disk.read_to_vec(Path::new("/log")).unwrap();
        assert!(left == b"abxy!" || left == b"abxy\0", "{left:?}");
    }

    #[test]
    fn names_are_durable_with_their_directory_and_locks_exclude() {
        let disk = MemoryDisk::new();
        disk.create_dir_all(Path::new("/a/b")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        disk.sync_dir(Path::new("/a")).unwrap();
        disk.write_atomically(Path::new("/a/b/text"), "one").unwrap();
        disk.rename(Path::new("/a/b"), Path::new("/a/c")).unwrap();
        let held = disk.lock(Path::new("/a/.lock")).unwrap();
        assert!(held.is_some() && disk.lock(Path::new("/a/.lock")).unwrap().is_none());
        drop(held);
        assert!(disk.lock(Path::new("/a/.lock")).unwrap().is_some());
        disk.crash(Tear::None);
        assert_eq!(disk.read_to_string(Path::new("/a/b/text")).unwrap(), "one");
        assert!(!disk.exists(Path::new("/a/c")));
    }

    #[test]
    fn a_call_fails_with_the_error_that_was_ordered_and_has_no_effect() {
        let (disk, file) = disk_with("/log", b"ab");
        let full = Failure::Os(28);
        for (call, work) in [
            (DiskCall::Create, (&|| disk.create(Path::new("/new")).map(drop)) as &dyn Fn() -> io::Result<()>),
            (DiskCall::Open, &|| disk.open(Path::new("/log")).map(drop)),
            (DiskCall::Rename, &|| disk.rename(Path::new("/log"), Path::new("/gol"))),
            (DiskCall::Remove, &|| disk.remove(Path::new("/log"))),
            (DiskCall::RemoveDir, &|| disk.remove_dir_all(Path::new("/log"))),
            (DiskCall::SetLen, &|| file.set_len(1)),
            (DiskCall::Read, &|| file.read_exact_at(&mut [0], 0)),
            (DiskCall::SyncDir, &|| disk.sync_dir(Path::new("/"))),
            (DiskCall::ReadDir, &|| disk.read_dir(Path::new("/")).map(drop)),
            (DiskCall::CreateDir, &|| disk.create_dir_all(Path::new("/dir"))),
        ] {
            disk.fail(Calls::of(&[call]), full);
            assert_eq!(work().unwrap_err().raw_os_error(), Some(28), "{call:?}");
            assert_eq!(disk.read_to_vec(Path::new("/log")).unwrap(), b"ab");
            assert_eq!(disk.read_dir(Path::new("/")).unwrap().len(), 1, "{call:?}");
        }
        disk.fail(Calls::of(&[DiskCall::Write]), io::ErrorKind::StorageFull);
        assert_eq!(file.write_all_at(b"cdef", 2).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(disk.read_to_vec(Path::new("/log")).unwrap(), b"abcd", "half of a failed write is there");
    }

    #[test]
    fn power_that_was_cut_stays_off_until_it_is_on_again() {
        let (disk, file) = disk_with("/log", b"ab");
        file.write_all_at(b"cd", 2).unwrap();
        disk.start_journal();
        disk.cut_power(Calls::of(&[DiskCall::Sync]).nth(2), Tear::None);
        file.sync_data().unwrap();
        file.write_all_at(b"ef", 4).unwrap();
        assert!(file.sync_data().is_err(), "between the two syncs of a flush");
        assert!(disk.create(Path::new("/ghost")).is_err() && disk.open(Path::new("/log")).is_err());
        assert!(disk.lock(Path::new("/lock")).is_err());
        assert_eq!(disk.journal().len(), 3);
        assert!(disk.power_on() && !disk.power_on());
        assert_eq!(disk.read_to_vec(Path::new("/log")).unwrap(), b"abcd");
        assert!(file.write_all_at(b"ghost", 0).is_err());
    }

    #[test]
    fn a_call_hangs_until_it_is_released() {
        let (disk, file) = disk_with("/log", b"ab");
        let disk = disk.on_threads();
        assert!(disk.is_blocking() && !MemoryDisk::new().is_blocking());
        for crash in [false, true] {
            let hang = disk.hang(Calls::of(&[DiskCall::Write]).on("log"));
            let file = if crash { disk.open(Path::new("/log")).unwrap() } else { file.clone() };
            let write = std::thread::spawn(move || file.write_all_at(b"cd", 2));
            while hang.waiting() == 0 {
                std::thread::yield_now();
            }
            if crash {
                disk.crash(Tear::None);
            } else {
                assert_eq!(disk.read_to_vec(Path::new("/log")).unwrap(), b"ab");
            }
            hang.release();
            assert_eq!(write.join().unwrap().is_err(), crash, "what a dead process had under way is lost");
        }
    }
}
