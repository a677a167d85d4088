//! With `flush=os` the loss of power takes what `flush.messages` and `flush.ms` allow, and no record more: of what was
//! acknowledged at most `flush.messages - 1` records, and none that is older than `flush.ms`.

use std::sync::Arc;
use std::time::Duration;

use klamm_broker::disk::{Calls, Disk, MemoryDisk, Tear};
use klamm_broker::log::FlushMode;
use klamm_broker::partition::{AppendOrigin, LogManager, Partition};
use klamm_runtime::{Rng, SeededRng};
use tokio::time::Instant;

use super::support::*;

#[tokio::test(start_paused = true)]
async fn the_power_takes_all_but_the_last_of_flush_messages_and_not_one_more() {
    for limit in 1..6_i64 {
        for count in 1..=2 * limit {
            for batch_records in [1, 2, 7] {
                let disk = MemoryDisk::new();
                let mut data = Data::in_memory(&disk);
                (data.config.flush, data.config.flush_messages) = (FlushMode::Os, limit);
                let (manager, partition) = data.open_partition().await;
                // The names of a new partition are synced by its first flush.
                tokio::time::sleep(Duration::from_millis(1)).await;
                for _ in 0..count {
                    produce(&partition, batch(&vec!["x"; batch_records])).await;
                }
                disk.crash(Tear::None);
                let acknowledged = partition.high_watermark();
                drop((manager, partition));
                let (_manager, partition) = data.open_partition().await;
                let lost = acknowledged - partition.log_end_offset();
                assert!((0..limit).contains(&lost), "{limit} {count} {batch_records}: {lost} lost");
                let unsynced = count % limit;
                assert!(
                    batch_records > 1 || lost == unsynced,
                    "{limit} {count}: a sync for nothing, {lost} lost"
                );
            }
        }
    }
}

/// One log and what was acknowledged of it, through crashes of the process and of the machine.
struct History {
    rng: SeededRng,
    disk: MemoryDisk,
    data: Data,
    messages: i64,
    flush_ms: u64,
    /// What consumers could see, and when, as long as there was power.
    shown: Vec<(Instant, i64)>,
    lost: i64,
}

impl History {
    fn new(seed: u64) -> Self {
        let rng = SeededRng::new(seed);
        let disk = MemoryDisk::new();
        let mut data = Data::in_memory(&disk);
        let (by_count, by_time) = [(true, true), (true, false), (false, true)][rng.below(3) as usize];
        let messages = if by_count { 1 + rng.below(9) as i64 } else { i64::MAX };
        let flush_ms = if by_time { 1 + rng.below(200) } else { i64::MAX as u64 };
        (data.config.flush, data.config.flush_messages) = (FlushMode::Os, messages);
        data.config.flush_ms = flush_ms as i64;
        Self { rng, disk, data, messages, flush_ms, shown: Vec::new(), lost: 0 }
    }

    async fn open(&mut self) -> (LogManager, Arc<Partition>) {
        let (manager, partition) = self.data.open_partition().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        (manager, partition)
    }

    /// Says whether there is power.
    fn look(&mut self, partition: &Partition) -> bool {
        let has_power = self.disk.read_dir(&self.data.dirs[0]).is_ok();
        if has_power {
            self.shown.push((Instant::now(), partition.high_watermark()));
        }
        has_power
    }

    /// Works until the power goes, or the process does or ends.
    async fn live(&mut self) {
        let (manager, partition) = self.open().await;
        if self.rng.below(2) == 0 {
            let tear = [Tear::None, Tear::Prefix(self.rng.next_u64()), Tear::Holes(self.rng.next_u64())];
            self.disk.cut_power(Calls::any().nth(1 + self.rng.below(60)), tear[self.rng.below(3) as usize]);
        }
        for _ in 0..self.rng.below(60) {
            if !self.look(&partition) {
                break;
            }
            match self.rng.below(8) {
                0 => tokio::task::yield_now().await,
                1 => tokio::time::sleep(Duration::from_millis(self.rng.below(120))).await,
                2 if self.rng.below(6) == 0 => manager.housekeeping(NOW_MS).await,
                _ => {
                    let records = vec!["some text to fill segments with"; 1 + self.rng.below(4) as usize];
                    let Ok(appended) = partition.append(batch(&records), AppendOrigin::Client, NOW_MS).await
                    else {
                        break;
                    };
                    let durable = partition.wait_durable(appended.last_offset);
                    if self.rng.below(2) == 0
                        && tokio::time::timeout(DEADLINE, durable).await.expect("an answer in time").is_err()
                    {
                        break;
                    }
                }
            }
        }
        self.look(&partition);
        if self.disk.power_on() {
            drop((manager, partition));
            return self.check(true).await;
        }
        let power = match self.rng.below(4) {
            0 => {
                manager.shutdown().await.unwrap();
                false
            }
            1 => {
                self.disk.kill();
                false
            }
            _ => {
                self.disk.crash(Tear::Holes(self.rng.next_u64()));
                true
            }
        };
        drop((manager, partition));
        self.check(power).await;
    }

    async fn check(&mut self, power_went: bool) {
        let (now, shown) = self.shown.last().copied().unwrap_or((Instant::now(), 0));
        let old_enough = |at: &Instant| now.duration_since(*at) > Duration::from_millis(self.flush_ms);
        let old = self.shown.iter().rev().find(|(at, _)| old_enough(at)).map_or(0, |(_, end)| *end);
        let at_least = match power_went {
            true => old.max(shown.saturating_sub(self.messages - 1)),
            false => shown,
        };
        let (_manager, partition) = self.open().await;
        assert!(partition.offline().is_none(), "{:?}", partition.offline());
        let end = partition.log_end_offset();
        assert!(
            end >= at_least,
            "{end} of {shown} are left, and {at_least} had to be: messages {}, {} ms, power went: {power_went}",
            self.messages,
            self.flush_ms
        );
        self.lost += (shown - end).max(0);
        assert_eq!(read_all(&partition).await.len() as i64, end);
        self.shown = vec![(Instant::now(), end)];
        self.disk.kill();
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_crashes_no_more_is_lost_than_the_limits_of_flushing_allow() {
    let given = std::env::var("KLAMM_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    let (first, count) = given.map_or((1, 150), |seed| (seed * 1_000, 1_000));
    println!("KLAMM_SEED={given:?}");
    let mut lost = 0;
    for seed in first..first + count {
        let mut history = History::new(seed);
        for life in 0..6 {
            println!("seed {seed}, life {life}");
            history.live().await;
        }
        lost += history.lost;
    }
    assert!(lost > 100, "the power took next to nothing: {lost}");
}
