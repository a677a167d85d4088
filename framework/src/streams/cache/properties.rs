//! What holds for caches, whatever is done to them: they are compared with maps.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::{CacheBudget, EntryCache, Share};

#[derive(Debug, Clone)]
enum Step {
    /// Sets the row of a key to so many bytes.
    Set {
        key: u8,
        bytes: usize,
        unsent: bool,
    },
    /// Reads the row of a key.
    Get(u8),
    Send,
    Commit,
    Settle(usize),
    Shrink(usize),
    Hold(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = prop_oneof![6 => 0_usize..60, 2 => 60_usize..700, 1 => 3_000_usize..9_000];
    let step = prop_oneof![
        12 => (any::<u8>(), bytes, any::<bool>()).prop_map(|(key, bytes, unsent)| Step::Set { key, bytes, unsent }),
        8 => any::<u8>().prop_map(Step::Get),
        2 => Just(Step::Send),
        1 => Just(Step::Commit),
        2 => (0_usize..20).prop_map(Step::Settle),
        1 => (0_usize..100_000).prop_map(Step::Shrink),
        1 => any::<u8>().prop_map(Step::Hold),
    ];
    prop::collection::vec(step, 1..400)
}

/// A cache over an engine, beside what both should hold.
struct Rig {
    cache: EntryCache,
    limit_bytes: usize,
    engine: HashMap<Vec<u8>, Vec<u8>>,
    /// What a reader has to see.
    latest: BTreeMap<Vec<u8>, Vec<u8>>,
    committed: BTreeMap<Vec<u8>, Vec<u8>>,
    unsent: Vec<Vec<u8>>,
    number: u32,
}

impl Rig {
    /// Keys of several lengths.
    fn key(number: u8) -> Vec<u8> {
        vec![number; if number == 7 { 300 } else { usize::from(number % 5) * 3 + 1 }]
    }

    fn row(&mut self, bytes: usize) -> Vec<u8> {
        self.number += 1;
        self.number.to_le_bytes().into_iter().cycle().take(bytes).collect()
    }

    fn read(&mut self, key: &[u8]) -> Vec<u8> {
        let hash = self.cache.hash(key);
        match self.cache.find(hash, key) {
            Some(address) => {
                assert_eq!(self.cache.key(address), key);
                self.cache.row(address).to_vec()
            }
            None => {
                let row = self.engine.get(key).cloned().unwrap_or_default();
                self.cache.insert(hash, key, &row, self.limit_bytes);
                row
            }
        }
    }

    fn set(&mut self, key: &[u8], row: &[u8], unsent: bool) {
        self.read(key);
        let hash = self.cache.hash(key);
        let address = self.cache.peek(hash, key).unwrap();
        self.cache.touch(address, unsent);
        let address = self.cache.set(hash, address, row);
        assert_eq!(self.cache.row(address), row);
        if unsent && !self.unsent.iter().any(|waiting| waiting == key) {
            self.unsent.push(key.to_vec());
        }
        self.latest.insert(key.to_vec(), row.to_vec());
    }

    fn send(&mut self) {
        let sent = self.cache.next_unsent().map(|address| {
            assert!(!self.cache.is_unsent(address));
            self.cache.key(address).to_vec()
        });
        let expected = (!self.unsent.is_empty()).then(|| self.unsent.remove(0));
        assert_eq!(sent, expected, "the oldest goes first");
    }

    /// The engine gets what is committed, and never anything newer.
    fn settle(&mut self, limit: usize) {
        let (engine, committed) = (&mut self.engine, &self.committed);
        self.cache.take_pending(limit, |key, row| {
            assert_eq!(committed.get(key).map(Vec::as_slice), Some(row), "of {key:?}");
            engine.insert(key.to_vec(), row.to_vec());
        });
    }

