//! Commands are obeyed: in the poll loop, between two reads, so that nothing that was read before a seek comes after
//! it.

use std::collections::BTreeSet;
use std::sync::Arc;

use klamm_client::{ConsumeError, ConsumerHandle, TopicPartition};

use super::command::{Command, CommandError, SeekTo, Todo};
use super::events::PauseReason;
use super::shared::Shared;
use super::sought::Sought;
use super::troubles::Subject;
use crate::listener::flow::PartId;
use crate::listener::topics::{Topics, is_legal};

pub(super) fn obey(shared: &Shared, sought: &mut Sought, Command { what, done }: Command) {
    let obeyed = match what {
        Todo::Pause(place) => {
            shared.change_and_tell(|flow| flow.pause(place.as_ref()));
            shared.observed.paused(place.as_ref(), PauseReason::Asked);
            Ok(())
        }
        Todo::Resume(place) => {
            shared.change_and_tell(|flow| flow.resume(place.as_ref()));
            shared.observed.resumed(place.as_ref(), PauseReason::Asked);
            Ok(())
        }
        Todo::Seek(place, to) => seek(shared, &place, to).map(|part| sought.add(part, place)),
        Todo::Resize(workers) => {
            shared.change(|flow| flow.resize(workers));
            Ok(())
        }
        Todo::AddTopics(topics) => change_topics(shared, |mut names| {
            names.extend(topics);
            names
        }),
        Todo::RemoveTopics(topics) => change_topics(shared, |mut names| {
            names.retain(|name| !topics.contains(name));
            names
        }),
    };
    // Who asked may have stopped waiting.
    let _ = done.send(obeyed);
}

/// The listener ends.
pub(super) fn refuse(Command { done, .. }: Command) {
    let _ = done.send(Err(CommandError::Ended));
}

fn consumer(shared: &Shared) -> Result<&ConsumerHandle, CommandError> {
    shared.consumer().ok_or(CommandError::Ended)
}

/// What was delivered before counts for nothing from here on: its results are void, and the place that is read next is
/// committed before anything is finished.
fn seek(shared: &Shared, place: &TopicPartition, to: SeekTo) -> Result<PartId, CommandError> {
    let consumer = consumer(shared)?;
    let Some(part) = shared.look(|flow| flow.id(place)) else {
        return Err(CommandError::NotAssigned { partition: place.clone() });
    };
    let sought = match to {
        SeekTo::Offset(offset) => consumer.seek(place, offset),
        SeekTo::Beginning => consumer.seek_to_beginning(place),
        SeekTo::End => consumer.seek_to_end(place),
        SeekTo::TimestampMs(timestamp_ms) => consumer.seek_to_timestamp(place, timestamp_ms),
    };
    sought.map_err(|error| match error {
        ConsumeError::NotAssigned { partition } => CommandError::NotAssigned { partition },
        error => error.into(),
    })?;
    shared.change_and_tell(|flow| flow.restart(part).into_iter().collect());
    // What could not be read there.
    shared.troubles.over(&Subject::Reading(place.clone()));
    Ok(part)
}

/// Subscribes to other names; the group shares out anew.
fn change_topics(
    shared: &Shared,
    change: impl FnOnce(BTreeSet<Arc<str>>) -> BTreeSet<Arc<str>>,
) -> Result<(), CommandError> {
    if shared.settings.partitions.is_some() {
        return Err(CommandError::Partitions);
    }
    let mut topics = shared.topics();
    let Topics::Names(names) = &mut *topics else { return Err(CommandError::Pattern) };
    let changed = change(names.iter().cloned().collect());
    if changed.is_empty() {
        return Err(CommandError::NoTopics);
    }
    if let Some(topic) = changed.iter().find(|name| !is_legal(name)) {
        return Err(CommandError::IllegalTopic { topic: Arc::clone(topic) });
    }
    let settings = &shared.settings;
    let outputs = [settings.policy.dead_letter_topic().flatten(), settings.send_to.as_ref()];
    if let Some(topic) = outputs.into_iter().flatten().find(|topic| changed.contains(*topic)) {
        return Err(CommandError::OwnOutput { topic: Arc::clone(topic) });
    }
    let gone = names.iter().filter(|name| !changed.contains(*name));
    let gone: Vec<Arc<str>> = gone.cloned().collect();
    let changed: Vec<Arc<str>> = changed.into_iter().collect();
    consumer(shared)?.subscribe(shared.subscription(&changed))?;
    gone.into_iter().for_each(|name| shared.troubles.over(&Subject::Topic(name)));
    *names = changed;
    Ok(())
}
