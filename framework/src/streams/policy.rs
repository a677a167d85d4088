//! What becomes of a record that an operator cannot process.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// No record holds its task up for longer, however the retries are set: partitions are given up behind it.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// What becomes of a record that an operator cannot process: a closure that fails or panics, bytes that are not what
/// the source reads, a value that the sink cannot write.
///
/// The application has one for all its operators
/// ([`StreamsConfig::on_error`](crate::streams::StreamsConfig::on_error)), and each operator may have its own
/// ([`KStream::on_error`](crate::streams::KStream::on_error)).
///
/// The policy is about one operator and what it was given: with [`skip`](Self::skip) nothing of that goes on below it,
/// while its siblings get the record, and what came before it stays. A row that a table or an aggregation upstream has
/// written is right then, too; the record did count there.
///
/// An aggregation, a join or a table that fails has changed nothing: its store is what it was before the record. What a
/// table's `filter`, `map_values`, `join` or `group_by` fails with is a row that is not there: who adds rows up takes
/// out what it was before, and nobody else is told of anything.
///
/// ```
/// # use std::time::Duration;
/// # use klamm::streams::{ErrorPolicy, StreamsBuilder};
/// # let mut streams = StreamsBuilder::new();
/// streams
///     .stream::<String, String>("orders")
///     .try_map_values(|text| text.parse::<i64>())
///     .on_error(ErrorPolicy::dead_letter("orders-dlt"))
///     .map_values(|cents| cents * 2)
///     .on_error(ErrorPolicy::skip().retry(3, Duration::from_millis(50)))
///     .to("doubled");
/// # streams.build().unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ErrorPolicy {
    retries: u32,
    first_pause: Duration,
    last: LastResort,
}

/// What is done when trying again has not helped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum LastResort {
    #[default]
    Fail,
    Skip,
    DeadLetter(Arc<str>),
}

impl ErrorPolicy {
    /// Stop the application with the record's place in the error. Nothing is lost: nothing after the last commit counts
    /// as processed. The default, as in Kafka.
    pub fn fail() -> Self {
        Self::default()
    }

    /// Leave the record out, count it ([`Dropped`](crate::streams::Dropped)) and log its place.
    pub fn skip() -> Self {
        Self { last: LastResort::Skip, ..Self::default() }
    }

    /// Send the source record, as its bytes were read, to `topic`, and go on. The topic should exist. The letter goes
    /// with everything else of its commit; it has the record's key, value, timestamp and headers, and Kafka's headers
    /// of the failure: `__streams.errors.exception`, `.message`, `.topic`, `.partition` and `.offset`.
    ///
    /// A failure at a commit, over a table's update that was held back, has no single source record; it stops
    /// the application. [`StreamsConfig::cache_bytes(0)`](crate::streams::StreamsConfig::cache_bytes) holds none back.
    pub fn dead_letter(topic: impl Into<Arc<str>>) -> Self {
        Self { last: LastResort::DeadLetter(topic.into()), ..Self::default() }
    }

    /// Before that, call the closure again, `retries` times, after a pause that doubles from `first_pause`. The task
    /// waits meanwhile, a minute in all at most. Joins, tables and aggregations are tried again, too, as long as they
    /// have changed and forwarded nothing; a [`Processor`](crate::streams::Processor) is not, for it may remember the
    /// first time.
    #[must_use]
    pub fn retry(mut self, retries: u32, first_pause: Duration) -> Self {
        (self.retries, self.first_pause) = (retries, first_pause);
        self
    }

    pub(crate) fn last_resort(&self) -> &LastResort {
        &self.last
    }

    /// The topic of dead letters, if that is what becomes of a record.
    pub(crate) fn dead_letter_topic(&self) -> Option<&str> {
        match &self.last {
            LastResort::DeadLetter(topic) => Some(topic),
            LastResort::Fail | LastResort::Skip => None,
        }
    }

    /// How long to wait before each further attempt.
    pub(crate) fn pauses(&self) -> impl Iterator<Item = Duration> + use<> {
        let mut left = MAX_WAIT;
        let mut pause = self.first_pause;
        (0..self.retries).map_while(move |_| {
            let now = pause.min(left);
            let is_spent = now.is_zero() && !pause.is_zero();
            left -= now;
            pause = pause.saturating_mul(2);
            (!is_spent).then_some(now)
        })
    }
}

impl fmt::Display for ErrorPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.last {
            LastResort::Fail => f.write_str("fail")?,
            LastResort::Skip => f.write_str("skip")?,
            LastResort::DeadLetter(topic) => write!(f, "dead letter to {topic}")?,
        }
        match self.retries {
            0 => Ok(()),
            retries => write!(f, " after {retries} retries"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn pauses_double_and_have_an_end() {
        let pauses = |retries, first| ErrorPolicy::skip().retry(retries, first).pauses().collect::<Vec<_>>();
        assert_eq!(pauses(0, ms(10)), []);
        assert_eq!(pauses(4, ms(10)), [ms(10), ms(20), ms(40), ms(80)]);
        assert_eq!(pauses(3, Duration::ZERO), [Duration::ZERO; 3], "at once, but not for ever");
        for (retries, first) in [(u32::MAX, ms(1)), (100, Duration::MAX), (7, ms(59_999))] {
            let all = pauses(retries, first);
            assert_eq!(all.iter().sum::<Duration>(), MAX_WAIT, "{retries} from {first:?}");
            assert!(all.iter().all(|pause| !pause.is_zero()));
        }
    }

    #[test]
    fn a_policy_tells_itself() {
        assert_eq!(ErrorPolicy::default(), ErrorPolicy::fail());
        assert_eq!(ErrorPolicy::fail().to_string(), "fail");
        let letters = ErrorPolicy::dead_letter("dlt").retry(3, ms(1));
        assert_eq!(letters.to_string(), "dead letter to dlt after 3 retries");
        assert_eq!(
            (letters.dead_letter_topic(), ErrorPolicy::skip().dead_letter_topic()),
            (Some("dlt"), None)
        );
    }
}
