//! Feeds the lines of the inputs to the topic `lines`, each once, though the run may be killed.

use std::time::Duration;

use klamm::Error;
use klamm::client::{Client, Record, TransactionalProducer};

use crate::checkpoint::{self, Checkpoint, Place};
use crate::gauges::Gauges;
use crate::input::Inputs;

pub const TOPIC: &str = "lines";

/// So many lines become visible together, with the checkpoint behind them: a run that is interrupted before has fed
/// none of them.
const LINES_PER_TRANSACTION: u64 = 32 * 1024;

/// Who feeds; ends what a run that was killed has left open.
pub async fn producer(client: &Client) -> klamm::Result<TransactionalProducer> {
    let producer = client.producer().linger(Duration::from_millis(5));
    let mut producer = producer.transactional_id("quickstart-feed").build()?;
    producer.begin().await?.commit().await?;
    Ok(producer)
}

/// Feeds everything from `start` on. When it returns, all lines are committed and noted as fed.
pub async fn feed(
    producer: &mut TransactionalProducer,
    inputs: &Inputs,
    start: Place,
    gauges: &Gauges,
) -> klamm::Result<()> {
    let mut transaction = producer.begin().await?;
    let mut lines_fed = 0_u64;
    for (file, input) in inputs.files.iter().enumerate().skip(start.file) {
        let failed = |error: std::io::Error| Error::msg(format!("cannot read {}: {error}", input.name()));
        let mut offset_bytes = if file == start.file { start.offset_bytes } else { 0 };
        let mut lines = input.lines(offset_bytes).await.map_err(failed)?;
        while let Some(line) = lines.next().await.map_err(failed)? {
            offset_bytes += line.bytes;
            gauges.fed(line.bytes);
            // The commit waits for its acknowledgement.
            drop(transaction.enqueue(Record::to(TOPIC).value(line.text)).await?);
            lines_fed += 1;
            if lines_fed.is_multiple_of(LINES_PER_TRANSACTION) {
                let place = Place { file, offset_bytes };
                checkpoint::note(&transaction, inputs, &place.to_checkpoint(&inputs.files)).await?;
                transaction.commit().await?;
                transaction = producer.begin().await?;
            }
        }
    }
    checkpoint::note(&transaction, inputs, &Checkpoint::Fed).await?;
    Ok(transaction.commit().await?)
}
