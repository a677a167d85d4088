//! A file system that gets full: clients are refused in time, the broker's own records go on, and with room again
//! everything does. Nothing that was acknowledged is lost on the way.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr)] // Helpers of tests; one mounts.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use klamm_broker::Broker;
use klamm_broker::disk::{Disk, MemoryDisk};
use klamm_protocol::ErrorCode;
use klamm_runtime::{MemoryNet, Net, Rng, SeededRng, TcpNet, TokioClock};

use super::configs::{BROKER, SET, adjust};
use super::groups::{commit, committed};
use super::transacting::*;
use super::wire::*;

const TOTAL_BYTES: u64 = 40 << 20;
const RESERVE_BYTES: u64 = 1 << 20;
const REFUSED: i16 = ErrorCode::PolicyViolation.code();

struct Place {
    disk: MemoryDisk,
    net: Arc<MemoryNet>,
    clock: Arc<TokioClock>,
}

impl Place {
    fn new() -> Self {
        let disk = MemoryDisk::new();
        disk.limit("/data", TOTAL_BYTES);
        let clock = Arc::new(TokioClock::starting_at(1_700_000_000_000));
        Self { disk, net: Arc::new(MemoryNet::new()), clock }
    }

    async fn start(&self) -> (Broker, Wire) {
        let builder = Broker::builder()
            .data_dir("/data")
            .set("log.dir.reserve.bytes", RESERVE_BYTES)
            .set("offsets.topic.num.partitions", 1)
            .set("transaction.state.log.num.partitions", 1)
            .disk(Arc::new(self.disk.clone()))
            .net(self.net.clone())
            .clock(self.clock.clone());
        let broker = builder.start().await.unwrap();
        let wire = Wire::connect(&*self.net, broker.bootstrap()).await;
        (broker, wire)
    }

    /// What somebody else has on the same file system, so that so much is free.
    fn leave_free(&self, free_bytes: u64) {
        let path = Path::new("/data/ballast");
        let _ = self.disk.remove(path);
        let free = self.disk.space(Path::new("/data")).unwrap().free_bytes;
        self.disk.create(path).unwrap().set_len(free.saturating_sub(free_bytes)).unwrap();
    }
}

/// So long may it take that the broker notices.
async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(1_001)).await;
}

/// The disk is asked beside the appends: some of them may still be taken.
async fn until_noticed(wire: &mut Wire) {
    wire.metadata(&["probe"]).await;
    let mut asked = 0;
    while wire.produce("probe", batch(&["x"])).await.error_code != REFUSED {
        asked += 1;
        assert!(asked < 1_000, "the broker never noticed that its disk is nearly full");
        a_moment().await;
    }
}

/// Clients hid the error until their delivery timeout; offsets and markers found no space either, and where the disk
/// was really full, nothing could be deleted.
#[tokio::test(start_paused = true)]
async fn clients_are_refused_before_the_disk_is_full_and_the_brokers_own_records_are_not() {
    let place = Place::new();
    let (broker, mut wire) = place.start().await;
    wire.metadata(&["t"]).await;
    assert_eq!(wire.produce("t", batch(&["early"])).await.error_code, 0);
    assert_eq!(wire.ask_in(&commit("g", "t", 1), 9).await.topics[0].partitions[0].error_code, 0);
    wire.metadata(&["paid"]).await;
    let client = init(&mut wire).await;
    assert_eq!(produce(&mut wire, &write(client, "paid", 0, "begun"), PRODUCE_2).await.error_code, 0);
    place.leave_free(RESERVE_BYTES - 1);
    until_noticed(&mut wire).await;
    for _ in 0..3 {
        let refused = wire.produce("t", batch(&["refused"])).await;
        assert_eq!(refused.error_code, REFUSED);
        let message = refused.error_message.unwrap();
        assert!(message.contains("log.dir.reserve.bytes") && message.contains("/data"), "{message}");
        a_moment().await;
    }
    assert_eq!(wire.read_all("t").await, ["early"]);
    for offset in 2..20 {
        let told = wire.ask_in(&commit("g", "t", offset), 9).await;
        assert_eq!(told.topics[0].partitions[0].error_code, 0);
    }
    assert_eq!(wire.metadata(&["made-meanwhile"]).await.topics[0].error_code, 0);
    let refused = produce(&mut wire, &write(client, "paid", 1, "refused"), PRODUCE_2).await;
    assert_eq!(refused.error_code, REFUSED);
    end(&mut wire, client, false, END_2).await;
    assert_eq!(log(&mut wire, "paid").await.len(), 2, "the record and its marker");

    // Theirs ends, too: what is left is for what makes room.
    place.leave_free(RESERVE_BYTES / 4);
    a_moment().await;
    let told = wire.ask_in(&commit("g", "t", 99), 9).await;
    assert_eq!(told.topics[0].partitions[0].error_code, ErrorCode::CoordinatorNotAvailable.code());
    assert_eq!(committed(&mut wire, "g", "t").await, 19);

    place.leave_free(RESERVE_BYTES + 1_000);
    a_moment().await;
    assert_eq!(wire.produce("t", batch(&["late"])).await.error_code, 0);
    assert_eq!(wire.ask_in(&commit("g", "t", 20), 9).await.topics[0].partitions[0].error_code, 0);
    broker.shutdown().await.unwrap();
    drop((broker, wire));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let (_broker, mut wire) = place.start().await;
    assert_eq!(wire.read_all("t").await, ["early", "late"]);
    assert_eq!(committed(&mut wire, "g", "t").await, 20);
}

