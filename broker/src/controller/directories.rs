//! Makes the directories of some names what the image says, as `reconcile.rs` decides, and hands out the logs in them.

use std::sync::Arc;

use futures::future::join_all;

use super::decide::Attempt;
use super::image::{Image, Topic};
use super::reconcile::{Action, Found, plan};
use super::view::Logs;
use crate::config::topic;
use crate::log::LogConfig;
use crate::log::metadata::PARTITION_METADATA;
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
        let work = actions.iter().map(|action| async {
            match lost(&logs, &name, &image, *action) {
                Some(why) => Err(why),
                None => carry_out(&logs, &name, wanted, config.as_ref(), *action).await,
            }
        });
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

/// Why a partition must not be made: it was there with records, and its directory is gone. What is known of a name that
/// other topics had may be of those.
fn lost(logs: &LogManager, name: &str, image: &Image, action: Action) -> Option<String> {
    let Action::Create(index) = action else { return None };
    let (path, offset) = logs.missing(name, index).filter(|_| !image.had_another(name))?;
    Some(format!(
        "{} is missing, and had been synced up to offset {offset}. Put it back, from a backup if need be, and restart; \
         or delete the topic to accept the loss",
        path.display()
    ))
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
        // Where it should be was said at the start, once for all of them.
        (Action::Create(index), Some(topic), _) if logs.is_presumed_offline(name, index, topic.id) => Ok(()),
        (Action::Create(index), Some(topic), Some(config)) => {
            let made = logs.create_on_thread(name, index, topic.id, config.clone()).await;
            made.map(drop).map_err(|error| error.to_string())
        }
        (Action::Keep(index), Some(_), Some(config)) => {
            if let Some(log) = logs.partition(name, index) {
                log.set_config(config.clone());
                // Whose it is may not have been known before.
                log.leave_alone(false);
            }
            Ok(())
        }
        (Action::Leave(index, id), ..) => {
            let log = logs.partition(name, index);
            if let Some(log) = &log {
                log.leave_alone(true);
            }
            if log.as_ref().is_some_and(|log| unreadable(log).is_some()) {
                // It has said so itself.
                return Ok(());
            }
            let dir = log.map(|log| log.dir().display().to_string()).unwrap_or_default();
            tracing::warn!(
                topic = name, partition = index, %id, dir,
                "this partition is in no metadata: it is left alone and not served"
            );
            Ok(())
        }
        (Action::Blocked(index), topic, _) => {
            Err(why_blocked(logs.partition(name, index), name, index, topic))
        }
        (Action::Create(_) | Action::Keep(_), ..) => Ok(()),
    }
}

/// Why a directory that is there is not the topic's. The advice for a stranger's would take away the topic's own
/// records.
fn why_blocked(log: Option<Arc<Partition>>, name: &str, index: i32, topic: Option<&Topic>) -> String {
    if let Some(error) = log.as_ref().and_then(|log| unreadable(log)) {
        return format!("{name}-{index} could not be read at the start: {error}");
    }
    match log.filter(|log| log.topic_id().is_zero()).zip(topic) {
        Some((log, topic)) => format!(
            "{} is missing or damaged, so that nobody knows whether the records beside it are this topic's. If they \
             are, write the lines \"version: 0\" and \"topic_id: {}\" into it and restart; otherwise move the \
             directory away",
            log.dir().join(PARTITION_METADATA).display(),
            topic.id
        ),
        None => {
            format!(
                "a directory {name}-{index} is there that belongs to no topic of this cluster; move it away"
            )
        }
    }
}

/// Why nobody knows whose it is, where that could not be read.
fn unreadable(log: &Partition) -> Option<String> {
    log.offline().filter(|_| log.topic_id().is_zero()).map(|error| error.to_string())
}

fn found(log: &Partition) -> Found {
    let nothing = log.offline().is_none() && log.is_without_records();
    let empty = nothing || log.is_unfinished();
    Found { index: log.index(), topic_id: log.topic_id(), empty }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Uuid;
    use klamm_runtime::{SeededRng, TokioClock};

    use super::super::record::MetadataRecord;
    use super::*;
    use crate::disk::{Calls, DiskCall, Failure, MemoryDisk};
    use crate::partition::LogManagerOptions;

    const ID: Uuid = Uuid::from_u128(7);

    async fn open(disk: &MemoryDisk) -> LogManager {
        let (clock, rng) = (Arc::new(TokioClock::starting_at(0)), Arc::new(SeededRng::new(1)));
        let options = LogManagerOptions::new(vec!["/data".into()]);
        LogManager::open(Arc::new(disk.clone()), clock, rng, options).await.unwrap()
    }

    /// A start without descriptors could not read whose a partition was, and advised to move its directory away.
    #[tokio::test(start_paused = true)]
    async fn a_partition_that_could_not_be_read_is_not_taken_for_a_strangers() {
        let disk = MemoryDisk::new();
        let logs = open(&disk).await;
        logs.create_partition("t", 0, ID, LogConfig::default()).unwrap();
        logs.shutdown().await.unwrap();
        drop(logs);
        let mut image = Image::default();
        image.apply(&MetadataRecord::Topic { name: "t".into(), id: ID });
        image.apply(&MetadataRecord::Partition { topic_id: ID, index: 0 });

        disk.fail(Calls::of(&[DiskCall::Open]).on("partition.metadata"), Failure::Os(24));
        let logs = open(&disk).await;
        let logs = Arc::new(logs);
        let looked = follow(logs.clone(), image.clone(), "t".into(), LogConfig::default()).await;
        let said = looked.0.failure.unwrap();
        assert!(said.contains("t-0 could not be read") && !said.contains("move it away"), "{said}");
        let log = logs.partition("t", 0).unwrap();
        assert!(log.is_left_alone());
        // It is read again by itself, and is the topic's then.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let looked = follow(logs.clone(), image.clone(), "t".into(), LogConfig::default()).await;
        assert_eq!((looked.0.failure, log.is_left_alone()), (None, false));
        drop((logs, log));
        let logs = Arc::new(open(&disk).await);
        let looked = follow(logs, image, "t".into(), LogConfig::default()).await;
        assert_eq!(looked.0.failure, None);
    }
}
