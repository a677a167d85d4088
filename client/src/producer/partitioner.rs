//! Which partition a record goes to: by its key as Java's client has it, or, without a key, to one partition for a
//! while, or as the application says.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::record::Record;
use crate::cluster::TopicView;
use crate::runtime::Rng;

/// Chooses partitions instead of the producer, for records that do not name one
/// ([`ProducerBuilder::partitioner`](super::ProducerBuilder::partitioner)).
///
/// It is called once a record, on the caller's thread, and must be quick. A panic in it fails that record.
pub trait Partitioner: fmt::Debug + Send + Sync + 'static {
    /// The partition for a record, from 0 to below [`Partitions::count`].
    fn partition(&self, record: &Record, partitions: Partitions<'_>) -> i32;
}

/// The partitions that a record may go to.
#[derive(Debug, Clone, Copy)]
pub struct Partitions<'a> {
    view: &'a TopicView,
}

impl<'a> Partitions<'a> {
    pub(super) fn new(view: &'a TopicView) -> Self {
        Self { view }
    }

    /// How many there are; at least one.
    pub fn count(&self) -> i32 {
        self.view.partition_count()
    }

    /// Whether a partition has a leader as far as it is known: without one, records for it have to wait.
    pub fn has_leader(&self, partition: i32) -> bool {
        let known = usize::try_from(partition).ok().and_then(|at| self.view.partitions.get(at));
        known.is_some_and(|partition| partition.leader.is_some())
    }
}

/// Every partition in turn, topic by topic, whatever the key; those without a leader are left out while others have one
/// (Kafka's `RoundRobinPartitioner`).
#[derive(Debug, Default)]
pub struct RoundRobin {
    turns: RwLock<BTreeMap<Arc<str>, AtomicU32>>,
}

impl RoundRobin {
    fn turn(&self, topic: &Arc<str>) -> u32 {
        if let Some(turn) = self.turns.read().unwrap_or_else(PoisonError::into_inner).get(topic) {
            return turn.fetch_add(1, Ordering::Relaxed);
        }
        let mut turns = self.turns.write().unwrap_or_else(PoisonError::into_inner);
        turns.entry(Arc::clone(topic)).or_default().fetch_add(1, Ordering::Relaxed)
    }
}

impl Partitioner for RoundRobin {
    fn partition(&self, record: &Record, partitions: Partitions<'_>) -> i32 {
        let count = partitions.count().max(1).unsigned_abs();
        let mut first = None;
        for _ in 0..count {
            let partition = (self.turn(&record.topic) % count) as i32;
            if partitions.has_leader(partition) {
                return partition;
            }
            first.get_or_insert(partition);
        }
        first.unwrap_or(0)
    }
}

/// Bytes that go to one partition before the next is drawn, where a batch may take as many: enough to fill batches,
/// little enough to use all partitions. Kafka's `batch.size` is 16 KiB by default (KIP-794); ours is larger, for
/// batches that grow while requests are in flight.
const STICKY_BYTES_MAX: usize = 64 * 1024;

/// The partition of a key: the same as of Kafka's Java client, librdkafka's `murmur2_random` and
/// everything compatible with them.
pub(crate) fn partition_for_key(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key) & i32::MAX) % partitions.max(1)
}

/// The 32-bit MurmurHash2 with the seed that Kafka uses.
pub(crate) fn murmur2(data: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const MIX: u32 = 0x5bd1_e995;
    const SHIFT: u32 = 24;

    // Java's lengths are 32-bit; keys beyond 4 GiB do not exist on the wire.
    let mut hash = SEED ^ data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut word = u32::from_le_bytes(*word).wrapping_mul(MIX);
        word ^= word >> SHIFT;
        hash = hash.wrapping_mul(MIX) ^ word.wrapping_mul(MIX);
    }
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0, |tail, &byte| (tail << 8) | u32::from(byte));
        hash = (hash ^ tail).wrapping_mul(MIX);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(MIX);
    (hash ^ (hash >> 15)) as i32
}

/// Where the records of one topic without keys go now.
#[derive(Debug)]
pub(crate) struct Sticky {
    partition: Option<i32>,
    bytes: usize,
    /// Bytes for one partition before the next is drawn.
    share_bytes: usize,
}

impl Sticky {
    /// For batches of at most so many bytes.
    pub(crate) fn with_share(batch_bytes: usize) -> Self {
        Self { partition: None, bytes: 0, share_bytes: batch_bytes.min(STICKY_BYTES_MAX) }
    }

