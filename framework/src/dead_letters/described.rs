//! The topic behind a name: which it is, so that another of the same name is not taken for it.

use std::sync::Arc;

use klamm_client::{Client, TopicPartition, Uuid};

use super::error::DeadLetterError;

/// A topic's id and partitions.
pub(super) async fn describe(
    client: &Client,
    topic: &Arc<str>,
) -> Result<(Uuid, Vec<TopicPartition>), DeadLetterError> {
    let named = || Arc::clone(topic);
    let described = match client.admin().describe_topics(&[&**topic]).await?.remove(topic) {
        Some(described) => described.map_err(|source| DeadLetterError::Topic { topic: named(), source })?,
        None => return Err(DeadLetterError::NoPartition { topic: named(), partition: 0, count: 0 }),
    };
    let numbers = described.partitions.iter().map(|partition| partition.partition);
    Ok((described.id, numbers.map(|number| TopicPartition::new(named(), number)).collect()))
}

/// The topic of this name is still the one that had this id.
///
/// # Errors
/// It is not there, or was made anew.
pub(super) async fn is_still(client: &Client, topic: &Arc<str>, id: Uuid) -> Result<(), DeadLetterError> {
    let (found, _) = describe(client, topic).await?;
    if found == id { Ok(()) } else { Err(DeadLetterError::Changed { topic: Arc::clone(topic) }) }
}
