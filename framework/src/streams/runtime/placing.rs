//! What an instance has of which task, and where to ask for a key.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::assignment::HostTasks;
use super::shared::Shared;
use super::standbys::UNKNOWN_LAG;
use crate::store::StoreError;
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

/// An instance that can be asked, and what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InstanceTasks {
    /// Its [`application_server`](super::StreamsConfig::application_server).
    pub host: Arc<str>,
    /// The tasks that it runs.
    pub active: Vec<TaskId>,
    /// The tasks that it has standbys of.
    pub standby: Vec<TaskId>,
}

/// What each instance has, as the group's leader said last.
pub(super) fn instances(shared: &Shared) -> Vec<InstanceTasks> {
    let orders = shared.standbys.orders().borrow();
    let of = |host: &HostTasks| InstanceTasks {
        host: Arc::clone(&host.host),
        active: host.active.clone(),
        standby: host.standby.clone(),
    };
    orders.1.hosts.iter().map(of).collect()
}

/// How many partitions a store has: as many as what its sub-topology reads.
///
/// # Errors
/// The cluster cannot be asked.
pub(super) async fn partitions(shared: &Shared, store: &str) -> Result<i32, StoreError> {
    let mut parts = shared.topology.sub_topologies.iter();
    let part = parts.find(|part| part.stores.iter().any(|name| name == store));
    let mut count = 0;
    for topic in part.into_iter().flat_map(|part| &part.sources) {
        let topic: Arc<str> = topic.in_application(shared.group()).into();
        let found = shared.client.partition_count(&topic).await;
        let failed = |error| StoreError::Engine { store: store.to_owned(), source: Box::new(error) };
        count = count.max(found.map_err(failed)?);
    }
    Ok(count)
}

/// Whether what this instance has of a store may be read: its tasks may be others' by now if its group does not answer.
/// A global table is everybody's.
pub(super) fn may_be_read(shared: &Shared, store: &str) -> bool {
    !shared.topology.graph.stores.contains_key(store) || shared.is_member()
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
    for host in &shared.standbys.orders().borrow().1.hosts {
        if host.active.iter().any(is_it) {
            found.active = Some(Arc::clone(&host.host));
        }
        if host.standby.iter().any(is_it) {
            found.standbys.push(Arc::clone(&host.host));
        }
    }
    found
}
