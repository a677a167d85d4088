//! What a seed means: every seed draws its own settings and its own rates.

use klamm_runtime::{Rng, SeededRng};

use super::disk::DiskRates;
use super::known::{Known, stands};
use super::model::Retention;
use super::planted::Planted;

/// As long as a name may be.
const LONG_NAME_BYTES: usize = 249;

#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) steps: u64,
    pub(super) names: Vec<String>,
    pub(super) deletes_percent: u64,
    pub(super) idempotent: u64,
    pub(super) plain: u64,
    pub(super) members: u64,
    /// Members with a `group.instance.id`, each of which two may have.
    pub(super) static_members: u64,
    pub(super) readers: u64,
    pub(super) segment_bytes: u64,
    pub(super) offsets_segment_bytes: u64,
    pub(super) snapshot_interval_bytes: u64,
    pub(super) retention: Retention,
    pub(super) disk: DiskRates,
    /// Of a thousand steps.
    pub(super) cuts: u64,
    pub(super) power_cuts: u64,
    pub(super) power_cuts_in_calls: u64,
    pub(super) kills: u64,
    pub(super) restarts: u64,
    pub(super) full: u64,
    /// Clients with a transactional id, so many ids, and how long a transaction of theirs may take.
    pub(super) transactional: u64,
    pub(super) transactional_ids: u64,
    pub(super) transaction_timeout_ms: i32,
    pub(super) state_segment_bytes: u64,
}

impl Plan {
    pub(super) fn of(seed: u64, planted: Option<Planted>) -> Self {
        let rng = SeededRng::new(seed ^ 0x9E37_79B9);
        // Half of the seeds have none of a fault.
        let rate = |known: Known, most: u64| {
            let (drawn, here) = (rng.below(most + 1), rng.below(2) == 0);
            if here && stands(known) { drawn } else { 0 }
        };
        let disk = DiskRates {
            read: rate(Known::Reads, 300),
            write: rate(Known::Writes, 1_000),
            sync: rate(Known::Syncs, 1_000),
            names: rate(Known::Names, 2_000),
            descriptors: rate(Known::Descriptors, 1_000),
            hangs: rate(Known::Hangs, 4_000),
        };
        let cuts = rate(Known::Cuts, 60);
        let power_cuts_in_calls = rate(Known::PowerInCalls, 30);
        let full = rate(Known::FullDisk, 30);
        let long = if stands(Known::LongNames) && rng.below(4) == 0 { LONG_NAME_BYTES } else { 1 };
        let names = ["a", "b"].map(|name| name.repeat(long)).to_vec();
        let (ms, bytes) = match rng.below(3) {
            0 => (None, None),
            1 => (Some(1_000 * (1 + rng.below(20)) as i64), None),
            _ => (None, Some(2_048 + rng.below(8_192))),
        };
        let retention = Retention { ms, bytes, slack_bytes: 8_192 };
        let plan = Self {
            steps: 60 + rng.below(200),
            names,
            deletes_percent: rng.below(70),
            idempotent: 1 + rng.below(3),
            plain: rng.below(3),
            members: rng.below(4),
            static_members: rng.below(2) * rng.below(4),
            readers: rng.below(3),
            segment_bytes: 1_024 + rng.below(4_096),
            offsets_segment_bytes: 1_024 + rng.below(4_096),
            snapshot_interval_bytes: 500 + rng.below(4_096),
            retention,
            disk: if planted.is_some() { DiskRates::default() } else { disk },
            cuts,
            power_cuts: rng.below(12),
            power_cuts_in_calls,
            kills: rng.below(12),
            restarts: rng.below(12),
            full: if planted == Some(Planted::IgnoresFullDisk) { 30 } else { full },
            transactional: 0,
            transactional_ids: 1,
            transaction_timeout_ms: 0,
            state_segment_bytes: 1_024 + rng.below(4_096),
        };
        let transacts = rng.below(2) == 0 || planted.is_some_and(Planted::is_of_transactions);
        if transacts { plan.with_transactions(&rng) } else { plan }
    }

    /// Transactions take many steps, and clients of other kinds take them away.
    fn with_transactions(self, rng: &SeededRng) -> Self {
        let transactional = 1 + rng.below(5);
        Self {
            steps: 2 * self.steps + rng.below(400),
            idempotent: rng.below(2),
            plain: rng.below(2),
            members: self.members.min(rng.below(3)),
            static_members: 0,
            power_cuts: self.power_cuts / 2,
            kills: self.kills / 2,
            restarts: self.restarts / 2,
            transactional,
            transactional_ids: 1 + rng.below(transactional),
            transaction_timeout_ms: 500 + rng.below(10_000) as i32,
            retention: if rng.below(2) == 0 { self.retention.without() } else { self.retention },
            ..self
        }
    }
}
