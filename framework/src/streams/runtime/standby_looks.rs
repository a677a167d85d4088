//! Looks at how far a group is, for standbys that are asked for what was just written.

use std::sync::Arc;
use std::time::Duration;

use klamm_client::TopicPartition;
use tokio::time::Instant;

use super::error::StreamsError;
use super::shared::Shared;
use super::standby_inputs::Mark;
use crate::streams::node::StoreSpec;
use crate::streams::task::TaskId;
use crate::streams::topology::TopicName;

/// Between two looks at how far a task is.
const LOOK: Duration = Duration::from_millis(100);

/// Finds out what a standby that goes on from now will have: what is committed, and then where the changelogs end.
pub(super) async fn look(shared: &Shared, task: TaskId) -> Result<(), StreamsError> {
    let inputs = &shared.standbys.inputs;
    let mut looked = inputs.looked.lock().await;
    // Prunes what is reached.
    inputs.of(task);
    if looked.get(&task).is_some_and(|at| at.elapsed() < LOOK) || inputs.is_full(task) {
        return Ok(());
    }
    let Some(consumer) = shared.consumer() else { return Ok(()) };
    let part = &shared.topology.sub_topologies[task.sub_topology];
    let named = |topic: &TopicName| {
        TopicPartition::new(Arc::from(topic.in_application(shared.group())), task.partition)
    };
    let sources: Vec<TopicPartition> = part.sources.iter().map(named).collect();
    let logged = shared.topology.stores_of(part).filter(|store: &&StoreSpec| store.logged);
    let changelogs: Vec<TopicPartition> =
        logged.map(|store| named(&TopicName::changelog(&store.name))).collect();
    let committed = consumer.committed(&sources).await?;
    // After that; and with what is not committed, for what is may not be seen to be so yet.
    let ends = shared.ends.end_offsets(&changelogs).await?;
    let inputs_of = sources.iter().filter_map(|of| Some((Arc::clone(&of.topic), committed.get(of)?.offset)));
    inputs.mark(task, Mark { ends, inputs: inputs_of.collect() });
    looked.insert(task, Instant::now());
    Ok(())
}
