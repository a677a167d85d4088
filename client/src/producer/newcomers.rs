//! Records for a topic that is not known yet: they are taken in the order in which they came, however long each of them
//! waits for what it asks the cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard};

use super::shared::Shared;

/// By topic, who waits in line. While there is somebody, no record goes past.
pub(super) type Newcomers = BTreeMap<Arc<str>, Arc<Mutex<()>>>;

/// One of those who wait, or the first, whose turn it is.
pub(super) struct Newcomer<'a> {
    shared: &'a Shared,
    topic: &'a Arc<str>,
    /// Fair: whoever asked first is first.
    line: Arc<Mutex<()>>,
}

impl<'a> Newcomer<'a> {
    pub(super) fn new(shared: &'a Shared, topic: &'a Arc<str>) -> Self {
        let line = Arc::clone(shared.gathering().newcomers.entry(Arc::clone(topic)).or_default());
        Self { shared, topic, line }
    }

    /// Waits for those that came before. The place in the line is kept from the first poll on.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.line.lock().await
    }
}

impl Drop for Newcomer<'_> {
    fn drop(&mut self) {
        let mut gathering = self.shared.gathering();
        // Ours, and the map's.
        if Arc::strong_count(&self.line) == 2 {
            gathering.newcomers.remove(self.topic);
        }
    }
}
