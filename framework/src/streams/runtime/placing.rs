//! What an instance has of which task, and where to ask for a key.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::shared::Shared;
use super::standbys::UNKNOWN_LAG;
use crate::streams::task::TaskId;

/// Stores of a task that runs on another instance, which follow their changelogs here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StandbyTask {
    /// Which one.
    pub task: TaskId,
    /// Whether it moves here when it has caught up; if not, it is kept for the case that the other instance is gone.
    pub is_warming_up: bool,
    /// How many changelog records its stores lack, all together; `None` while that is not known.
    pub lag: Option<u64>,
}

/// Which instances have a key, of those that have an
/// [`application_server`](super::StreamsConfig::application_server).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyHosts {
    /// The partition of the store that the key belongs to.
    pub partition: i32,
    /// Who processes the key's records.
    pub active: Option<Arc<str>>,
    /// Who has a copy, a little behind.
    pub standbys: Vec<Arc<str>>,
}

/// What this instance holds of tasks that run elsewhere.
pub(super) fn standby_tasks(shared: &Shared) -> Vec<StandbyTask> {
    let orders = shared.standbys.last_orders();
    let lags = shared.standbys.standby_lags().into_iter();
    lags.map(|(task, lag)| StandbyTask {
        task,
        is_warming_up: orders.warming.contains(&task),
        lag: (lag != UNKNOWN_LAG).then_some(lag),
    })
    .collect()
}

/// Who has this partition of a store.
pub(super) fn hosts(shared: &Shared, store: &str, partition: i32) -> KeyHosts {
    let parts = shared.topology.sub_topologies.iter().enumerate();
    let holders: BTreeSet<usize> = parts
        .filter(|(_, part)| part.stores.iter().any(|name| name == store))
        .map(|(index, _)| index)
        .collect();
    let is_it = |task: &TaskId| task.partition == partition && holders.contains(&task.sub_topology);
    let mut found = KeyHosts { partition, active: None, standbys: Vec::new() };
    for host in shared.standbys.last_orders().hosts {
        if host.active.iter().any(is_it) {
            found.active = Some(Arc::clone(&host.host));
        }
        if host.standby.iter().any(is_it) {
            found.standbys.push(host.host);
        }
    }
    found
}