    /// The partition for a record of `size` bytes. `usable` says whether a partition has a leader, `queued` how much
    /// waits for it: a slow broker's partitions are chosen less often (KIP-794, but by the better of two drawn instead
    /// of a table of all, which costs the same for any number of partitions).
    pub(crate) fn choose(
        &mut self,
        size: usize,
        partitions: i32,
        usable: impl Fn(i32) -> bool,
        queued: impl Fn(i32) -> usize,
        rng: &dyn Rng,
    ) -> i32 {
        self.bytes += size;
        match self.partition {
            Some(partition)
                if partition < partitions && usable(partition) && self.bytes <= self.share_bytes =>
            {
                partition
            }
            before => {
                let first = draw(partitions, before, &usable, rng);
                let second = draw(partitions, before, &usable, rng);
                let partition = if queued(second) < queued(first) { second } else { first };
                self.partition = Some(partition);
                self.bytes = size;
                partition
            }
        }
    }
}

/// A random partition that can be used and, where there is a choice, is not the one before.
fn draw(partitions: i32, before: Option<i32>, usable: impl Fn(i32) -> bool, rng: &dyn Rng) -> i32 {
    let partitions = partitions.max(1);
    let start = rng.below(partitions as u64) as i32;
    let from_start = || (0..partitions).map(|step| (start + step) % partitions);
    from_start()
        .find(|&partition| usable(partition) && Some(partition) != before)
        .or_else(|| from_start().find(|&partition| usable(partition)))
        .unwrap_or(start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::SeededRng;

    const STICKY_BYTES: usize = 16 * 1024;

    /// The vectors of Kafka's own `UtilsTest`.
    #[test]
    fn murmur2_equals_java() {
        let vectors: [(&[u8], i32); 7] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
            (b"", 275_646_681),
        ];
        for (key, hash) in vectors {
            assert_eq!(murmur2(key), hash, "{}", key.escape_ascii());
        }
        assert_eq!(partition_for_key(b"21", 100), (-973_932_308 & i32::MAX) % 100);
    }

    /// Ten thousand keys, the nth of n % 40 bytes, each the lowest of the next number of SplitMix64 from seed 1. Of
    /// each, tests/golden/murmur2.txt has the partition of 997 as two digits of base 32, 55 keys a line: what
    /// `Utils.toPositive(Utils.murmur2(key)) % 997` of the Java client 4.3.0 gave.
    #[test]
    fn keys_go_where_java_sends_them() {
        let digits: Vec<u32> = include_str!("../../tests/golden/murmur2.txt")
            .chars()
            .filter_map(|char| char.to_digit(32))
            .collect();
        let (expected, rest) = digits.as_chunks::<2>();
        assert_eq!((expected.len(), rest.len()), (10_000, 0));
        let rng = SeededRng::new(1);
        for (number, [high, low]) in expected.iter().enumerate() {
            let key: Vec<u8> = (0..number % 40).map(|_| rng.next_u64() as u8).collect();
            assert_eq!(partition_for_key(&key, 997), (high * 32 + low) as i32, "key {number}");
        }
    }

    fn topic(leaders: &[bool]) -> TopicView {
        TopicView {
            id: klamm_protocol::Uuid::ZERO,
            internal: false,
            error: klamm_protocol::ErrorCode::None,
            partitions: leaders
                .iter()
                .map(|&has| crate::cluster::PartitionView { leader: has.then_some(1), leader_epoch: 0 })
                .collect(),
        }
    }

    #[test]
    fn round_robin_takes_turns_by_topic_and_leaves_out_who_has_no_leader() {
        let robin = RoundRobin::default();
        let turns = |view: &TopicView, topic: &str, count: usize| -> Vec<i32> {
            let record = Record::to(topic).key("same");
            (0..count).map(|_| robin.partition(&record, Partitions::new(view))).collect()
        };
        let all = topic(&[true, true, true]);
        assert_eq!(turns(&all, "a", 4), [0, 1, 2, 0]);
        assert_eq!(turns(&all, "b", 2), [0, 1]);
        assert_eq!(turns(&topic(&[true, false, true]), "c", 4), [0, 2, 0, 2]);
        assert_eq!(turns(&topic(&[false, false]), "d", 1), [0], "nobody has one");
        assert_eq!(Partitions::new(&all).count(), 3);
        assert!(!Partitions::new(&all).has_leader(3) && !Partitions::new(&all).has_leader(-1));
    }

    #[test]
    fn less_goes_where_more_is_waiting() {
        let rng = SeededRng::new(3);
        let mut sticky = Sticky::with_share(STICKY_BYTES);
        let mut chosen = [0; 4];
        for _ in 0..4_000 {
            let queued = |partition| if partition == 2 { 10 } else { 1 };
            chosen[sticky.choose(STICKY_BYTES + 1, 4, |_| true, queued, &rng) as usize] += 1;
        }
        let [a, b, slow, d] = chosen;
        assert!(slow > 0 && slow * 2 < a.min(b).min(d), "{chosen:?}");
    }

    #[test]
    fn sticky_stays_then_moves_and_avoids_leaderless_partitions() {
        let rng = SeededRng::new(3);
        let mut sticky = Sticky::with_share(STICKY_BYTES);
        let first = sticky.choose(1, 4, |_| true, |_| 0, &rng);
        // A little less than 16 KiB in all.
        assert!((0..1_600).all(|_| sticky.choose(10, 4, |_| true, |_| 0, &rng) == first));
        assert_ne!(sticky.choose(STICKY_BYTES, 4, |_| true, |_| 0, &rng), first);
        for _ in 0..100 {
            assert_eq!(sticky.choose(STICKY_BYTES, 4, |partition| partition == 2, |_| 0, &rng), 2);
        }
        let seen: std::collections::BTreeSet<i32> =
            (0..200).map(|_| sticky.choose(STICKY_BYTES, 4, |_| true, |_| 0, &rng)).collect();
        assert_eq!(seen, (0..4).collect());
    }

    #[test]
    fn a_partition_is_left_when_the_next_record_would_exceed_its_share() {
        let rng = SeededRng::new(3);
        let mut sticky = Sticky::with_share(STICKY_BYTES);
        for _ in 0..10 {
            let here = sticky.choose(1, 4, |_| true, |_| 0, &rng);
            assert_eq!(sticky.choose(STICKY_BYTES - 1, 4, |_| true, |_| 0, &rng), here, "exactly full");
            assert_ne!(sticky.choose(STICKY_BYTES, 4, |_| true, |_| 0, &rng), here, "its share is used up");
            // What made it move counts for the new partition.
            let next = sticky.choose(0, 4, |_| true, |_| 0, &rng);
            assert_ne!(sticky.choose(1, 4, |_| true, |_| 0, &rng), next);
            sticky = Sticky::with_share(STICKY_BYTES);
        }
    }

    #[test]
    fn a_partition_that_is_gone_is_left_at_once() {
        let rng = SeededRng::new(3);
        for _ in 0..50 {
            let mut sticky = Sticky { partition: Some(3), ..Sticky::with_share(STICKY_BYTES) };
            let chosen = sticky.choose(1, 3, |_| true, |_| 0, &rng);
            assert!((0..3).contains(&chosen), "the topic was made anew with three partitions");
        }
    }

    #[test]
    fn without_any_leader_a_partition_is_chosen_all_the_same() {
        let rng = SeededRng::new(3);
        let mut sticky = Sticky::with_share(STICKY_BYTES);
        for partitions in [1, 4] {
            assert!((0..100).all(|_| (0..partitions).contains(&sticky.choose(
                1,
                partitions,
                |_| false,
                |_| 0,
                &rng
            ))));
        }
        assert_eq!(sticky.choose(1, 0, |_| true, |_| 0, &rng), 0, "a topic that is being made");
        assert_eq!(partition_for_key(b"21", 0), 0);
    }

    #[test]
    fn a_partition_gets_what_makes_a_batch_but_not_more_than_its_share() {
        let rng = SeededRng::new(3);
        for (batch_bytes, share) in [(100, 100), (STICKY_BYTES_MAX, STICKY_BYTES_MAX), (1 << 30, 64 * 1024)] {
            let mut sticky = Sticky::with_share(batch_bytes);
            let here = sticky.choose(share, 4, |_| true, |_| 0, &rng);
            assert_eq!(sticky.choose(0, 4, |_| true, |_| 0, &rng), here, "exactly full");
            assert_ne!(sticky.choose(1, 4, |_| true, |_| 0, &rng), here);
        }
    }
}
