//! `Flow`: partitions come, are held, and go; what may be committed of them. Pure.

use klamm_client::TopicPartition;

use super::part::Part;
use super::record::{PartId, Payload, Tell, Ticket};
use super::state::Flow;

/// An offset that may be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Safe {
    pub(crate) part: PartId,
    pub(crate) place: TopicPartition,
    pub(crate) offset: i64,
    epoch: u64,
}

/// How much is in hand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) unfinished: usize,
    pub(crate) in_retry: usize,
    /// What comes again if the process ends now.
    pub(crate) kept: usize,
}

impl<T: Payload> Flow<T> {
    /// Partitions are assigned; while the listener ends, none are.
    pub(crate) fn assign(&mut self, places: &[TopicPartition]) -> Vec<Tell> {
        if self.draining {
            return Vec::new();
        }
        let mut tells = Vec::new();
        for place in places {
            let id = self.add(place.clone());
            self.by_place.insert(place.clone(), id);
            let by_user = self.all_paused || self.places_paused.contains(place);
            if let Some(part) = self.part_mut(id) {
                part.held.by_user = by_user;
                tells.extend(part.tell());
            }
        }
        tells
    }

    /// Takes partitions out: nothing more is queued or begun in them, and their last commits are still to come.
    pub(crate) fn remove(&mut self, places: &[TopicPartition]) -> Vec<PartId> {
        let removed: Vec<_> = places.iter().filter_map(|place| self.by_place.remove(place)).collect();
        removed.iter().for_each(|id| self.close(*id));
        removed
    }

    /// From here on nothing new is begun, in any partition. Gives those that nobody else has: also what is about to go,
    /// and waits for what is in work.
    pub(crate) fn close_all(&mut self) -> Vec<PartId> {
        self.draining = true;
        let all = self.own();
        all.iter().for_each(|id| self.close(*id));
        all
    }

    /// Nothing new is begun from here on, and waits are over. What runs goes on.
    pub(crate) fn close(&mut self, id: PartId) {
        if let Some(part) = self.part_mut(id) {
            part.close();
            self.endings += 1;
        }
        self.count_gathered(id);
    }

    /// Counts the times that partitions were closed or moved.
    pub(crate) fn endings(&self) -> u64 {
        self.endings
    }

    /// The last commit is done, or is not ours to do: nothing that finishes from here on counts.
    pub(crate) fn give_up(&mut self, id: PartId) {
        self.close(id);
        if let Some(part) = self.part_mut(id) {
            part.gone = true;
        }
        self.forget_if_over(id);
    }

    /// Whether another member may have the partition.
    pub(crate) fn is_gone(&self, id: PartId) -> bool {
        self.part(id).is_none_or(|part| part.gone)
    }

    /// Whether the partition is assigned, and not about to go.
    pub(crate) fn is_assigned(&self, id: PartId) -> bool {
        self.part(id).is_some_and(|part| self.by_place.get(&part.place) == Some(&id))
    }

    /// Whether more of the partition may be begun: it is neither closed nor held.
    pub(crate) fn runs(&self, id: PartId) -> bool {
        self.part(id).is_some_and(Part::runs)
    }

    pub(crate) fn is_closed(&self, id: PartId) -> bool {
        self.part(id).is_none_or(|part| part.closed)
    }

    /// Whether nothing of the partition is in work, or nobody needs to wait for it.
    pub(crate) fn is_idle(&self, id: PartId) -> bool {
        self.part(id).is_none_or(|part| part.gone || part.open == 0)
    }

    /// Where records of this partition go; `None` when it is not assigned (any more).
    pub(crate) fn id(&self, place: &TopicPartition) -> Option<PartId> {
        self.by_place.get(place).copied()
    }

    pub(crate) fn ids(&self) -> Vec<PartId> {
        self.by_place.values().copied().collect()
    }

    pub(crate) fn places(&self) -> Vec<TopicPartition> {
        self.by_place.keys().cloned().collect()
    }

    pub(crate) fn place(&self, id: PartId) -> Option<&TopicPartition> {
        self.part(id).map(|part| &part.place)
    }

    /// One more piece of open work: an output, or an acknowledgement that somebody holds.
    pub(crate) fn open(&mut self, id: PartId) {
        if let Some(part) = self.part_mut(id) {
            part.open += 1;
        }
    }

    /// A piece of open work is over.
    pub(crate) fn shut(&mut self, id: PartId) {
        if let Some(part) = self.part_mut(id) {
            part.open -= 1;
        }
        self.forget_if_over(id);
    }

    /// Whether a full partition has room again, or is not asked for any more.
    pub(crate) fn has_room(&self, id: PartId) -> bool {
        let (among, budget) = (self.by_place.len(), self.rules.budget);
        self.part(id).is_none_or(|part| part.closed || budget.is_half_empty(among, &part.ledger))
    }

    /// Whether it is worth waiting a moment for room, before the partition is paused. [`Flow::finish`] says when there
    /// is.
    pub(crate) fn await_room(&mut self, id: PartId) -> bool {
        let Some(part) = self.part_mut(id) else { return false };
        part.waited_for = part.is_worth_waiting();
        part.waited_for
    }

    /// A partition that has its share is not read any more, until half of that is done.
    pub(crate) fn hold_if_full(&mut self, id: PartId, in_vain: bool) -> Option<Tell> {
        let has_room = self.has_room(id);
        let part = self.part_mut(id)?;
        if in_vain && !has_room {
            part.waited_in_vain();
        }
        part.waited_for = false;
        part.held.full = !has_room;
        part.tell()
    }

