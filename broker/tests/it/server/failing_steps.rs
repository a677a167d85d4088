//! Every step on the disk that creating and deleting topics takes, failing once or for a while: for want of space, for
//! want of descriptors, or because the disk is broken. What was acknowledged is there afterwards, and nothing is
//! refused without need: not after a restart, and, where the reason has passed, not before either.

#![allow(clippy::unwrap_used)] // Helpers of tests fail like tests.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm_broker::Broker;
use klamm_broker::disk::{DirEntry, Disk, DiskFile, DiskLock, MemoryDisk, Tear};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::create_topics::CreatableTopic;
use klamm_protocol::messages::{CreateTopicsRequest, DeleteTopicsRequest, MetadataRequest};
use klamm_runtime::MemoryNet;

use super::wire::*;

/// What a call needs, and so what it may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Space,
    Descriptor,
    Both,
    Neither,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// From some call on there is no space.
    Full,
    /// From some call on there are no descriptors.
    NoDescriptors,
    /// One call fails.
    Broken,
}

#[derive(Debug, Default)]
struct Faults {
    calls: u64,
    trouble: Option<(Trouble, u64)>,
    /// What failed, in order.
    failed: Vec<String>,
}

/// A disk in memory whose calls fail.
#[derive(Debug, Clone, Default)]
struct Troubled {
    inner: MemoryDisk,
    faults: Arc<Mutex<Faults>>,
}

#[derive(Debug)]
struct TroubledFile {
    inner: Arc<dyn DiskFile>,
    path: PathBuf,
    disk: Troubled,
}

impl Troubled {
    /// From the `n`-th call from now on.
    fn begin(&self, trouble: Trouble, n: u64) {
        *self.faults.lock().unwrap() = Faults { trouble: Some((trouble, n)), ..Faults::default() };
    }

    /// Everything works again. Says what did not.
    fn end(&self) -> Vec<String> {
        std::mem::take(&mut *self.faults.lock().unwrap()).failed
    }

    fn step(&self, call: &str, path: &Path, needs: Needs) -> io::Result<()> {
        let mut faults = self.faults.lock().unwrap();
        let Some((trouble, from)) = faults.trouble else { return Ok(()) };
        let affected = match trouble {
            Trouble::Full => matches!(needs, Needs::Space | Needs::Both),
            Trouble::NoDescriptors => matches!(needs, Needs::Descriptor | Needs::Both),
            Trouble::Broken => true,
        };
        if !affected {
            return Ok(());
        }
        faults.calls += 1;
        if faults.calls < from || (trouble == Trouble::Broken && faults.calls > from) {
            return Ok(());
        }
        faults.failed.push(format!("{call} {}", path.display()));
        Err(match trouble {
            Trouble::Full => io::Error::from_raw_os_error(28),
            Trouble::NoDescriptors => io::Error::from_raw_os_error(24),
            Trouble::Broken => io::Error::from_raw_os_error(5),
        })
    }

    fn wrap(&self, inner: Arc<dyn DiskFile>, path: &Path) -> Arc<dyn DiskFile> {
        Arc::new(TroubledFile { inner, path: path.to_owned(), disk: self.clone() })
    }
}

impl Disk for Troubled {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.step("open", path, Needs::Descriptor)?;
        Ok(self.wrap(self.inner.open(path)?, path))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.step("create", path, Needs::Both)?;
        Ok(self.wrap(self.inner.create(path)?, path))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.step("create_dir_all", path, Needs::Space)?;
        self.inner.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.step("read_dir", path, Needs::Descriptor)?;
        self.inner.read_dir(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.inner.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step("rename", from, Needs::Neither)?;
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step("remove", path, Needs::Neither)?;
        self.inner.remove(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.step("remove_dir_all", path, Needs::Descriptor)?;
        self.inner.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if let Err(error) = self.step("sync_dir", path, Needs::Neither) {
            self.inner.fail_nth_sync(1);
            let _ = self.inner.sync_dir(path);
            return Err(error);
        }
        self.inner.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<DiskLock>> {
        self.inner.lock(path)
    }

    fn is_blocking(&self) -> bool {
        false
    }
}

impl DiskFile for TroubledFile {
    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.disk.step("read", &self.path, Needs::Neither)?;
        self.inner.read_at(buffer, position)
    }

    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        if let Err(error) = self.disk.step("write", &self.path, Needs::Space) {
            // Half of it may be there.
            self.disk.inner.fail_nth_write(1, error.kind());
            let _ = self.inner.write_all_at(bytes, position);
            return Err(error);
        }
        self.inner.write_all_at(bytes, position)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.step("set_len", &self.path, Needs::Neither)?;
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if let Err(error) = self.disk.step("sync_data", &self.path, Needs::Neither) {
            self.disk.inner.fail_nth_sync(1);
            let _ = self.inner.sync_data();
            return Err(error);
        }
        self.inner.sync_data()
    }
}