#[tokio::test(start_paused = true)]
async fn the_reserve_is_altered_while_the_broker_runs() {
    let place = Place::new();
    let (_broker, mut wire) = place.start().await;
    wire.metadata(&["t"]).await;
    place.leave_free(RESERVE_BYTES + RESERVE_BYTES / 2);
    for (reserve_bytes, code) in [(RESERVE_BYTES, 0), (2 * RESERVE_BYTES, REFUSED), (0, 0)] {
        let value = reserve_bytes.to_string();
        let changes = [("log.dir.reserve.bytes", SET, Some(&*value))];
        assert_eq!(adjust(&mut wire, BROKER, "1", &changes, false).await, 0);
        a_moment().await;
        assert_eq!(wire.produce("t", batch(&["x"])).await.error_code, code, "{reserve_bytes}");
    }
}

/// Whatever is written and freed, by us and by others, with the plug pulled now and then.
#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_on_a_disk_that_gets_full_is_there() {
    for seed in 0..40 {
        let (rng, place) = (SeededRng::new(seed), Place::new());
        let (mut broker, mut wire) = place.start().await;
        wire.metadata(&["t"]).await;
        let (mut acknowledged, mut refused) = (Vec::new(), 0);
        for step in 0..120 {
            match rng.below(12) {
                0 => place.leave_free(rng.below(3 * RESERVE_BYTES)),
                1 => a_moment().await,
                2 if rng.below(4) == 0 => {
                    drop((broker, wire));
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    place.disk.crash(klamm_broker::disk::Tear::Prefix(seed));
                    place.leave_free(2 * RESERVE_BYTES);
                    (broker, wire) = place.start().await;
                }
                _ => {
                    let value = format!("{step} {}", "x".repeat(rng.below(120_000) as usize));
                    let told = wire.produce("t", batch(&[&value])).await;
                    match told.error_code {
                        0 => acknowledged.push((told.base_offset, value)),
                        _ => refused += 1,
                    }
                }
            }
        }
        place.leave_free(4 * RESERVE_BYTES);
        a_moment().await;
        assert_eq!(wire.produce("t", batch(&["last"])).await.error_code, 0, "seed {seed}");
        let found = wire.read_all("t").await;
        for (offset, value) in &acknowledged {
            assert_eq!(found.get(*offset as usize), Some(value), "seed {seed}, {refused} refused");
        }
        assert!(!acknowledged.is_empty(), "seed {seed}");
    }
}

/// A file system in memory of so many bytes, as long as this lives.
struct Mounted(tempfile::TempDir);

impl Mounted {
    /// Nothing where nobody may mount anything; it is said then.
    fn new(bytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={bytes},mode=0700");
        let mut mount = Command::new("mount");
        let why = match mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path()).output() {
            Ok(output) if output.status.success() => return Some(Self(dir)),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        let require_all = std::env::var_os("KLAMM_REQUIRE_ALL").is_some();
        assert!(!require_all, "KLAMM_REQUIRE_ALL is set, and no file system can be mounted: {why}");
        eprintln!("skipped a full file system: {why}. To run it: be root");
        None
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).output();
    }
}

/// As above with a real one: first up to the reserve, then, without one, until it is full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_file_system_loses_nothing_and_is_written_again_when_there_is_room() {
    for reserve_bytes in [256 << 10, 0] {
        let Some(mounted) = Mounted::new(8 << 20) else { return };
        let dir = mounted.0.path().join("data");
        let start = async || {
            let builder = Broker::builder().data_dir(&dir).set("log.dir.reserve.bytes", reserve_bytes);
            let broker = builder.set("log.index.size.max.bytes", 4_096).start().await.unwrap();
            let wire = Wire::connect(&TcpNet as &dyn Net, broker.bootstrap()).await;
            (broker, wire)
        };
        let (broker, mut wire) = start().await;
        wire.metadata(&["t"]).await;
        let (value, mut acknowledged) = ("x".repeat(50_000), 0);
        let refused = loop {
            let told = wire.produce("t", batch(&[&format!("{acknowledged} {value}")])).await;
            if told.error_code != 0 {
                break told;
            }
            acknowledged += 1;
        };
        let expected = if reserve_bytes > 0 { REFUSED } else { ErrorCode::KafkaStorageError.code() };
        assert_eq!(refused.error_code, expected, "{:?}", refused.error_message);
        assert!(acknowledged > 100, "{acknowledged}");
        assert_eq!(wire.read_all("t").await.len(), acknowledged);
        let grow = Command::new("mount").args(["-o", "remount,size=12m"]).arg(mounted.0.path()).output();
        assert!(grow.unwrap().status.success());
        let resumes = async {
            while wire.produce("t", batch(&["with room"])).await.error_code != 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(DEADLINE, resumes).await.expect("by itself");
        broker.shutdown().await.unwrap();
        drop((broker, wire));
        let (broker, mut wire) = start().await;
        let found = wire.read_all("t").await;
        assert_eq!((found.len(), found.last().unwrap().as_str()), (acknowledged + 1, "with room"));
        for (number, value) in found[..acknowledged].iter().enumerate() {
            assert!(value.starts_with(&format!("{number} ")));
        }
        broker.shutdown().await.unwrap();
    }
}
