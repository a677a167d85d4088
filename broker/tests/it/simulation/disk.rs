//! A disk that misbehaves at the rates of a seed, and lies where a bug is planted.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_broker::disk::{
    Calls, Delays, DirEntry, Disk, DiskCall, DiskFile, DiskLock, Failure, FileTimes, MemoryDisk, Tear,
};
use klamm_runtime::{Rng, SeededRng};

use super::known::{Known, stands};
use super::planted::Planted;

const NO_SPACE: i32 = 28;
const IO_ERROR: i32 = 5;
const TOO_MANY_FILES: i32 = 24;
/// What the rates below are counted in.
const PER: u64 = 100_000;

/// How often calls fail, in 100,000.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DiskRates {
    pub(super) read: u64,
    pub(super) write: u64,
    pub(super) sync: u64,
    /// Creating, renaming, removing, and making names durable.
    pub(super) names: u64,
    /// Opening and creating, for want of descriptors.
    pub(super) descriptors: u64,
    /// Work on a partition that hangs before its first call. Without any, all of it is done at once and in place.
    pub(super) hangs: u64,
}

/// A [`MemoryDisk`] and what goes wrong with it.
#[derive(Debug, Clone)]
pub(super) struct SimDisk {
    memory: MemoryDisk,
    control: Arc<Mutex<Control>>,
    /// What is left of a process that died does nothing any more.
    life: u64,
}

#[derive(Debug)]
struct Control {
    rng: SeededRng,
    rates: DiskRates,
    /// Whether the rates count.
    armed: bool,
    /// Every call that needs space fails.
    full: bool,
    /// So many calls from now the power goes.
    power_left: Option<u64>,
    /// The power went.
    off: bool,
    /// The process that has the disk now.
    life: u64,
    planted: Option<Planted>,
    /// How many faults there were since the last start of a broker.
    fired: u64,
    fired_in_all: u64,
    /// Whether anything hung since then.
    hung: bool,
    /// How often there was no space for what is known of producers.
    forgotten: u64,
    /// Everything that was called, in order, as a checksum.
    history: u64,
    /// The calls since they were asked for last, if anybody wants to see them.
    calls: Option<Vec<String>>,
}

impl SimDisk {
    pub(super) fn new(seed: u64, rates: DiskRates, planted: Option<Planted>) -> Self {
        let control = Control {
            rng: SeededRng::new(seed),
            rates,
            armed: false,
            full: false,
            power_left: None,
            off: false,
            life: 0,
            planted,
            fired: 0,
            hung: false,
            fired_in_all: 0,
            forgotten: 0,
            history: 0,
            calls: std::env::var_os("KLAMM_CALLS").map(|_| Vec::new()),
        };
        Self { memory: MemoryDisk::new(), control: Arc::new(Mutex::new(control)), life: 0 }
    }

    /// Lets the rates count, or not.
    pub(super) fn arm(&self, armed: bool) {
        self.control().armed = armed;
    }

    pub(super) fn set_full(&self, full: bool) {
        self.control().full = full;
    }

    /// The power goes `calls` calls from now, and those from then on fail.
    pub(super) fn cut_power_after(&self, calls: u64) {
        self.control().power_left = Some(calls);
    }

    /// Whether the power is gone.
    pub(super) fn is_off(&self) -> bool {
        self.control().off
    }

    /// It is back, and nothing waits to take it away again.
    pub(super) fn power_on(&self) {
        let mut control = self.control();
        (control.power_left, control.off) = (None, false);
        self.memory.power_on();
    }

    /// The power goes now.
    pub(super) fn crash(&self) {
        let tear = self.control().tear();
        self.memory.crash(tear);
    }

    /// What a planted bug does between two lives of the broker.
    pub(super) fn between_lives(&self) {
        let planted = self.control().planted;
        if let Some(planted) = planted {
            planted.between_lives(&self.memory);
        }
    }

    /// The process that has the disk dies.
    pub(super) fn kill(&self) {
        self.control().life += 1;
        self.memory.kill();
    }

    /// The disk as the next process has it.
    pub(super) fn of_next_process(&self) -> Self {
        Self { life: self.control().life, ..self.clone() }
    }

