//! Tasks that belong to somebody: they end when their owner goes, and their panics are told.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;

/// The background tasks of one owner. Dropping the last clone aborts them, so nothing outlives the
/// client or broker it serves.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    set: Arc<Mutex<JoinSet<()>>>,
}

impl Tasks {
    /// No tasks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `task` on the current tokio runtime. A panic in it is logged with `name`.
    ///
    /// Do not move a clone of this `Tasks` into the task: it would keep itself alive.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        // Ended tasks would pile up otherwise: a broker spawns one for each connection.
        while set.try_join_next().is_some() {}
        set.spawn(async move {
            let alarm = PanicAlarm(name);
            task.await;
            std::mem::forget(alarm);
        });
    }

    /// How many tasks have not ended.
    pub fn running(&self) -> usize {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        while set.try_join_next().is_some() {}
        set.len()
    }

    /// Ends all tasks at their next await and waits until they are gone.
    pub async fn shutdown(&self) {
        let mut set = std::mem::take(&mut *self.set.lock().unwrap_or_else(PoisonError::into_inner));
        set.shutdown().await;
    }

    /// Waits until every task spawned so far has ended by itself.
    pub async fn join(&self) {
        let mut set = std::mem::take(&mut *self.set.lock().unwrap_or_else(PoisonError::into_inner));
        while set.join_next().await.is_some() {}
    }
}

/// Says so when it is dropped by a panic rather than by the end or the abort of its task.
struct PanicAlarm(&'static str);

impl Drop for PanicAlarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(
                task = self.0,
                "a background task panicked; this is a defect of klamm, please report it"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn dropping_the_owner_ends_its_tasks() {
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let tasks = Tasks::new();
        tasks.spawn("holder", async move {
            let _held = sender;
            std::future::pending::<()>().await;
        });
        assert_eq!(tasks.running(), 1);
        drop(tasks);
        assert!(receiver.await.is_err());
    }

    #[tokio::test]
    async fn join_waits_for_the_end() {
        let tasks = Tasks::new();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        tasks.spawn("sender", async move { sender.send(5).unwrap() });
        tasks.join().await;
        assert_eq!(receiver.await.unwrap(), 5);
    }
}
