//! When all is processed: decided by offsets alone, so that it holds whatever happened before.

use std::time::Duration;

use klamm::client::admin::OffsetSpec;
use klamm::client::{Client, TopicPartition};
use klamm::streams::{StreamsApp, StreamsError};

use crate::{pipeline, table};

const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Waits until the pipeline has counted every line of `lines`. Call it when all of them are acknowledged.
pub async fn until_counted(streams: &StreamsApp) -> klamm::Result<()> {
    loop {
        match streams.lag().await {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(StreamsError::Consume(error)) if error.is_retriable() => {}
            Err(error) => return Err(error.into()),
        }
        // `StreamsApp::caught_up` would commit each time, which costs more than it gains while there is much to do.
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Waits until the listener has seen every count, and has committed that. Call it when all are counted.
pub async fn until_shown(client: &Client) -> klamm::Result<()> {
    let admin = client.admin();
    let partitions = 0..client.partition_count(pipeline::OUTPUT).await?;
    let partitions = partitions.map(|partition| TopicPartition::new(pipeline::OUTPUT, partition));
    let ask = partitions.map(|partition| (partition, OffsetSpec::Latest)).collect();
    loop {
        let ends = admin.offsets(&ask).await?;
        let committed = admin.committed_offsets(table::GROUP).await?;
        let mut lag = 0;
        #[allow(clippy::iter_over_hash_type, reason = "a sum does not depend on the order")]
        for (partition, end) in ends {
            lag += end?.offset.unwrap_or(0) - committed.get(&partition).copied().unwrap_or(0);
        }
        if lag == 0 {
            return Ok(());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
