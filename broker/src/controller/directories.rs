//! Makes the directories of some names what the image says, as `reconcile.rs` decides, and hands out the logs in them.

use std::sync::Arc;

use super::decide::Attempt;
use super::image::{Image, Topic};
use super::reconcile::{Action, Found, plan};
use super::view::Logs;
use crate::config::topic;
use crate::log::LogConfig;
use crate::partition::{LogManager, Partition};

/// What a look at one name came to, and the logs of the topic that has it.
pub(super) type Looked = (Attempt, Option<Logs>);

/// Looks at each of these names. Blocks on the disk.
pub(super) fn follow(
    logs: &LogManager,
    image: &Image,
    names: &[Arc<str>],
    defaults: &LogConfig,
) -> Vec<Looked> {
    names.iter().map(|name| follow_one(logs, image, name, defaults)).collect()
}

fn follow_one(logs: &LogManager, image: &Image, name: &Arc<str>, defaults: &LogConfig) -> Looked {
    let found: Vec<Found> = logs.partitions_of(name).iter().map(|log| found(log)).collect();
    let wanted = image.topic(name);
    let config = wanted.map(|topic| topic::log_config(defaults, &topic.settings));
    let mut failure: Option<String> = None;
    for action in plan(name, image, &found) {
        if let Err(why) = carry_out(logs, name, wanted.map(|topic| &**topic), config.as_ref(), action) {
            // One line for each name: on a full disk all of them fail, and again and again.
            if failure.is_none() {
                tracing::error!(topic = %name, ?action, error = why, "a directory is not as the metadata says");
                failure = Some(why);
            }
        }
    }
    let made = wanted.map(|topic| {
        let log = |index| logs.partition(name, index).filter(|log| log.topic_id() == topic.id);
        (0..topic.partitions).map(log).collect()
    });
    (Attempt { name: name.clone(), topic: wanted.map(|topic| topic.id), failure }, made)
}

fn carry_out(
    logs: &LogManager,
    name: &str,
    wanted: Option<&Topic>,
    config: Option<&LogConfig>,
    action: Action,
) -> Result<(), String> {
    match (action, wanted, config) {
        (Action::Remove(index), ..) => {
            tracing::debug!(topic = name, partition = index, "removing what is left of a deleted topic");
            logs.delete_partition(name, index).map(drop).map_err(|error| error.to_string())
        }
        (Action::Create(index), Some(topic), Some(config)) => logs
            .create_partition(name, index, topic.id, config.clone())
            .map(drop)
            .map_err(|error| error.to_string()),
        (Action::Keep(index), Some(_), Some(config)) => {
            if let Some(log) = logs.partition(name, index) {
                log.set_config(config.clone());
            }
            Ok(())
        }
        (Action::Leave(index, id), ..) => {
            tracing::warn!(
                topic = name, partition = index, %id,
                "this partition is in no metadata: it is left alone and not served"
            );
            Ok(())
        }
        (Action::Blocked(index), ..) => Err(format!(
            "a directory {name}-{index} is there that belongs to no topic of this cluster; move it away"
        )),
        (Action::Create(_) | Action::Keep(_), ..) => Ok(()),
    }
}

fn found(log: &Partition) -> Found {
    let nothing = log.offline().is_none() && log.log_end_offset() == 0 && log.size_bytes() == 0;
    let empty = nothing || log.is_unfinished();
    Found { index: log.index(), topic_id: log.topic_id(), empty }
}
