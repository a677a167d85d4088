//! The failure policy: one value per listener that says what becomes of a record that failed. Pure.

use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::{Backoff, Failure, FailureKind, Unreadable, Unsendable};

/// What becomes of records whose handling fails: classify, retry in place, and in the end dead-letter, skip or stop.
///
/// The same policy serves record and batch handlers, errors, panics and arguments that do not decode. The default:
///
/// - Ten deliveries in all, 100 ms after the first failure and twice as long each time, at most 10 s: half a
///   minute together. Other partitions keep flowing meanwhile, and polling goes on, so that no delay gets the
///   consumer out of its group.
/// - Rejected records (they do not decode, or a part is missing) are not retried: they would fail the same way.
/// - What is given up goes to the dead-letter topic `<topic>-dlt`. Its offset is committed only when
///   the copy is acknowledged.
///
/// ```
/// # use std::time::Duration;
/// # use klamm::{Backoff, FailurePolicy};
/// # #[derive(Debug)] struct ValidationError;
/// # impl std::fmt::Display for ValidationError {
/// #     fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { Ok(()) }
/// # }
/// # impl std::error::Error for ValidationError {}
/// fn patient() -> FailurePolicy {
///     FailurePolicy::new()
///         .fatal::<ValidationError>()
///         .retry_in_place(Backoff::exponential(Duration::from_millis(100)).attempts(3))
///         .dead_letter()
/// }
/// # patient();
/// ```
#[derive(Clone)]
pub struct FailurePolicy {
    fatal: Vec<Matcher>,
    retry_rejected: bool,
    in_place: Option<Backoff>,
    /// Delays of the retry topics, in the order of the steps.
    steps: Vec<Duration>,
    ending: Ending,
    unsendable: Unsendable,
    unreadable: Unreadable,
}

type Matcher = Arc<dyn Fn(&Failure) -> bool + Send + Sync>;

/// What is done with a record that is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Publish it to this topic, or to `<topic>-dlt`.
    DeadLetter {
        topic: Option<Arc<str>>,
    },
    Skip,
    Stop,
}

/// What to do after one failed delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    RetryAfter(Duration),
    /// Wait in the next retry topic.
    Forward,
    GiveUp(Ending),
}

/// How far a record has come that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Delivered {
    /// From 1; since the last step.
    pub(crate) attempt: u32,
    /// Since it failed first, likewise.
    pub(crate) elapsed: Duration,
    /// From retry topic to retry topic.
    pub(crate) steps_taken: usize,
}

impl FailurePolicy {
    /// No retry, and the dead-letter topic for all that fails: the blank form to add to. [`Default`] retries.
    pub fn new() -> Self {
        Self {
            fatal: Vec::new(),
            retry_rejected: false,
            in_place: None,
            steps: Vec::new(),
            ending: Ending::DeadLetter { topic: None },
            unsendable: Unsendable::default(),
            unreadable: Unreadable::default(),
        }
    }

