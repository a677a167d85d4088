//! When a member must send heartbeats, and when it must take itself for expelled. Pure: it is told the time.
//!
//! The deadlines here move by heartbeats and their answers alone: nothing else that a member does, waits for or
//! hears of puts a heartbeat off.

use std::time::Duration;

use tokio::time::Instant;

/// A heartbeat under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) attempt: u64,
    /// The generation or epoch that it was sent for.
    pub(super) generation: i32,
    pub(super) at: Instant,
}

/// The pulse of one membership.
#[derive(Debug)]
pub(super) struct Heart {
    interval: Duration,
    session: Duration,
    due: Instant,
    sent: Option<Sent>,
    /// From then on the coordinator may have expelled this member.
    alive_until: Instant,
}

impl Heart {
    /// The coordinator has just counted this member in.
    pub(super) fn new(interval: Duration, session: Duration, now: Instant) -> Self {
        Self { interval, session, due: now + interval, sent: None, alive_until: now + session }
    }

    /// The coordinator heard of this member at `at` or later.
    pub(super) fn renew(&mut self, at: Instant) {
        self.alive_until = self.alive_until.max(at + self.session);
    }

    /// The coordinator wishes for another interval. It does not know how long this member takes itself for alive.
    pub(super) fn set_interval(&mut self, interval: Duration, now: Instant) {
        self.interval = interval.min(self.session / 2);
        self.due = self.due.min(now + self.interval);
    }

    /// One is to be sent at that instant at the latest.
    pub(super) fn hurry(&mut self, at: Instant) {
        self.due = self.due.min(at);
    }

    /// Not before that instant: the last one was refused.
    pub(super) fn pause(&mut self, until: Instant) {
        self.due = until;
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.sent.is_none() && now >= self.due
    }

    pub(super) fn send(&mut self, attempt: u64, generation: i32, now: Instant) {
        self.sent = Some(Sent { attempt, generation, at: now });
        self.due = now + self.interval;
    }

    /// Gives the heartbeat that this answers, unless it was given up.
    pub(super) fn answered(&mut self, attempt: u64) -> Option<Sent> {
        self.sent.take_if(|sent| sent.attempt == attempt)
    }

    /// How long an answer is waited for: half of the session, so that another heartbeat can save it.
    pub(super) fn patience(session: Duration) -> Duration {
        session / 2
    }

    /// Gives up a heartbeat that was not answered in time; returns whether there was one.
    pub(super) fn give_up(&mut self, now: Instant) -> bool {
        let patience = Self::patience(self.session);
        self.sent.take_if(|sent| now >= sent.at + patience).is_some()
    }

    /// From then on the coordinator may have expelled this member.
    pub(super) fn alive_until(&self) -> Instant {
        self.alive_until
    }

    pub(super) fn is_expelled(&self, now: Instant) -> bool {
        now >= self.alive_until
    }

    /// When something is to be done that nobody else asks for. Without a coordinator nothing can be sent.
    pub(super) fn wake_at(&self, can_send: bool) -> Instant {
        let next = match self.sent {
            Some(sent) => Some(sent.at + Self::patience(self.session)),
            None => Some(self.due).filter(|_| can_send),
        };
        next.map_or(self.alive_until, |next| next.min(self.alive_until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(3);
    const SESSION: Duration = Duration::from_secs(10);
    const TICK: Duration = Duration::from_nanos(1);

    fn heart() -> (Heart, Instant) {
        let now = Instant::now();
        (Heart::new(INTERVAL, SESSION, now), now)
    }

    #[test]
    fn one_is_due_after_every_interval_and_one_is_under_way() {
        let (mut heart, now) = heart();
        assert!(!heart.is_due(now + INTERVAL - TICK));
        assert!(heart.is_due(now + INTERVAL));
        assert_eq!((heart.wake_at(true), heart.wake_at(false)), (now + INTERVAL, now + SESSION));
        heart.send(7, 2, now + INTERVAL);
        assert!(!heart.is_due(now + 9 * INTERVAL));
        assert_eq!(heart.answered(6), None);
        assert_eq!(heart.answered(7), Some(Sent { attempt: 7, generation: 2, at: now + INTERVAL }));
        assert_eq!(heart.answered(7), None);
        assert!(!heart.is_due(now + 2 * INTERVAL - TICK));
        assert!(heart.is_due(now + 2 * INTERVAL));
    }

    #[test]
    fn a_session_counts_from_the_last_heartbeat_that_was_answered() {
        let (mut heart, now) = heart();
        assert!(!heart.is_expelled(now + SESSION - TICK));
        assert!(heart.is_expelled(now + SESSION));
        heart.renew(now + INTERVAL);
        assert!(!heart.is_expelled(now + INTERVAL + SESSION - TICK));
        heart.renew(now);
        assert!(!heart.is_expelled(now + INTERVAL + SESSION - TICK), "never earlier");
        assert!(heart.is_expelled(now + INTERVAL + SESSION));
    }

    /// In the protocol of KIP-848 the session is the broker's and the coordinator names the interval; with a longer one
    /// the member would take itself for expelled between two heartbeats.
    #[test]
    fn an_interval_beyond_the_session_is_not_followed() {
        let (mut heart, now) = heart();
        heart.set_interval(2 * SESSION, now);
        heart.send(1, 1, now + INTERVAL);
        heart.answered(1).unwrap();
        heart.set_interval(2 * SESSION, now + INTERVAL);
        heart.renew(now + INTERVAL);
        let due = now + INTERVAL + SESSION / 2;
        assert_eq!(heart.wake_at(true), due);
        assert!(heart.is_due(due) && !heart.is_due(due - TICK) && !heart.is_expelled(due));
        heart.set_interval(Duration::from_secs(u64::from(u32::MAX)), due);
        assert_eq!(heart.wake_at(true), due);
    }

    #[test]
    fn an_answer_is_waited_for_half_a_session() {
        let (mut heart, now) = heart();
        assert!(!heart.give_up(now + SESSION));
        heart.send(1, 1, now + INTERVAL);
        let late = now + INTERVAL + SESSION / 2;
        assert_eq!((heart.wake_at(true), heart.wake_at(false)), (late, late));
        assert!(!heart.give_up(late - TICK));
        assert!(heart.give_up(late));
        assert!(!heart.give_up(late));
        assert_eq!(heart.answered(1), None, "it came too late");
        heart.send(2, 1, now + SESSION);
        assert_eq!(heart.wake_at(true), now + SESSION, "the end of the session comes first");
    }

    #[test]
    fn the_time_of_the_next_one_moves() {
        let (mut heart, now) = heart();
        heart.hurry(now + INTERVAL * 2);
        assert!(heart.is_due(now + INTERVAL), "never later");
        heart.hurry(now);
        assert!(heart.is_due(now));
        heart.pause(now + TICK);
        assert!(!heart.is_due(now));
        assert!(heart.is_due(now + TICK));
        heart.pause(now + 9 * INTERVAL);
        heart.set_interval(INTERVAL / 3, now + TICK);
        assert!(!heart.is_due(now + INTERVAL / 3));
        assert!(heart.is_due(now + TICK + INTERVAL / 3));
        heart.send(1, 1, now);
        heart.answered(1);
        assert!(heart.is_due(now + INTERVAL / 3));
    }
}