    /// Whether the process that had this is dead, or without power.
    pub(super) fn is_of_the_dead(&self) -> bool {
        let control = self.control();
        control.life != self.life || control.off
    }

    fn check_alive(&self, control: &Control) -> io::Result<()> {
        if control.life == self.life { Ok(()) } else { Err(io::Error::other("this broker is gone")) }
    }

    /// Begins to count the faults of a life of the broker.
    pub(super) fn new_life(&self) {
        let mut control = self.control();
        (control.fired, control.hung) = (0, false);
        self.memory.clear_faults();
    }

    /// How many faults there were in this life.
    pub(super) fn fired(&self) -> u64 {
        self.control().fired
    }

    pub(super) fn has_hung(&self) -> bool {
        self.control().hung
    }

    pub(super) fn fired_in_all(&self) -> u64 {
        self.control().fired_in_all
    }

    /// Whether retention may have taken what producers had sent before it was written down: space comes first.
    pub(super) fn may_have_forgotten_producers(&self) -> bool {
        self.control().forgotten > 1
    }

    pub(super) fn history(&self) -> u64 {
        self.control().history
    }

    /// The calls since this was asked for last.
    pub(super) fn take_calls(&self) -> Vec<String> {
        self.control().calls.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Orders what shall happen at the call that follows.
    fn before(&self, kind: DiskCall, path: &Path) -> io::Result<()> {
        let mut control = self.control();
        self.check_alive(&control)?;
        // A call on a file that died with its broker has not met what was ordered for it.
        self.memory.clear_faults();
        control.note(kind, path);
        if let Some(left) = &mut control.power_left {
            if *left == 0 {
                control.power_left = None;
                control.fired();
                control.off = true;
                self.memory.cut_power(Calls::any(), control.tear());
                return Ok(());
            }
            *left -= 1;
        }
        let suffix = path.extension().and_then(std::ffi::OsStr::to_str).unwrap_or_default();
        let of_segment = match kind {
            DiskCall::Create | DiskCall::SetLen => matches!(suffix, "log" | "index" | "timeindex"),
            DiskCall::Write => matches!(suffix, "index" | "timeindex"),
            _ => false,
        };
        if of_segment && !stands(Known::SegmentFiles) {
            return Ok(());
        }
        if let Some(failure) = control.failure(kind) {
            control.fired();
            if let Some(calls) = &mut control.calls {
                calls.push(format!("fails: {failure:?}"));
            }
            let of_producers = path.to_string_lossy().contains(".snapshot");
            control.forgotten += u64::from(of_producers && failure == Failure::Os(NO_SPACE));
            self.memory.fail(Calls::any(), failure);
        }
        Ok(())
    }

    /// As [`Self::before`]. Which of several readers comes first is up to tokio, so nothing may follow from the order.
    fn before_read(&self, path: &Path, position: u64) -> io::Result<()> {
        let mut control = self.control();
        self.check_alive(&control)?;
        self.memory.clear_faults();
        let is_index = path.extension().is_some_and(|suffix| suffix != "log");
        let spared = !control.armed || (is_index && !stands(Known::ReadsOfIndexes));
        let rate = if spared { 0 } else { control.rates.read };
        let drawn = hash(path.as_os_str().as_encoded_bytes(), control.history ^ position);
        if rate > 0 && SeededRng::new(drawn).below(PER) < rate {
            control.fired();
            self.memory.fail(Calls::any(), Failure::Os(IO_ERROR));
        }
        Ok(())
    }

    fn planted(&self) -> Option<Planted> {
        self.control().planted
    }

    fn wrap(&self, file: Arc<dyn DiskFile>, path: &Path) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { disk: self.clone(), file, path: path.to_owned().into() })
    }
}

impl Control {
    fn fired(&mut self) {
        self.fired += 1;
        self.fired_in_all += 1;
    }

    fn tear(&self) -> Tear {
        let seed = self.rng.next_u64();
        match self.rng.below(3) {
            0 => Tear::None,
            1 => Tear::Prefix(seed),
            _ => Tear::Holes(seed),
        }
    }

    fn note(&mut self, kind: DiskCall, path: &Path) {
        if let Some(calls) = &mut self.calls {
            calls.push(format!("{kind:?} {}", path.display()));
        }
        self.history = hash(path.as_os_str().as_encoded_bytes(), self.history ^ kind as u64);
    }

