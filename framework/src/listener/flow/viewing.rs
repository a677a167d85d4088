//! `Flow`: how partitions stand, for who watches. Pure.

use klamm_client::TopicPartition;

use super::record::Payload;
use super::state::Flow;

/// How an assigned partition stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) place: TopicPartition,
    /// The lowest record that is not finished.
    pub(crate) lowest: Option<i64>,
    /// Up to where it was read.
    pub(crate) next_offset: Option<i64>,
    pub(crate) unfinished: usize,
    pub(crate) in_retry: usize,
    pub(crate) kept: usize,
    pub(crate) kept_bytes: u64,
}

impl<T: Payload> Flow<T> {
    /// How the assigned partitions stand.
    pub(crate) fn views(&self) -> Vec<View> {
        let parts = self.by_place.iter().filter_map(|(place, id)| Some((place, self.part(*id)?)));
        let views = parts.map(|(place, part)| View {
            place: place.clone(),
            lowest: part.ledger.lowest(),
            next_offset: part.ledger.next_offset(),
            unfinished: part.ledger.unfinished(),
            in_retry: part.ledger.in_retry(),
            kept: part.ledger.kept(),
            kept_bytes: part.ledger.kept_bytes(),
        });
        views.collect()
    }

    /// What part of the budget is in hand, in records or in bytes, whichever is more.
    pub(crate) fn budget_used(&self, kept: usize, kept_bytes: u64) -> f64 {
        let budget = self.rules.budget;
        (kept as f64 / budget.records.max(1) as f64).max(kept_bytes as f64 / budget.bytes.max(1) as f64)
    }
}
