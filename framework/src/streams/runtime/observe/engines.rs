//! What the engines of the stores say of their rows and memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::shared::{Shared, lock};
use crate::store::EngineFigures;
use crate::streams::task::TaskId;

/// By task and store.
pub(super) type OfEngines = BTreeMap<(TaskId, Arc<str>), EngineFigures>;

/// Asks the engines of all tasks that process. It reads no files, and may wait for a lock of an engine for a moment.
pub(super) fn ask(shared: &Shared) -> OfEngines {
    let engines: Vec<_> = {
        let tasks: Vec<TaskId> = shared.routes().tasks.keys().copied().collect();
        let published = lock(&shared.stores);
        let stores = shared.topology.sub_topologies.iter().enumerate().flat_map(|(index, part)| {
            shared.topology.stores_of(part).map(move |store| (index, Arc::clone(&store.name)))
        });
        let of_store = |(sub_topology, name): (usize, Arc<str>)| {
            let here = published.get(&*name).into_iter().flatten();
            let engines: Vec<_> = here
                .map(|(partition, engine)| (TaskId { sub_topology, partition: *partition }, engine))
                .filter(|(task, _)| tasks.contains(task))
                .filter_map(|(task, engine)| Some(((task, Arc::clone(&name)), engine.upgrade()?)))
                .collect();
            engines
        };
        stores.flat_map(of_store).collect()
    };
    engines.into_iter().map(|(place, engine)| (place, engine.figures())).collect()
}
