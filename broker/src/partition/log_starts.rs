//! Who waits for it that the beginnings of logs are written down: before anybody is told of one, or sees it.
//!
//! The checkpoint of a log directory names where each of its logs begins, and is written as a whole. Who waits for it
//! has a number; what is written tells all numbers that were given before it was begun, so that many share one write.

use tokio::sync::watch;

use crate::log::StorageError;

/// Who waits until the beginnings of the logs in a directory are written down.
#[derive(Debug, Default)]
pub(super) struct LogStarts(watch::Sender<Told>);

#[derive(Debug, Default)]
struct Told {
    /// The last number that was given.
    asked: u64,
    /// The last number for which it is written whether or not anything has changed.
    anew: u64,
    /// What these asked for is durable.
    written: u64,
    /// The last that was tried in vain, and why.
    failed: Option<(u64, StorageError)>,
    /// Nothing is written any more.
    ended: bool,
}

impl Told {
    fn of(&self, number: u64) -> Option<Result<(), StorageError>> {
        match &self.failed {
            _ if self.written >= number => Some(Ok(())),
            Some((failed, why)) if *failed >= number => Some(Err(why.clone())),
            _ if self.ended => Some(Err(StorageError::new("the broker is stopping"))),
            _ => None,
        }
    }

    /// Of everything up to this number it was told what came of it.
    fn decided(&self) -> u64 {
        self.failed.as_ref().map_or(0, |(number, _)| *number).max(self.written)
    }
}

impl LogStarts {
    /// A number to wait with; what it is about has to be said where the next checkpoint finds it by now.
    pub(super) fn ask(&self) -> u64 {
        let mut number = 0;
        self.0.send_if_modified(|told| {
            told.asked += 1;
            number = told.asked;
            false
        });
        number
    }

    /// As [`Self::ask`], also where nothing has changed.
    pub(super) fn ask_anew(&self) -> u64 {
        let number = self.ask();
        self.0.send_if_modified(|told| {
            told.anew = told.anew.max(number);
            false
        });
        number
    }

    /// Waits until it is written down what the number is about.
    pub(super) async fn written(&self, number: u64) -> Result<(), StorageError> {
        let mut told = self.0.subscribe();
        let told = told.wait_for(|told| told.of(number).is_some()).await;
        told.ok().and_then(|told| told.of(number)).unwrap_or(Ok(()))
    }

    /// The last number that a checkpoint which is begun now tells.
    pub(super) fn asked(&self) -> u64 {
        self.0.borrow().asked
    }

    /// Whether a number was given for which no checkpoint was begun.
    pub(super) fn is_behind(&self) -> bool {
        let told = self.0.borrow();
        told.asked > told.decided()
    }

    /// Whether the checkpoint is to be written though nothing has changed.
    pub(super) fn is_wanted_anew(&self) -> bool {
        let told = self.0.borrow();
        told.anew > told.decided()
    }

    /// What came of a checkpoint for everything up to a number.
    pub(super) fn tell(&self, number: u64, written: Result<(), StorageError>) {
        self.0.send_modify(|told| match written {
            Ok(()) => told.written = told.written.max(number),
            Err(why) => told.failed = Some((number, why)),
        });
    }

    /// Nothing is written any more.
    pub(super) fn end(&self) {
        self.0.send_modify(|told| told.ended = true);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn told(starts: &LogStarts, number: u64) -> Option<Result<(), String>> {
        let told = starts.written(number).now_or_never()?;
        Some(told.map_err(|error| error.to_string()))
    }

    #[test]
    fn a_write_tells_those_who_asked_before_it_began() {
        let starts = LogStarts::default();
        assert!(!starts.is_behind() && !starts.is_wanted_anew());
        let (first, second) = (starts.ask(), starts.ask());
        assert!(starts.is_behind());
        let begun = starts.asked();
        let third = starts.ask();
        starts.tell(begun, Ok(()));
        assert_eq!((told(&starts, first), told(&starts, second)), (Some(Ok(())), Some(Ok(()))));
        assert_eq!((told(&starts, third), starts.is_behind()), (None, true));
        starts.tell(starts.asked(), Ok(()));
        assert_eq!((told(&starts, third), starts.is_behind()), (Some(Ok(())), false));
    }

    #[test]
    fn who_asked_for_what_could_not_be_written_is_told_why_and_others_are_not() {
        let starts = LogStarts::default();
        let first = starts.ask();
        starts.tell(first, Ok(()));
        let second = starts.ask();
        starts.tell(second, Err(StorageError::new("full")));
        assert!(!starts.is_behind(), "it is not tried again by itself");
        assert_eq!(told(&starts, first), Some(Ok(())));
        assert_eq!(told(&starts, second), Some(Err("full".to_owned())));
        let third = starts.ask();
        assert_eq!((told(&starts, third), starts.is_behind()), (None, true));
        starts.end();
        assert_eq!(told(&starts, third), Some(Err("the broker is stopping".to_owned())));
        assert!(!starts.is_wanted_anew());
        starts.tell(third, Ok(()));
        assert_eq!((told(&starts, second), told(&starts, third)), (Some(Ok(())), Some(Ok(()))));
    }

    #[test]
    fn what_is_wanted_anew_is_written_once() {
        let starts = LogStarts::default();
        let (first, second) = (starts.ask_anew(), starts.ask());
        assert!(starts.is_wanted_anew());
        starts.tell(first, Ok(()));
        assert!(!starts.is_wanted_anew() && starts.is_behind());
        starts.tell(second, Ok(()));
        let third = starts.ask_anew();
        assert!(starts.is_wanted_anew());
        starts.tell(third, Err(StorageError::new("full")));
        assert!(!starts.is_wanted_anew() && !starts.is_behind());
    }
}
