//! What goes through a listener: records, and records that come back.

use klamm_client::ConsumerRecord;

use crate::listener::failure::Failure;
use crate::listener::flow::{self, PartId};

/// A record on its way through a listener.
pub(super) type Item = flow::Item<ConsumerRecord>;

/// Records that failed after their handler had returned.
#[derive(Debug)]
pub(super) struct Back {
    pub(super) part: PartId,
    pub(super) items: Vec<Item>,
    pub(super) failure: Failure,
}