    /// How long the next piece of work hangs.
    fn hang(&mut self) -> Duration {
        if !self.armed || self.rng.below(PER) >= self.rates.hangs {
            return Duration::ZERO;
        }
        self.fired_in_all += 1;
        self.hung = true;
        let most_ms = [20, 500, 10_000, 40_000][self.rng.below(4) as usize];
        Duration::from_millis(1 + self.rng.below(most_ms))
    }

    fn failure(&self, kind: DiskCall) -> Option<Failure> {
        let DiskRates { read, write, sync, names, descriptors, .. } = self.rates;
        let needs_space = matches!(kind, DiskCall::Write | DiskCall::Create | DiskCall::CreateDir);
        if self.full && needs_space {
            return Some(Failure::Os(NO_SPACE));
        }
        if !self.armed {
            return None;
        }
        let (rate, errors): (u64, &[i32]) = match kind {
            DiskCall::ReadDir => (read, &[IO_ERROR]),
            DiskCall::Open => (descriptors, &[TOO_MANY_FILES]),
            DiskCall::Write | DiskCall::SetLen => (write, &[IO_ERROR, NO_SPACE]),
            DiskCall::Sync => (sync, &[IO_ERROR]),
            DiskCall::Create => (names + descriptors, &[NO_SPACE, IO_ERROR, TOO_MANY_FILES]),
            _ => (names, &[NO_SPACE, IO_ERROR]),
        };
        let hit = rate > 0 && self.rng.below(PER) < rate;
        hit.then(|| Failure::Os(errors[self.rng.below(errors.len() as u64) as usize]))
    }
}

/// FNV-1a.
fn hash(bytes: &[u8], from: u64) -> u64 {
    bytes.iter().fold(from, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3))
}

impl Disk for SimDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.before(DiskCall::Open, path)?;
        Ok(self.wrap(self.memory.open(path)?, path))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.before(DiskCall::Create, path)?;
        Ok(self.wrap(self.memory.create(path)?, path))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.before(DiskCall::CreateDir, path)?;
        self.memory.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.before(DiskCall::ReadDir, path)?;
        self.memory.read_dir(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.memory.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.before(DiskCall::Rename, from)?;
        if self.planted().is_some_and(|planted| planted.skips_rename(to)) {
            return Ok(());
        }
        self.memory.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.before(DiskCall::Remove, path)?;
        self.memory.remove(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.before(DiskCall::RemoveDir, path)?;
        self.memory.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.before(DiskCall::SyncDir, path)?;
        if self.planted().is_some_and(Planted::skips_sync_dir) {
            return Ok(());
        }
        self.memory.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<DiskLock>> {
        self.check_alive(&self.control())?;
        self.memory.clear_faults();
        self.memory.lock(path)
    }

    fn is_blocking(&self) -> bool {
        false
    }

    fn delays(&self) -> Option<Delays> {
        let control = self.control.clone();
        let hang = move || control.lock().unwrap_or_else(PoisonError::into_inner).hang();
        (self.control().rates.hangs > 0).then(|| Arc::new(hang) as Delays)
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: Arc<dyn DiskFile>,
    path: Arc<Path>,
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.disk.before_read(&self.path, position)?;
        self.file.read_at(buffer, position)
    }

    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.disk.before(DiskCall::Write, &self.path)?;
        match self.disk.planted() {
            None => self.file.write_all_at(bytes, position),
            Some(planted) => {
                let written = self.file.write_all_at(&planted.written(&self.path, bytes), position);
                if planted.hides_full_disk() { Ok(()) } else { written }
            }
        }
    }

    /// In one call, as a real disk does it.
    fn write_parts_at(&self, parts: [&[u8]; 2], position: u64) -> io::Result<()> {
        self.write_all_at(&parts.concat(), position)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.before(DiskCall::SetLen, &self.path)?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.before(DiskCall::Sync, &self.path)?;
        if self.disk.planted().is_some_and(|planted| planted.skips_sync(&self.path)) {
            return Ok(());
        }
        self.file.sync_data()
    }

    fn times(&self) -> FileTimes {
        self.file.times()
    }
}