    /// Failures caused by an `E`, at any depth of their sources, are not retried.
    pub fn fatal<E: Error + 'static>(self) -> Self {
        self.fatal_if(|failure| failure.find::<E>().is_some())
    }

    /// Failures for which `is_fatal` says so are not retried.
    pub fn fatal_if(mut self, is_fatal: impl Fn(&Failure) -> bool + Send + Sync + 'static) -> Self {
        self.fatal.push(Arc::new(is_fatal));
        self
    }

    /// Calls the handler again with the same record, as `backoff` says. Later records of the partition
    /// wait (of the same key with `Dispatch::by_key`; none with `Dispatch::unordered`), so that order is
    /// kept; everything else flows.
    pub fn retry_in_place(mut self, backoff: Backoff) -> Self {
        self.in_place = Some(backoff);
        self
    }

    /// When retries in place are used up, the record goes to a retry topic and waits there, so that nothing waits for
    /// it; after each delay the handler is called with it again, with the retries in place before the next step. The
    /// [ending](Self::dead_letter) comes after the last. The delays may be minutes or days:
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use klamm::FailurePolicy;
    /// let (secs, mins) = (Duration::from_secs, |minutes: u64| Duration::from_secs(60 * minutes));
    /// let rising = FailurePolicy::new().retry_topics([secs(10), mins(1), mins(10)]).dead_letter();
    /// let fixed = FailurePolicy::new().retry_topics([secs(30); 5]).skip();
    /// # let _ = (rising, fixed);
    /// ```
    ///
    /// Records of one key overtake one another on this way. A topic is called `<topic>-retry-<delay>-<group>`, for
    /// instance `orders-retry-10s-billing`; steps of equal delay share one. They are made when the app starts, with as
    /// many partitions as their topic has, and the listener reads them itself. A record is never earlier than its
    /// delay; it is later when as many as [`max_in_flight`](crate::listener::ListenerBuilder::max_in_flight) allows
    /// are at work before it. What is finished, and what is not, survives restarts, and so does the count of
    /// deliveries in [`RecordMeta::attempt`](crate::RecordMeta). [Fatal](Self::fatal) failures take no steps, nor do
    /// rejected records.
    pub fn retry_topics(mut self, delays: impl IntoIterator<Item = Duration>) -> Self {
        self.steps = delays.into_iter().collect();
        self
    }

    /// Retries rejected records too. Only sensible where decoding depends on something that heals,
    /// such as a schema registry.
    pub fn retry_rejected(mut self) -> Self {
        self.retry_rejected = true;
        self
    }

    /// In the end, publishes the record to `<topic>-dlt`, same partition number if there is one, with headers that say
    /// where it came from and why it failed. This is the default ending. Later records of the partition are handled
    /// meanwhile; this one is finished when its dead letter is acknowledged. One that cannot be published now is tried
    /// again until it can; one that is refused for good loses the text of its failure first, and is then
    /// [`unsendable`](Self::unsendable).
    pub fn dead_letter(mut self) -> Self {
        self.ending = Ending::DeadLetter { topic: None };
        self
    }

    /// As [`dead_letter`](Self::dead_letter), to a topic of this name.
    pub fn dead_letter_to(mut self, topic: impl Into<Arc<str>>) -> Self {
        self.ending = Ending::DeadLetter { topic: Some(topic.into()) };
        self
    }

    /// In the end, logs the failure at error level and goes on with the next record. The record is lost to this group.
    pub fn skip(mut self) -> Self {
        self.ending = Ending::Skip;
        self
    }

    /// In the end, stops the listener. The record stays uncommitted and comes again after a restart.
    pub fn stop(mut self) -> Self {
        self.ending = Ending::Stop;
        self
    }

    /// What becomes of a record whose dead letter is refused for good; default [`Unsendable::Halt`], which loses
    /// nothing.
    pub fn unsendable(mut self, then: Unsendable) -> Self {
        self.unsendable = then;
        self
    }

    /// What becomes of a batch in the log that is damaged; default [`Unreadable::Halt`], which loses nothing.
    pub fn unreadable(mut self, then: Unreadable) -> Self {
        self.unreadable = then;
        self
    }

    pub(crate) fn unsendable_policy(&self) -> &Unsendable {
        &self.unsendable
    }

    pub(crate) fn unreadable_policy(&self) -> Unreadable {
        self.unreadable
    }

    /// The delays of the retry topics, in the order of the steps.
    pub(crate) fn steps(&self) -> &[Duration] {
        &self.steps
    }

    /// After the `attempt`-th delivery (from 1) since the last step failed, `elapsed` after the first failure.
    /// `random` is uniform, for the jitter.
    pub(crate) fn decide(
        &self,
        failure: &Failure,
        Delivered { attempt, elapsed, steps_taken }: Delivered,
        random: u64,
    ) -> Decision {
        let rejected = failure.kind() == FailureKind::Rejected && !self.retry_rejected;
        let fatal = rejected || self.fatal.iter().any(|is_fatal| holds(is_fatal, failure));
        let delay = self.in_place.as_ref().filter(|_| !fatal);
        match delay.and_then(|backoff| backoff.delay(attempt, elapsed, random)) {
            Some(delay) => Decision::RetryAfter(delay),
            None if !fatal && steps_taken < self.steps.len() => Decision::Forward,
            None => Decision::GiveUp(self.ending.clone()),
        }
    }

    /// Whether dead letters may be published, and where to, if it is named.
    pub(crate) fn dead_letter_topic(&self) -> Option<Option<&Arc<str>>> {
        match &self.ending {
            Ending::DeadLetter { topic } => Some(topic.as_ref()),
            Ending::Skip | Ending::Stop => None,
        }
    }
}

/// A rule that panics does not hold: what is retried is given up in the end, and what is given up never comes back.
fn holds(rule: &Matcher, failure: &Failure) -> bool {
    catch_unwind(AssertUnwindSafe(|| rule(failure))).unwrap_or_else(|_| {
        tracing::error!(%failure, "a `fatal_if` of the failure policy panicked; the failure counts as not fatal");
        false
    })
}

impl Default for FailurePolicy {
    fn default() -> Self {
        let backoff = Backoff::exponential(Duration::from_millis(100)).cap(Duration::from_secs(10));
        Self::new().retry_in_place(backoff)
    }
}

