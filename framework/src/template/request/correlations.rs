//! Which replies are waited for, and by whom. Pure.
//!
//! An id is 16 bytes: eight that only this instance has, and eight that count its requests. So it is known of a reply
//! that nobody waits for whether it came too late or is somebody else's, without remembering anything.

use std::collections::HashMap;

/// What a request is recognised by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct CorrelationId([u8; 16]);

impl CorrelationId {
    fn new(instance: u64, number: u64) -> Self {
        Self((u128::from(instance) << 64 | u128::from(number)).to_be_bytes())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn parts(self) -> (u64, u64) {
        let both = u128::from_be_bytes(self.0);
        ((both >> 64) as u64, both as u64)
    }
}

/// How replies fared, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ReplyStats {
    /// Requests that are waited for now.
    pub waiting: u64,
    /// Replies that reached who waited for them.
    pub delivered: u64,
    /// Replies to requests of this instance that nobody waits for any more: they came too late, once too often, or
    /// the waiting was given up.
    pub late: u64,
    /// Replies to others' requests, which share the partition; and records that are no replies at all.
    pub foreign: u64,
}

/// Who waits, as `W`.
#[derive(Debug)]
pub(super) struct Correlations<W> {
    instance: u64,
    next: u64,
    waiting: HashMap<CorrelationId, W>,
    stats: ReplyStats,
}

impl<W> Correlations<W> {
    pub(super) fn new(instance: u64) -> Self {
        Self { instance, next: 0, waiting: HashMap::new(), stats: ReplyStats::default() }
    }

    /// A new request, whose replies are waited for until [`Correlations::close`].
    pub(super) fn open(&mut self, waiting: W) -> CorrelationId {
        let id = CorrelationId::new(self.instance, self.next);
        self.next += 1;
        self.waiting.insert(id, waiting);
        id
    }

    /// Nobody waits for it any more.
    pub(super) fn close(&mut self, id: CorrelationId) {
        self.waiting.remove(&id);
    }

    /// A record of the reply topic, with the correlation id that its headers name. Who waits for it is given it, and
    /// says whether there was room for it.
    pub(super) fn reply(&mut self, id: Option<&[u8]>, give: impl FnOnce(&W) -> bool) {
        let id = id.and_then(|id| id.try_into().ok()).map(CorrelationId);
        let taken = id.and_then(|id| self.waiting.get(&id)).map(give);
        let is_ours = id
            .map(CorrelationId::parts)
            .is_some_and(|(instance, number)| instance == self.instance && number < self.next);
        match (taken, is_ours) {
            (Some(true), _) => self.stats.delivered += 1,
            (Some(false), _) | (None, true) => self.stats.late += 1,
            (None, false) => self.stats.foreign += 1,
        }
    }

    pub(super) fn stats(&self) -> ReplyStats {
        ReplyStats { waiting: self.waiting.len() as u64, ..self.stats }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use klamm_runtime::{Rng, SeededRng};

    use super::*;

    /// Who waits for so many replies, and the offsets of those that came.
    type Waiter = (usize, RefCell<Vec<i64>>);

    fn waiter(replies: usize) -> Waiter {
        (replies, RefCell::default())
    }

    fn give(offset: i64) -> impl FnOnce(&Waiter) -> bool {
        move |(room, offsets)| {
            let has_room = offsets.borrow().len() < *room;
            if has_room {
                offsets.borrow_mut().push(offset);
            }
            has_room
        }
    }

    fn came(table: &Correlations<Waiter>, id: CorrelationId) -> Vec<i64> {
        table.waiting[&id].1.borrow().clone()
    }

    #[test]
    fn a_reply_reaches_who_asked_and_nobody_else() {
        let mut table = Correlations::new(7);
        let (first, second) = (table.open(waiter(1)), table.open(waiter(1)));
        table.reply(Some(second.as_bytes()), give(5));
        assert_eq!((came(&table, first), came(&table, second)), (vec![], vec![5]));
        table.close(second);
        table.reply(Some(second.as_bytes()), give(6));
        table.reply(Some(CorrelationId::new(8, 0).as_bytes()), give(7));
        table.reply(Some(b"text"), give(8));
        table.reply(None, give(9));
        table.reply(Some(CorrelationId::new(7, 99).as_bytes()), give(10));
        let stats = ReplyStats { waiting: 1, delivered: 1, late: 1, foreign: 4 };
        assert_eq!(table.stats(), stats);
        table.close(first);
        assert_eq!(table.stats(), ReplyStats { waiting: 0, ..stats });
    }

    #[test]
    fn replies_beyond_what_is_waited_for_are_late() {
        let mut table = Correlations::new(7);
        let id = table.open(waiter(2));
        (0..1_000).for_each(|offset| table.reply(Some(id.as_bytes()), give(offset)));
        assert_eq!((table.stats().delivered, table.stats().late), (2, 998));
        assert_eq!(came(&table, id), [0, 1]);
    }

    /// Any order of asking, giving up and answering: nothing is left over, nothing is counted twice.
    #[test]
    fn nothing_leaks_whatever_happens() {
        let rng = SeededRng::new(3);
        for _ in 0..500 {
            let mut table = Correlations::new(rng.next_u64());
            let mut open = Vec::new();
            let mut replies = 0;
            for _ in 0..rng.below(60) {
                match rng.below(3) {
                    0 => open.push(table.open(waiter(1 + rng.below(3) as usize))),
                    1 if !open.is_empty() => {
                        table.close(open.swap_remove(rng.below(open.len() as u64) as usize));
                    }
                    _ => {
                        let id = match open.is_empty() || rng.below(3) == 0 {
                            true => CorrelationId::new(table.instance, rng.below(80)),
                            false => open[rng.below(open.len() as u64) as usize],
                        };
                        table.reply(Some(id.as_bytes()), give(0));
                        replies += 1;
                    }
                }
            }
            let stats = table.stats();
            assert_eq!(stats.waiting, open.len() as u64);
            assert_eq!(stats.delivered + stats.late + stats.foreign, replies);
            open.drain(..).for_each(|id| table.close(id));
            assert!(table.waiting.is_empty());
        }
    }
}
