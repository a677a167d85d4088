//! A fetch session (KIP-227): the broker remembers what is read, and is told only what changed. Pure.
//!
//! It belongs to the connection over which it was begun. Brokers may decline sessions, and may forget one at any time;
//! then everything is named again.

use std::collections::BTreeMap;

use klamm_protocol::Uuid;
use klamm_protocol::messages::fetch::ForgottenTopic;

use super::lookups::Wanted;
use crate::types::TopicPartition;

/// The epoch of a request that begins a session.
const FIRST_EPOCH: i32 = 0;

/// What the broker at the other end remembers.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// 0 when there is none.
    id: i32,
    /// Of the next request; 0 begins a session.
    epoch: i32,
    /// Whether topics go by id in it.
    by_id: bool,
    remembered: BTreeMap<TopicPartition, Remembered>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Remembered {
    topic_id: Uuid,
    offset: i64,
    leader_epoch: i32,
}

/// What a request of the session says.
#[derive(Debug)]
pub(super) struct SessionPart {
    pub(super) id: i32,
    pub(super) epoch: i32,
    /// Which of those wanted are named.
    pub(super) changed: Vec<usize>,
    pub(super) forgotten: Vec<ForgottenTopic>,
}

impl Session {
    /// What the next request has to say so that the broker reads exactly what is wanted.
    pub(super) fn next(&mut self, wanted: &[Wanted], by_id: bool) -> SessionPart {
        if self.by_id != by_id {
            // One session cannot have both.
            self.uncertain();
            self.by_id = by_id;
        }
        // A partition that was given up and came back between two requests: of one that has nothing new, the broker has
        // told everything, and nobody here knows it.
        let is_back = |wanted: &Wanted| wanted.is_new && self.remembered.contains_key(&wanted.ask.partition);
        if wanted.iter().any(is_back) {
            self.uncertain();
        }
        if self.epoch == FIRST_EPOCH {
            self.remembered =
                wanted.iter().map(|wanted| (wanted.ask.partition.clone(), remembered(wanted))).collect();
            return SessionPart {
                id: self.id,
                epoch: FIRST_EPOCH,
                changed: (0..wanted.len()).collect(),
                forgotten: Vec::new(),
            };
        }
        let mut before = std::mem::take(&mut self.remembered);
        let mut changed = Vec::new();
        let mut forgotten = Forgotten::default();
        for (at, wanted) in wanted.iter().enumerate() {
            let now = remembered(wanted);
            let then = before.remove(&wanted.ask.partition);
            if let Some(then) = then.filter(|then| then.topic_id != now.topic_id) {
                forgotten.add(&wanted.ask.partition, then.topic_id);
            }
            if then != Some(now) {
                changed.push(at);
            }
            self.remembered.insert(wanted.ask.partition.clone(), now);
        }
        for (partition, then) in before {
            forgotten.add(&partition, then.topic_id);
        }
        SessionPart { id: self.id, epoch: self.epoch, changed, forgotten: forgotten.topics() }
    }

    /// An answer came. `id` is 0 when the broker declines sessions or gave this one up.
    pub(super) fn answered(&mut self, id: i32) {
        if id == 0 || (self.epoch != FIRST_EPOCH && id != self.id) {
            return self.gone();
        }
        self.id = id;
        self.epoch = if self.epoch == i32::MAX { 1 } else { self.epoch + 1 };
    }

    /// What the broker remembers is not known any more: the next request replaces it.
    pub(super) fn uncertain(&mut self) {
        self.epoch = FIRST_EPOCH;
        self.remembered.clear();
    }

    /// There is no session.
    pub(super) fn gone(&mut self) {
        self.id = 0;
        self.uncertain();
    }
}

fn remembered(wanted: &Wanted) -> Remembered {
    Remembered { topic_id: wanted.topic_id, offset: wanted.offset, leader_epoch: wanted.leader.epoch }
}

/// What is to be forgotten, by topic.
#[derive(Default)]
struct Forgotten(BTreeMap<(std::sync::Arc<str>, Uuid), Vec<i32>>);

impl Forgotten {
    fn add(&mut self, partition: &TopicPartition, topic_id: Uuid) {
        self.0.entry((partition.topic.clone(), topic_id)).or_default().push(partition.partition);
    }

