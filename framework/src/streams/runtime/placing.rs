//! What an instance has of which task, and where to ask for a key.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::app::StreamsApp;
use super::shared::{Shared, lock};
use crate::streams::task::TaskId;

/// What an instance does for a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TaskRole {
    /// It processes.
    Active,
    /// It is to process, and its stores are restored before.
    Restoring,
    /// Its stores follow their changelogs, for the case that the active one is gone.
    Standby,
    /// Its stores follow their changelogs, and it moves here when they have caught up.
    WarmUp,
}

/// A task that an instance has something of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskStatus {
    /// The task.
    pub task: TaskId,
    /// What the instance does for it.
    pub role: TaskRole,
    /// How many changelog records its stores lack, all together, of a standby or one that warms up; `None` where that is
    /// not known, or nothing is lacking that could be counted.
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

impl StreamsApp {
    /// The tasks that this instance runs, restores, or has a copy of, in the order of their ids.
    pub fn tasks(&self) -> Vec<TaskStatus> {
        let shared = &self.shared;
        let running: Vec<TaskId> = shared.routes().tasks.keys().copied().collect();
        let mut tasks: Vec<TaskStatus> = Vec::new();
        for task in &running {
            let role = if is_restoring(shared, *task) { TaskRole::Restoring } else { TaskRole::Active };
            tasks.push(TaskStatus { task: *task, role, lag: None });
        }
        let orders = shared.standbys.last_orders();
        for (task, lag) in shared.standbys.standby_lags() {
            if running.contains(&task) {
                continue;
            }
            let role = if orders.warming.contains(&task) { TaskRole::WarmUp } else { TaskRole::Standby };
            let lag = Some(lag).filter(|lag| *lag != super::standbys::UNKNOWN_LAG);
            tasks.push(TaskStatus { task, role, lag });
        }
        tasks.sort_by_key(|status| status.task);
        tasks
    }
}

/// Tasks publish their stores when they begin to process.
fn is_restoring(shared: &Shared, task: TaskId) -> bool {
    let Some(part) = shared.topology.sub_topologies.get(task.sub_topology) else { return false };
    let published = lock(&shared.stores);
    let is_there = |store: &str| published.get(store).is_some_and(|of| of.contains_key(&task.partition));
    shared.topology.stores_of(part).any(|store| !is_there(&store.name))
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