    /// Partitions that are held because they have their share are read on if it has grown.
    pub(crate) fn use_room(&mut self) -> Vec<Tell> {
        let (among, budget) = (self.by_place.len(), self.rules.budget);
        let mut tells = Vec::new();
        for id in self.ids() {
            if let Some(part) = self.part_mut(id)
                && part.held.full
                && budget.is_half_empty(among, &part.ledger)
            {
                part.held.full = false;
                tells.extend(part.tell());
            }
        }
        tells
    }

    /// Begins nothing with any partition, or with this one, until [`Flow::resume`]; also after it went and came.
    pub(crate) fn pause(&mut self, place: Option<&TopicPartition>) -> Vec<Tell> {
        match place {
            Some(place) => drop(self.places_paused.insert(place.clone())),
            None => self.all_paused = true,
        }
        self.apply_pauses()
    }

    /// Undoes [`Flow::pause`] of the same.
    pub(crate) fn resume(&mut self, place: Option<&TopicPartition>) -> Vec<Tell> {
        match place {
            Some(place) => drop(self.places_paused.remove(place)),
            None => self.all_paused = false,
        }
        self.apply_pauses()
    }

    fn apply_pauses(&mut self) -> Vec<Tell> {
        let mut tells = Vec::new();
        for id in self.ids() {
            let all = self.all_paused;
            let by_user = self.place(id).is_some_and(|place| all || self.places_paused.contains(place));
            if let Some(part) = self.part_mut(id) {
                part.held.by_user = by_user;
                tells.extend(part.tell());
            }
            self.queue(id);
        }
        tells
    }

    /// Whether somebody paused all partitions, or this one.
    pub(crate) fn is_paused(&self, place: Option<&TopicPartition>) -> bool {
        self.all_paused || place.is_some_and(|place| self.places_paused.contains(place))
    }

    /// An output of the partition cannot be sent: nothing more is begun until it can.
    pub(crate) fn halt(&mut self, id: PartId) -> Option<Tell> {
        let part = self.part_mut(id)?;
        part.held.by_outputs += 1;
        let tell = part.tell();
        self.count_gathered(id);
        tell
    }

    /// It can.
    pub(crate) fn unhalt(&mut self, id: PartId) -> Option<Tell> {
        let part = self.part_mut(id)?;
        part.held.by_outputs -= 1;
        let tell = part.tell();
        self.queue(id);
        tell
    }

    /// The position is moved: what was delivered before counts for nothing, and what waited is dropped.
    pub(crate) fn restart(&mut self, id: PartId) -> Option<Tell> {
        self.endings += 1;
        let part = self.part_mut(id)?;
        part.restart();
        let tell = part.tell();
        self.count_gathered(id);
        tell
    }

    /// After [`Flow::restart`]: the place that was moved to is known, and no record came from there yet.
    pub(crate) fn stands_at(&mut self, id: PartId, offset: i64) {
        if let Some(part) = self.part_mut(id).filter(|part| !part.closed) {
            part.ledger.stands_at(offset);
        }
    }

    /// What may be committed of these partitions; of those where nothing is new, nothing.
    pub(crate) fn committable(&self, ids: &[PartId]) -> Vec<Safe> {
        let safe = ids.iter().filter_map(|id| {
            let part = self.part(*id).filter(|part| !part.gone)?;
            let (offset, epoch) = (part.ledger.committable()?, part.ledger.epoch());
            Some(Safe { part: *id, place: part.place.clone(), offset, epoch })
        });
        safe.collect()
    }

    /// What may be committed together with the end of these deliveries, which are of one partition and come by rising
    /// offset. `None`: one of them counts for nothing any more.
    pub(crate) fn committable_with(&self, id: PartId, tickets: &[Ticket]) -> Option<Safe> {
        let part = self.part(id).filter(|part| !part.gone)?;
        let entries: Vec<_> = tickets.iter().map(|ticket| ticket.entry).collect();
        let (offset, epoch) = (part.ledger.committable_with(&entries)?, part.ledger.epoch());
        Some(Safe { part: id, place: part.place.clone(), offset, epoch })
    }

    /// Whether the partition was moved, and the place is not committed yet.
    pub(crate) fn is_moved(&self, id: PartId) -> bool {
        self.part(id).is_some_and(|part| part.ledger.is_moved())
    }

    /// Whether the partition was neither moved nor lost since this was safe to commit.
    pub(crate) fn is_current(&self, safe: &Safe) -> bool {
        self.part(safe.part).is_some_and(|part| !part.gone && part.ledger.epoch() == safe.epoch)
    }

    /// The broker took these commits.
    pub(crate) fn committed(&mut self, safe: &[Safe]) {
        for Safe { part, offset, epoch, .. } in safe {
            if let Some(part) = self.part_mut(*part).filter(|part| part.ledger.epoch() == *epoch) {
                part.ledger.committed(*offset);
            }
        }
    }

    /// After [`Flow::close`]: the offsets that were begun with and not finished.
    pub(crate) fn begun_and_unfinished(&self, id: PartId) -> Vec<i64> {
        self.part(id).map(Part::begun_and_unfinished).unwrap_or_default()
    }

    /// How much of the assigned partitions is in hand.
    pub(crate) fn load(&self) -> Load {
        let mut load = Load::default();
        for part in self.by_place.values().filter_map(|id| self.part(*id)) {
            load.unfinished += part.ledger.unfinished();
            load.in_retry += part.ledger.in_retry();
            load.kept += part.ledger.kept();
        }
        load
    }
}
