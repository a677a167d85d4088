//! Batches: their settings, what they may be of, what may stand beside them and what they may return.

use klamm::prelude::*;
use klamm::template::Tx;

#[kafka_listener(topics = "t", group = "g", batch)]
async fn plain(_batch: Batch<Value<String>>) {}

#[kafka_listener(topics = "t", group = "g", batch(max = 10))]
async fn largest(_batch: Batch<Option<Value<String>>>) -> Result<(), String> {
    Ok(())
}

#[kafka_listener(topics = "t", group = "g", batch(wait = "1s", across_partitions))]
async fn across(batch: Batch<(RecordMeta, Key<String>, Value<i64>)>) -> BatchOutcome {
    batch.each(|_| async { Ok::<(), String>(()) }).await
}

#[kafka_listener(topics = "t", group = "g", batch, ack = manual)]
async fn by_hand(_batch: Batch<ConsumerRecord>, ack: Ack, _state: State<u8>) -> Result<BatchOutcome, String> {
    ack.mark();
    Ok(BatchOutcome::ok())
}

#[kafka_listener(topics = "t", group = "g", batch, transactional)]
async fn in_a_transaction(_batch: Batch<Value<String>>, _tx: Tx, _out: Template<String, String>) {}

#[kafka_listener(topics = "t", group = "g", batch)]
async fn refused_ones(_batch: Batch<Result<Value<i64>, Rejection>>) {}