    fn commit(&mut self) {
        while !self.unsent.is_empty() {
            self.send();
        }
        assert_eq!(self.cache.unsent(), 0);
        self.settle(usize::MAX);
        assert!(self.cache.is_settled());
        let engine: BTreeMap<_, _> = self.engine.clone().into_iter().collect();
        assert_eq!(engine, self.committed);
        self.cache.commit();
        self.committed.clone_from(&self.latest);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Set { key, bytes, unsent } => {
                let row = self.row(*bytes);
                self.set(&Self::key(*key), &row, *unsent);
            }
            Step::Get(key) => {
                let key = Self::key(*key);
                let expected = self.latest.get(&key).cloned().unwrap_or_default();
                assert_eq!(self.read(&key), expected, "of {key:?}");
            }
            Step::Send => self.send(),
            Step::Commit => self.commit(),
            Step::Settle(limit) => self.settle(*limit),
            Step::Shrink(bytes) => self.cache.shrink_to(*bytes),
            Step::Hold(key) => {
                let key = Self::key(*key);
                self.read(&key);
                let hash = self.cache.hash(&key);
                let address = self.cache.peek(hash, &key).unwrap();
                self.cache.hold(address, true);
                self.cache.shrink_to(0);
                let address = self.cache.peek(hash, &key).expect("somebody holds it");
                self.cache.hold(address, false);
            }
        }
    }
}

fn run(steps: &[Step], limit_bytes: usize) -> Result<(), TestCaseError> {
    let mut rig = Rig {
        cache: EntryCache::new(7),
        limit_bytes,
        engine: HashMap::new(),
        latest: BTreeMap::new(),
        committed: BTreeMap::new(),
        unsent: Vec::new(),
        number: 0,
    };
    steps.iter().for_each(|step| rig.step(step));
    rig.commit();
    rig.settle(usize::MAX);
    for number in 0..=u8::MAX {
        rig.step(&Step::Get(number));
    }
    rig.cache.shrink_to(0);
    prop_assert_eq!(rig.cache.len(), 0, "all of it can be forgotten");
    prop_assert!(rig.cache.held_bytes() < 20_000, "{} bytes are left", rig.cache.held_bytes());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// A reader sees the newest, the engine gets what was committed and nothing else, and what is not committed is
    /// never forgotten.
    #[test]
    fn a_cache_is_a_map_over_its_engine(steps in steps(), limit_bytes in prop_oneof![0_usize..100_000, Just(1 << 20)]) {
        run(&steps, limit_bytes)?;
    }
}

/// About 60 bytes for 30: a million keys fit into 64 MiB.
#[test]
fn a_small_row_takes_little_more_than_its_bytes() {
    const ROWS: usize = 1_000_000;
    let mut cache = EntryCache::new(1);
    for number in 0..ROWS {
        let key = format!("key-{number:09}");
        let hash = cache.hash(key.as_bytes());
        let address = cache.insert(hash, key.as_bytes(), &[1; 17], usize::MAX);
        cache.touch(address, true);
    }
    assert!(cache.held_bytes() <= 64 << 20, "{} bytes a row", cache.held_bytes() / ROWS);
}

/// What is used stays, what is not goes, and the limit holds.
#[test]
fn rows_in_use_stay_in_a_full_cache() {
    const LIMIT_BYTES: usize = 200_000;
    let mut cache = EntryCache::new(1);
    let mut hot_misses = 0;
    for number in 0..100_000_u32 {
        for key_number in [number % 50, 1_000 + number] {
            let key = key_number.to_be_bytes();
            let hash = cache.hash(&key);
            if cache.find(hash, &key).is_none() {
                hot_misses += u32::from(key_number < 50);
                cache.insert(hash, &key, &[3; 40], LIMIT_BYTES);
            }
        }
        assert!(cache.held_bytes() <= LIMIT_BYTES, "{} bytes", cache.held_bytes());
    }
    assert!(hot_misses <= 60, "{hot_misses} misses of rows in use");
    assert!(cache.len() > 2_000, "only {} rows are kept", cache.len());
}

/// Two caches, one budget: what one gives up, the other may have.
#[test]
fn what_one_cache_holds_another_may_not() {
    let budget = CacheBudget::new(1_000, None);
    let (mut one, mut other) = (Share::of(&budget), Share::of(&budget));
    one.set(700);
    assert_eq!((one.room_bytes(), other.room_bytes()), (1_000, 300));
    other.set(1_300);
    assert_eq!((one.fair_bytes(), other.fair_bytes()), (350, 650));
    one.set(350);
    drop(other);
    assert_eq!((budget.held_bytes(), one.room_bytes(), one.fair_bytes()), (350, 1_000, usize::MAX));
}
