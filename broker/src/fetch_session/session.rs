//! One fetch session: the partitions that a client reads, in the order in which they are looked at, and what the client
//! knows of each.

use std::collections::BTreeMap;

use klamm_protocol::{Utf8Bytes, Uuid};

/// A topic as the requests of a session name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TopicKey {
    Name(Utf8Bytes),
    Id(Uuid),
}

/// A partition.
pub(crate) type Place = (TopicKey, i32);

/// What a client wants of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) offset: i64,
    pub(crate) max_bytes: i32,
    pub(crate) leader_epoch: i32,
}

/// What a client is told of a partition beside records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) high_watermark: i64,
    pub(crate) last_stable_offset: i64,
    pub(crate) log_start_offset: i64,
}

/// What a fetch found in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) told: Told,
    pub(crate) has_records: bool,
    pub(crate) failed: bool,
}

/// What is kept of a partition.
#[derive(Debug)]
struct Kept {
    place: Place,
    wanted: Wanted,
    /// Nothing when the client knows nothing, or was told of a failure.
    told: Option<Told>,
}

/// The partitions of a session.
#[derive(Debug, Default)]
pub(crate) struct Session {
    /// By turns: the ones that had records longest ago come first.
    kept: BTreeMap<u64, Kept>,
    turns: BTreeMap<Place, u64>,
    next_turn: u64,
}

impl Session {
    /// One of these partitions, of which the client was told what was found, each once and in this order.
    pub(crate) fn of(partitions: Vec<(Place, Wanted, Found)>) -> Self {
        let mut session = Self::default();
        let mut all = Vec::with_capacity(partitions.len());
        for (place, wanted, found) in partitions {
            let before = session.len();
            session.set(place, wanted);
            if session.len() > before {
                // Its place in the order is kept: what had records now was looked at first once.
                all.push(Found { has_records: false, ..found });
            }
        }
        session.tell(&all);
        session
    }

    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Adds a partition at the end, or changes what is wanted of it where it is.
    pub(crate) fn set(&mut self, place: Place, wanted: Wanted) {
        if let Some(kept) = self.turns.get(&place).and_then(|turn| self.kept.get_mut(turn)) {
            kept.wanted = wanted;
            return;
        }
        let turn = self.take_turn();
        self.turns.insert(place.clone(), turn);
        self.kept.insert(turn, Kept { place, wanted, told: None });
    }

    /// Leaves a partition out from now on.
    pub(crate) fn forget(&mut self, place: &Place) {
        if let Some(turn) = self.turns.remove(place) {
            self.kept.remove(&turn);
        }
    }

    /// The partitions in their order.
    pub(crate) fn wanted(&self) -> Vec<(Place, Wanted)> {
        self.kept.values().map(|kept| (kept.place.clone(), kept.wanted)).collect()
    }

    /// Takes in what the client is told of every partition, in their order; says of which it has to be told at all.
    /// Those with records go to the end, so that the others have the room of the next answer before them.
    pub(crate) fn tell(&mut self, found: &[Found]) -> Vec<bool> {
        let mut had_records = Vec::new();
        let told = self.kept.iter_mut().zip(found).map(|((turn, kept), found)| {
            let told = (!found.failed).then_some(found.told);
            let is_news = found.has_records || found.failed || kept.told != told;
            kept.told = told;
            if found.has_records {
                had_records.push(*turn);
            }
            is_news
        });
        let told = told.collect();
        for turn in had_records {
            let last = self.take_turn();
            if let Some(kept) = self.kept.remove(&turn) {
                self.turns.insert(kept.place.clone(), last);
                self.kept.insert(last, kept);
            }
        }
        told
    }

    fn take_turn(&mut self) -> u64 {
        self.next_turn += 1;
        self.next_turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(index: i32) -> Place {
        (TopicKey::Name("t".into()), index)
    }

    fn wanted(offset: i64) -> Wanted {
        Wanted { offset, max_bytes: 1, leader_epoch: -1 }
    }

    fn found(high_watermark: i64, has_records: bool, failed: bool) -> Found {
        let told = Told { high_watermark, last_stable_offset: 5, log_start_offset: 0 };
        Found { told, has_records, failed }
    }

    fn order(session: &Session) -> Vec<(i32, i64)> {
        session.wanted().into_iter().map(|((_, index), wanted)| (index, wanted.offset)).collect()
    }

    #[test]
    fn partitions_come_at_the_end_change_where_they_are_and_go() {
        let mut session = Session::default();
        for index in 0..3 {
            session.set(place(index), wanted(0));
        }
        session.set(place(1), wanted(7));
        assert_eq!(order(&session), [(0, 0), (1, 7), (2, 0)]);
        session.forget(&place(0));
        session.forget(&place(9));
        session.set(place(0), wanted(4));
        assert_eq!((order(&session), session.len()), (vec![(1, 7), (2, 0), (0, 4)], 3));
    }

    #[test]
    fn only_news_is_told_and_who_had_records_goes_to_the_end() {
        let mut session = Session::default();
        for index in 0..3 {
            session.set(place(index), wanted(0));
        }
        let quiet = found(5, false, false);
        assert_eq!(session.tell(&[quiet; 3]), [true; 3], "nothing was told before");
        assert_eq!(session.tell(&[quiet; 3]), [false; 3]);
        assert_eq!(
            session.tell(&[found(5, true, false), quiet, found(6, false, false)]),
            [true, false, true]
        );
        assert_eq!(order(&session), [(1, 0), (2, 0), (0, 0)]);
        let failed = found(5, false, true);
        assert_eq!(session.tell(&[failed, found(6, false, false), quiet]), [true, false, false]);
        assert_eq!(
            session.tell(&[failed, found(6, false, false), quiet]),
            [true, false, false],
            "as long as it lasts"
        );
        assert_eq!(
            session.tell(&[quiet, found(6, false, false), quiet]),
            [true, false, false],
            "it is well again"
        );
        for told in [
            Told { log_start_offset: 1, ..quiet.told },
            Told { last_stable_offset: 6, log_start_offset: 1, ..quiet.told },
        ] {
            let moved = Found { told, ..quiet };
            assert_eq!(session.tell(&[moved, found(6, false, false), quiet]), [true, false, false]);
        }
    }
}
