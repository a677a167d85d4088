//! Records to feed to a pipeline: few keys, so that they meet; times that go on, jump, stand still and go back.

use std::fmt;

use klamm_runtime::{Rng, SeededRng};

const KEYS: [&str; 4] = ["a", "b", "c", "d"];
const WORDS: [&str; 8] = ["alpha", "bravo", "ban", "cat", "dog-ant", "delta", "bee-cat-bee", "ace"];

/// A record of a case.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) topic: &'static str,
    pub(super) key: Option<&'static str>,
    pub(super) value: Option<String>,
    pub(super) timestamp_ms: i64,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, value) = (self.key.unwrap_or("-"), self.value.as_deref().unwrap_or("-"));
        write!(f, "{}\t{key}\t{value}\t{}", self.topic, self.timestamp_ms)
    }
}

/// How times go back.
#[derive(Debug, Clone, Copy)]
pub(super) enum Times {
    InOrder,
    /// By no more than the grace of all windows, three seconds.
    WithinGrace,
    /// By more than any grace now and then.
    Late,
}

/// Which topics a pipeline reads, and what of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// `left`, and whether there are tombstones in it.
    pub(super) left_is_table: bool,
    /// `right` if there is one, and whether there are tombstones in it.
    pub(super) right_is_table: Option<bool>,
    pub(super) times: Times,
}

impl Shape {
    pub(super) fn rows(self, rng: &SeededRng, records: u64) -> Vec<Row> {
        let mut now_ms = 100_000;
        let chance = |percent| rng.below(100) < percent;
        let mut row = || {
            now_ms += match rng.below(10) {
                0..3 => 0,
                3..9 => rng.below(2_500) as i64,
                _ => rng.below(40_000) as i64,
            };
            let back = match self.times {
                _ if !chance(30) => 0,
                Times::InOrder => 0,
                Times::WithinGrace => rng.below(3_000) as i64,
                Times::Late if chance(20) => rng.below(60_000) as i64,
                Times::Late => rng.below(8_000) as i64,
            };
            let (topic, is_table) = match self.right_is_table {
                Some(right_is_table) if chance(45) => ("right", right_is_table),
                _ => ("left", self.left_is_table),
            };
            let value = WORDS[rng.below(WORDS.len() as u64) as usize];
            let value = (!(is_table && chance(25))).then(|| format!("{value}{}", rng.below(3)));
            let key = KEYS[rng.below(KEYS.len() as u64) as usize];
            Row { topic, key: Some(key), value, timestamp_ms: (now_ms - back).max(0) }
        };
        let mut rows: Vec<Row> = (0..records).map(|_| row()).collect();
        // Whatever is held back is told in the end.
        for (topic, hours) in [("left", 1), ("right", 2), ("left", 3)] {
            if topic == "left" || self.right_is_table.is_some() {
                let timestamp_ms = now_ms + hours * 3_600_000;
                rows.push(Row { topic, key: Some("end"), value: Some("end".to_owned()), timestamp_ms });
            }
        }
        rows
    }
}
