//! What handlers saw, as state that tests share with them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use klamm::prelude::*;
use tokio::sync::Semaphore;

/// A list that handlers write to.
#[derive(Debug, Clone, Default)]
pub struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    pub fn add(&self, what: impl Into<String>) {
        self.list().push(what.into());
    }

    pub fn all(&self) -> Vec<String> {
        self.list().clone()
    }

    /// How often it was seen.
    pub fn count(&self, what: &str) -> usize {
        self.list().iter().filter(|seen| *seen == what).count()
    }

    fn list(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A gate that handlers wait at until the test opens it.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Semaphore>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }
}

impl Gate {
    pub async fn pass(&self) {
        self.0.acquire().await.unwrap().forget();
    }

    pub fn let_through(&self, count: usize) {
        self.0.add_permits(count);
    }
}

/// Adds the value to what was seen.
pub async fn note(Value(text): Value<String>, State(seen): State<Seen>) {
    seen.add(text);
}

/// Waits until `condition` holds.
pub async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

/// A topic and a group that no other test uses, nor an earlier run on the same cluster.
pub fn own_names() -> (String, String) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let run = std::process::id();
    (format!("t{run}-{number}"), format!("g{run}-{number}"))
}

/// As [`until`], for what takes minutes of the paused clock.
pub async fn until_at_last(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}