    fn topics(self) -> Vec<ForgottenTopic> {
        let topic = |((name, topic_id), partitions): ((std::sync::Arc<str>, Uuid), Vec<i32>)| {
            ForgottenTopic { topic: (&*name).into(), topic_id, partitions, ..Default::default() }
        };
        self.0.into_iter().map(topic).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::lookups::{Ask, Wanted};
    use super::super::partitions::Cell;
    use super::super::positions::Leader;
    use super::*;

    fn wanted(partition: i32, offset: i64, epoch: i32, topic_id: u128) -> Wanted {
        let partition = TopicPartition::new("t", partition);
        Wanted {
            ask: Ask { partition, cell: Cell::new(None, std::sync::Arc::default(), false) },
            leader: Leader { node: 1, epoch },
            offset,
            topic_id: Uuid::from_u128(topic_id),
            peek_at: None,
            served: 0,
            is_new: false,
        }
    }

    /// Session, epoch, the places of those named, and what is forgotten.
    type Said = (i32, i32, Vec<usize>, Vec<(Uuid, Vec<i32>)>);

    fn next(session: &mut Session, wanted: &[Wanted]) -> Said {
        let part = session.next(wanted, true);
        let forgotten = part.forgotten.into_iter().map(|topic| {
            assert_eq!(&*topic.topic, "t");
            (topic.topic_id, topic.partitions)
        });
        (part.id, part.epoch, part.changed, forgotten.collect())
    }

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    #[test]
    fn only_what_changed_is_named() {
        let mut session = Session::default();
        let (a, b, c) = (wanted(0, 5, 1, 9), wanted(1, 5, 1, 9), wanted(2, 5, 1, 9));
        assert_eq!(next(&mut session, &[a.clone(), b.clone()]), (0, 0, vec![0, 1], vec![]));
        session.answered(77);
        assert_eq!(next(&mut session, &[a.clone(), b.clone()]), (77, 1, vec![], vec![]));
        session.answered(77);
        let further = wanted(0, 6, 1, 9);
        assert_eq!(next(&mut session, &[further.clone(), b.clone()]), (77, 2, vec![0], vec![]));
        session.answered(77);
        let led_anew = wanted(1, 5, 2, 9);
        assert_eq!(next(&mut session, &[further.clone(), led_anew.clone(), c]), (77, 3, vec![1, 2], vec![]));
        session.answered(77);
        assert_eq!(
            next(&mut session, std::slice::from_ref(&led_anew)),
            (77, 4, vec![], vec![(id(9), vec![0, 2])])
        );
        session.answered(77);
        assert_eq!(next(&mut session, &[further, led_anew]), (77, 5, vec![0], vec![]), "it is named again");
    }

    #[test]
    fn a_topic_with_another_id_is_forgotten_and_named() {
        let mut session = Session::default();
        next(&mut session, &[wanted(0, 5, 1, 9)]);
        session.answered(77);
        assert_eq!(next(&mut session, &[wanted(0, 5, 1, 8)]), (77, 1, vec![0], vec![(id(9), vec![0])]));
    }

    #[test]
    fn all_is_named_again_after_doubt() {
        let mut session = Session::default();
        let all = [wanted(0, 5, 1, 9)];
        next(&mut session, &all);
        session.answered(77);
        session.uncertain();
        assert_eq!(next(&mut session, &all), (77, 0, vec![0], vec![]), "the old session is replaced");
        session.answered(78);
        assert_eq!(next(&mut session, &all), (78, 1, vec![], vec![]));
        session.gone();
        assert_eq!(next(&mut session, &all), (0, 0, vec![0], vec![]));
        session.answered(79);
        next(&mut session, &all);
        session.answered(80);
        assert_eq!(next(&mut session, &all), (0, 0, vec![0], vec![]), "that was another session's answer");
        session.answered(0);
        assert_eq!(next(&mut session, &all), (0, 0, vec![0], vec![]), "sessions are declined");
        session.answered(81);
        for (by_id, id) in [(false, 81), (true, 82)] {
            let part = session.next(&all, by_id);
            assert_eq!((part.id, part.epoch), (id, 0), "names and ids cannot be in one session");
            session.answered(82);
            let part = session.next(&all, by_id);
            assert_eq!((part.id, part.epoch), (82, 1), "it goes on");
        }
    }

    /// Its lag was unknown until somebody wrote to it.
    #[test]
    fn a_partition_that_came_back_is_told_of() {
        let mut session = Session::default();
        let (a, b) = (wanted(0, 5, 1, 9), wanted(1, 5, 1, 9));
        let back = Wanted { is_new: true, ..a.clone() };
        assert_eq!(next(&mut session, &[back.clone(), b.clone()]), (0, 0, vec![0, 1], vec![]));
        session.answered(77);
        assert_eq!(next(&mut session, &[a.clone(), b.clone()]), (77, 1, vec![], vec![]));
        session.answered(77);
        assert_eq!(next(&mut session, &[back, b.clone()]), (77, 0, vec![0, 1], vec![]), "all is named");
        session.answered(78);
        assert_eq!(next(&mut session, &[a, b]), (78, 1, vec![], vec![]));
    }

    #[test]
    fn epochs_begin_again_at_one() {
        let mut session = Session { id: 5, epoch: i32::MAX - 1, by_id: true, ..Session::default() };
        session.answered(5);
        assert_eq!(session.epoch, i32::MAX);
        session.answered(5);
        assert_eq!(session.epoch, 1);
    }
}
