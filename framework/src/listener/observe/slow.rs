//! Calls of handlers that take long: found by looking now and then whether a worker is still at the same call. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// What was seen of each worker the last time.
#[derive(Debug, Default)]
pub(crate) struct Slow(Vec<Option<Seen>>);

#[derive(Debug, Clone, Copy)]
struct Seen {
    call: u64,
    since: Instant,
    told: bool,
}

/// A call that has been running for long, seen as that for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlowCall {
    pub(crate) worker: usize,
    /// At least.
    pub(crate) running: Duration,
}

impl Slow {
    /// Looks at what each worker is at. Gives how many calls have been running for `after`, and those among them that
    /// were not told yet.
    pub(crate) fn look(
        &mut self,
        running: &[Option<u64>],
        after: Duration,
        now: Instant,
    ) -> (usize, Vec<SlowCall>) {
        self.0.resize(running.len(), None);
        let (mut slow, mut new) = (0, Vec::new());
        for (worker, (seen, call)) in self.0.iter_mut().zip(running).enumerate() {
            let Some(call) = *call else {
                *seen = None;
                continue;
            };
            let seen = seen.get_or_insert(Seen { call, since: now, told: false });
            if seen.call != call {
                *seen = Seen { call, since: now, told: false };
            }
            let running = now.duration_since(seen.since);
            if running < after {
                continue;
            }
            slow += 1;
            if !std::mem::replace(&mut seen.told, true) {
                new.push(SlowCall { worker, running });
            }
        }
        (slow, new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_slow_when_it_is_the_same_for_long_and_is_told_once() {
        let (start, after) = (Instant::now(), Duration::from_secs(30));
        let mut slow = Slow::default();
        let mut look = |running: &[Option<u64>], at_s: u64| {
            let (count, new) = slow.look(running, after, start + Duration::from_secs(at_s));
            (count, new.iter().map(|call| (call.worker, call.running.as_secs())).collect::<Vec<_>>())
        };
        assert_eq!(look(&[Some(1), None], 0), (0, vec![]));
        assert_eq!(look(&[Some(1), Some(1)], 29), (0, vec![]));
        assert_eq!(look(&[Some(1), Some(1)], 30), (1, vec![(0, 30)]));
        assert_eq!(look(&[Some(1), Some(3)], 31), (1, vec![]), "told already");
        assert_eq!(look(&[None, Some(3)], 60), (0, vec![]), "another call began at 31");
        assert_eq!(look(&[Some(3), Some(3)], 61), (1, vec![(1, 30)]));
        assert_eq!(look(&[], 62), (0, vec![]));
    }
}
