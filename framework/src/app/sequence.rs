//! Container groups one after the other: each begins when the one before has nothing more to do.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::sleep;

use super::StartError;
use super::book::{Book, Phase};
use super::registry::Registry;
use crate::listener::Listener;

/// A group that does not start is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// Which groups come after one another, and when.
#[derive(Debug, Clone)]
pub(super) struct Sequence {
    pub(super) idle: Duration,
    pub(super) groups: Vec<Arc<str>>,
}

impl Sequence {
    /// Prepares the listeners: those of the first group start with the app, the others do not, and all but the last
    /// tell when they are idle.
    ///
    /// # Errors
    /// A group has no listener, or comes twice.
    pub(super) fn prepare(&self, listeners: &mut [Listener]) -> Result<(), StartError> {
        for (index, group) in self.groups.iter().enumerate() {
            if self.groups[..index].contains(group) {
                return Err(StartError::ContainerGroupTwice { group: Arc::clone(group) });
            }
            let is_last = index + 1 == self.groups.len();
            let mut is_empty = true;
            for listener in listeners.iter_mut() {
                let settings = &mut listener.settings;
                if settings.container_group.as_ref() == Some(group) {
                    is_empty = false;
                    settings.auto_start = index == 0;
                    if !is_last {
                        settings.idle_after = Some(self.idle);
                    }
                }
            }
            if is_empty {
                return Err(StartError::NoContainerGroup { group: Arc::clone(group) });
            }
        }
        Ok(())
    }

    /// Follows the groups. The first has been started.
    pub(super) async fn follow(self, registry: Weak<Registry>, book: Arc<Book>, drain_deadline: Duration) {
        for (index, group) in self.groups.iter().enumerate() {
            if index > 0 {
                loop {
                    let Some(registry) = registry.upgrade() else { return };
                    let Err(error) = registry.start_group(group).await else { break };
                    if book.is_closed() {
                        return;
                    }
                    tracing::error!(container_group = %group, %error, "the group of listeners does not start");
                    drop(registry);
                    sleep(RETRY_AFTER).await;
                }
            }
            if index + 1 == self.groups.len() {
                return;
            }
            let members =
                book.lines().into_iter().filter(|line| line.container_group.as_ref() == Some(group));
            let ids: Vec<_> = members.map(|line| line.id).collect();
            join_all(ids.iter().map(|id| idle(&book, id))).await;
            let Some(registry) = registry.upgrade() else { return };
            tracing::info!(container_group = %group, "all of its listeners are idle: the next group begins");
            // It fails when the app is shut down.
            if registry.stop_group(group, drain_deadline).await.is_err() {
                return;
            }
        }
    }
}

/// Resolves when a listener is idle, or somebody has stopped it. One that failed is waited for: it may be started
/// again.
async fn idle(book: &Book, id: &Arc<str>) {
    loop {
        let found = book.until(|lines| match lines.iter().find(|line| line.id == *id) {
            None => Some(None),
            Some(line) if matches!(line.phase, Phase::Off) => Some(None),
            Some(line) => line.running().cloned().map(Some),
        });
        let Some(handle) = found.await else { return };
        if handle.wait_idle().await.is_ok() {
            return;
        }
        // Nobody may have noted yet that it has ended.
        book.until(|lines| {
            let line = lines.iter().find(|line| line.id == *id);
            let is_known =
                line.is_none_or(|line| !matches!(line.phase, Phase::On) || line.running().is_some());
            is_known.then_some(())
        })
        .await;
    }
}
