//! What a task needs of the application around it, when it begins, has its stores, and goes.

use std::sync::Arc;

use klamm_runtime::{Clock, SystemClock, Tasks};

use super::changelogs::WORTH_A_STAMP_MS;
use super::shared::{Command, Flow, Shared};
use crate::store::{Batch, StoreError};
use crate::streams::node::{AskPartitionCount, TaskStore, TopicId};
use crate::streams::task::Task;

/// Lets asynchronous calls run where the application was started; they end with the task. One that comes back wakes
/// the thread.
pub(super) fn call_on_runtime(shared: &Shared, task: &mut Task) {
    let (runtime, calls) = (shared.runtime.clone(), Tasks::new());
    task.context_mut().spawn = Some(Box::new(move |call| {
        let _inside = runtime.enter();
        calls.spawn("streams-call", call);
    }));
    let route = shared.routes().tasks.get(&task.id).copied();
    if let Some(worker) = route.and_then(|route| shared.workers.sender(route.worker)) {
        task.arrivals().wake_by(move || drop(worker.send(Command::Wake)));
    }
}

/// Topics that match a pattern come with their first partition. One that has no partition of this number, because it
/// has fewer than others of the sub-topology, is not waited for.
pub(super) fn take_up(task: &mut Task, flows: &[Arc<Flow>]) {
    flows.iter().for_each(|flow| task.take_up(flow.topic, &flow.partition.topic));
    let has_flow = |topic: &TopicId| flows.iter().any(|flow| flow.topic == *topic);
    let without: Vec<TopicId> = task.input_topics().filter(|topic| !has_flow(topic)).collect();
    without.into_iter().for_each(|topic| task.set_caught_up(topic, true));
}

/// For partitioners on this thread, which may wait.
pub(super) fn ask_partition_count(shared: &Shared) -> AskPartitionCount {
    let (client, runtime) = (shared.client.clone(), shared.runtime.clone());
    Arc::new(move |topic| Ok(runtime.block_on(client.partition_count(topic))?))
}

/// Leaves on disk what its next owner need not restore; `is_whole` if that is all of the changelogs.
pub(super) fn leave(task: &Task, is_whole: bool) -> Result<(), StoreError> {
    for store in task.stores() {
        let engine = store.borrow().engine();
        if is_whole {
            let position = Some(engine.position()?);
            engine.apply(&Batch { position, ..Batch::new() })?;
        }
        engine.flush()?;
    }
    Ok(())
}

/// A store has all of its changelog.
pub(super) fn is_whole(store: &mut dyn TaskStore) -> Result<(), StoreError> {
    store.look_again()?;
    let (engine, position) = (store.engine(), store.position());
    engine.end_restore()?;
    match engine.last_written_ms()? {
        Some(stamp_ms) if SystemClock.now_ms().saturating_sub(stamp_ms) >= WORTH_A_STAMP_MS => {
            engine.apply(&Batch { position: Some(position), ..Batch::new() })
        }
        _ => Ok(()),
    }
}
