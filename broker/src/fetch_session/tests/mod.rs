//! Fetch sessions as clients see them: rules one by one (`rules`), and random histories against a model (`histories`).

mod histories;
mod rules;

use klamm_protocol::ErrorCode;
use tokio::time::Instant;

use super::*;

/// The next request of a session.
struct Step {
    session_id: i32,
    epoch: i32,
    by_id: bool,
    /// Partitions to be added, or of which something else is wanted.
    changed: Vec<(Place, Wanted)>,
    forgotten: Vec<Place>,
}

/// As requests go through them.
impl FetchSessions {
    fn step(&mut self, step: Step, now: Instant) -> Result<Vec<(Place, Wanted)>, ErrorCode> {
        let mut session = self.take(step.session_id, step.epoch, step.by_id)?;
        step.changed.into_iter().for_each(|(place, wanted)| session.set(place, wanted));
        step.forgotten.iter().for_each(|place| session.forget(place));
        let wanted = session.wanted();
        self.put_back(step.session_id, step.epoch, session, now)?;
        Ok(wanted)
    }

    fn told(&mut self, id: i32, epoch: i32, found: &[Found]) -> Result<Vec<bool>, ErrorCode> {
        let mut session = self.take_to_tell(id, epoch, found.len())?;
        let told = session.tell(found);
        self.put_back_told(id, epoch, session);
        Ok(told)
    }
}
