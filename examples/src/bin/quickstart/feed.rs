//! Feeds the lines of the inputs to the topic `lines`.

use std::collections::VecDeque;
use std::time::Duration;

use klamm::Error;
use klamm::client::{Client, Delivery, Record};

use crate::checkpoint::{Checkpoint, Checkpoints, Place};
use crate::gauges::Gauges;
use crate::input::Inputs;

pub const TOPIC: &str = "lines";

/// How many lines may be on their way. They are acknowledged in batches, so this has to be many.
const LINES_UNDER_WAY: usize = 16 * 1024;
/// How many lines are fed between two checkpoints: so many may be fed twice when a run is
/// interrupted, and those under way.
const LINES_PER_CHECKPOINT: u64 = 8 * 1024;

/// Feeds everything from `start` on. When it returns, every line has been acknowledged and noted as fed.
pub async fn feed(client: &Client, inputs: &Inputs, start: Place, gauges: &Gauges) -> klamm::Result<()> {
    let producer = client.producer().linger(Duration::from_millis(5)).build()?;
    let mut checkpoints = Checkpoints::new(producer.clone(), inputs);
    let mut under_way: VecDeque<(Delivery, Place)> = VecDeque::new();
    let mut acknowledged = start;
    let mut lines_fed = 0_u64;

    for (file, input) in inputs.files.iter().enumerate().skip(start.file) {
        let failed = |error: std::io::Error| Error::msg(format!("cannot read {}: {error}", input.name()));
        let mut offset_bytes = if file == start.file { start.offset_bytes } else { 0 };
        let mut lines = input.lines(offset_bytes).await.map_err(failed)?;
        while let Some(line) = lines.next().await.map_err(failed)? {
            offset_bytes += line.bytes;
            gauges.fed(line.bytes);
            let delivery = producer.enqueue(Record::to(TOPIC).value(line.text)).await?;
            under_way.push_back((delivery, Place { file, offset_bytes }));
            // Oldest first: when it is acknowledged, so is everything before it.
            if under_way.len() > LINES_UNDER_WAY
                && let Some((delivery, place)) = under_way.pop_front()
            {
                delivery.await?;
                acknowledged = place;
            }
            lines_fed += 1;
            if lines_fed.is_multiple_of(LINES_PER_CHECKPOINT) {
                checkpoints.note(&acknowledged.to_checkpoint(&inputs.files)).await?;
            }
        }
    }
    for (delivery, _) in under_way {
        delivery.await?;
    }
    checkpoints.note(&Checkpoint::Fed).await?;
    checkpoints.settle().await?;
    Ok(producer.close().await?)
}
