//! Threads that come and go while the application runs (KIP-663).
//!
//! A task that moves is committed, taken off its thread with its stores open, and begins again on another one from
//! that commit, as one does whose transaction was aborted. The group hears nothing of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, oneshot};

use super::error::StreamsError;
use super::outbox::Outgoing;
use super::rewind::Lost;
use super::running::Running;
use super::shared::{Background, Command, Shared, lock};
use super::spawn::start_worker;
use super::spread::{least_busy, spread};
use super::standbys::UNKNOWN_LAG;
use super::worker::Worker;
use super::workers::Ended;
use crate::streams::task::TaskId;

/// Between looks whether all tasks have moved that are to.
const LOOK: Duration = Duration::from_millis(20);

/// Starts another thread, and gives it its share of the tasks.
pub(super) async fn add(shared: &Arc<Shared>, background: &Background) -> Result<usize, StreamsError> {
    let changing = Arc::clone(&shared.workers.changing).lock_owned().await;
    if *shared.close.borrow() {
        return Err(StreamsError::Closed);
    }
    start_worker(shared, background)?;
    change(shared, background, changing, None).await
}

/// Ends the thread with the fewest tasks, after others have taken them over.
pub(super) async fn remove(shared: &Arc<Shared>, background: &Background) -> Result<usize, StreamsError> {
    let changing = Arc::clone(&shared.workers.changing).lock_owned().await;
    if *shared.close.borrow() {
        return Err(StreamsError::Closed);
    }
    let leaving = {
        let routes = shared.routes();
        let mut staying = shared.workers.staying();
        if staying.len() < 2 {
            return Err(StreamsError::LastThread);
        }
        // Of two with as many, the one that came last.
        staying.reverse();
        let leaving = least_busy(&routes.tasks, &staying);
        shared.workers.leaves(leaving);
        leaving
    };
    change(shared, background, changing, Some(leaving)).await
}

/// Goes on by itself when nobody waits for it any more: a thread that leaves has to be gone some time.
async fn change(
    shared: &Arc<Shared>,
    background: &Background,
    changing: OwnedMutexGuard<()>,
    leaving: Option<usize>,
) -> Result<usize, StreamsError> {
    let (done, changed) = oneshot::channel();
    let moving = Arc::clone(shared);
    background.spawn("streams-threads", async move {
        settle(&moving, leaving).await;
        drop(changing);
        done.send(()).ok();
    });
    changed.await.map_err(|_| StreamsError::Closed)?;
    if *shared.close.borrow() { Err(StreamsError::Closed) } else { Ok(shared.workers.count()) }
}

async fn settle(shared: &Arc<Shared>, leaving: Option<usize>) {
    {
        let mut routes = shared.routes();
        routes.moving = spread(&routes.tasks, &shared.workers.staying());
    }
    loop {
        if *shared.close.borrow() {
            return;
        }
        let mut by_worker: BTreeMap<usize, Vec<(TaskId, u64)>> = BTreeMap::new();
        {
            let routes = shared.routes();
            for (task, route) in &routes.tasks {
                let moves = routes.moving.contains_key(task) || leaving == Some(route.worker);
                if moves {
                    by_worker.entry(route.worker).or_default().push((*task, route.epoch));
                }
            }
        }
        if by_worker.is_empty() {
            break;
        }
        for (worker, tasks) in by_worker {
            let (done, moved) = oneshot::channel();
            shared.workers.tell(worker, Command::Move { tasks, done });
            // A thread that ended has none of them any more.
            moved.await.ok();
        }
        tokio::time::sleep(LOOK).await;
    }
    let Some(leaving) = leaving else { return };
    shared.workers.tell(leaving, Command::Stop);
    let Some(Ended { thread, outbox }) = shared.workers.remove(leaving) else { return };
    for ended in [thread, outbox].into_iter().flatten() {
        // Its number, and with it the name of its transactions, is free then.
        ended.await.ok();
    }
    lock(&shared.ledger).thread_ends(leaving);
    tracing::info!(application = %shared.group(), thread = leaving, "a thread has left");
}

impl Worker {
    /// Hands tasks on to other threads, after a commit. One that is not committed stays: it will be asked for again.
    pub(super) fn move_away(&mut self, tasks: &[(TaskId, u64)]) -> Result<(), StreamsError> {
        let is_here = |worker: &mut Self| {
            tasks.iter().any(|(id, epoch)| {
                worker.incarnation(*id, *epoch).is_some_and(|running| !running.is_restoring())
            })
        };
        if is_here(self) {
            self.commit_after(true)?;
        }
        let shared = Arc::clone(&self.links.shared);
        let mut moved = Vec::new();
        for (id, epoch) in tasks {
            // Gone, if the commit came to nothing: it begins again elsewhere anyway.
            let Some(running) = self.incarnation(*id, *epoch) else { continue };
            let is_restoring = running.is_restoring();
            if !is_restoring && (running.has_changed() || !running.uncommitted_offsets().is_empty()) {
                continue;
            }
            let Some(running) = self.take_task(*id) else { continue };
            self.dropped_before.add(running.task.dropped());
            let Running { task, engines, .. } = running;
            drop(task);
            shared.standbys.put(*id, engines, if is_restoring { UNKNOWN_LAG } else { 0 });
            shared.starting.fetch_add(usize::from(!is_restoring), Ordering::AcqRel);
            self.waiting.insert(*id);
            moved.push((*id, *epoch));
        }
        if moved.is_empty() {
            return Ok(());
        }
        shared.settle();
        tracing::info!(application = %shared.group(), thread = self.links.index, tasks = moved.len(), "tasks move");
        self.tell(Outgoing::Again(Lost { tasks: moved, ..Lost::default() }))
    }
}
