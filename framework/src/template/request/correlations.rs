//! Which replies are waited for, and by whom. Pure.
//!
//! An id is 16 bytes: eight that only this instance has, and eight that count its requests. So it is known of a reply
//! that nobody waits for whether it came too late or is somebody else's, without remembering anything.

use std::collections::HashMap;

use klamm_client::ConsumerRecord;
use tokio::sync::mpsc;

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

#[derive(Debug)]
pub(super) struct Correlations {
    instance: u64,
    next: u64,
    waiting: HashMap<CorrelationId, mpsc::Sender<ConsumerRecord>>,
    stats: ReplyStats,
}

impl Correlations {
    pub(super) fn new(instance: u64) -> Self {
        Self { instance, next: 0, waiting: HashMap::new(), stats: ReplyStats::default() }
    }

    /// A new request, which waits for as many replies as it can hold until [`Correlations::close`].
    pub(super) fn open(&mut self, replies: usize) -> (CorrelationId, mpsc::Receiver<ConsumerRecord>) {
        let id = CorrelationId::new(self.instance, self.next);
        self.next += 1;
        let (sender, receiver) = mpsc::channel(replies.max(1));
        self.waiting.insert(id, sender);
        (id, receiver)
    }

    /// Nobody waits for it any more.
    pub(super) fn close(&mut self, id: CorrelationId) {
        self.waiting.remove(&id);
    }

    /// A record of the reply topic, with the correlation id that its headers name.
    pub(super) fn reply(&mut self, id: Option<&[u8]>, record: ConsumerRecord) {
        let id = id.and_then(|id| id.try_into().ok()).map(CorrelationId);
        let taken = id.and_then(|id| self.waiting.get(&id)).map(|waiting| waiting.try_send(record).is_ok());
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
    use klamm_client::{Headers, TimestampType};
    use klamm_runtime::{Rng, SeededRng};

    use super::*;

    fn record(offset: i64) -> ConsumerRecord {
        ConsumerRecord {
            topic: "replies".into(),
            partition: 0,
            offset,
            timestamp_ms: 0,
            timestamp_type: TimestampType::CreateTime,
            leader_epoch: None,
            key: None,
            value: None,
            headers: Headers::new(),
        }
    }

    #[test]
    fn a_reply_reaches_who_asked_and_nobody_else() {
        let mut table = Correlations::new(7);
        let (first, mut first_replies) = table.open(1);
        let (second, mut second_replies) = table.open(1);
        table.reply(Some(second.as_bytes()), record(5));
        assert!(first_replies.try_recv().is_err());
        assert_eq!(second_replies.try_recv().unwrap().offset, 5);
        table.close(second);
        table.reply(Some(second.as_bytes()), record(6));
        table.reply(Some(CorrelationId::new(8, 0).as_bytes()), record(7));
        table.reply(Some(b"text"), record(8));
        table.reply(None, record(9));
        table.reply(Some(CorrelationId::new(7, 99).as_bytes()), record(10));
        let stats = ReplyStats { waiting: 1, delivered: 1, late: 1, foreign: 4 };
        assert_eq!(table.stats(), stats);
        table.close(first);
        assert_eq!(table.stats(), ReplyStats { waiting: 0, ..stats });
    }

    #[test]
    fn replies_beyond_what_is_waited_for_take_no_memory() {
        let mut table = Correlations::new(7);
        let (id, mut replies) = table.open(2);
        (0..1_000).for_each(|offset| table.reply(Some(id.as_bytes()), record(offset)));
        assert_eq!((table.stats().delivered, table.stats().late), (2, 998));
        let offsets: Vec<i64> =
            std::iter::from_fn(|| replies.try_recv().ok()).map(|record| record.offset).collect();
        assert_eq!(offsets, [0, 1]);
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
                    0 => open.push(table.open(1 + rng.below(3) as usize)),
                    1 if !open.is_empty() => {
                        let (id, _) = open.swap_remove(rng.below(open.len() as u64) as usize);
                        table.close(id);
                    }
                    _ => {
                        let id = match open.is_empty() || rng.below(3) == 0 {
                            true => CorrelationId::new(table.instance, rng.below(80)),
                            false => open[rng.below(open.len() as u64) as usize].0,
                        };
                        table.reply(Some(id.as_bytes()), record(0));
                        replies += 1;
                    }
                }
            }
            let stats = table.stats();
            assert_eq!(stats.waiting, open.len() as u64);
            assert_eq!(stats.delivered + stats.late + stats.foreign, replies);
            open.drain(..).for_each(|(id, _)| table.close(id));
            assert!(table.waiting.is_empty());
        }
    }
}
