//! Where standbys begin to follow their changelogs. Each is found out by itself: one whose cluster does not answer, or
//! refuses, holds up no other.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::{AbortHandle, BoxFuture, abortable};
use futures::stream::FuturesUnordered;
use klamm_client::TopicPartition;

use super::changelogs::{ChangelogStart, staleness};
use super::error::StreamsError;
use super::origins;
use super::restore::again;
use super::shared::Shared;
use crate::streams::node::TopicId;
use crate::streams::task::TaskId;

/// A standby for which it is known.
pub(super) struct Begun {
    pub(super) task: TaskId,
    pub(super) epoch: u64,
    pub(super) at: Begin,
}

/// Where a standby begins.
pub(super) enum Begin {
    At(Vec<Beginning>),
    /// What it has cannot be gone on from.
    Anew(String),
    /// It is left alone, as was told.
    Nowhere,
}

/// Where it begins in one of its changelogs, and where that ended then.
pub(super) struct Beginning {
    pub(super) topic: TopicId,
    pub(super) partition: TopicPartition,
    pub(super) begin: i64,
    pub(super) end: i64,
}

/// Standbys for which it is being found out.
#[derive(Default)]
pub(super) struct Beginnings {
    asked: FuturesUnordered<BoxFuture<'static, Option<Begun>>>,
    asking: BTreeMap<TaskId, AbortHandle>,
}

impl Beginnings {
    pub(super) fn ask(
        &mut self,
        shared: Arc<Shared>,
        task: TaskId,
        epoch: u64,
        changelogs: Vec<ChangelogStart>,
    ) {
        let (asked, handle) = abortable(async move {
            let at = find(&shared, task, &changelogs).await.unwrap_or_else(|error| {
                // What runs goes on; whoever takes over restores more.
                tracing::warn!(application = %shared.group(), %task, %error, "a standby is not kept up to date");
                Begin::Nowhere
            });
            Begun { task, epoch, at }
        });
        self.asking.insert(task, handle);
        self.asked.push(Box::pin(async move { asked.await.ok() }));
    }

    /// Nobody wants to know of this one any more.
    pub(super) fn forget(&mut self, task: TaskId) {
        if let Some(handle) = self.asking.remove(&task) {
            handle.abort();
        }
    }

    /// The next one for which it is known. Nothing is lost when this is dropped.
    pub(super) async fn next(&mut self) -> Begun {
        loop {
            match self.asked.next().await {
                Some(Some(begun)) => {
                    self.asking.remove(&begun.task);
                    return begun;
                }
                Some(None) => {}
                None => std::future::pending().await,
            }
        }
    }
}

async fn find(shared: &Shared, task: TaskId, changelogs: &[ChangelogStart]) -> Result<Begin, StreamsError> {
    let named = |changelog: &ChangelogStart| {
        TopicPartition::new(Arc::clone(&shared.names[changelog.topic.0 as usize]), task.partition)
    };
    let partitions: Vec<TopicPartition> = changelogs.iter().map(named).collect();
    let ends = again(|| shared.ends.end_offsets(&partitions)).await?;
    let beginnings = again(|| shared.ends.beginning_offsets(&partitions)).await?;
    // Whoever is to run it says what can be done.
    if let Some(store) = origins::foreign(shared, task, changelogs).await? {
        tracing::warn!(%task, %store, "a standby is of another changelog, and left alone");
        return Ok(Begin::Nowhere);
    }
    let mut begins = Vec::new();
    for (changelog, partition) in changelogs.iter().zip(partitions) {
        let end = ends.get(&partition).copied().unwrap_or(0);
        let beginning = beginnings.get(&partition).copied().unwrap_or(0);
        if changelog.position > end {
            tracing::warn!(%task, store = %changelog.store, "a standby is ahead of its changelog, and left alone");
            return Ok(Begin::Nowhere);
        }
        if let Some(why) = staleness(shared, changelog, beginning, end).await {
            return Ok(Begin::Anew(why));
        }
        let begin = changelog.position.max(beginning);
        begins.push(Beginning { topic: changelog.topic, partition, begin, end });
    }
    Ok(Begin::At(begins))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use klamm_client::testing::{Answer, FakeBroker};
    use klamm_client::{ApiKey, ErrorCode, Record};
    use tokio::sync::mpsc;

    use super::super::keeper::Tail;
    use super::super::shared::Background;
    use super::super::standbys::{Order, UNKNOWN_LAG};
    use super::super::start::shared;
    use super::super::tail;
    use super::*;
    use crate::streams::{Materialized, StreamsBuilder, StreamsConfig};

    const CHANGELOG: &str = "app-counts-changelog";

    fn task(partition: i32) -> TaskId {
        TaskId { sub_topology: 0, partition }
    }

    /// It ended all standbys of the instance, for good.
    #[tokio::test]
    async fn a_changelog_that_may_not_be_read_ends_no_other_standby() {
        let broker = FakeBroker::start().await.unwrap();
        broker.topic(CHANGELOG, 3);
        for (partition, api) in [(0, ApiKey::ListOffsets), (1, ApiKey::Fetch)] {
            let denied = Answer::Error(ErrorCode::TopicAuthorizationFailed);
            broker.always_for(TopicPartition::new(CHANGELOG, partition), api, denied);
        }
        let client = broker.client().await.unwrap();
        let mut streams = StreamsBuilder::new();
        let input = streams.stream::<String, String>("in").group_by_key();
        input.count(Materialized::named("counts").in_memory());
        let topology = streams.build().unwrap().inner;
        let (rewound, _) = mpsc::unbounded_channel();
        let nothing: [TopicPartition; 0] = [];
        let ends = client.consumer().assign(nothing).start().await.unwrap().handle();
        let config = StreamsConfig::new("app", "");
        let shared = Arc::new(shared(topology, config, client.clone(), rewound, ends));
        let place = shared.names.iter().position(|name| **name == *CHANGELOG).unwrap();
        let topic = TopicId(u32::try_from(place).unwrap());
        let orders = shared.standbys.take_commands().unwrap();
        let (tails, requests) = mpsc::unbounded_channel();
        let background = Background::new();
        background.spawn("streams-standbys", tail::serve(Arc::clone(&shared), requests));
        for partition in 0..3 {
            let (store, position, last_written_ms, has_rows) = ("counts".into(), 0, None, false);
            let start = ChangelogStart { topic, store, position, last_written_ms, has_rows, load: None };
            let (task, changelogs) = (task(partition), vec![start]);
            tails.send(Tail::Follow { task, epoch: 1, changelogs }).unwrap();
        }
        let producer = client.producer().build().unwrap();
        for _ in 0..3 {
            producer.send(Record::to(CHANGELOG).partition(2).key("a").value("1")).await.unwrap();
            let applied = async {
                loop {
                    match orders.try_recv() {
                        Ok(Order::Apply { task, done, .. }) => {
                            done.send(()).unwrap();
                            return task;
                        }
                        Ok(_) => {}
                        Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                    }
                }
            };
            let applied = tokio::time::timeout(Duration::from_secs(10), applied).await;
            assert_eq!(applied, Ok(task(2)), "it is kept up to date");
        }
        assert_eq!(shared.standbys.standby_lags().get(&task(1)), Some(&UNKNOWN_LAG));
    }
}
