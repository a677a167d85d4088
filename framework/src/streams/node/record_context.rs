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
}

impl<'a> RecordContext<'a> {
    // Inlined, as `changed_time` is: processors are compiled with the user's closures, and most of those look at none
    // of it.
    #[inline]
    pub(crate) fn new(context: &'a mut Context, timestamp_ms: i64) -> Self {
        Self { context, timestamp_ms }
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
        self.timestamp_ms = timestamp_ms;
    }

    /// Its headers, to be changed.
    pub fn headers_mut(&mut self) -> &mut Headers {
        let Context { edited, headers, .. } = &mut *self.context;
        edited.get_or_insert_with(|| headers.clone())
    }

    /// The time that the record has now.
    #[inline]
    pub(crate) fn changed_time(&self) -> Result<i64, BoxError> {
        if self.timestamp_ms < 0 { Err(negative(self.timestamp_ms)) } else { Ok(self.timestamp_ms) }
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
