//! What keeps a listener from its work and does not end it: told at once, said again every minute, and there to be
//! looked at until it is over.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_client::TopicPartition;
use tokio::time::Instant;

use super::events::{EventSource, ListenerEvent};

/// How often a trouble that lasts is said again.
const SAID_EVERY: Duration = Duration::from_secs(60);
/// More than this many at once are not told apart: the first ones say what is wrong.
const TROUBLES_MAX: usize = 1_000;

/// Something that keeps a running listener from its work, and that somebody has to see to. It is over by itself when
/// the cause is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trouble {
    /// The partition that waits, where it is one.
    pub partition: Option<TopicPartition>,
    /// The record that waits, where it is one.
    pub offset: Option<i64>,
    /// What is wrong, and which setting helps.
    pub reason: Arc<str>,
    /// How long it has lasted.
    pub lasting: Duration,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.partition, self.offset) {
            (Some(partition), Some(offset)) => write!(f, "{partition}, offset {offset}: {}", self.reason),
            (Some(partition), None) => write!(f, "{partition}: {}", self.reason),
            _ => f.write_str(&self.reason),
        }
    }
}

/// What a trouble is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Commits,
    Topic(Arc<str>),
    /// A topic of dead letters.
    DeadLetters(Arc<str>),
    /// A partition that cannot be read.
    Reading(TopicPartition),
    /// The transactions of a partition.
    Transactions(TopicPartition),
    /// An output of the record at this offset.
    Output(TopicPartition, i64),
}

#[derive(Debug)]
pub(super) struct Troubles {
    listener: Arc<str>,
    known: Mutex<BTreeMap<Subject, Known>>,
    events: EventSource,
}

#[derive(Debug)]
struct Known {
    reason: Arc<str>,
    since: Instant,
    said: Instant,
}

impl Troubles {
    pub(super) fn new(listener: &Arc<str>, events: EventSource) -> Self {
        Self { listener: Arc::clone(listener), known: Mutex::default(), events }
    }

    /// It is there, or still there.
    pub(super) fn tell(&self, listener: &str, subject: Subject, reason: &str) {
        let is_new = !self.known().contains_key(&subject);
        if self.is_to_be_said(&subject, reason, Instant::now()) {
            if is_new {
                let trouble = || subject.trouble(reason.into(), Duration::ZERO);
                self.events.tell(&self.listener, || ListenerEvent::Trouble(trouble()));
            }
            let (partition, offset) = subject.place();
            let place = partition.map(ToString::to_string);
            tracing::error!(listener, partition = place, offset, "{reason}");
        }
    }

    fn is_to_be_said(&self, subject: &Subject, reason: &str, now: Instant) -> bool {
        let mut known = self.known();
        if let Some(known) = known.get_mut(subject) {
            let again = now.duration_since(known.said) >= SAID_EVERY;
            if again {
                known.said = now;
            }
            known.reason = reason.into();
            return again;
        }
        if known.len() >= TROUBLES_MAX {
            return false;
        }
        known.insert(subject.clone(), Known { reason: reason.into(), since: now, said: now });
        true
    }

    /// Whether it is there.
    pub(super) fn has(&self, subject: &Subject) -> bool {
        self.known().contains_key(subject)
    }

    /// It is over, if it was there.
    pub(super) fn over(&self, subject: &Subject) {
        let over = self.known().remove(subject);
        self.tell_over(subject, over);
    }

    fn tell_over(&self, subject: &Subject, over: Option<Known>) {
        let Some(Known { reason, since, .. }) = over else { return };
        self.events
            .tell(&self.listener, || ListenerEvent::TroubleOver(subject.trouble(reason, since.elapsed())));
    }

    /// Records of this partition came.
    pub(super) fn read(&self, place: &TopicPartition) {
        // Asked for every batch.
        if !self.known().is_empty() {
            self.over(&Subject::Reading(place.clone()));
            self.over(&Subject::Topic(Arc::clone(&place.topic)));
        }
    }

    /// These partitions are not this listener's any more, and not its troubles. What is wrong with a topic as such is
    /// told again if it still is.
    pub(super) fn gone(&self, places: &[TopicPartition]) {
        for place in places {
            self.read(place);
            self.over(&Subject::Transactions(place.clone()));
        }
    }

    /// Those that are there.
    pub(super) fn all(&self) -> Vec<Trouble> {
        self.matching(|_| true)
    }

    /// Those of topics as such.
    pub(super) fn of_topics(&self) -> Vec<Trouble> {
        self.matching(|subject| matches!(subject, Subject::Topic(_)))
    }

    fn matching(&self, wanted: impl Fn(&Subject) -> bool) -> Vec<Trouble> {
        let now = Instant::now();
        let troubles = self.known();
        let wanted = troubles.iter().filter(|(subject, _)| wanted(subject));
        let all = wanted.map(|(subject, known)| {
            subject.trouble(Arc::clone(&known.reason), now.duration_since(known.since))
        });
        all.collect()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Subject, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subject {
    fn trouble(&self, reason: Arc<str>, lasting: Duration) -> Trouble {
        let (partition, offset) = self.place();
        Trouble { partition: partition.cloned(), offset, reason, lasting }
    }

    fn place(&self) -> (Option<&TopicPartition>, Option<i64>) {
        match self {
            Self::Commits | Self::Topic(_) | Self::DeadLetters(_) => (None, None),
            Self::Reading(place) | Self::Transactions(place) => (Some(place), None),
            Self::Output(place, offset) => (Some(place), Some(*offset)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::events::EventHub;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_trouble_is_said_at_once_and_every_minute() {
        let troubles = Troubles::new(&"l".into(), EventHub::default().source());
        let start = Instant::now();
        let subject = || Subject::Output(TopicPartition::new("t", 1), 7);
        let said =
            |after_s: u64| troubles.is_to_be_said(&subject(), "no", start + Duration::from_secs(after_s));
        assert_eq!(
            [said(0), said(1), said(59), said(60), said(61), said(120)],
            [true, false, false, true, false, true]
        );
        assert_eq!(troubles.all()[0].to_string(), "t-1, offset 7: no");
        troubles.over(&subject());
        assert!(troubles.all().is_empty() && said(121));
    }
}
