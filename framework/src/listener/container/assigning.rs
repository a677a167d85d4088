//! Partitions that a listener names: found, and begun with, without a group that gives them out.

use std::sync::Arc;

use klamm_client::{Client, ClientError, ConsumeError, ConsumerHandle, RebalanceListener, TopicPartition};

use super::rebalance::Rebalance;
use super::shared::Shared;
use super::sought::Sought;
use crate::listener::flow::PartId;
use crate::listener::partitions::{Partitions, StartAt};

/// A partition, and where to begin in it.
pub(super) type Place = (TopicPartition, StartAt);

/// All that these are.
///
/// # Errors
/// A topic of which all partitions are wanted does not exist, or the cluster does not answer.
pub(super) async fn places(client: &Client, partitions: &[Partitions]) -> Result<Vec<Place>, ClientError> {
    let mut places = Vec::new();
    for some in partitions {
        let count = match some.numbers {
            Some(_) => 0,
            None => client.partition_count(&some.topic).await?,
        };
        places.extend(some.places(count));
    }
    Ok(places)
}

/// Assigns them, and moves to where each begins.
///
/// # Errors
/// Where that is cannot be looked up.
pub(super) async fn begin(
    shared: &Arc<Shared>,
    consumer: &ConsumerHandle,
    sought: &mut Sought,
    places: &[Place],
) -> Result<(), ConsumeError> {
    let starts = starts(consumer, places).await?;
    let all: Vec<_> = places.iter().map(|(place, _)| place.clone()).collect();
    Rebalance(Arc::downgrade(shared)).assigned(&all).await;
    for (place, start) in starts {
        match start {
            StartAt::Offset(offset) => consumer.seek(&place, offset)?,
            StartAt::Beginning => consumer.seek_to_beginning(&place)?,
            StartAt::End => consumer.seek_to_end(&place)?,
            StartAt::TimestampMs(timestamp_ms) => consumer.seek_to_timestamp(&place, timestamp_ms)?,
            _ => continue,
        }
        if let Some(part) = shared.look(|flow| flow.id(&place)) {
            note(shared, sought, part, place);
        }
    }
    Ok(())
}

/// What is committed of it from here on is where it begins.
fn note(shared: &Shared, sought: &mut Sought, part: PartId, place: TopicPartition) {
    shared.change_and_tell(|flow| flow.restart(part).into_iter().collect());
    sought.add(part, place);
}

/// Those that are relative to an end, as offsets.
async fn starts(consumer: &ConsumerHandle, places: &[Place]) -> Result<Vec<Place>, ConsumeError> {
    let is_relative = |start: &StartAt| start.offset(0, 0).is_some();
    let relative: Vec<_> =
        places.iter().filter(|(_, start)| is_relative(start)).map(|(place, _)| place.clone()).collect();
    if relative.is_empty() {
        return Ok(places.to_vec());
    }
    let beginnings = consumer.beginning_offsets(&relative).await?;
    let ends = consumer.end_offsets(&relative).await?;
    let absolute = |(place, start): &Place| {
        let bounds = beginnings.get(place).zip(ends.get(place));
        let offset = bounds.and_then(|(beginning, end)| start.offset(*beginning, *end));
        (place.clone(), offset.map_or(*start, StartAt::Offset))
    };
    Ok(places.iter().map(absolute).collect())
}
