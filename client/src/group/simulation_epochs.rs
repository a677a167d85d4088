//! A small model of a coordinator that assigns by itself (KIP-848), for `simulation.rs`: a partition goes to its new
//! owner only when the old one has told that it is free, or is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::ErrorCode;
use tokio::time::Instant;

use super::event::Beat;
use crate::types::TopicPartition;

type Partitions = BTreeSet<TopicPartition>;

#[derive(Debug)]
pub(super) struct Seat {
    pub(super) node: usize,
    epoch: i32,
    session_end: Instant,
    /// What it was told to own last.
    told: Partitions,
    /// What it may be reading.
    held: Partitions,
}

#[derive(Debug, Default)]
pub(super) struct EpochCoordinator {
    pub(super) seats: BTreeMap<Arc<str>, Seat>,
    epoch: i32,
    /// When somebody was dropped for silence, and who.
    pub(super) expelled: Vec<(Instant, usize)>,
}

/// What one heartbeat says.
pub(super) struct Said {
    pub(super) node: usize,
    pub(super) member_id: Arc<str>,
    pub(super) epoch: i32,
    pub(super) full: bool,
    pub(super) owned: Option<Vec<TopicPartition>>,
}

impl EpochCoordinator {
    /// Whose each partition is to be: dealt out in turn.
    fn target(&self, id: &str, count: i32) -> Partitions {
        let members = self.seats.len().max(1);
        let place = self.seats.keys().position(|other| **other == *id).unwrap_or(0);
        (0..count)
            .filter(|at| *at as usize % members == place)
            .map(|at| TopicPartition::new("t", at))
            .collect()
    }

    pub(super) fn beat(
        &mut self,
        said: Said,
        count: i32,
        (session, interval): (Duration, Duration),
        now: Instant,
    ) -> Result<Beat, ErrorCode> {
        let id = Arc::clone(&said.member_id);
        if said.epoch == 0 {
            assert!(said.full, "a join tells everything");
            self.epoch += 1;
            let (told, held) = (Partitions::new(), Partitions::new());
            let seat = Seat { node: said.node, epoch: self.epoch, session_end: now, told, held };
            self.seats.insert(Arc::clone(&id), seat);
        }
        let target = self.target(&id, count);
        let others: Partitions = self
            .seats
            .iter()
            .filter(|(other, _)| **other != id)
            .flat_map(|(_, seat)| seat.held.iter().cloned())
            .collect();
        let epoch = self.epoch;
        let seat = self.seats.get_mut(&id).ok_or(ErrorCode::UnknownMemberId)?;
        if said.epoch != 0 && said.epoch != seat.epoch {
            // An answer may have been lost: the epoch before is taken with everything told.
            if !said.full {
                return Err(ErrorCode::FencedMemberEpoch);
            }
        }
        seat.session_end = now + session;
        if let Some(owned) = said.owned {
            seat.held = owned.into_iter().collect();
        }
        let revokes = seat.held.iter().any(|partition| !target.contains(partition));
        let next: Partitions = match revokes {
            true => seat.held.intersection(&target).cloned().collect(),
            false => target.difference(&others).cloned().collect(),
        };
        let changed = next != seat.told;
        // What it is told to own it may be reading from now on; what it gives up it still does.
        seat.held.extend(next.iter().cloned());
        seat.told = next;
        seat.epoch = epoch;
        let assignment = (changed || said.full).then(|| seat.told.iter().cloned().collect());
        Ok(Beat { member_id: id, epoch, interval, assignment })
    }

    pub(super) fn leave(&mut self, id: &str) {
        if self.seats.remove(id).is_some() {
            self.epoch += 1;
        }
    }

    pub(super) fn tick(&mut self, now: Instant) {
        let silent: Vec<Arc<str>> = self
            .seats
            .iter()
            .filter(|(_, seat)| seat.session_end <= now)
            .map(|(id, _)| Arc::clone(id))
            .collect();
        for id in silent {
            self.expelled.extend(self.seats.get(&id).map(|seat| (now, seat.node)));
            self.leave(&id);
        }
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.seats.values().map(|seat| seat.session_end).min()
    }
}
