//! A share session: one leader remembers which partitions are read, and is told only what changed. Pure.
//!
//! It belongs to the connection over which it was begun. Every request of it carries the next epoch, so there is one
//! under way at a time. When it ends, the leader gives to others what was acquired in it.

use std::collections::BTreeSet;

use super::member::Slot;

/// The epoch of a request that begins a session, and of one that ends it.
const FIRST_EPOCH: i32 = 0;
pub(super) const FINAL_EPOCH: i32 = -1;

/// What the leader at the other end remembers.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// Of the next request; 0 begins a session.
    epoch: i32,
    remembered: BTreeSet<Slot>,
}

/// What a fetch of the session says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SessionPart {
    pub(super) epoch: i32,
    pub(super) added: BTreeSet<Slot>,
    pub(super) forgotten: BTreeSet<Slot>,
}

impl Session {
    /// Whether the leader has one.
    pub(super) fn is_open(&self) -> bool {
        self.epoch != FIRST_EPOCH
    }

    /// Whether the leader was told to read a partition.
    pub(super) fn reads(&self, slot: &Slot) -> bool {
        self.remembered.contains(slot)
    }

    /// What the next fetch has to say so that the leader reads exactly what is wanted.
    pub(super) fn fetch(&mut self, wanted: &BTreeSet<Slot>) -> SessionPart {
        let before = std::mem::replace(&mut self.remembered, wanted.clone());
        SessionPart {
            epoch: self.epoch,
            added: wanted.difference(&before).copied().collect(),
            forgotten: before.difference(wanted).copied().collect(),
        }
    }

    /// The epoch of a request that only acknowledges.
    pub(super) fn acknowledge(&self) -> i32 {
        self.epoch
    }

    /// The request that was under way has been executed.
    pub(super) fn answered(&mut self) {
        self.epoch = self.epoch.checked_add(1).unwrap_or(1);
    }

    /// There is none any more.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Uuid;

    use super::*;

    fn slots(partitions: &[i32]) -> BTreeSet<Slot> {
        partitions.iter().map(|&partition| Slot { topic_id: Uuid::from_u128(1), partition }).collect()
    }

    fn part(epoch: i32, added: &[i32], forgotten: &[i32]) -> SessionPart {
        SessionPart { epoch, added: slots(added), forgotten: slots(forgotten) }
    }

    #[test]
    fn only_what_changed_is_named_and_every_request_has_its_epoch() {
        let mut session = Session::default();
        assert!(!session.is_open());
        assert_eq!(session.fetch(&slots(&[0, 1])), part(0, &[0, 1], &[]));
        assert!(!session.is_open());
        assert!(session.reads(slots(&[1]).first().unwrap()) && !session.reads(slots(&[2]).first().unwrap()));
        session.answered();
        assert!(session.is_open());
        assert_eq!(session.fetch(&slots(&[0, 1])), part(1, &[], &[]));
        session.answered();
        assert_eq!(session.acknowledge(), 2);
        session.answered();
        assert_eq!(session.fetch(&slots(&[1, 2])), part(3, &[2], &[0]));
        session.end();
        assert!(!session.is_open());
        assert_eq!(session.fetch(&slots(&[1])), part(0, &[1], &[]));
    }

    #[test]
    fn epochs_begin_again_at_one() {
        let mut session = Session { epoch: i32::MAX - 1, ..Session::default() };
        session.answered();
        assert_eq!(session.acknowledge(), i32::MAX);
        session.answered();
        assert_eq!(session.acknowledge(), 1);
    }
}
