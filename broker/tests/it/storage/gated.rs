//! What happens to an append that comes while a flush is at the disk: a disk whose syncs wait
//! until the test lets them go.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use klamm_broker::disk::{DirEntry, Disk, DiskFile, DiskLock, MemoryDisk, Tear};

use super::support::*;

/// How many syncs may still pass.
#[derive(Debug, Default)]
struct Gate {
    passes: Mutex<usize>,
    waiting: Mutex<usize>,
    changed: Condvar,
}

impl Gate {
    fn let_pass(&self, count: usize) {
        *self.passes.lock().unwrap_or_else(PoisonError::into_inner) = count;
        self.changed.notify_all();
    }

    fn pass(&self) {
        *self.waiting.lock().unwrap() += 1;
        let mut passes = self.passes.lock().unwrap();
        while *passes == 0 {
            passes = self.changed.wait(passes).unwrap();
        }
        *passes -= 1;
        *self.waiting.lock().unwrap() -= 1;
    }

    /// Waits until a sync is at the gate.
    async fn is_waiting(&self) {
        while *self.waiting.lock().unwrap() == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// Opens the gate for good, so that a failed test ends.
struct OpenAtEnd(Arc<Gate>);

impl Drop for OpenAtEnd {
    fn drop(&mut self) {
        self.0.let_pass(usize::MAX / 2);
    }
}

#[derive(Debug)]
struct GatedDisk {
    inner: MemoryDisk,
    gate: Arc<Gate>,
}

#[derive(Debug)]
struct GatedFile {
    inner: Arc<dyn DiskFile>,
    gate: Arc<Gate>,
}

impl GatedDisk {
    fn gated(&self, inner: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(GatedFile { inner, gate: self.gate.clone() })
    }
}

impl Disk for GatedDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.gated(self.inner.open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.gated(self.inner.create(path)?))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.read_dir(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.inner.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<DiskLock>> {
        self.inner.lock(path)
    }

    fn is_blocking(&self) -> bool {
        true
    }
}

impl DiskFile for GatedFile {
    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, position)
    }

    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.inner.write_all_at(bytes, position)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    /// Syncs what there is, and returns when the gate opens: what is written in between is not covered.
    fn sync_data(&self) -> io::Result<()> {
        let synced = self.inner.sync_data();
        self.gate.pass();
        synced
    }
}

#[tokio::test]
async fn an_append_during_a_flush_waits_for_the_next_one() {
    let memory = MemoryDisk::new();
    let gate = Arc::new(Gate::default());
    let _open_at_end = OpenAtEnd(gate.clone());
    gate.let_pass(1_000);
    let data = Data {
        disk: Arc::new(GatedDisk { inner: memory.clone(), gate: gate.clone() }),
        ..Data::in_memory(&memory)
    };
    let (manager, partition) = data.open_partition().await;
    produce(&partition, batch(&["before"])).await;

    gate.let_pass(0);
    append(&partition, batch(&["first"])).await;
    tokio::time::timeout(DEADLINE, gate.is_waiting()).await.unwrap();
    let second = append(&partition, batch(&["second"])).await;
    let mut watch = partition.watch();
    gate.let_pass(1);
    tokio::time::timeout(DEADLINE, watch.changed()).await.unwrap().unwrap();
    assert_eq!(partition.high_watermark(), 2, "the second was not covered by that flush");
    assert_eq!(read_all(&partition).await.len(), 2);
    tokio::time::timeout(DEADLINE, gate.is_waiting()).await.unwrap();

    // Pulling the plug now must leave at least what was said to be durable.
    gate.let_pass(1_000);
    tokio::time::timeout(DEADLINE, partition.wait_durable(second.last_offset)).await.unwrap().unwrap();
    memory.crash(Tear::None);
    drop(manager);
    let (_manager, partition) = data.open_partition().await;
    assert_eq!(read_all(&partition).await.len(), 3);
}
