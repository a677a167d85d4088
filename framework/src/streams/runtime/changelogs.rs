//! How much of its changelog a store has, and whether the rest is enough.

use std::sync::Arc;

use klamm_client::admin::ConfigResource;
use klamm_client::{ConsumeError, Consumer, ConsumerBuilder, OffsetReset, TopicPartition};
use klamm_runtime::{Clock, SystemClock};

use super::error::StreamsError;
use super::loading::Load;
use super::shared::Shared;
use crate::store::KeyRange;
use crate::streams::node::TopicId;
use crate::streams::task::Task;

/// How long compaction keeps tombstones where the topic does not say it (`delete.retention.ms`).
const USUAL_TOMBSTONES_MS: i64 = 24 * 60 * 60 * 1_000;

/// What the stamp of a position may be too old by.
pub(super) const WORTH_A_STAMP_MS: i64 = 60_000;

/// A store and how much of its changelog it has.
pub(super) struct ChangelogStart {
    pub(super) topic: TopicId,
    pub(super) store: Arc<str>,
    pub(super) position: i64,
    /// When it surely had all of its changelog, by this machine's clock.
    pub(super) last_written_ms: Option<i64>,
    /// Whether there is anything in it, though it has nothing of its changelog for sure.
    pub(super) has_rows: bool,
    /// How much of it can be written at a time, if it can.
    pub(super) load: Option<Load>,
}

/// The changelogs of a task's stores, and how much of them these have.
pub(super) fn changelogs(task: &Task) -> Vec<ChangelogStart> {
    let start = |store: &std::rc::Rc<std::cell::RefCell<dyn crate::streams::node::TaskStore>>| {
        let store = store.borrow();
        let (topic, position) = (store.changelog()?, store.position().changelog_offset);
        let engine = store.engine();
        let last_written_ms = engine.last_written_ms().ok().flatten();
        let all = KeyRange { from: &[], to: None };
        let has_rows = position == 0 && engine.scan(all, 1).is_ok_and(|rows| !rows.is_empty());
        // Until all of the rest is read, it has no more for sure than it had before; or, from nothing, than now.
        engine.begin_restore(last_written_ms.unwrap_or_else(|| SystemClock.now_ms()));
        let stream_time_ms = store.position().stream_time_ms;
        let load = |rows| Load { engine: Arc::downgrade(&engine), rows, stream_time_ms };
        let load = store.changelog_rows().map(load);
        let name = Arc::clone(store.name());
        Some(ChangelogStart { topic, store: name, position, last_written_ms, has_rows, load })
    };
    task.stores().iter().filter_map(start).collect()
}

/// Why the rest of a changelog does not bring a store up to date: what was deleted there since may have left no trace.
pub(super) async fn staleness(
    shared: &Shared,
    changelog: &ChangelogStart,
    beginning: i64,
    end: i64,
) -> Option<String> {
    let (store, position) = (&changelog.store, changelog.position);
    if position == end {
        return None;
    }
    if position == 0 {
        // What was deleted since, and when that was, is not known; and all has to be read in any case.
        let cut_off = || format!("store {store} has rows of a first commit that was cut off");
        return changelog.has_rows.then(cut_off);
    }
    if position < beginning {
        return Some(format!("store {store} is at offset {position}, its changelog begins at {beginning}"));
    }
    let then = changelog.last_written_ms?;
    let age_ms = SystemClock.now_ms().saturating_sub(then);
    let kept_ms = tombstones_ms(shared, changelog.topic).await;
    (age_ms >= kept_ms).then(|| {
        format!("store {store} is {age_ms} ms old, its changelog tells of deletions for {kept_ms} ms")
    })
}

/// Reads changelogs from these places on, and nothing that is not behind them: what is skipped may have told of
/// deletions.
pub(super) async fn reader(
    builder: ConsumerBuilder,
    shared: &Shared,
    starts: Vec<(TopicPartition, i64)>,
) -> Result<Consumer, StreamsError> {
    let nothing: [TopicPartition; 0] = [];
    let builder = builder.assign(nothing).auto_offset_reset(OffsetReset::None);
    let consumer = builder.isolation(shared.config.isolation()).start().await?;
    let handle = consumer.handle();
    for (partition, begin) in starts {
        handle.assign_also([partition.clone()])?;
        handle.seek(&partition, begin)?;
    }
    Ok(consumer)
}

/// What an error of a [`reader`] means.
pub(super) enum Reading {
    GoesOn,
    /// What comes next is not in the log any more, or the log is another one.
    Lost {
        partition: TopicPartition,
        why: String,
    },
    Fails(StreamsError),
}

impl From<ConsumeError> for Reading {
    fn from(error: ConsumeError) -> Self {
        match &error {
            // It was looked for before somebody said where to begin.
            ConsumeError::NoOffset { offset: None, .. } => Self::GoesOn,
            ConsumeError::NoOffset { partition, .. } | ConsumeError::LogTruncation { partition, .. } => {
                Self::Lost { partition: partition.clone(), why: error.to_string() }
            }
            error if error.is_retriable() => Self::GoesOn,
            _ => Self::Fails(error.into()),
        }
    }
}

async fn tombstones_ms(shared: &Shared, topic: TopicId) -> i64 {
    let name = &shared.names[topic.0 as usize];
    let resource = ConfigResource::topic(Arc::clone(name));
    let described = shared.client.admin().describe_configs(std::slice::from_ref(&resource)).await;
    let entries = described.ok().and_then(|mut described| described.remove(&resource)?.ok());
    let entry = entries.into_iter().flatten().find(|entry| &*entry.name == "delete.retention.ms");
    entry.and_then(|entry| entry.value?.parse().ok()).unwrap_or(USUAL_TOMBSTONES_MS)
}
