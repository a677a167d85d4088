//! What an instance finds on its disk when it starts: opened once, so that the group's leader hears of it, and kept
//! open for the tasks that come.

use std::sync::Arc;

use klamm_client::TopicPartition;
use klamm_runtime::Blocking;

use super::engines::TaskEngines;
use super::shared::Shared;
use super::standbys::{Engines, UNKNOWN_LAG};
use crate::store::StoreError;
use crate::streams::node::StoreSpec;
use crate::streams::task::TaskId;
use crate::streams::topology::TopicName;

/// Looks for state. What cannot be opened is left to whoever needs it.
pub(super) async fn find(shared: &Arc<Shared>) {
    if shared.directory.is_none() {
        return;
    }
    let here = Arc::clone(shared);
    let found = Blocking::start(move || {
        let tasks = tasks_on_disk(&here);
        let opened = tasks.into_iter().filter_map(|task| match open(&here, task) {
            Ok(engines) => Some((task, engines)),
            Err(error) => {
                tracing::warn!(%task, %error, "state that was found is not told of");
                None
            }
        });
        opened.collect::<Vec<(TaskId, Engines)>>()
    });
    let found = found.await.unwrap_or_default();
    if found.is_empty() {
        return;
    }
    let lags = lags(shared, &found).await;
    for ((task, engines), lag) in found.into_iter().zip(lags) {
        shared.standbys.put(task, engines, lag);
    }
}

/// Of tasks that the topology has.
fn tasks_on_disk(shared: &Shared) -> Vec<TaskId> {
    let Ok(entries) = std::fs::read_dir(shared.config.directory()) else { return Vec::new() };
    let named = |name: &str| {
        let (sub_topology, partition) = name.split_once('_')?;
        let task = TaskId { sub_topology: sub_topology.parse().ok()?, partition: partition.parse().ok()? };
        // Neither `0_+1` nor `0_1.damaged-1`.
        (task.to_string() == name && task.partition >= 0).then_some(task)
    };
    let tasks = entries.flatten().filter_map(|entry| named(entry.file_name().to_str()?));
    let mut tasks: Vec<TaskId> = tasks.filter(|task| is_stateful(shared, *task)).collect();
    tasks.sort_unstable();
    tasks
}

fn is_stateful(shared: &Shared, task: TaskId) -> bool {
    specs(shared, task).any(|store| store.logged && store.is_on_disk())
}

fn specs(shared: &Shared, task: TaskId) -> impl Iterator<Item = &StoreSpec> {
    let part = shared.topology.sub_topologies.get(task.sub_topology);
    part.into_iter().flat_map(|part| shared.topology.stores_of(part))
}

fn open(shared: &Shared, task: TaskId) -> Result<Engines, StoreError> {
    let mut engines = TaskEngines::new(shared, task);
    for spec in specs(shared, task) {
        engines.open(spec)?;
    }
    Ok(engines.opened())
}

/// How far behind its changelogs each of these tasks is; the cluster is asked once.
async fn lags(shared: &Shared, found: &[(TaskId, Engines)]) -> Vec<u64> {
    let read = Vec::from_iter(found.iter().map(|(task, engines)| positions(shared, *task, engines)));
    let partitions: Vec<TopicPartition> =
        read.iter().flatten().flatten().map(|(partition, _)| partition.clone()).collect();
    let ends = shared.ends.end_offsets(&partitions).await.ok();
    let missing = |(partition, position): &(TopicPartition, i64)| {
        let end = ends.as_ref()?.get(partition).copied().unwrap_or(0);
        Some(u64::try_from(end.saturating_sub(*position)).unwrap_or(0))
    };
    let lag = |positions: Vec<(TopicPartition, i64)>| {
        positions.iter().map(missing).try_fold(0, |sum: u64, missing| Some(sum.saturating_add(missing?)))
    };
    read.into_iter().map(|positions| positions.and_then(lag).unwrap_or(UNKNOWN_LAG)).collect()
}

/// How far the stores of a task are in their changelogs; `None` if one of them does not say it.
fn positions(shared: &Shared, task: TaskId, engines: &Engines) -> Option<Vec<(TopicPartition, i64)>> {
    let logged = specs(shared, task).filter(|spec| spec.logged);
    let position = |spec: &StoreSpec| {
        let (_, engine) = engines.iter().find(|(name, _)| *name == spec.name)?;
        let topic = TopicName::changelog(&spec.name).in_application(shared.group());
        Some((TopicPartition::new(topic, task.partition), engine.position().ok()?.changelog_offset))
    };
    logged.map(position).collect()
}