impl fmt::Debug for FailurePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailurePolicy")
            .field("fatal_rules", &self.fatal.len())
            .field("retry_rejected", &self.retry_rejected)
            .field("in_place", &self.in_place)
            .field("retry_topics", &self.steps)
            .field("ending", &self.ending)
            .field("unsendable", &self.unsendable)
            .field("unreadable", &self.unreadable)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::num::ParseIntError;

    use super::*;
    use crate::listener::extract::Rejection;

    fn parse_failure() -> Failure {
        Failure::handler("x".parse::<i32>().unwrap_err())
    }

    fn decide(policy: &FailurePolicy, failure: &Failure, attempt: u32) -> Decision {
        policy.decide(failure, Delivered { attempt, ..Delivered::default() }, 0)
    }

    #[test]
    fn the_default_retries_ten_deliveries_within_a_minute_then_dead_letters() {
        let policy = FailurePolicy::default();
        let mut waited = Duration::ZERO;
        for attempt in 1..10 {
            match decide(&policy, &parse_failure(), attempt) {
                Decision::RetryAfter(delay) => waited += delay,
                other => panic!("{other:?} after {attempt}"),
            }
        }
        assert!(waited > Duration::from_secs(20) && waited < Duration::from_secs(60), "{waited:?}");
        let dead_letter = Decision::GiveUp(Ending::DeadLetter { topic: None });
        assert_eq!(decide(&policy, &parse_failure(), 10), dead_letter);
        assert_eq!(decide(&policy, &Failure::rejected(Rejection::NoKey), 1), dead_letter);
    }

    #[test]
    fn fatal_goes_by_type_and_by_rule() {
        let retrying = FailurePolicy::new().retry_in_place(Backoff::immediate()).skip();
        assert_eq!(decide(&retrying, &parse_failure(), 1), Decision::RetryAfter(Duration::ZERO));
        let skip = Decision::GiveUp(Ending::Skip);
        assert_eq!(decide(&retrying.clone().fatal::<ParseIntError>(), &parse_failure(), 1), skip);
        assert_eq!(decide(&retrying.clone().fatal_if(|_| true), &parse_failure(), 1), skip);
        let other = Failure::handler("no number");
        assert_eq!(
            decide(&retrying.fatal::<ParseIntError>(), &other, 1),
            Decision::RetryAfter(Duration::ZERO)
        );
    }

    #[test]
    fn a_rule_that_panics_does_not_hold_and_the_others_are_asked() {
        let retrying = FailurePolicy::new().retry_in_place(Backoff::immediate()).skip();
        let broken = retrying.fatal_if(|_| panic!("a rule that is broken"));
        assert_eq!(decide(&broken, &parse_failure(), 1), Decision::RetryAfter(Duration::ZERO));
        assert_eq!(decide(&broken.fatal_if(|_| true), &parse_failure(), 1), Decision::GiveUp(Ending::Skip));
    }

    #[test]
    fn steps_come_after_retries_in_place_and_before_the_end() {
        let second = Duration::from_secs(1);
        let policy =
            FailurePolicy::new().retry_in_place(Backoff::immediate().attempts(2)).retry_topics([second; 2]);
        let decide = |failure: &Failure, attempt, steps_taken| {
            policy.decide(failure, Delivered { attempt, steps_taken, elapsed: Duration::ZERO }, 0)
        };
        let end = Decision::GiveUp(Ending::DeadLetter { topic: None });
        assert_eq!(decide(&parse_failure(), 1, 0), Decision::RetryAfter(Duration::ZERO));
        assert_eq!(decide(&parse_failure(), 2, 0), Decision::Forward);
        assert_eq!(decide(&parse_failure(), 1, 1), Decision::RetryAfter(Duration::ZERO));
        assert_eq!(decide(&parse_failure(), 2, 1), Decision::Forward);
        assert_eq!(decide(&parse_failure(), 2, 2), end);
        assert_eq!(decide(&Failure::rejected(Rejection::NoKey), 1, 0), end);
    }

    #[test]
    fn rejected_records_are_retried_only_on_request() {
        let policy = FailurePolicy::new().retry_in_place(Backoff::immediate()).stop();
        let rejected = Failure::rejected(Rejection::NoKey);
        assert_eq!(decide(&policy, &rejected, 1), Decision::GiveUp(Ending::Stop));
        assert_eq!(decide(&policy.retry_rejected(), &rejected, 1), Decision::RetryAfter(Duration::ZERO));
    }

    #[test]
    fn where_dead_letters_go() {
        let topic = |policy: FailurePolicy| policy.dead_letter_topic().map(Option::<&Arc<str>>::cloned);
        assert_eq!([topic(FailurePolicy::new()), topic(FailurePolicy::default())], [Some(None), Some(None)]);
        assert_eq!(
            topic(FailurePolicy::new().skip().dead_letter_to("graveyard")),
            Some(Some("graveyard".into()))
        );
        assert_eq!([topic(FailurePolicy::new().skip()), topic(FailurePolicy::new().stop())], [None, None]);
        let plain = FailurePolicy::new().dead_letter_to("graveyard").dead_letter();
        let dead_letter = Decision::GiveUp(Ending::DeadLetter { topic: None });
        assert_eq!(decide(&plain, &parse_failure(), 1), dead_letter);
    }

    #[test]
    fn a_policy_prints_what_it_does() {
        let policy = FailurePolicy::new().fatal_if(|_| true).retry_in_place(Backoff::immediate()).stop();
        let printed = format!("{policy:?}");
        for part in ["fatal_rules: 1", "retry_rejected: false", "in_place: Some(", "ending: Stop"] {
            assert!(printed.contains(part), "{part} is not in {printed}");
        }
    }

    #[test]
    fn new_does_not_retry() {
        let policy = FailurePolicy::new().dead_letter_to("graveyard");
        let graveyard = Decision::GiveUp(Ending::DeadLetter { topic: Some("graveyard".into()) });
        assert_eq!(decide(&policy, &parse_failure(), 1), graveyard);
    }
}
