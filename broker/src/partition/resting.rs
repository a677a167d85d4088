//! Logs that could not be compacted just now, and until when each is left alone: also while there are others to
//! compact. Pure.

use std::collections::{BTreeSet, VecDeque};

use tokio::time::Instant;

use super::log_dir::Key;

/// Those that are left alone.
#[derive(Debug, Default)]
pub(super) struct Resting {
    until: VecDeque<(Instant, Key)>,
    keys: BTreeSet<Key>,
}

impl Resting {
    /// Leaves a log alone until then.
    pub(super) fn add(&mut self, key: Key, until: Instant) {
        if self.keys.insert(key.clone()) {
            self.until.push_back((until, key));
        }
    }

    /// Lets those go whose time is over.
    pub(super) fn wake(&mut self, now: Instant) {
        while self.until.front().is_some_and(|(until, _)| *until <= now) {
            if let Some((_, key)) = self.until.pop_front() {
                self.keys.remove(&key);
            }
        }
    }

    pub(super) fn keys(&self) -> &BTreeSet<Key> {
        &self.keys
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// As long as there was another log to compact, one that had failed was never tried again.
    #[test]
    fn each_rests_for_its_own_time() {
        let (start, mut resting) = (Instant::now(), Resting::default());
        let at = |ms| start + Duration::from_millis(ms);
        let key = |index| ("t".to_owned(), index);
        let resting_at = |resting: &mut Resting, ms| {
            resting.wake(at(ms));
            resting.keys().iter().map(|(_, index)| *index).collect::<Vec<_>>()
        };
        resting.add(key(0), at(100));
        resting.add(key(1), at(150));
        resting.add(key(0), at(900));
        assert_eq!(resting_at(&mut resting, 99), [0, 1]);
        assert_eq!(resting_at(&mut resting, 100), [1]);
        resting.add(key(0), at(200));
        assert_eq!(resting_at(&mut resting, 150), [0]);
        assert_eq!(resting_at(&mut resting, 200), [0; 0]);
    }
}
