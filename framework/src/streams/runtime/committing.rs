//! Who waits for all threads to be outside of their commits.

use std::sync::Arc;

use super::shared::Shared;

/// A worker between committing offsets and writing its stores, while this lives.
pub(super) struct Committing(Arc<Shared>);

impl Committing {
    pub(super) fn begin(shared: &Arc<Shared>) -> Self {
        shared.committing.send_modify(|workers| *workers += 1);
        Self(Arc::clone(shared))
    }
}

impl Drop for Committing {
    fn drop(&mut self) {
        self.0.committing.send_modify(|workers| *workers = workers.saturating_sub(1));
    }
}
