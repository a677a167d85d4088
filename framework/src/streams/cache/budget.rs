//! One budget for all caches of an application.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Told how much is held, so that others take less of the same memory.
pub(crate) type Tell = Arc<dyn Fn(usize) + Send + Sync>;

/// The memory that caches share, whichever thread they are on.
pub(crate) struct CacheBudget {
    limit_bytes: usize,
    held_bytes: AtomicUsize,
    tell: Option<Tell>,
}

impl CacheBudget {
    pub(crate) fn new(limit_bytes: usize, tell: Option<Tell>) -> Arc<Self> {
        Arc::new(Self { limit_bytes, held_bytes: AtomicUsize::new(0), tell })
    }

    /// What all of them may hold together.
    pub(crate) fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// What they hold.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for CacheBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBudget")
            .field("limit_bytes", &self.limit_bytes)
            .field("held_bytes", &self.held_bytes())
            .finish_non_exhaustive()
    }
}

/// One cache's part of the budget; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<CacheBudget>,
    held_bytes: usize,
}

impl Share {
    pub(crate) fn of(budget: &Arc<CacheBudget>) -> Self {
        Self { budget: Arc::clone(budget), held_bytes: 0 }
    }

    /// Takes note of what the cache holds.
    pub(crate) fn set(&mut self, held_bytes: usize) {
        let before = std::mem::replace(&mut self.held_bytes, held_bytes);
        if before == held_bytes {
            return;
        }
        let all = &self.budget.held_bytes;
        match held_bytes.checked_sub(before) {
            Some(more) => all.fetch_add(more, Ordering::Relaxed),
            None => all.fetch_sub(before - held_bytes, Ordering::Relaxed),
        };
        if let Some(tell) = &self.budget.tell {
            tell(self.budget.held_bytes());
        }
    }

    /// What all caches may hold together.
    pub(crate) fn budget_bytes(&self) -> usize {
        self.budget.limit_bytes
    }

    /// What this cache may hold while the others hold what they do.
    pub(crate) fn room_bytes(&self) -> usize {
        let others = self.budget.held_bytes().saturating_sub(self.held_bytes);
        self.budget.limit_bytes.saturating_sub(others)
    }

    /// What this cache may hold when all of them give up the same part of what they hold.
    pub(crate) fn fair_bytes(&self) -> usize {
        let (limit, held) = (self.budget.limit_bytes, self.budget.held_bytes());
        if held <= limit {
            return usize::MAX;
        }
        let fair = self.held_bytes as u128 * limit as u128 / held as u128;
        usize::try_from(fair).unwrap_or(usize::MAX)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}
