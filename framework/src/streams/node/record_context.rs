//! What a closure may know of the record in work, and change.

use klamm_client::Headers;

use super::Context;
use crate::listener::BoxError;

/// Where the record in work comes from, its time and its headers.
///
/// What a closure sets here is so for the records that it gives, and for nothing else that is made of the same record.
/// A table's updates that were held back until a commit have no place: they may be of several records.
pub struct RecordContext<'a> {
    context: &'a mut Context,
    timestamp_ms: i64,
    changed: bool,
}

/// What a closure has made of a record.
pub(crate) struct Applied<R> {
    pub(crate) result: R,
    pub(crate) timestamp_ms: i64,
    /// Whether it may have set a time or headers. Known to be false when a closure that sees no context is compiled.
    pub(crate) changed: bool,
}

impl<'a> RecordContext<'a> {
    // Inlined, as `applied` is: processors are compiled with the user's closures, and most of those look at none of it.
    #[inline]
    pub(crate) fn new(context: &'a mut Context, timestamp_ms: i64) -> Self {
        Self { context, timestamp_ms, changed: false }
    }

    /// The topic that the task has read it from. Behind a repartition topic that is the repartition topic.
    pub fn topic(&self) -> Option<&str> {
        self.context.place.map(|(topic, ..)| self.context.topic(topic))
    }

    /// Its partition.
    pub fn partition(&self) -> Option<i32> {
        self.context.place.map(|(_, partition, _)| partition)
    }

    /// Its offset.
    pub fn offset(&self) -> Option<i64> {
        self.context.place.map(|(.., offset)| offset)
    }

    /// Its time, in milliseconds since the Unix epoch.
    pub fn timestamp_ms(&self) -> i64 {
        self.timestamp_ms
    }

    /// Its headers.
    pub fn headers(&self) -> &Headers {
        self.context.edited.as_ref().unwrap_or(&self.context.headers)
    }

    /// Gives it another time; a negative one is an error of the operator.
    pub fn set_timestamp_ms(&mut self, timestamp_ms: i64) {
        (self.timestamp_ms, self.changed) = (timestamp_ms, true);
    }

    /// Its headers, to be changed.
    pub fn headers_mut(&mut self) -> &mut Headers {
        self.changed = true;
        let Context { edited, headers, .. } = &mut *self.context;
        edited.get_or_insert_with(|| headers.clone())
    }

    /// What is made of the record, with what the closure has set.
    #[inline]
    pub(crate) fn applied<R>(self, result: R) -> Result<Applied<R>, BoxError> {
        let Self { timestamp_ms, changed, .. } = self;
        if changed && timestamp_ms < 0 {
            return Err(negative(timestamp_ms));
        }
        Ok(Applied { result, timestamp_ms, changed })
    }
}

#[cold]
pub(super) fn negative(timestamp_ms: i64) -> BoxError {
    format!("a record cannot have the timestamp {timestamp_ms}, which is negative").into()
}

impl std::fmt::Debug for RecordContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordContext")
            .field("topic", &self.topic())
            .field("partition", &self.partition())
            .field("offset", &self.offset())
            .field("timestamp_ms", &self.timestamp_ms)
            .field("headers", self.headers())
            .finish()
    }
}
