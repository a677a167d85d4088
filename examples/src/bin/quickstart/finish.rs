//! When all is processed: decided by offsets alone, so that it holds whatever happened before.

use std::collections::HashMap;
use std::time::Duration;

use klamm::client::admin::OffsetSpec;
use klamm::client::{Client, TopicPartition};

use crate::{feed, pipeline, table};

const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Waits until the pipeline has counted every line of `lines`. Call it when all of them are acknowledged.
///
/// The stages are looked at in the order in which records pass them: a stage that is done gives the next one nothing more, because
/// an offset is committed after what came of the record was acknowledged.
pub async fn until_counted(client: &Client) -> klamm::Result<()> {
    until_read(client, feed::TOPIC, pipeline::APPLICATION).await?;
    until_read(client, &pipeline::repartition_topic(), pipeline::APPLICATION).await
}

/// Waits until the listener has seen every count. Call it when all are counted.
pub async fn until_shown(client: &Client) -> klamm::Result<()> {
    until_read(client, pipeline::OUTPUT, table::GROUP).await
}

/// Waits until `group` has committed the end of every partition of `topic`.
async fn until_read(client: &Client, topic: &str, group: &str) -> klamm::Result<()> {
    let admin = client.admin();
    let partitions = 0..client.partition_count(topic).await?;
    let ask =
        partitions.map(|partition| (TopicPartition::new(topic, partition), OffsetSpec::Latest)).collect();
    loop {
        let ends = admin.offsets(&ask).await?;
        let committed = admin.committed_offsets(group).await?;
        if lag(
            &ends.into_iter().map(|(at, end)| Ok((at, end?.offset))).collect::<klamm::Result<_>>()?,
            &committed,
        ) == 0
        {
            return Ok(());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn lag(ends: &HashMap<TopicPartition, Option<i64>>, committed: &HashMap<TopicPartition, i64>) -> i64 {
    let lags = ends.iter().map(|(at, end)| end.unwrap_or(0) - committed.get(at).copied().unwrap_or(0));
    lags.map(|lag| lag.max(0)).sum()
}
