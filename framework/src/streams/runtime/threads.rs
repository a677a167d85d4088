//! Threads that come and go while the application runs (KIP-663): the table of them, which task goes where, and moving.
//!
//! A task that moves is committed, taken off its thread with its stores open, and begins again on another one from
//! that commit, as one does whose transaction was aborted. The group hears nothing of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, oneshot};

use super::error::StreamsError;
use super::outbox::Outgoing;
use super::rewind::Lost;
use super::shared::{Background, Command, Route, Shared, lock};
use super::start::start_worker;
use super::worker::Worker;
use crate::store::{StateStore, StoreError};
use crate::streams::task::TaskId;

/// Between looks whether all tasks have moved that are to.
const LOOK: Duration = Duration::from_millis(20);

/// The threads of an application.
#[derive(Default)]
pub(super) struct Workers {
    table: Mutex<Table>,
    /// One change at a time.
    changing: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Table {
    threads: BTreeMap<usize, Thread>,
    /// None comes any more.
    is_closed: bool,
}

struct Thread {
    commands: mpsc::Sender<Command>,
    /// It gets no more tasks.
    is_leaving: bool,
    ended: Ended,
}

/// Told by being dropped: its tasks are gone and its stores closed; its producer is closed.
#[derive(Default)]
pub(super) struct Ended {
    pub(super) thread: Option<oneshot::Receiver<()>>,
    pub(super) outbox: Option<oneshot::Receiver<()>>,
}

impl Workers {
    /// Tells a thread, unless it is gone: then it has none of the tasks any more that this could be about.
    pub(super) fn tell(&self, worker: usize, command: Command) {
        if let Some(thread) = lock(&self.table).threads.get(&worker) {
            thread.commands.send(command).ok();
        }
    }

    pub(super) fn sender(&self, worker: usize) -> Option<mpsc::Sender<Command>> {
        lock(&self.table).threads.get(&worker).map(|thread| thread.commands.clone())
    }

    /// How to tell each of them.
    pub(super) fn senders(&self) -> Vec<mpsc::Sender<Command>> {
        lock(&self.table).threads.values().map(|thread| thread.commands.clone()).collect()
    }

    /// Those that take tasks.
    pub(super) fn staying(&self) -> Vec<usize> {
        let table = lock(&self.table);
        table.threads.iter().filter(|(_, thread)| !thread.is_leaving).map(|(index, _)| *index).collect()
    }

    /// How many take tasks; one at least, for whoever shares something out.
    pub(super) fn count(&self) -> usize {
        self.staying().len().max(1)
    }

    /// Adds one under the smallest number that is free.
    pub(super) fn insert(&self, commands: mpsc::Sender<Command>) -> Result<usize, StreamsError> {
        let mut table = lock(&self.table);
        if table.is_closed {
            return Err(StreamsError::Closed);
        }
        let index = (0..).find(|index| !table.threads.contains_key(index)).unwrap_or_default();
        table.threads.insert(index, Thread { commands, is_leaving: false, ended: Ended::default() });
        Ok(index)
    }

    pub(super) fn ends_with(&self, worker: usize, ended: Ended) {
        if let Some(thread) = lock(&self.table).threads.get_mut(&worker) {
            thread.ended = ended;
        }
    }

    pub(super) fn remove(&self, worker: usize) -> Option<Ended> {
        lock(&self.table).threads.remove(&worker).map(|thread| thread.ended)
    }

    fn leaves(&self, worker: usize) {
        if let Some(thread) = lock(&self.table).threads.get_mut(&worker) {
            thread.is_leaving = true;
        }
    }

    /// Ends all of them; gives what ends with them.
    pub(super) fn close(&self) -> Vec<Ended> {
        let mut table = lock(&self.table);
        table.is_closed = true;
        let stop = |thread: &mut Thread| {
            thread.commands.send(Command::Stop).ok();
            std::mem::take(&mut thread.ended)
        };
        table.threads.values_mut().map(stop).collect()
    }
}

/// Stores of tasks that are between two threads, open as they were.
#[derive(Default)]
pub(super) struct Carried(Mutex<HashMap<TaskId, Engines>>);

/// By the stores' names.
pub(super) type Engines = HashMap<Arc<str>, Arc<dyn StateStore>>;

impl Carried {
    fn put(&self, task: TaskId, engines: Engines) {
        lock(&self.0).insert(task, engines);
    }

    pub(super) fn take(&self, task: TaskId) -> Engines {
        lock(&self.0).remove(&task).unwrap_or_default()
    }

