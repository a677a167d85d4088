//! Makes the directories of some names what the image says, as `reconcile.rs` decides, and hands out the logs in them.

use std::sync::Arc;

use futures::future::join_all;

use super::decide::Attempt;
use super::image::{Image, Topic};
use super::reconcile::{Action, Found, plan};
use super::view::Logs;
use crate::config::topic;
use crate::log::LogConfig;
use crate::partition::{LogManager, Partition};

/// What a look at one name came to, and the logs of the topic that has it.
pub(super) type Looked = (Attempt, Option<Logs>);

/// Looks at one name. Every directory's work is done by its own threads, so that one that hangs holds up the names that
/// have to do with it.
pub(super) async fn follow(
    logs: Arc<LogManager>,
    image: Image,
    name: Arc<str>,
    defaults: LogConfig,
) -> Looked {
    let found: Vec<Found> = logs.partitions_of(&name).iter().map(|log| found(log)).collect();
    let wanted = image.topic(&name).map(|topic| &**topic);
    let config = wanted.map(|topic| topic::log_config(&defaults, &topic.settings));
    let (removals, others): (Vec<Action>, Vec<Action>) =
        plan(&name, &image, &found).into_iter().partition(|action| matches!(action, Action::Remove(_)));
    let mut failure: Option<String> = None;
    for actions in [removals, others] {
        let work = actions.iter().map(|action| carry_out(&logs, &name, wanted, config.as_ref(), *action));
        for (action, done) in actions.iter().zip(join_all(work).await) {
            // One line for each name: on a full disk all of them fail, and again and again.
            if let Err(why) = done
                && failure.is_none()
            {
                tracing::error!(topic = %name, ?action, error = why, "a directory is not as the metadata says");
                failure = Some(why);
            }
        }
    }
    let made = wanted.map(|topic| {
        let log = |index| logs.partition(&name, index).filter(|log| log.topic_id() == topic.id);
        (0..topic.partitions).map(log).collect()
    });
    let topic = wanted.map(|topic| topic.id);
    (Attempt { name, topic, failure }, made)
}

async fn carry_out(
    logs: &LogManager,
    name: &str,
    wanted: Option<&Topic>,
    config: Option<&LogConfig>,
    action: Action,
) -> Result<(), String> {
    match (action, wanted, config) {
        (Action::Remove(index), ..) => {
            tracing::debug!(topic = name, partition = index, "removing what is left of a deleted topic");
            logs.delete_on_thread(name, index).await.map(drop).map_err(|error| error.to_string())
        }
        (Action::Create(index), Some(topic), Some(config)) => {
            let made = logs.create_on_thread(name, index, topic.id, config.clone()).await;
            made.map(drop).map_err(|error| error.to_string())
        }
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
        (Action::Blocked(index), ..) => {
            Err(match logs.partition(name, index).and_then(|log| log.offline()) {
                // Whose it is may be what cannot be read.
                Some(error) => format!("the directory {name}-{index} cannot be used: {error}"),
                None => format!(
                    "a directory {name}-{index} is there that belongs to no topic of this cluster; move it away"
                ),
            })
        }
        (Action::Create(_) | Action::Keep(_), ..) => Ok(()),
    }
}

fn found(log: &Partition) -> Found {
    let empty = log.offline().is_none() && log.log_end_offset() == 0 && log.size_bytes() == 0;
    Found { index: log.index(), topic_id: log.topic_id(), empty }
}
