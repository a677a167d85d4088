//! What must be acknowledged by a broker before a record counts as finished.

use std::sync::Arc;

use klamm_client::Record;

use super::item::Item;
use super::retry_copies::{NextStep, RetryCopies};
use crate::listener::failure::Failure;
use crate::listener::flow::PartId;
use crate::listener::observe::Output as Kind;

/// Something to send on behalf of a record. While it is under way it is open work of its partition.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) part: PartId,
    pub(super) item: Item,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// The record itself, with the story of its failure, to this topic or to the one of the suffix.
    DeadLetter { topic: Option<Arc<str>>, failure: Arc<Failure> },
    /// The record itself, with the story of its failure, to the next retry topic, where it waits until it is due.
    Retry { copies: Arc<RetryCopies>, next: NextStep, failure: Arc<Failure> },
    /// What answers it.
    Reply(Box<Record>),
}

impl What {
    /// As users call it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::DeadLetter { .. } => "a dead letter",
            Self::Retry { .. } => "a copy for a retry topic",
            Self::Reply(_) => "a reply",
        }
    }

    /// As metrics call it.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::DeadLetter { .. } => Kind::DeadLetter,
            Self::Retry { .. } => Kind::RetryCopy,
            Self::Reply(_) => Kind::Reply,
        }
    }
}
