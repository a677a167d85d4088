//! All fetch sessions of the broker: how many there may be, which epoch comes next in each, and which goes when another
//! comes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use klamm_protocol::ErrorCode;
use tokio::time::Instant;

use super::session::{Found, Place, Session, Wanted};

/// A session that was not used for so long goes when another comes, as in Kafka; so does a smaller one that is older.
const STALE_AFTER: Duration = Duration::from_secs(120);

/// What sessions may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionLimits {
    /// How many there may be.
    pub(crate) sessions: usize,
    /// Partitions in all of them together.
    pub(crate) partitions: usize,
    /// Partitions in one.
    pub(crate) partitions_of_one: usize,
}

/// The sessions.
#[derive(Debug)]
pub(crate) struct FetchSessions {
    limits: SessionLimits,
    kept: BTreeMap<i32, Kept>,
    last_used: BTreeSet<(Instant, i32)>,
    /// Those that are old enough to go for a larger one, with their sizes.
    evictable: BTreeSet<(usize, i32)>,
    partitions: usize,
}

#[derive(Debug)]
struct Kept {
    session: Session,
    by_id: bool,
    /// The epoch of the next request.
    epoch: i32,
    created: Instant,
    last_used: Instant,
    /// How many partitions are counted for it.
    size: usize,
}

/// The next request of a session.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) session_id: i32,
    pub(crate) epoch: i32,
    /// Whether topics are named by id.
    pub(crate) by_id: bool,
    /// Partitions to be added, or of which something else is wanted.
    pub(crate) changed: Vec<(Place, Wanted)>,
    pub(crate) forgotten: Vec<Place>,
}

impl FetchSessions {
    pub(crate) fn new(limits: SessionLimits) -> Self {
        Self {
            limits,
            kept: BTreeMap::new(),
            last_used: BTreeSet::new(),
            evictable: BTreeSet::new(),
            partitions: 0,
        }
    }

    /// Begins a session of these partitions, of which the client was told what was found, each once and in this order.
    /// 0 when there is no room for it.
    pub(crate) fn begin(
        &mut self,
        partitions: Vec<(Place, Wanted, Found)>,
        by_id: bool,
        now: Instant,
        mut random_id: impl FnMut() -> i32,
    ) -> i32 {
        let mut session = Session::default();
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
        let size = session.len();
        if !self.make_room(size, now) {
            return 0;
        }
        let mut id = random_id();
        while id <= 0 || self.kept.contains_key(&id) {
            id = random_id();
        }
        self.kept.insert(id, Kept { session, by_id, epoch: 1, created: now, last_used: now, size: 0 });
        self.touch(id, now);
        id
    }

    /// Takes the next step in a session. What is to be looked at now, in its order; nothing when no partition is left,
    /// and with it no session.
    ///
    /// # Errors
    /// There is no such session, another step comes next, or it names topics otherwise. Also when it has grown beyond
    /// what there is room for: then it is gone, and the client begins anew.
    pub(crate) fn step(&mut self, step: Step, now: Instant) -> Result<Vec<(Place, Wanted)>, ErrorCode> {
        let id = step.session_id;
        let kept = self.kept.get_mut(&id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if kept.epoch != step.epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if kept.by_id != step.by_id {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        for (place, wanted) in step.changed {
            kept.session.set(place, wanted);
        }
        for place in &step.forgotten {
            kept.session.forget(place);
        }
        let (wanted, size, counted) = (kept.session.wanted(), kept.session.len(), kept.size);
        kept.epoch = after(kept.epoch);
        let in_all = self.partitions - counted + size;
        let fits = size <= self.limits.partitions_of_one && in_all <= self.limits.partitions;
        if size == 0 || !fits {
            self.end(id);
            return if fits { Ok(wanted) } else { Err(ErrorCode::FetchSessionIdNotFound) };
        }
        self.touch(id, now);
        Ok(wanted)
    }

    /// Takes in what a step has found in every partition, in their order, and says of which the client has to be told.
    ///
    /// # Errors
    /// The session is gone, or the client has taken another step meanwhile.
    pub(crate) fn told(&mut self, id: i32, epoch: i32, found: &[Found]) -> Result<Vec<bool>, ErrorCode> {
        let kept = self.kept.get_mut(&id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if kept.epoch != after(epoch) || kept.session.len() != found.len() {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        Ok(kept.session.tell(found))
    }

    /// Ends a session, if there is such a one.
    pub(crate) fn end(&mut self, id: i32) {
        if let Some(kept) = self.kept.remove(&id) {
            self.last_used.remove(&(kept.last_used, id));
            self.evictable.remove(&(kept.size, id));
            self.partitions -= kept.size;
        }
    }

    /// How many sessions there are, and how many partitions are in them.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.kept.len(), self.partitions)
    }

    /// As if the client had taken many steps.
    #[cfg(test)]
    pub(super) fn set_epoch(&mut self, id: i32, epoch: i32) {
        self.kept.entry(id).and_modify(|kept| kept.epoch = epoch);
    }

    /// Whether there is room for one more of this size, by letting another go if need be.
    fn make_room(&mut self, size: usize, now: Instant) -> bool {
        if size > self.limits.partitions_of_one {
            return false;
        }
        while self.partitions + size > self.limits.partitions {
            if !self.end_stale(now) {
                return false;
            }
        }
        self.kept.len() < self.limits.sessions || self.end_stale(now) || self.end_smaller(size)
    }

    fn end_stale(&mut self, now: Instant) -> bool {
        let stale = self.last_used.first().filter(|(used, _)| now.duration_since(*used) > STALE_AFTER);
        let stale = stale.map(|(_, id)| *id);
        stale.map(|id| self.end(id)).is_some()
    }

    fn end_smaller(&mut self, size: usize) -> bool {
        let smaller = self.evictable.first().filter(|(smallest, _)| *smallest < size).map(|(_, id)| *id);
        smaller.map(|id| self.end(id)).is_some()
    }

    /// Counts a session as it is now.
    fn touch(&mut self, id: i32, now: Instant) {
        let Some(kept) = self.kept.get_mut(&id) else { return };
        self.last_used.remove(&(kept.last_used, id));
        self.evictable.remove(&(kept.size, id));
        self.partitions -= kept.size;
        kept.last_used = now;
        kept.size = kept.session.len();
        self.partitions += kept.size;
        self.last_used.insert((now, id));
        if now.duration_since(kept.created) > STALE_AFTER {
            self.evictable.insert((kept.size, id));
        }
    }
}

/// The epoch after this one. 0 begins a session, so that it does not come again.
fn after(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}
