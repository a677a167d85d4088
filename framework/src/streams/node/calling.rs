//! What a task knows of its asynchronous operators.

use super::calls::Given;
use super::{Context, TopicId};
use crate::streams::error::TaskError;

/// What a task asks of its asynchronous operators.
pub(crate) trait Calling {
    /// Goes on with a record whose call has ended.
    fn arrive(&mut self, context: &mut Context, number: u64, given: Given) -> Result<(), TaskError>;
    /// Whether no more records may come.
    fn is_full(&self) -> bool;
    fn is_empty(&self) -> bool;
    /// The first offset of a topic that is not finished.
    fn lowest(&self, topic: TopicId) -> Option<i64>;
}
