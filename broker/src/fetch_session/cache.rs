//! All fetch sessions of the broker: how many there may be, which epoch comes next in each, and which goes when another
//! comes. What is in one is looked at and changed by who has taken it out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use klamm_protocol::ErrorCode;
use tokio::time::Instant;

use super::session::Session;

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
    /// Nothing while somebody has it.
    session: Option<Session>,
    by_id: bool,
    /// The epoch of the next request.
    epoch: i32,
    created: Instant,
    last_used: Instant,
    /// How many partitions are counted for it.
    size: usize,
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

    /// Begins a session of what the client was told just now. 0 when there is no room for it.
    pub(crate) fn begin(
        &mut self,
        session: Session,
        by_id: bool,
        now: Instant,
        mut random_id: impl FnMut() -> i32,
    ) -> i32 {
        let size = session.len();
        if !self.make_room(size, now) {
            return 0;
        }
        let mut id = random_id();
        while id <= 0 || self.kept.contains_key(&id) {
            id = random_id();
        }
        let kept = Kept { session: Some(session), by_id, epoch: 1, created: now, last_used: now, size: 0 };
        self.kept.insert(id, kept);
        self.touch(id, size, now);
        id
    }

    /// Takes a session out for its next step: what is done to a large one holds up nobody else. It is to be given back
    /// with [`Self::put_back`]; until then nobody else has it.
    ///
    /// # Errors
    /// There is no such session, another step comes next or is being taken, or it names topics otherwise.
    pub(crate) fn take(&mut self, id: i32, epoch: i32, by_id: bool) -> Result<Session, ErrorCode> {
        let kept = self.kept.get_mut(&id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if kept.epoch != epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if kept.by_id != by_id {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        let session = kept.session.take().ok_or(ErrorCode::InvalidFetchSessionEpoch)?;
        kept.epoch = after(epoch);
        Ok(session)
    }

    /// Takes back a session after a step. One without partitions is over.
    ///
    /// # Errors
    /// It has gone meanwhile, or has grown beyond what there is room for: then it is gone, and the client begins anew.
    pub(crate) fn put_back(
        &mut self,
        id: i32,
        epoch: i32,
        session: Session,
        now: Instant,
    ) -> Result<(), ErrorCode> {
        let size = session.len();
        let counted = self.put(id, epoch, session)?;
        let in_all = self.partitions - counted + size;
        let fits = size <= self.limits.partitions_of_one && in_all <= self.limits.partitions;
        if size == 0 || !fits {
            self.end(id);
            return if fits { Ok(()) } else { Err(ErrorCode::FetchSessionIdNotFound) };
        }
        self.touch(id, size, now);
        Ok(())
    }

    /// Takes a session out to tell the client of so many partitions what the step has found, as [`Self::take`] does. It
    /// is to be given back with [`Self::put_back_told`].
    ///
    /// # Errors
    /// The session is gone, or the client has taken another step meanwhile.
    pub(crate) fn take_to_tell(&mut self, id: i32, epoch: i32, count: usize) -> Result<Session, ErrorCode> {
        let kept = self.kept.get_mut(&id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if kept.epoch != after(epoch) || kept.size != count {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        kept.session.take().ok_or(ErrorCode::InvalidFetchSessionEpoch)
    }

    /// Takes back a session of which the client was told. One that has gone meanwhile is gone.
    pub(crate) fn put_back_told(&mut self, id: i32, epoch: i32, session: Session) {
        let _ = self.put(id, epoch, session);
    }

    /// Puts a session back where it was taken from; gives how many partitions are counted for it.
    fn put(&mut self, id: i32, epoch: i32, session: Session) -> Result<usize, ErrorCode> {
        let taken = |kept: &&mut Kept| kept.session.is_none() && kept.epoch == after(epoch);
        let kept = self.kept.get_mut(&id).filter(taken).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        kept.session = Some(session);
        Ok(kept.size)
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
    fn touch(&mut self, id: i32, size: usize, now: Instant) {
        let Some(kept) = self.kept.get_mut(&id) else { return };
        self.last_used.remove(&(kept.last_used, id));
        self.evictable.remove(&(kept.size, id));
        self.partitions -= kept.size;
        kept.last_used = now;
        kept.size = size;
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
