//! Processors: steps that a user writes, with stores and a clock of their own.

use std::time::Duration;

use super::node::ProcessorContext;
use super::store_refs::StoreName;
use crate::listener::BoxError;

/// A step of your own: takes records of `K` and `V`, and forwards as many as it likes, when it likes.
///
/// Each task has one, made by the closure that [`KStream::process`](crate::streams::KStream::process) was given; it
/// runs on the task's thread alone, between no other record. What it remembers in itself is lost when the task moves:
/// what must not be belongs into a store, which [`stores`](Self::stores) names.
///
/// ```
/// use std::time::Duration;
/// use klamm::listener::BoxError;
/// use klamm::streams::{
///     InRecord, Processor, ProcessorContext, Punctuation, PunctuationType, StoreName, StoreRef, StreamsBuilder,
/// };
///
/// /// Tells every minute which key has the largest total.
/// struct Leader {
///     totals: StoreRef<String, i64>,
/// }
///
/// impl Processor<String, i64> for Leader {
///     type Key = String;
///     type Value = i64;
///
///     fn stores(&self) -> Vec<StoreName> {
///         vec![self.totals.name()]
///     }
///
///     fn init(&mut self, context: &mut ProcessorContext<'_, String, i64>) -> Result<(), BoxError> {
///         context.schedule(Duration::from_secs(60), PunctuationType::WallClock);
///         Ok(())
///     }
///
///     fn process(
///         &mut self,
///         context: &mut ProcessorContext<'_, String, i64>,
///         record: InRecord<'_, String, i64>,
///     ) -> Result<(), BoxError> {
///         let mut totals = context.store(&self.totals)?;
///         let total = totals.get(record.key)?.unwrap_or(0) + record.value;
///         totals.put(record.key, &total)?;
///         Ok(())
///     }
///
///     fn punctuate(
///         &mut self,
///         context: &mut ProcessorContext<'_, String, i64>,
///         _punctuation: Punctuation,
///     ) -> Result<(), BoxError> {
///         let mut best: Option<(String, i64)> = None;
///         for row in context.store(&self.totals)?.all() {
///             let (key, total) = row?;
///             if best.as_ref().is_none_or(|(_, most)| total > *most) {
///                 best = Some((key, total));
///             }
///         }
///         if let Some((key, total)) = best {
///             context.forward(&key, &total)?;
///         }
///         Ok(())
///     }
/// }
///
/// let mut streams = StreamsBuilder::new();
/// let totals = streams.key_value_store::<String, i64>("totals");
/// streams
///     .stream::<String, i64>("points")
///     .process(move || Leader { totals: totals.clone() })
///     .to("leaders");
/// # streams.build().unwrap();
/// ```
pub trait Processor<K, V>: 'static {
    /// The keys that it forwards.
    type Key: 'static;
    /// The values that it forwards.
    type Value: 'static;

    /// The stores that it uses. Asked once, of one that is made for nothing else, while the topology is built.
    fn stores(&self) -> Vec<StoreName> {
        Vec::new()
    }

    /// The names of the children that it [forwards to](ProcessorContext::forward_to) one by one. Asked once, while the
    /// topology is built, which refuses names that none of its [children](crate::streams::KStream::child) has.
    fn children(&self) -> Vec<String> {
        Vec::new()
    }

    /// Called before the first record, when the stores are restored: the place to schedule punctuations.
    ///
    /// # Errors
    /// What stops the task.
    fn init(&mut self, context: &mut ProcessorContext<'_, Self::Key, Self::Value>) -> Result<(), BoxError> {
        let _ = context;
        Ok(())
    }

    /// Handles a record.
    ///
    /// # Errors
    /// What makes the record fail.
    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, Self::Key, Self::Value>,
        record: InRecord<'_, K, V>,
    ) -> Result<(), BoxError>;

    /// Called when something that it scheduled is due.
    ///
    /// # Errors
    /// What stops the task.
    fn punctuate(
        &mut self,
        context: &mut ProcessorContext<'_, Self::Key, Self::Value>,
        punctuation: Punctuation,
    ) -> Result<(), BoxError> {
        let _ = (context, punctuation);
        Ok(())
    }

    /// Called when the task ends, whether or not it could commit.
    fn close(&mut self) {}
}

/// A record that a [`Processor`] gets.
#[derive(Debug)]
pub struct InRecord<'a, K, V> {
    /// The key.
    pub key: &'a K,
    /// The value.
    pub value: &'a V,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
}

impl<K, V> Clone for InRecord<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for InRecord<'_, K, V> {}

/// Which clock a punctuation follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PunctuationType {
    /// The largest timestamp that the task has seen. Due with the first record, after it was processed, and then at
    /// multiples of the interval; a jump over several is one punctuation. Without records nothing is due.
    StreamTime,
    /// The clock of the machine. First due after the interval; those missed while the task was busy are one.
    WallClock,
}

/// One of the punctuations that a processor scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PunctuatorId(pub(crate) u64);

/// Something that a processor scheduled is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Punctuation {
    /// What [`ProcessorContext::schedule`] gave.
    pub id: PunctuatorId,
    /// Which clock it follows.
    pub kind: PunctuationType,
    /// The time of that clock, in milliseconds since the Unix epoch; what is forwarded has it.
    pub timestamp_ms: i64,
}

/// The next time that is due after `now_ms`, in steps of `interval` from `due_ms`: what was missed is skipped.
pub(crate) fn next_due_ms(due_ms: i64, interval: Duration, now_ms: i64) -> i64 {
    let interval_ms = i128::from(super::windows::millis(interval).max(1));
    let due_ms = i128::from(due_ms);
    let missed = (i128::from(now_ms) - due_ms).max(0) / interval_ms;
    i64::try_from(due_ms + (missed + 1) * interval_ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_missed_is_skipped_and_slots_stay_aligned() {
        let interval = Duration::from_millis(10);
        assert_eq!(next_due_ms(0, interval, 0), 10);
        assert_eq!(next_due_ms(0, interval, 9), 10);
        assert_eq!(next_due_ms(0, interval, 10), 20);
        assert_eq!(next_due_ms(0, interval, 57), 60);
        assert_eq!(next_due_ms(3, interval, 57), 63);
        assert_eq!(next_due_ms(0, Duration::ZERO, 5), 6, "no interval is a millisecond");
    }
}