async fn start(disk: &Troubled, net: &Arc<MemoryNet>) -> Broker {
    let builder = Broker::builder().data_dir("/data").disk(Arc::new(disk.clone())).net(net.clone());
    builder.set("auto.create.topics.enable", false).start().await.unwrap()
}

/// What was acknowledged: the values in each topic that was created and not deleted again.
#[derive(Debug, Default)]
struct Acknowledged {
    there: BTreeMap<String, Vec<String>>,
    gone: BTreeSet<String>,
    /// Not acknowledged, but asked for: may be there or not.
    uncertain: BTreeSet<String>,
}

impl Acknowledged {
    async fn create(&mut self, wire: &mut Wire, name: &str) -> ErrorCode {
        let topic = CreatableTopic {
            name: name.into(),
            num_partitions: 2,
            replication_factor: 1,
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
        // There may be no answer.
        if !self.there.contains_key(name) {
            self.uncertain.insert(name.to_owned());
        }
        let answer = wire.ask(&request).await.topics.remove(0);
        let code = ErrorCode::from_code(answer.error_code);
        if code == ErrorCode::None {
            self.there.insert(name.to_owned(), Vec::new());
            self.gone.remove(name);
            self.uncertain.remove(name);
        }
        code
    }

    async fn delete(&mut self, wire: &mut Wire, name: &str) {
        let request =
            DeleteTopicsRequest { topic_names: vec![name.into()], ..DeleteTopicsRequest::default() };
        self.there.remove(name);
        self.uncertain.insert(name.to_owned());
        if wire.ask_in(&request, 5).await.responses[0].error_code == 0 {
            self.gone.insert(name.to_owned());
            self.uncertain.remove(name);
        }
    }

    async fn produce(&mut self, wire: &mut Wire, name: &str, value: &str) -> i16 {
        let code = wire.produce(name, batch(&[value])).await.error_code;
        if let Some(values) = self.there.get_mut(name).filter(|_| code == 0) {
            values.push(value.to_owned());
        }
        code
    }

    /// Creates, fills, deletes and creates anew.
    async fn churn(&mut self, wire: &mut Wire) {
        self.delete(wire, "old").await;
        self.create(wire, "new").await;
        self.produce(wire, "new", "n1").await;
        if self.create(wire, "old").await == ErrorCode::None {
            self.produce(wire, "old", "o1").await;
        }
        self.delete(wire, "new").await;
        self.create(wire, "new").await;
        self.produce(wire, "new", "n2").await;
        self.produce(wire, "kept", "k2").await;
    }

    /// Everything that was promised holds, and everything that is there can be used.
    async fn check(&self, wire: &mut Wire, context: &str) {
        let all = wire.ask(&MetadataRequest { topics: None, ..MetadataRequest::default() }).await.topics;
        let names: BTreeSet<String> =
            all.iter().map(|topic| topic.name.as_ref().unwrap().to_string()).collect();
        for (name, values) in &self.there {
            assert!(names.contains(name), "{context}: {name} is lost");
            let found = wire.read_all(name).await;
            let lost = values.iter().find(|value| !found.contains(value));
            assert!(lost.is_none(), "{context}: {lost:?} of {name} is lost, there is {found:?}");
        }
        for name in self.gone.iter().filter(|name| !self.uncertain.contains(*name)) {
            assert!(!names.contains(name), "{context}: {name} is back");
        }
        for name in &names {
            let found = wire.read_all(name).await;
            let anew = name == "old" && self.there.contains_key(name);
            let earlier = anew && found.iter().any(|value| value == "from the first");
            assert!(!earlier, "{context}: {name} has records of an earlier topic");
            for partition in 0..2 {
                let mut request = produce_request(name, batch(&["after"]), -1);
                request.topic_data[0].partition_data[0].index = partition;
                let answer = wire.ask_in(&request, 9).await.responses.remove(0).partition_responses.remove(0);
                assert_eq!(answer.error_code, 0, "{context}: {name}-{partition} {:?}", answer.error_message);
            }
        }
    }
}

/// A broker that has been stopped in an orderly way once, so that its checkpoints know the topics.
async fn prepared(disk: &Troubled, net: &Arc<MemoryNet>) -> (Broker, Wire, Acknowledged) {
    let broker = start(disk, net).await;
    let mut wire = Wire::connect(&**net, broker.bootstrap()).await;
    let mut told = Acknowledged::default();
    for (name, value) in [("kept", "k1"), ("old", "from the first")] {
        assert_eq!(told.create(&mut wire, name).await, ErrorCode::None);
        for _ in 0..5 {
            assert_eq!(told.produce(&mut wire, name, value).await, 0);
        }
    }
    broker.shutdown().await.unwrap();
    drop(broker);
    let broker = start(disk, net).await;
    let wire = Wire::connect(&**net, broker.bootstrap()).await;
    (broker, wire, told)
}

/// Fails every step, one history for each. A short while without trouble must be enough unless a sync failed, which
/// only a restart makes good.
async fn every_step(trouble: Trouble) -> (u64, u64) {
    let mut later = 0;
    for n in 1.. {
        let (disk, net) = (Troubled::default(), Arc::new(MemoryNet::new()));
        let (broker, mut wire, mut told) = prepared(&disk, &net).await;
        disk.begin(trouble, n);
        tokio::select! {
            // Its only log directory has failed.
            biased;
            () = broker.gave_up() => {}
            () = told.churn(&mut wire) => {}
        }
        let failed = disk.end();
        let Some(first) = failed.first() else { return (n - 1, later) };
        let context = format!("{trouble:?} from call {n}, {first}");
        tokio::time::sleep(Duration::from_secs(60)).await;
        if trouble != Trouble::Broken {
            later += 1;
            told.check(&mut wire, &format!("{context}, later")).await;
        }
        drop(broker);
        tokio::time::sleep(Duration::from_secs(1)).await;
        disk.inner.crash(Tear::Prefix(n));

        let broker = start(&disk, &net).await;
        let mut wire = Wire::connect(&*net, broker.bootstrap()).await;
        told.check(&mut wire, &format!("{context}, after a restart")).await;
        broker.shutdown().await.unwrap();
    }
    (0, 0)
}

#[tokio::test(start_paused = true)]
async fn no_space_at_any_step() {
    let (steps, later) = every_step(Trouble::Full).await;
    assert!(steps > 20 && later > 5, "{steps} steps failed, {later} without a flush");
}

#[tokio::test(start_paused = true)]
async fn no_descriptors_at_any_step() {
    let (steps, later) = every_step(Trouble::NoDescriptors).await;
    assert!(steps > 20 && later > 5, "{steps} steps failed, {later} without a flush");
}

#[tokio::test(start_paused = true)]
async fn a_broken_disk_at_any_step() {
    let (steps, _) = every_step(Trouble::Broken).await;
    assert!(steps > 50, "{steps} steps failed");
}

/// The topic exists, says the answer, and it can be used as soon as there is space: without being asked again.
#[tokio::test(start_paused = true)]
async fn a_topic_that_had_no_space_gets_its_logs_when_there_is() {
    let (disk, net) = (Troubled::default(), Arc::new(MemoryNet::new()));
    let (_broker, mut wire, mut told) = prepared(&disk, &net).await;
    // The first two writes are the batch of the topic's records.
    disk.begin(Trouble::Full, 3);
    assert_eq!(told.create(&mut wire, "t").await, ErrorCode::KafkaStorageError);
    assert_eq!(told.create(&mut wire, "t").await, ErrorCode::TopicAlreadyExists);
    let refused = wire.produce("t", batch(&["a"])).await.error_code;
    assert_eq!(refused, ErrorCode::KafkaStorageError.code());
    assert!(!disk.end().is_empty());
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(wire.produce("t", batch(&["a"])).await.error_code, 0);
    assert_eq!(wire.read_all("t").await, ["a"]);
}
