//! A thread's round: each task gets its slice, and what can be written between records is written.

use tokio::time::Instant;

use super::error::StreamsError;
use super::failing::During;
use super::shared::lock;
use super::slice::ROUND;
use super::worker::{ROWS_AT_A_TIME, Worker, send_outputs};
use crate::streams::task::TaskId;

impl Worker {
    /// Gives ready tasks a slice each, and commits if one is due.
    pub(super) fn process(&mut self) -> Result<(), StreamsError> {
        let until = Instant::now() + ROUND;
        let after = self.next.take();
        let ids: Vec<TaskId> = self.tasks.keys().copied().collect();
        let (before, from): (Vec<_>, Vec<_>) =
            ids.into_iter().partition(|id| after.is_some_and(|at| *id <= at));
        let in_turn: Vec<TaskId> = from.into_iter().chain(before).collect();
        let share = ROUND / u32::try_from(in_turn.len()).unwrap_or(u32::MAX).max(1);
        for id in in_turn {
            // Should it fail again, nothing of the others is lost.
            let failed_before = lock(&self.links.shared.failing).has(id);
            if failed_before {
                self.commit()?;
            }
            let Some(running) = self.tasks.get_mut(&id) else { continue };
            match running.slice(share, self.links.index, &self.links.shared) {
                Ok(()) => {
                    let generation = running.generation;
                    send_outputs(&self.links.outbox, generation, &mut running.task)?;
                }
                Err(source) => return self.failed(id, source, During::Work),
            }
            if failed_before {
                self.commit()?;
            }
            if Instant::now() >= until {
                self.next = Some(id);
                break;
            }
        }
        self.write_on()?;
        self.commit_if_due()
    }

    /// Goes on with what can be written between records: what the last commit left, and changes that the next one
    /// need not write then.
    pub(super) fn write_on(&mut self) -> Result<(), StreamsError> {
        let mut is_settled = true;
        let mut failed = None;
        let shrinks = self.links.shared.cache.held_bytes() > self.links.shared.cache.limit_bytes();
        for (id, running) in self.tasks.iter_mut().filter(|(_, running)| !running.is_restoring()) {
            let written = running.task.settle(ROWS_AT_A_TIME).and_then(|settled| {
                is_settled &= settled;
                running.task.flush_ahead(self.ahead.keep(), ROWS_AT_A_TIME)
            });
            if let Err(source) = written {
                failed = Some((*id, source));
                break;
            }
            if shrinks {
                running.task.shrink();
            }
            send_outputs(&self.links.outbox, running.generation, &mut running.task)?;
        }
        if is_settled && self.committing.take().is_some() {
            self.tell_positions();
        }
        failed.map_or(Ok(()), |(id, source)| self.failed(id, source, During::Work))
    }

    /// Commits when a processor asked for it, or when the changes take too much memory.
    pub(super) fn commit_if_due(&mut self) -> Result<(), StreamsError> {
        let uncommitted: usize = self.tasks.values().map(|running| running.task.uncommitted_bytes()).sum();
        let mut asked = false;
        for running in self.tasks.values_mut() {
            asked |= running.task.take_commit_request();
        }
        if asked || uncommitted > self.memory_share() { self.commit() } else { Ok(()) }
    }

    /// How much memory uncommitted changes may take on this thread.
    fn memory_share(&self) -> usize {
        /// Without a cache, changes still wait for the commit; Kafka's `statestore.uncommitted.max.bytes`.
        const UNCACHED_LIMIT_BYTES: usize = 64 * 1024 * 1024;
        let config = &self.links.shared.config;
        let total = if config.cache_bytes == 0 { UNCACHED_LIMIT_BYTES } else { config.cache_bytes };
        total / self.links.shared.workers.count()
    }
}