    /// The group took the task meanwhile. What is on disk need not be restored.
    pub(super) fn put_down(&self, task: TaskId) -> Result<(), StoreError> {
        let engines = self.take(task);
        engines.values().try_for_each(|engine| engine.flush())
    }
}

/// The thread with the fewest tasks, of these.
pub(super) fn least_busy(tasks: &BTreeMap<TaskId, Route>, workers: &[usize]) -> usize {
    let busy = |worker: &&usize| tasks.values().filter(|of| of.worker == **worker).count();
    workers.iter().min_by_key(busy).copied().unwrap_or(0)
}

/// Where a task is to begin that has been on a thread before.
pub(super) fn destination(
    tasks: &BTreeMap<TaskId, Route>,
    staying: &[usize],
    wanted: Option<usize>,
    last: usize,
) -> usize {
    let known = [wanted, Some(last)].into_iter().flatten().find(|worker| staying.contains(worker));
    known.unwrap_or_else(|| least_busy(tasks, staying))
}

/// Which tasks have to move so that these threads, and no others, have equally many, give or take one; as few as
/// possible. Pure.
fn spread(tasks: &BTreeMap<TaskId, Route>, staying: &[usize]) -> BTreeMap<TaskId, usize> {
    let mut of: BTreeMap<usize, Vec<TaskId>> = staying.iter().map(|worker| (*worker, Vec::new())).collect();
    let mut homeless = Vec::new();
    for (task, route) in tasks {
        match of.get_mut(&route.worker) {
            Some(tasks) => tasks.push(*task),
            None => homeless.push(*task),
        }
    }
    let mut moves = BTreeMap::new();
    loop {
        let fewest =
            of.iter().min_by_key(|(_, tasks)| tasks.len()).map(|(worker, tasks)| (*worker, tasks.len()));
        let Some((target, fewest)) = fewest else { return moves };
        let task = homeless.pop().or_else(|| {
            let most = of.values_mut().max_by_key(|tasks| tasks.len())?;
            (most.len() > fewest + 1).then(|| most.pop()).flatten()
        });
        let Some(task) = task else { return moves };
        of.entry(target).or_default().push(task);
        moves.insert(task, target);
    }
}

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
            let Some(running) = self.drop_task(*id) else { continue };
            self.dropped_before.add(running.task.dropped());
            let open = |store: &std::rc::Rc<std::cell::RefCell<dyn crate::streams::node::TaskStore>>| {
                let store = store.borrow();
                (Arc::clone(store.name()), store.engine())
            };
            shared.carried.put(*id, running.task.stores().iter().map(open).collect());
            shared.starting.fetch_add(usize::from(!is_restoring), std::sync::atomic::Ordering::AcqRel);
            self.waiting.insert(*id);
            moved.push((*id, *epoch));
        }
        if moved.is_empty() {
            return Ok(());
        }
        shared.settle();
        tracing::info!(application = %shared.group(), thread = self.links.index, tasks = moved.len(), "tasks move");
        self.tell(Outgoing::Again(Lost { tasks: moved, refused: None }))
    }
}

#[cfg(test)]
mod tests {
    use klamm_runtime::{Rng, SeededRng};

    use super::*;

    fn loads(tasks: &BTreeMap<TaskId, Route>, staying: &[usize]) -> Vec<usize> {
        staying.iter().map(|worker| tasks.values().filter(|of| of.worker == *worker).count()).collect()
    }

    #[test]
    fn tasks_are_spread_evenly_and_few_move() {
        let rng = SeededRng::new(0x7EAD);
        for _ in 0..2_000 {
            let below = |limit: u64| (rng.next_u64() % limit) as usize;
            let threads = 1 + below(6);
            let mut staying: Vec<usize> = (0..threads).filter(|_| below(4) > 0).collect();
            if staying.is_empty() {
                staying.push(below(8));
            }
            let mut tasks: BTreeMap<TaskId, Route> = BTreeMap::new();
            for number in 0..below(20) {
                let id = TaskId { sub_topology: number % 3, partition: number as i32 };
                tasks.insert(id, Route { worker: below(threads as u64), epoch: number as u64 });
            }
            let before = loads(&tasks, &staying);
            let homeless = tasks.len() - before.iter().sum::<usize>();
            let moves = spread(&tasks, &staying);
            for (task, worker) in &moves {
                let route = tasks.get_mut(task).unwrap();
                assert!(route.worker != *worker && staying.contains(worker));
                route.worker = *worker;
            }
            let after = loads(&tasks, &staying);
            assert_eq!(after.iter().sum::<usize>(), tasks.len(), "all are somewhere");
            let (most, fewest) = (after.iter().max().unwrap(), after.iter().min().unwrap());
            assert!(most - fewest <= 1, "{before:?} became {after:?}");
            // None leaves a thread that has not too many.
            let left: usize =
                before.iter().zip(&after).map(|(before, after)| before.saturating_sub(*after)).sum();
            assert_eq!(moves.len(), left + homeless);
            assert!(spread(&tasks, &staying).is_empty(), "then nothing moves any more");
        }
    }

    #[test]
    fn a_task_goes_where_it_is_wanted_or_was_and_never_to_one_that_leaves() {
        let tasks =
            BTreeMap::from([(TaskId { sub_topology: 0, partition: 0 }, Route { worker: 1, epoch: 0 })]);
        assert_eq!(destination(&tasks, &[0, 1, 2], Some(2), 1), 2);
        assert_eq!(destination(&tasks, &[0, 1], Some(2), 1), 1);
        assert_eq!(destination(&tasks, &[0, 1], None, 1), 1);
        assert_eq!(destination(&tasks, &[1, 2], Some(0), 0), 2, "the one with fewer");
    }
}
